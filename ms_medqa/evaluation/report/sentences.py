"""What a report says in words: whether a tuned model is better, what was skipped, what the training data also holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.numbers import counted, listing, mapping, number, shown, text
from ms_medqa.evaluation.report.rows import Change, Row, bases_of, headline


@dataclass(frozen=True, slots=True)
class Said:
    """A statement.

    Attributes:
        kind: of a comparison "better", "worse", "changed", "same" or "nothing"; of an overlap "none", "some", "partly"
            or "unknown".
        words: the sentence.
        also: of a comparison: of which other figures what is to be said; else empty.
    """

    kind: str
    words: str
    also: str = ""


def comparisons(task: Mapping[str, Any], rows: Sequence[Row], words: Mapping[str, str]) -> list[Said]:
    """For each tuned model of a task one sentence, by the figure that speaks for it.

    A model is better or worse where the 95 % interval of the paired difference leaves out 0.
    """
    said = []
    for tuned, base in bases_of(task).items():
        # A difference with an interval comes first, whatever figure it is of.
        row = headline([row for row in rows if row.changes[tuned].verdict])
        names = {"task": text(task.get("name")), "tuned": text(tuned), "base": text(base)}
        if row is None:
            said.append(Said("nothing", words["says_nothing"].format(**names)))
            continue
        made = row.changes[tuned]
        before, after = (row.cells[name].value if name in row.cells else shown(None, "") for name in (base, tuned))
        sentence = words[f"says_{made.verdict}"].format(
            **names, figure=row.label, before=before, after=after, change=made.written
        )
        said.append(Said(made.verdict, sentence, _also([other for other in rows if other is not row], tuned, words)))
    return said


def items(task: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """How many items a task has, how many records were skipped, and how many were never looked at."""
    count, read, n = (
        number(value) for value in (mapping(task.get("skipped")).get("count"), task.get("read"), task.get("n"))
    )
    said = [words["items"].format(n=counted(n))]
    said.append(
        words["skipped_some"].format(count=counted(count), read=counted(read)) if count else words["skipped_none"]
    )
    rest = 0 if read is None or n is None else read - n - (count or 0)
    if rest > 0:
        said.append(words["not_used"].format(rest=counted(rest), read=counted(read)))
    return words["semicolon"].join(said)


def reasons(task: Mapping[str, Any]) -> dict[str, int]:
    """Why records were skipped, the most frequent reason first."""
    found = {text(reason): int(number(count) or 0) for reason, count in _reasons(task).items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def overlap(task: Mapping[str, Any], words: Mapping[str, str]) -> Said:
    """Whether the training data holds items of a task; only where all were checked and none is found is it held out."""
    found = mapping(task.get("overlap"))
    count, n = number(found.get("items")), number(task.get("n"))
    of = n if number(found.get("of")) is None else number(found.get("of"))
    if found.get("checked") is not True or count is None or of is None:
        why = found.get("why")
        sentence = words["overlap_unknown"].format(why=text(why).rstrip(".。") if why else words["no_reason"])
        return Said("unknown", sentence)
    rest = 0 if n is None else n - of
    kind = "some" if count else "partly" if rest > 0 else "none"
    sentence = words[f"overlap_{kind}"].format(
        items=counted(count), of=counted(of), rest=counted(rest), train=text(found.get("train"))
    )
    return Said(kind, sentence)


def listed(shown: int, count: Any, words: Mapping[str, str]) -> str:
    """How many of all are listed."""
    total = number(count)
    name = "first_of" if total is not None and shown < total else "all_of"
    return words[name].format(shown=counted(shown), count=counted(shown if total is None else total))


def tested(change: Change, tuned: str, base: str, words: Mapping[str, str]) -> str:
    """The outcome of McNemar's test; empty where there is none."""
    if not change.p:
        return ""
    # "<0.001" has its sign already.
    return words["mcnemar"].format(
        sign="<" if change.p.startswith("<") else "=",
        p=change.p.lstrip("<"),
        base=text(base),
        tuned=text(tuned),
        only_base=change.only_base,
        only_tuned=change.only_tuned,
    )


def _also(rows: Sequence[Row], tuned: str, words: Mapping[str, str]) -> str:
    labels = {
        verdict: [row.label for row in rows if row.better and row.changes[tuned].verdict == verdict]
        for verdict in ("better", "worse", "same")
    }
    found = [
        words["also_one"].format(verdict=words[verdict], figures=words["comma"].join(names))
        for verdict, names in labels.items()
        if names
    ]
    return words["also"].format(all=words["semicolon"].join(found)) if found else ""


def _reasons(task: Mapping[str, Any]) -> Mapping[str, Any]:
    skipped = mapping(task.get("skipped"))
    found = mapping(skipped.get("reasons"))
    if found:
        return found
    counts: dict[str, int] = {}
    for item in listing(skipped.get("items")):
        reason = text(mapping(item).get("reason"))
        counts[reason] = counts.get(reason, 0) + 1
    return counts
