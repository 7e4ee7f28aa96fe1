"""Whether a term found in a question stands for itself or is a piece of a longer term.

Chinese writes no spaces, and no list holds all longer terms (妊娠高血压, 高血压性心脏病, 非霍奇金淋巴瘤). So it is
asked the other way round: a term stands alone only where both its neighbours are known to be no part of a term - the
end of the text, a punctuation mark, or a function word of a closed list. What is not known counts as a longer term.
English has spaces, yet the same holds one word further out: pulmonary hypertension, heat stroke.
"""

from __future__ import annotations

import re

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
# Neither brackets nor quotes: what stands in or before them is often a gloss or the word itself (心肌梗死（心梗）).
_STOPS = frozenset("，。？！；：、,.?!;:\n")

# Not 对, 可, 时, 非 and other characters that also begin or end a term (对乙酰氨基酚, 可待因, 凝血酶时间).
_LEFT = (
    "患有 患上 患了 患 得了 得过 有 没有 无 有无 的 和 与 及 以及 或 或者 是 不是 什么是 为 因 因为 由 由于 于 关于 "
    "对于 被 请问 治疗 预防 诊断 引起 导致 服用 口服 使用 吃 吃了 吃过 注射 接受 做 做了 做过 出现 伴 伴有 合并 怀疑 "
    "确诊 如何 怎么 怎样 患者 病人 孩子 宝宝"
)
_RIGHT = (
    "的 和 与 及 以及 或 或者 是 有 怎么 如何 怎样 为什么 为何 什么 患者 病人 引起 导致 应该 应当 该 会 能 可以 可能 "
    "需要 要 吗 呢 了 吃 属于 在 不 治疗 预防 合并 伴 也 都 一般 通常 常见 最 症状 等症状 等疾病 等情况 之后 以后 "
    "期间 是否"
)
_LEFT_CHINESE = re.compile(f"(?:{'|'.join(_LEFT.split())})$")
_RIGHT_CHINESE = re.compile("|".join(sorted(_RIGHT.split(), key=len, reverse=True)))

_LEFT_WORDS = (
    "a about after against an and are as because before between by can cause caused causes do does during for from get "
    "getting got had has have having how if in is like my no of on or prevent prevents take taking than the to treat "
    "treating treats was were what what's when why with without your"
)
# Not `of`: leukemia of childhood is a kind of leukemia, whose name may be another.
_RIGHT_WORDS = (
    "and are as be because by can cause caused causes curable diagnosed do does during for from had has have how if in "
    "is like may or patients should symptoms than to treated treatment was were when while who will with without"
)
_LEFT_ENGLISH = frozenset(_LEFT_WORDS.split())
_RIGHT_ENGLISH = frozenset(_RIGHT_WORDS.split())
_WORD_BEFORE = re.compile(r"[A-Za-z']+$")
_WORD_AFTER = re.compile(r"[A-Za-z']+(?![-\w])")
_LATIN = re.compile(r"[A-Za-z0-9]")


def stands_alone(text: str, start: int, end: int) -> bool:
    """True when `text[start:end]` is certain not to be a piece of a longer term."""
    return _left_is_free(text, start) and _right_is_free(text, end)


def cuts_word(text: str, start: int, end: int) -> bool:
    """True when `text[start:end]` begins or ends inside a Latin word or number."""
    return _both_latin(text, start - 1) or _both_latin(text, end - 1)


def _both_latin(text: str, index: int) -> bool:
    pair = text[index : index + 2] if index >= 0 else ""
    return len(pair) == 2 and bool(_LATIN.match(pair[0]) and _LATIN.match(pair[1]))


def _left_is_free(text: str, start: int) -> bool:
    before = text[max(0, start - 16) : start].rstrip(" ")
    if not before:
        return True
    if before[-1] in _STOPS:
        # A decimal point or a thousands separator is no end of a sentence.
        return not (before[-1] in ",." and text[start - 1] != " " and before[-2:-1].isdigit())
    if HAN.match(before[-1]):
        return _LEFT_CHINESE.search(before) is not None
    word = _WORD_BEFORE.search(before)
    if word is None or text[start - 1] != " ":
        return False
    # No word of the list is long enough to fill the excerpt.
    whole = len(before) == len(word[0]) or before[-len(word[0]) - 1] in " \n"
    return whole and word[0].lower() in _LEFT_ENGLISH


def _right_is_free(text: str, end: int) -> bool:
    after = text[end : end + 16].lstrip(" ")
    if not after:
        return True
    if after[0] in _STOPS:
        return not (after[0] in ",." and after[1:2].isdigit())
    if HAN.match(after[0]):
        return _RIGHT_CHINESE.match(after) is not None
    word = _WORD_AFTER.match(after)
    return word is not None and text[end] == " " and word[0].lower() in _RIGHT_ENGLISH
