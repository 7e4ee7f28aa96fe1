"""How near a generated answer comes to a reference: the field's metrics, by the field's libraries.

Which library and which words depends on the language of the reference alone, so that all answers to one question are
measured alike.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from ms_medqa.data.languages import language_of
from ms_medqa.data.segment import segment
from ms_medqa.evaluation.figures import Array, Figure

_ORDERS = 4
# Numbers with their decimals, characters of scripts without spaces, and words of letters, which may hold digits.
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\d_][^\W_]*")
# Without these, 1.5 would be 15, 1-2 would be 12 and -2.5 would be 2.5.
_IN_NUMBER = re.compile(r"(?<=\d)[^\w\s](?=\d)|(?<![a-z0-9])-(?=\d)")
# Without these, 5 % would be 5, and HIV- and HIV(-) would be HIV; a plus is a symbol, which is kept anyway.
_MEANING = re.compile(r"[%‰]|(?<=[a-z0-9])-(?!\w)|(?<=\()-(?=\))")


@dataclass(frozen=True, slots=True)
class Rouge:
    """F1 in [0, 1] of one answer (Lin 2004, with beta = 1)."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


def rouge(answer: str, reference: str) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L; 0 where either text has no word.

    Of a Chinese reference they are those of rouge-chinese over jieba's words, punctuation included: its ROUGE-1 and
    ROUGE-2 are over different n-grams, not over all. Of an English one, and of one without letters, they are those of
    rouge-score, which knows the words of a to z and 0 to 9 without stemming; of other languages the same over all
    letters. ROUGE-L is the libraries' with a faster search.
    """
    return (_rouge_chinese if language_of(reference) == "Chinese" else _rouge_score)(answer, reference)


def exact_match(answer: str, reference: str) -> bool:
    """True where both are the same but for width of letters (NFKC), case, white space and punctuation.

    Punctuation within a number and a minus before it count, % and ‰, symbols such as +, and a minus that ends a word of
    Latin letters (Rh-). A text of nothing but other punctuation matches nothing.
    """
    return bool(_bare(reference)) and _bare(answer) == _bare(reference)


def char_f1(answer: str, reference: str) -> float:
    """F1 in [0, 1] over the bags of characters (NFKC, lower case) without white space."""
    return _bag_f1(*("".join(_fold(text).split()) for text in (answer, reference)))


def token_f1(answer: str, reference: str) -> float:
    """F1 in [0, 1] over the bags of words (NFKC, lower case) without punctuation, as in SQuAD (Rajpurkar et al. 2016).

    The words are jieba's where the reference is Chinese, else those between spaces and punctuation. Unlike SQuAD's
    script it keeps articles: the `a` of hepatitis A is none.
    """
    cut = _chinese_words if language_of(reference) == "Chinese" else _words
    ours, theirs = (filter(_is_word, cut(_fold(text))) for text in (answer, reference))
    return _bag_f1(ours, theirs)


def rouge_signature(references: Sequence[str]) -> str:
    """Which library measures `rouge`, with its version and its words, and over how many of the references."""
    counts = Counter(map(language_of, references))
    chinese, others = counts["Chinese"], counts["other"]
    score = f"rouge-score {version('rouge-score')}"
    found = [
        (
            f"rouge-chinese {version('rouge-chinese')} over jieba {version('jieba')} words, "
            "ROUGE-1/2 over distinct n-grams",
            chinese,
        ),
        (f"{score} without stemming", counts.total() - chinese - others),
        (f"{score} over words of all letters, without stemming", others),
    ]
    return "; ".join(f"{said}: {count} item{'s' * (count != 1)}" for said, count in found if count)


def repeated_ngrams(tokens: Sequence[Any], n: int = _ORDERS) -> float | None:
    """The share of a text's n-grams that it has said before, in [0, 1]; None where it has fewer than n tokens."""
    grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else None


def bleu_figure(answers: Sequence[str], references: Sequence[str]) -> tuple[Figure, str]:
    """BLEU-4 of all answers together, 0 to 100 (Papineni et al. 2002), each against one reference.

    It is sacrebleu's, smoothing included (`exp`). Chinese characters are words of their own where any reference is
    Chinese.

    Returns:
        The figure, whose stats are sacrebleu's of each answer (n-grams of 1 to 4 words that are in the reference,
        all n-grams, the length of the answer and of the reference), and the signature that papers quote.
    """
    from sacrebleu.metrics import BLEU

    chinese = any(language_of(reference) == "Chinese" for reference in references)
    # `force` only silences a warning about spaces before full stops.
    bleu = BLEU(tokenize="zh" if chinese else "13a", force=True)
    rows = []
    for answer, reference in zip(answers, references, strict=True):
        score = bleu.corpus_score([answer], [[reference]])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    if not rows:
        # The signature counts the references of what was scored last.
        bleu.corpus_score([""], [[""]])
    stats = np.array(rows, np.float64).reshape(-1, 2 * _ORDERS + 2)
    return Figure("bleu_4", stats, np.ones(len(stats), np.bool_), _bleu), str(bleu.get_signature())


def _bleu(sums: Array) -> Array:
    """BLEU of sums of statistics, (..., 10) -> (...)."""
    correct, total = sums[..., :_ORDERS], sums[..., _ORDERS : 2 * _ORDERS]
    ours, theirs = sums[..., -2], sums[..., -1]
    none = correct == 0
    # Chen & Cherry 2014, method 3: the n-th order without any hit counts as 1 / 2ⁿ of a hit.
    hits = np.where(none, 0.5 ** np.cumsum(none, axis=-1), correct)
    # An answer too short for 4-grams, and one without any word of its reference, have no BLEU.
    scored = total.all(axis=-1) & ~none.all(axis=-1)
    precisions = np.log(np.where(scored[..., None], hits, 1) / np.where(scored[..., None], total, 1))
    brevity = np.minimum(0, 1 - theirs / np.where(scored, ours, 1))
    return np.where(scored, 100 * np.exp(precisions.mean(axis=-1) + brevity), 0.0)


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, one step a word of the second over all of the first at once (Hyyrö
    2004, Bit-parallel LCS-length computation revisited)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    # A 0 at a place: the subsequence grows there.
    rows = every
    for word in second:
        found = rows & places.get(word, 0)
        rows = (rows + found | rows - found) & every
    return len(first) - rows.bit_count()


def _rouge_chinese(answer: str, reference: str) -> Rouge:
    ours, theirs = _chinese_words(answer), _chinese_words(reference)
    if not ours or not theirs:
        return Rouge(0.0, 0.0, 0.0)
    found = _chinese_scorer().get_scores(" ".join(ours), " ".join(theirs))[0]
    return Rouge(found["rouge-1"]["f"], found["rouge-2"]["f"], _lcs_f1(ours, theirs))


def _rouge_score(answer: str, reference: str) -> Rouge:
    scorer, tokenizer = _scorer(language_of(reference) == "other")
    found = scorer.score(reference, answer)
    lcs = _lcs_f1(tokenizer.tokenize(answer), tokenizer.tokenize(reference))
    return Rouge(found["rouge1"].fmeasure, found["rouge2"].fmeasure, lcs)


@functools.cache
def _chinese_scorer() -> Any:
    with warnings.catch_warnings():
        # Its source holds escapes that newer Pythons warn about; nothing a user could act on.
        warnings.simplefilter("ignore")
        from rouge_chinese import Rouge as Library
    # Its ROUGE-L keeps a table of all pairs of words: gigabytes for two long texts.
    return Library(metrics=["rouge-1", "rouge-2"])


@functools.cache
def _scorer(any_letters: bool) -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

    class Words(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return _words(_fold(text))

    tokenizer = Words() if any_letters else DefaultTokenizer()
    return RougeScorer(["rouge1", "rouge2"], tokenizer=tokenizer), tokenizer


def _lcs_f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    # 2PR / (P + R) with P = lcs / |ours| and R = lcs / |theirs|.
    return 2 * lcs_length(ours, theirs) / (len(ours) + len(theirs)) if ours and theirs else 0.0


def _bag_f1(ours: Iterable[str], theirs: Iterable[str]) -> float:
    one, other = Counter(ours), Counter(theirs)
    sizes = one.total() + other.total()
    return 2 * (one & other).total() / sizes if sizes else 0.0


def _chinese_words(text: str) -> list[str]:
    return [word for word in segment(text) if not word.isspace()]


_words: Callable[[str], list[str]] = _WORD.findall


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _bare(text: str) -> str:
    # The minus sign, which NFKC keeps apart.
    text = _fold(text).replace("\u2212", "-")
    kept = {match.start() for pattern in (_IN_NUMBER, _MEANING) for match in pattern.finditer(text)}
    letters = (char for at, char in enumerate(text) if at in kept or unicodedata.category(char)[0] not in "PZC")
    return "".join(letters)
