"""Deal the records to training, validation and test so that no question stands in two of them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from ms_medqa.data.example import Example, Record

PARTS = ("train", "val", "test")

# Words by which a question's type is told, the first match counts. Only the strata of the split rest on it.
_TYPES: dict[str, tuple[str, ...]] = {
    "diet": ("饮食", "吃什么", "能吃", "食物", "忌口", "diet", "food"),
    "drug": ("药", "剂量", "副作用", "drug", "dose", "medication"),
    "prevention": ("预防", "避免", "prevent", "vaccin"),
    "diagnosis": ("诊断", "检查", "化验", "鉴别", "diagnos", "test"),
    "treatment": ("治疗", "手术", "怎么治", "怎么办", "如何处理", "急救", "treat", "therap", "surg", "manage"),
    "cause": ("原因", "病因", "为什么", "引起", "导致", "cause", "why", "risk factor"),
    "symptom": ("症状", "表现", "体征", "symptom", "sign"),
}


def split_records(records: Sequence[Record], shares: Sequence[float], seed: int) -> list[str]:
    """The part of each record.

    A record whose `split` is set goes there, and others with its question follow it. The rest is grouped by normalised
    question, put in an order that depends only on the seed and the questions, and dealt out stratum by stratum (source
    file and question type), each group to the part that lacks most records. Where there are enough groups, every part
    with a share gets at least one.

    Args:
        records: the kept records.
        shares: of train, val and test; their sum is 1.
        seed: of the order.

    Returns:
        `train`, `val` or `test` for each record, in their order.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    fixed: dict[str, str] = {}
    for index, record in enumerate(records):
        key = question_key(record)
        if record.split is not None:
            fixed.setdefault(key, record.split)
        else:
            groups[key].append(index)
    result = [record.split or "" for record in records]
    parts: dict[str, str] = {key: fixed[key] for key in groups if key in fixed}
    free = {key: members for key, members in groups.items() if key not in fixed}
    parts |= _deal(_ordered(free, records, seed), free, shares, occupied=set(fixed.values()))
    for key, members in groups.items():
        for index in members:
            result[index] = parts[key]
    return result


def question_key(record: Record) -> str:
    """What makes two records the same question: the (first) question without case, width, space and punctuation."""
    rounds = (*record.history, (record.question, "")) if isinstance(record, Example) else ((record.text, ""),)
    text = unicodedata.normalize("NFKC", rounds[0][0]).casefold()
    bare = "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")
    return bare or text


def question_type(question: str) -> str:
    """A rough type, such as `diet` or `drug`; `other` when no word tells it."""
    text = question.lower()
    return next((name for name, words in _TYPES.items() if any(word in text for word in words)), "other")


def _ordered(groups: dict[str, list[int]], records: Sequence[Record], seed: int) -> list[str]:
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, members in groups.items():
        record = records[members[0]]
        kind = question_type(record.question) if isinstance(record, Example) else ""
        strata[record.source, kind].append(key)
    # A hash instead of a random generator: the same on every machine and version, and a record more or less in the
    # input does not shuffle all others.
    return [key for _, keys in sorted(strata.items()) for key in sorted(keys, key=lambda k: _rank(k, seed))]


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{key}".encode()).digest()


def _deal(
    order: Sequence[str], groups: dict[str, list[int]], shares: Sequence[float], occupied: set[str]
) -> dict[str, str]:
    counts = dict.fromkeys(PARTS, 0)
    result: dict[str, str] = {}
    total = 0
    for key in order:
        size = len(groups[key])
        total += size
        # Ties go to the part named first; rounding keeps float noise from breaking them differently.
        part = max(PARTS, key=lambda p: round(shares[PARTS.index(p)] * total - counts[p], 9))
        result[key] = part
        counts[part] += size
    wanted = [part for part, share in zip(PARTS, shares, strict=True) if share > 0]
    for part in wanted:
        if counts[part] or part in occupied or len(order) < len(wanted):
            continue
        donors = {p: [key for key in order if result[key] == p] for p in PARTS}
        donor = max(PARTS, key=lambda p: len(donors[p]))
        # The smallest group moves, the latest of equals.
        key = min(reversed(donors[donor]), key=lambda k: len(groups[k]))
        result[key] = part
        counts[donor] -= len(groups[key])
        counts[part] += len(groups[key])
    return result
