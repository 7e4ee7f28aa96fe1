"""`report.html`: the report of a conversion with charts, in one file that needs no network and runs no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ms_medqa.config.files import atomic_write
from ms_medqa.data.raw import printable
from ms_medqa.data.split import PARTS
from ms_medqa.data.svg_chart import bars, histogram

FILE_NAME = "report.html"
_MEASURES = {"question": "Question", "answer": "Answer", "record": "Whole record, with prompt and end token"}
_COLOURS = {"train": "train", "val": "val", "test": "test"}
# Bars in a chart of files; the table lists all.
_MOST_BARS = 25
_KNOWN = {"read", "kept", "augmented", "rejected", "kind", "files", "tokens", "tokenizer", "seed", "prompt", "settings"}
_LONGEST_LINE = 80
# Characters that HTML forbids, and those that turn the direction of what follows: a file's name may hold them.
_FORBIDDEN = dict.fromkeys((*range(9), *range(11, 32), 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")


def write_report_html(
    report: Mapping[str, Any],
    histograms: Mapping[str, Any],
    path: Path,
    types: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Write the page; equal arguments give equal bytes.

    Args:
        report: the content of `report.json`; what is absent is left out of the page, keys it does not know are listed.
        histograms: `record`, `question`, `answer` → part → (n + 1 edges, n counts) of lengths in tokens.
        path: the file to make.
        types: part → type of question → records; also taken from the key `types` of the report or the histograms.

    Raises:
        RunError: no space is left.
    """
    html = render_report_html(report, histograms, types)
    with atomic_write(path) as file:
        file.write(html)


def render_report_html(
    report: Mapping[str, Any], histograms: Mapping[str, Any], types: Mapping[str, Mapping[str, int]] | None = None
) -> str:
    """The page's text; arguments as `write_report_html`."""
    types = types or _mapping(report.get("types")) or _mapping(histograms.get("types"))
    kept = _in_order(_mapping(report.get("kept")))
    rejected = _largest_first(_mapping(report.get("rejected")))
    files = [_mapping(file) for file in report.get("files") or ()]
    tokens = _in_order(_mapping(report.get("tokens")))
    parts = _in_order({**kept, **tokens, **types})
    page = {
        "read": report.get("read"),
        "kept": kept,
        "kept_sum": sum(kept.values()),
        "rejected": rejected,
        "rejected_sum": sum(rejected.values()),
        "augmented": report.get("augmented"),
        "tokens": tokens,
        "legend": [(part, _colour(part)) for part in parts],
        "kept_chart": bars({part: {part: n} for part, n in kept.items()}, _colours(kept), title="Kept records by part"),
        "rejected_chart": bars(
            {reason: {"rejected": count} for reason, count in rejected.items()},
            {"rejected": "rejected"},
            title="Rejected records by reason",
        ),
        "lengths": _lengths(histograms, tokens),
        "types_chart": _types_chart(types),
        "files": files,
        "files_chart": _files_chart(files),
        "most_bars": _MOST_BARS,
        "made": _made(report),
        "prompt": _text(report["prompt"]) if report.get("prompt") else None,
        "more": [
            (name, _text(value)) for name, value in report.items() if name not in _KNOWN and name != "types" and value
        ],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["largest_first"] = _largest_first
    html = environment.get_template("report.html.jinja").render(page)
    # Half surrogate pairs stand for the bytes of a file name that is no UTF-8.
    return printable(html).translate(_FORBIDDEN)


def _lengths(histograms: Mapping[str, Any], tokens: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each measure its charts, and its percentiles as a table."""
    result = []
    for measure, title in _MEASURES.items():
        charts = []
        for part, found in _in_order(_mapping(histograms.get(measure))).items():
            edges, counts = [float(edge) for edge in found[0]], [int(count) for count in found[1]]
            if sum(counts):
                axis = "tokens"
                charts.append((part, histogram(edges, counts, css=_colour(part), axis=axis)))
        rows = {part: _mapping(_mapping(values).get(measure)) for part, values in tokens.items()}
        rows = {part: values for part, values in rows.items() if values}
        if charts or rows:
            names = list(dict.fromkeys(name for values in rows.values() for name in values))
            result.append({"title": title, "charts": charts, "names": names, "rows": rows})
    return result


def _types_chart(types: Mapping[str, Mapping[str, int]]) -> Any:
    types = _in_order(types)
    names = _largest_first(_sums(types.values()))
    rows = {name: {part: int(counts.get(name, 0)) for part, counts in types.items()} for name in names}
    return bars(rows, _colours(types), title="Questions by type") if rows else None


def _files_chart(files: Sequence[Mapping[str, Any]]) -> Any:
    rows: dict[str, dict[str, int]] = {}
    for file in sorted(files, key=lambda file: (-(file.get("read") or 0), str(file.get("file"))))[:_MOST_BARS]:
        out = sum(_mapping(file.get("rejected")).values())
        kept = file.get("kept")
        row = {"kept": (file.get("read") or 0) - out if kept is None else kept, "rejected": out}
        rows[str(file.get("file", "?"))] = row
    return bars(rows, {"kept": "train", "rejected": "rejected"}, title="Records by file") if rows else None


def _made(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    made = [(name, _text(report[name])) for name in ("kind", "tokenizer", "seed") if report.get(name) is not None]
    prompt = report.get("prompt")
    if isinstance(prompt, Mapping) and prompt.get("name"):
        made.append(("prompt", str(prompt["name"])))
    return made + [(name, _text(value)) for name, value in _mapping(report.get("settings")).items()]


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    result: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            result[name] = result.get(name, 0) + int(count)
    return result


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts in their usual order, others behind them."""
    names = [*(part for part in PARTS if part in values), *(name for name in values if name not in PARTS)]
    return {name: values[name] for name in names}


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _colours(parts: Iterable[str]) -> dict[str, str]:
    return {part: _colour(part) for part in parts}


def _colour(part: str) -> str:
    return _COLOURS.get(part, "other")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    line = json.dumps(value, ensure_ascii=False, default=str)
    return line if len(line) <= _LONGEST_LINE else json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "–" if value is None else str(value)
