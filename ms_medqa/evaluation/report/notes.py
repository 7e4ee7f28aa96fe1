"""What is to be known of a task's figures: what they are of, how answers were made, what was not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ms_medqa.evaluation.report.numbers import counted, listing, mapping, number, text
from ms_medqa.evaluation.report.rows import bases_of
from ms_medqa.evaluation.report.titles import title_of
from ms_medqa.evaluation.report.words import plural


def notes_of(task: Mapping[str, Any], words: Mapping[str, str]) -> Sequence[str]:
    """Sentences, as far as the report has something to say."""
    found = []
    if f"about_{task.get('kind')}" in words and mapping(task.get("figures")):
        found.append(words[f"about_{task['kind']}"])
    if number(mapping(task.get("decoding")).get("max_new_tokens")):
        found.append(words["decoding"].format(most=counted(task["decoding"]["max_new_tokens"])))
    differences = mapping(task.get("differences"))
    for tuned, base in bases_of(task).items():
        language, difference = words["language"], differences[tuned]
        names = [title_of(text(name)).name(language) for name in listing(_incomparable(difference))]
        fewer = [title_of(name).name(language) for name in _over_both(task, difference, text(tuned), text(base))]
        if fewer:
            figures = words["comma"].join(fewer)
            found.append(words["over_both"].format(tuned=text(tuned), base=text(base), figures=figures))
        if mapping(difference).get("same_prompt") is False:
            found.append(words["other_prompt"].format(tuned=text(tuned), base=text(base)))
        if names:
            figures = words["comma"].join(names)
            found.append(words["incomparable"].format(tuned=text(tuned), base=text(base), figures=figures))
    if number(task.get("ungrouped")):
        found.append(plural(words, "ungrouped", task["ungrouped"]).format(n=counted(task["ungrouped"])))
    if number(task.get("too_many_groups")):
        found.append(words["too_many_groups"].format(n=counted(task["too_many_groups"])))
    return found


def _over_both(task: Mapping[str, Any], difference: Any, tuned: str, base: str) -> list[str]:
    """Figures that are of other items for the one model than for the other."""
    found = []
    for name, values in mapping(mapping(difference).get("figures")).items():
        both = number(mapping(values).get("n"))
        own = [mapping(mapping(mapping(task.get("figures")).get(model)).get(name)).get("n") for model in (tuned, base)]
        if both is not None and any((number(n) or 0) > both for n in own):
            found.append(text(name))
    return found


def _incomparable(difference: Any) -> Any:
    return mapping(difference).get("incomparable")
