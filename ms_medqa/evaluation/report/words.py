"""The words of a report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.evaluation.report.numbers import number, text
from ms_medqa.evaluation.report.reasons_zh import reason_zh
from ms_medqa.evaluation.report.words_en import EN
from ms_medqa.evaluation.report.words_zh import ZH

WORDS = {"en": EN, "zh": ZH}


def words_of(language: str) -> dict[str, str]:
    """The words of a report.

    Raises:
        UserError: there is no such language.
    """
    if language not in WORDS:
        raise UserError(f"no report in the language {language!r}", f"known are {', '.join(WORDS)}")
    return WORDS[language]


def reason_of(reason: Any, words: Mapping[str, str]) -> str:
    """Why something was left out, in the language of the words as far as they have it."""
    return reason_zh(text(reason)) if words["language"] == "zh" else text(reason)


def plural(words: Mapping[str, str], name: str, n: Any) -> str:
    """The word for n things: that of one has `_one` behind its name."""
    return words[f"{name}_one" if number(n) == 1 else name]
