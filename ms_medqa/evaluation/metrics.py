"""The figures of an evaluation, each a plain function of texts or counts.

ROUGE-L is computed over jieba words, as the Chinese evaluation tools of the field do (rouge-chinese over jieba cuts):
the figures can be set side by side with theirs.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from ms_medqa.config.errors import RunError
from ms_medqa.data.segment import segment


def perplexity(loss_sum: float, tokens: int) -> float:
    """exp(loss_sum / tokens); loss_sum in nats over `tokens` target tokens.

    Raises:
        RunError: the loss is not finite.
    """
    assert tokens > 0, "perplexity of nothing"
    mean = loss_sum / tokens
    if not math.isfinite(mean):
        raise RunError("the loss of the evaluation is not finite; try runtime.dtype=float32")
    # exp(700) is the end of float64; such a model is broken, but its report should still be valid JSON.
    return math.exp(min(mean, 700.0))


def words(text: str) -> list[str]:
    """jieba's words of a text, white space left out."""
    return [word for word in segment(text) if not word.isspace()]


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, O(len(first) · len(second)) time, O(len(second)) memory."""
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for j, b in enumerate(second, start=1):
            above = row[j]
            row[j] = diagonal + 1 if a == b else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 in [0, 1] over jieba words (Lin 2004, with beta = 1); 0 where either text has no word."""
    answer_words, reference_words = words(answer), words(reference)
    if not answer_words or not reference_words:
        return 0.0
    # 2PR / (P + R) with P = lcs / |answer| and R = lcs / |reference|.
    return 2.0 * lcs_length(answer_words, reference_words) / (len(answer_words) + len(reference_words))


def normalise_fact(text: str) -> str:
    """NFKC, lower case, no white space: the form in which a key fact is looked for."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


# What may not stand before and after a key fact that starts or ends with such a character.
_EDGES = (
    ("[0-9]", r"(?<![0-9])(?<![0-9]\.)", r"(?![0-9])(?!\.[0-9])"),
    ("[〇零一二三四五六七八九十百千]", "(?<![〇零一二三四五六七八九十百千])", "(?![〇零一二三四五六七八九十百千])"),
    ("[a-z]", "(?<![a-z])", "(?![a-z])"),
)


def has_key_fact(answer: str, key: str) -> bool:
    """True where the answer contains the key fact, whatever its width of letters, case and white space.

    A key that starts or ends with a digit must not go on as a longer number, nor one that starts or ends with a Latin
    letter as a longer word: `20` is not found in `120` or `20.5`, `十天` not in `三十天`, `ALT` not in `health`. Other
    words are not told apart: `麻疹` is found in `荨麻疹`.
    """
    wanted = normalise_fact(key)
    if not wanted:
        return False
    before = "".join(guard for kind, guard, _ in _EDGES if re.match(kind, wanted[0]))
    after = "".join(guard for kind, _, guard in _EDGES if re.match(kind, wanted[-1]))
    # The answer keeps its white space, which parts words and numbers.
    body = r"\s*".join(map(re.escape, wanted))
    return re.search(before + body + after, unicodedata.normalize("NFKC", answer).lower()) is not None


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    assert len(values) > 0, "mean of nothing"
    return math.fsum(values) / len(values)
