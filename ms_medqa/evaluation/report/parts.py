"""The tasks of a report taken apart for the page and for Markdown: texts in its language, nothing escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.confusion import Confusion, confusion_of
from ms_medqa.evaluation.report.examples import Examples, examples_of
from ms_medqa.evaluation.report.groups import Groups, groups_of
from ms_medqa.evaluation.report.notes import notes_of
from ms_medqa.evaluation.report.numbers import counted, listing, mapping, number, text
from ms_medqa.evaluation.report.rows import Row, bases_of, judged, models_of, rows_of, tasks_of
from ms_medqa.evaluation.report.sentences import Said, comparisons, items, listed, overlap, reasons
from ms_medqa.evaluation.report.words import plural, reason_of, words_of


@dataclass(frozen=True, slots=True)
class Part:
    """One task.

    Attributes:
        source: what the report has of it.
        name: of the task.
        general: its data is general: what did the models forget?
        data: path and digest.
        models: those that have figures of it.
        bases: tuned model -> the one that it is compared with.
        rows: one for each figure.
        said: one sentence for each tuned model; without any, for each model.
        items: how many items there are and how many were skipped.
        notes: what is to be known of its figures.
        reasons: why, with counts.
        skipped: (id, reason) of those that are listed, and `listed`, how many of all these are.
        empty: of each model with empty answers a sentence, ids, and how many of all these are.
        overlap: with the training data.
        charts: name -> model -> numbers, one for each answer.
    """

    source: Mapping[str, Any]
    name: str
    kind: str
    general: bool
    data: str
    models: Sequence[str]
    bases: Mapping[str, str]
    rows: Sequence[Row]
    said: Sequence[Said]
    items: str
    notes: Sequence[str]
    reasons: Mapping[str, int]
    skipped: Sequence[tuple[str, str]]
    listed: str
    empty: Sequence[tuple[str, Sequence[str], str]]
    overlap: Said
    groups: Groups | None
    confusion: Mapping[str, Confusion]
    charts: Mapping[str, Mapping[str, Sequence[float]]]
    examples: Sequence[Examples]

    @property
    def is_compared(self) -> bool:
        """Whether a model is compared with another."""
        return any(said.kind != "figure" for said in self.said)

    @property
    def is_unsure(self) -> bool:
        """Whether a value has nothing that tells how sure it is."""
        found = [each for row in self.rows for each in (*row.cells.values(), *row.changes.values())]
        return any(each.unsure for each in found)

    def judged(self, tuned: str, verdict: str) -> str:
        """The key of the word for a verdict on a tuned model."""
        return judged(verdict, mapping(self.source.get("differences")).get(tuned))


def parts_of(report: Mapping[str, Any], language: str) -> list[Part]:
    """The tasks of a report in their order."""
    return [_part(task, models_of(report), language) for task in tasks_of(report)]


def _part(task: Mapping[str, Any], models: Sequence[str], language: str) -> Part:
    words = words_of(language)
    figures, differences = mapping(task.get("figures")), mapping(task.get("differences"))
    models = [name for name in models if name in figures]
    rows = rows_of(figures, models, language, n=task.get("n"), differences=differences)
    skipped, bases = mapping(task.get("skipped")), bases_of(task)
    return Part(
        source=task,
        name=text(task.get("name")),
        kind=text(task.get("kind")),
        general=bool(task.get("general")),
        data=_data(mapping(task.get("data"))),
        models=models,
        bases=bases,
        rows=rows,
        said=comparisons(task, rows, words),
        items=items(task, words),
        notes=notes_of(task, words),
        reasons=reasons(task, words),
        skipped=[
            (text(each.get("id")), reason_of(each.get("reason"), words))
            for each in map(mapping, listing(skipped.get("items")))
        ],
        listed=_listed(skipped, words),
        empty=_empty(task, words),
        overlap=overlap(task, words),
        groups=groups_of(task, models, language),
        confusion={model: confusion_of(mapping(each), words) for model, each in mapping(task.get("confusion")).items()},
        charts={name: _numbers(mapping(each)) for name, each in mapping(task.get("charts")).items()},
        examples=examples_of(task, models, words),
    )


def _listed(skipped: Mapping[str, Any], words: Mapping[str, str]) -> str:
    shown, count = len(listing(skipped.get("items"))), number(skipped.get("count"))
    said = listed(shown, count, words)
    return said if count is None or count <= shown else words["skipped_file"].format(listed=said)


def _empty(task: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, Sequence[str], str]]:
    found = []
    for model, empty in mapping(task.get("empty")).items():
        count, ids = number(mapping(empty).get("count")), [text(each) for each in listing(mapping(empty).get("ids"))]
        if count:
            said = plural(words, "empty_of", count)
            said = said.format(model=text(model), n=counted(count), of=counted(task.get("n")))
            found.append((said, ids, listed(len(ids), count, words)))
    return found


def _data(data: Mapping[str, Any]) -> str:
    digest = f" (sha256 {text(data['sha256'])})" if data.get("sha256") else ""
    return text(data["path"]) + digest if data.get("path") else ""


def _numbers(models: Mapping[str, Any]) -> dict[str, list[float]]:
    found = {
        model: [value for value in map(number, listing(values)) if value is not None]
        for model, values in models.items()
    }
    return {model: values for model, values in found.items() if values}
