"""Chinese text cut into words by jieba."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

from ms_medqa.config.scratch import scratch_folder


@functools.cache
def _segmenter() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        # jieba's source holds escapes that newer Pythons warn about; nothing a user could act on.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel("ERROR")
    # An own instance: words that a caller adds to jieba's global dictionary would change what is cut here.
    segmenter = jieba.Tokenizer()
    # jieba unmarshals its cached dictionary from the common temporary folder, where anybody could have put one.
    segmenter.tmp_dir = str(scratch_folder())
    return segmenter.lcut


def segment(text: str) -> list[str]:
    """jieba's words of a text, with its white space and punctuation: joined, they are the text."""
    return _segmenter()(text)
