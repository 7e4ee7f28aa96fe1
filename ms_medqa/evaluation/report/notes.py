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
        names = [title_of(text(name)).name(words["language"]) for name in listing(_incomparable(differences[tuned]))]
        if names:
            figures = words["comma"].join(names)
            found.append(words["incomparable"].format(tuned=text(tuned), base=text(base), figures=figures))
    if number(task.get("ungrouped")):
        found.append(plural(words, "ungrouped", task["ungrouped"]).format(n=counted(task["ungrouped"])))
    if number(task.get("too_many_groups")):
        found.append(words["too_many_groups"].format(n=counted(task["too_many_groups"])))
    return found


def _incomparable(difference: Any) -> Any:
    return mapping(difference).get("incomparable")
