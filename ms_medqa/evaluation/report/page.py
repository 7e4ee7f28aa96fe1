"""The report of an evaluation as a page: one file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ms_medqa.data.svg_chart import histogram
from ms_medqa.evaluation.report.charts import dots, lines
from ms_medqa.evaluation.report.confusion import SHADES
from ms_medqa.evaluation.report.made import (
    commands_of,
    config_of,
    data_rows,
    made_with,
    model_rows,
    series_of,
    trained_with,
)
from ms_medqa.evaluation.report.numbers import clean, counted, listing, mapping, shown, text
from ms_medqa.evaluation.report.parts import Part, parts_of
from ms_medqa.evaluation.report.rows import FEWEST, models_of
from ms_medqa.evaluation.report.sentences import listed, tested
from ms_medqa.evaluation.report.spread import columns_of
from ms_medqa.evaluation.report.titles import title_of
from ms_medqa.evaluation.report.words import plural, words_of

# Colours that the page has for models; more than that share them.
_COLOURS = 6
# Ids that are listed of items that are also in the training data.
_MOST_IDS = 200
# Chart of a task -> the key of what its axis is.
_AXES = {"answer_tokens": "tokens_of", "repeated_4grams": "share_of"}


def page(report: Mapping[str, Any], language: str = "en") -> str:
    """The page's text; equal reports give equal pages.

    Args:
        report: the content of `report.json`. What is absent is left out, a value that is null is "–". Its texts may be
            anything: they are shown as they are, and never become part of the page's markup.
        language: "en" or "zh".

    Raises:
        UserError: there is no such language.
    """
    words = words_of(language)
    parts = parts_of(report, language)
    colours = {model: f"m{place % _COLOURS}" for place, model in enumerate(models_of(report))}
    made = [report.get("created"), report.get("seconds")]
    head, models = model_rows(report, words)
    html = _template().render(
        w=words,
        title=text(report.get("title") or words["page"]),
        created=words["created"].format(created=text(made[0]), seconds=shown(made[1], ",.1f")) if any(made) else "",
        parts=parts,
        judged=words["judged"].format(fewest=FEWEST),
        colours=colours,
        shades=SHADES,
        tested=tested,
        colour_count=_COLOURS,
        groups=[_groups(part, colours, words) for part in parts if part.groups],
        curves=_curves(report, words),
        answers=[(part.name, _histograms(part, colours, words)) for part in parts if any(part.charts.values())],
        overlaps=[(part, *_ids(part, words)) for part in parts],
        data=data_rows(report, words),
        commands=commands_of(report),
        model_head=head,
        model_rows=models,
        made=made_with(report, words),
        signatures=[(text(name), text(value)) for name, value in mapping(report.get("signatures")).items()],
        config=config_of(report),
        trained_with=trained_with(report),
    )
    return clean(html)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")


def _groups(part: Part, colours: Mapping[str, str], words: Mapping[str, str]) -> dict[str, Any]:
    """The table of a task's groups, with its chart and the names for which that had no room."""
    assert part.groups is not None
    css = {model: colours[model] for model in part.groups.models}
    chart, rest = dots(
        mapping(part.source.get("groups")),
        part.groups.headline,
        css,
        form=title_of(part.groups.headline).form,
        title=f"{words['groups']}: {part.name}, {part.groups.label}",
    )
    left_out = words["left_out"].format(names=words["comma"].join(map(text, rest))) if rest else ""
    return {"part": part, "css": css, "chart": chart, "left_out": left_out, "table": part.groups}


def _curves(report: Mapping[str, Any], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each model that was tuned, a chart of losses and one of the learning rate."""
    found = []
    for model, curves in series_of(report).items():
        losses = {words[f"{name}_loss"]: curves[name] for name in ("train", "validation") if name in curves}
        css = dict(zip((words["train_loss"], words["validation_loss"]), ("m1", "m2"), strict=True))
        charts: list[tuple[str, Markup]] = []
        if losses:
            title = f"{text(model)}: {words['loss']}"
            charts.append((words["loss"], lines(losses, css, axis=words["step"], title=title)))
        if "learning_rate" in curves:
            rate = words["learning_rate"]
            series = {rate: curves["learning_rate"]}
            title = f"{text(model)}: {rate}"
            charts.append((rate, lines(series, {rate: "m3"}, axis=words["step"], title=title, zero=True)))
        found.append({"name": text(model), "legend": {name: css[name] for name in losses}, "charts": charts})
    return found


def _histograms(part: Part, colours: Mapping[str, str], words: Mapping[str, str]) -> list[tuple[str, list[Any]]]:
    """For each chart of a task its title and (model, chart) of each model, all with the same scales."""
    found = []
    for name, models in part.charts.items():
        if not models:
            continue
        shares = name != "answer_tokens" and all(0 <= value <= 1 for values in models.values() for value in values)
        edges, counts = columns_of(models, shares=shares)
        most = max(max(column) for column in counts.values())
        label = title_of(name).name(words["language"])
        charts = [
            (
                f"{model} ({plural(words, 'answers_n', sum(column)).format(n=counted(sum(column)))})",
                histogram(
                    edges,
                    column,
                    css=colours.get(model, "m0"),
                    axis=words[_AXES[name]] if name in _AXES else label,
                    title=f"{label}: {model}",
                    span=words["range"],
                    most=most,
                ),
            )
            for model, column in counts.items()
        ]
        found.append((label, charts))
    return found


def _ids(part: Part, words: Mapping[str, str]) -> tuple[Sequence[str], str]:
    """Ids of items that are also in the training data, and how many of all these are."""
    overlap = mapping(part.source.get("overlap"))
    ids = [text(each) for each in listing(overlap.get("ids"))[:_MOST_IDS]] if part.overlap.kind == "some" else []
    return ids, listed(len(ids), overlap.get("items"), words)
