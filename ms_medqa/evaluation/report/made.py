"""How the models of a report were made, and how it is made again: curves, counts of data, commands, config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ms_medqa.evaluation.report.numbers import counted, listing, mapping, number, text


def series_of(report: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Model -> "train", "validation" or "learning_rate" -> (step, value) of those points that are numbers."""
    found = {}
    for model, curves in mapping(report.get("training")).items():
        curves = mapping(curves)
        every = {
            "train": _points(curves.get("train"), 1),
            "validation": _points(curves.get("validation"), 1),
            "learning_rate": _points(curves.get("train"), 2),
        }
        if any(every.values()):
            found[model] = {name: points for name, points in every.items() if points}
    return found


def data_rows(report: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Model -> (what, how many) of the records from which its training data was made, and of its tokens."""
    found = {}
    for model, data in mapping(report.get("data_report")).items():
        data = mapping(data)
        rows = [("read", "", data.get("read"))] if data.get("read") is not None else []
        rows += [("kept", part, n) for part, n in mapping(data.get("kept")).items()]
        rows += [(name, "", data[name]) for name in ("augmented", "repeated") if data.get(name) is not None]
        mixed = [mapping(source) for source in listing(data.get("mixed"))]
        rows += [("mixed", source.get("path"), source.get("taken")) for source in mixed if source]
        refused = sorted(mapping(data.get("rejected")).items(), key=lambda item: (-(number(item[1]) or 0), item[0]))
        rows += [("rejected", reason, n) for reason, n in refused]
        for part, counts in mapping(data.get("tokens")).items():
            kinds = (("data_tokens", "total"), ("trained_tokens", "trained"))
            rows += [(word, part, mapping(counts)[name]) for word, name in kinds if name in mapping(counts)]
        if rows:
            found[model] = [(_named(words[word], of, words), counted(n)) for word, of, n in rows]
    return found


def _named(word: str, of: Any, words: Mapping[str, str]) -> str:
    return word if of == "" else f"{word}{words['colon']}{text(of)}"


def made_with(report: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Versions, device, ranks and seed, as far as they are told."""
    found = [(text(name), text(version)) for name, version in mapping(report.get("versions")).items()]
    return found + [(words[name], text(report[name])) for name in ("device", "ranks", "seed") if name in report]


def model_rows(report: Mapping[str, Any], words: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of the models."""
    models = [mapping(model) for model in listing(report.get("models"))]
    keys = ["name", "model", "adapter", "base", "prompt", "digest"]
    keys += ["tokenizer"] if any(model.get("tokenizer") is not None for model in models) else []
    return [words[key] for key in keys], [[text(model.get(key)) for key in keys] for model in models]


def commands_of(report: Mapping[str, Any]) -> str:
    """The commands that make it again, one a line."""
    return "\n".join(text(command) for command in listing(report.get("commands")))


def config_of(report: Mapping[str, Any]) -> str:
    """The resolved config as YAML; empty where there is none."""
    return _yaml(report.get("config"))


def trained_with(report: Mapping[str, Any]) -> dict[str, str]:
    """Model -> the config that it was trained with, as YAML."""
    found = {text(model): _yaml(config) for model, config in mapping(report.get("trained_with")).items()}
    return {model: config for model, config in found.items() if config}


def _yaml(config: Any) -> str:
    return yaml.safe_dump(config, allow_unicode=True, sort_keys=False).rstrip("\n") if config else ""


def _points(rows: Any, column: int) -> list[tuple[float, float]]:
    points = []
    for row in map(listing, listing(rows)):
        step, value = (number(row[place]) if place < len(row) else None for place in (0, column))
        if step is not None and value is not None:
            points.append((step, value))
    return points
