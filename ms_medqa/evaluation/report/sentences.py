"""What a report says in words: whether a tuned model is better, what was skipped, what the training data also holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.numbers import NOTHING, counted, listing, mapping, number, text
from ms_medqa.evaluation.report.rows import Change, Row, bases_of, headline, judged
from ms_medqa.evaluation.report.words import plural, reason_of

_MOST_REASONS = 30


@dataclass(frozen=True, slots=True)
class Said:
    """A statement.

    Attributes:
        kind: of a comparison "better", "worse", "changed", "same", "few" or "nothing", "figure" of a model that is not
            compared; of an overlap "none", "some", "partly" or "unknown".
        words: the sentence.
        also: of a comparison: of which other figures what is to be said; of an overlap: reasons and gaps; else empty.
        badge: the key of the word for the kind; empty where there is none.
    """

    kind: str
    words: str
    also: str = ""
    badge: str = ""


def comparisons(task: Mapping[str, Any], rows: Sequence[Row], words: Mapping[str, str]) -> list[Said]:
    """For each tuned model of a task one sentence, by the figure that speaks for it; without any, one for each model.

    What is called better or worse is told in `rows`.
    """
    differences = mapping(task.get("differences"))
    if not differences:
        return _alone(task, rows, words)
    said = []
    for tuned, base in bases_of(task).items():
        # A difference with an interval comes first, whatever figure it is of.
        row = headline([row for row in rows if row.changes[tuned].verdict])
        names = {"task": text(task.get("name")), "tuned": text(tuned), "base": text(base)}
        if row is None:
            said.append(Said("nothing", words["says_nothing"].format(**names, n=counted(task.get("n")))))
            continue
        made, difference = row.changes[tuned], differences[tuned]
        before, after = (row.cells[name].value if name in row.cells else NOTHING for name in (base, tuned))
        shape = words["before_after" if mapping(difference).get("same_weights") is True else "each_has"]
        values = shape.format(before=before, after=after, base=text(base), tuned=text(tuned))
        sentence = words[f"says_{made.verdict}"].format(
            **names, figure=row.label, values=values, change=made.written, n=made.n
        )
        also = _also([other for other in rows if other is not row], tuned, difference, words)
        said.append(Said(made.verdict, sentence, also, judged(made.verdict, difference)))
    return said


def _alone(task: Mapping[str, Any], rows: Sequence[Row], words: Mapping[str, str]) -> list[Said]:
    said = []
    for model in dict.fromkeys(model for row in rows for model in row.cells):
        row = headline([row for row in rows if row.cells[model].value != NOTHING])
        if row is not None:
            cell = row.cells[model]
            value = f"{cell.value} {cell.interval}".rstrip()
            names = {"task": text(task.get("name")), "model": text(model), "figure": row.label}
            said.append(Said("figure", words["says_figure"].format(**names, value=value, n=cell.over)))
    return said


def items(task: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """How many items a task has, how many records were skipped, and how many were never looked at."""
    count, read, n = (
        number(value) for value in (mapping(task.get("skipped")).get("count"), task.get("read"), task.get("n"))
    )
    said = [plural(words, "items", n).format(n=counted(n))]
    said.append(
        words["skipped_some"].format(count=counted(count), read=counted(read)) if count else words["skipped_none"]
    )
    rest = 0 if read is None or n is None else read - n - (count or 0)
    if rest > 0:
        limit = number(task.get("limit"))
        name = "not_used" if limit is None else "not_used_limit"
        said.append(words[name].format(rest=counted(rest), read=counted(read), limit=counted(limit)))
    return words["semicolon"].join(said)


def reasons(task: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, int]:
    """Why records were skipped, the most frequent reason first; of more than 30 the rest is summed up."""
    found = {reason_of(reason, words): int(number(count) or 0) for reason, count in _reasons(task).items()}
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[_MOST_REASONS:]
    shown = dict(ordered[:_MOST_REASONS])
    if rest:
        shown[words["other"]] = shown.get(words["other"], 0) + sum(count for _, count in rest)
    return shown


def overlap(task: Mapping[str, Any], words: Mapping[str, str]) -> Said:
    """Whether the training data holds items of a task.

    Held out is said only where all of it was compared with all items, of every model, and nothing was found.
    """
    found = mapping(task.get("overlap"))
    count, n = number(found.get("items")), number(task.get("n"))
    of = n if number(found.get("of")) is None else number(found.get("of"))
    # Of nothing, nothing is held out.
    if found.get("checked") is not True or count is None or not of:
        why = "no item was measured" if of == 0 else found.get("why")
        sentence = words["overlap_unknown"].format(
            why=reason_of(why, words).rstrip(".。") if why else words["no_reason"]
        )
        return Said("unknown", sentence)
    gaps = words["semicolon"].join(_gaps(found, 0 if n is None else n - of, words))
    kind = "some" if count else "partly" if gaps else "none"
    sentence = plural(words, "overlap_some", count) if count else words[f"overlap_{kind}"]
    also = [_overlap_reasons(found, words)]
    also += [words["overlap_gaps"].format(gaps=gaps)] if count and gaps else []
    return Said(
        kind,
        sentence.format(items=counted(count), of=counted(of), train=text(found.get("train")), gaps=gaps),
        " ".join(filter(None, also)),
    )


def _gaps(found: Mapping[str, Any], rest: float, words: Mapping[str, str]) -> list[str]:
    """What was not compared with what."""
    unread = number(found.get("unread")) or 0
    gaps = [plural(words, "gap_items", rest).format(n=counted(rest))] if rest > 0 else []
    gaps += [plural(words, "gap_unread", unread).format(n=counted(unread))] if unread > 0 else []
    unchecked = [text(name) for name, checked in mapping(found.get("models")).items() if checked is not True]
    return gaps + ([words["gap_models"].format(models=words["comma"].join(unchecked))] if unchecked else [])


def _overlap_reasons(found: Mapping[str, Any], words: Mapping[str, str]) -> str:
    counts = {reason: number(n) for reason, n in mapping(found.get("reasons")).items()}
    every = words["semicolon"].join(
        f"{reason_of(reason, words)}{words['colon']}{counted(n)}" for reason, n in counts.items() if n
    )
    return words["overlap_reasons"].format(all=every) if every else ""


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


def _also(rows: Sequence[Row], tuned: str, difference: Any, words: Mapping[str, str]) -> str:
    labels = {
        verdict: [row.label for row in rows if row.better and row.changes[tuned].verdict == verdict]
        for verdict in ("better", "worse", "same", "few")
    }
    found = [
        words["also_one"].format(verdict=words[judged(verdict, difference)], figures=words["comma"].join(names))
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
