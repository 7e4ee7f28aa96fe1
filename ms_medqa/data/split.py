"""Deal the records to training, validation and test so that no question stands in two of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from ms_medqa.data.example import Example, Record
from ms_medqa.data.question_types import TYPES, question_type
from ms_medqa.data.shingles import mix
from ms_medqa.data.stratify import deal
from ms_medqa.data.text import to_nfkc
from ms_medqa.data.union_find import UnionFind

PARTS = ("train", "val", "test")
FREE = -1
KEY_BYTES = 16


def assign_parts(
    keys: Sequence[bytes] | np.ndarray,
    types: np.ndarray,
    fixed: np.ndarray,
    clusters: np.ndarray | None,
    shares: Sequence[float],
    seed: int,
) -> np.ndarray:
    """The part of each record.

    Records with one key, and records of one near-duplicate cluster, are one group and go to one part. A record whose
    part is fixed goes there, whatever its group does; the free records of its group follow it (to the last of `PARTS`
    where the group is fixed to several, so that training learns nothing more of a test question). The other groups are
    dealt out stratum by stratum, `stratify.deal` says how. The result depends on the seed and the content alone, not on
    the order of the records. 1 M records take about 150 MB.

    Args:
        keys: n digests of 16 bytes (`question_digest`), or uint8 (n, 16).
        types: integer (n,), the stratum of each record, such as the place of its question type in `TYPES`.
        fixed: integer (n,), index into `PARTS` where the part is given, else `FREE`.
        clusters: int64 (n,) as `minhash.clusters` gives them; None where near duplicates do not matter.
        shares: of the three parts; their sum is 1, a part with share 0 gets nothing but fixed records.
        seed: of the choice.

    Returns:
        int8 (n,), indices into `PARTS`.
    """
    high, low = _words(keys)
    count = high.size
    assert len(types) == len(fixed) == count, (len(types), len(fixed), count)
    result = np.asarray(fixed).astype(np.int8)
    if not count:
        return result
    groups = _groups(high, low, clusters)

    # Of a group's fixed parts the last.
    group_fixed = np.full(count, FREE, dtype=np.int8)
    np.maximum.at(group_fixed, groups, result)
    following = (result == FREE) & (group_fixed[groups] != FREE)
    result[following] = group_fixed[groups[following]]

    free = np.flatnonzero(result == FREE)
    if not free.size:
        return result
    # A hash gives each record its rank, the least rank and its type speak for the group: so the order of the input has
    # no say. Equal ranks are equal keys, for which the low word and the type decide.
    rank = mix(high ^ mix(np.array([seed % 2**64], dtype=np.uint64)))[free]
    order = np.lexsort((np.asarray(types)[free], low[free], rank))
    labels, first, members = np.unique(groups[free[order]], return_index=True, return_inverse=True)
    sizes = np.bincount(members, minlength=labels.size)
    by_rank = np.argsort(first, kind="stable")
    occupied = np.isin(np.arange(len(PARTS)), result[result != FREE])
    dealt = np.empty(labels.size, dtype=np.int8)
    dealt[by_rank] = deal(np.asarray(types)[free[order]][first[by_rank]], sizes[by_rank], shares, seed, occupied)
    result[free[order]] = dealt[members]
    return result


def split_records(
    records: Sequence[Record], shares: Sequence[float], seed: int, clusters: np.ndarray | None = None
) -> list[str]:
    """`train`, `val` or `test` for each record, in their order: `assign_parts` for records that are in memory.

    The strata are input file and question type.
    """
    sources = {source: place for place, source in enumerate(sorted({record.source for record in records}))}
    strata = [sources[record.source] * len(TYPES) + TYPES.index(record_type(record)) for record in records]
    fixed = [FREE if record.split is None else PARTS.index(record.split) for record in records]
    keys = [question_digest(record) for record in records]
    parts = assign_parts(keys, np.array(strata, dtype=np.int64), np.array(fixed, np.int8), clusters, shares, seed)
    return [PARTS[part] for part in parts]


def question_key(record: Record) -> str:
    """What makes two records the same question: the (first) question without case, width, space and punctuation."""
    return _key(_first_question(record))


def question_digest(record: Record) -> bytes:
    """16 bytes that stand for `question_key`."""
    return text_digest(_first_question(record))


def text_digest(question: str) -> bytes:
    """`question_digest` of a record that asks this first."""
    return hashlib.blake2b(_key(question).encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def record_type(record: Record) -> str:
    """The question type of a record's first question; `other` for plain text."""
    return question_type(_first_question(record)) if isinstance(record, Example) else "other"


def _key(question: str) -> str:
    text = to_nfkc(question).casefold()
    # Four marks are nearly all; without them, most questions need not be looked up character by character.
    bare = text.replace(",", "").replace("。", "").replace("?", "").replace("、", "")
    return (bare.translate(_BARE) if _NOT_BARE.search(bare) else bare) or text


def _first_question(record: Record) -> str:
    if isinstance(record, Example):
        return record.history[0][0] if record.history else record.question
    return record.text


class _Bare(dict[int, int | None]):
    """A translation that drops punctuation, space and control characters, filled as characters turn up."""

    def __missing__(self, code_point: int) -> int | None:
        kept = None if unicodedata.category(chr(code_point))[0] in "PZC" else code_point
        self[code_point] = kept
        return kept


_BARE = _Bare()
# All that is dropped, and some that is not.
_NOT_BARE = re.compile(r"[\W_]")


def _words(keys: Sequence[bytes] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The digests as two uint64 (n,), the same on machines of either byte order."""
    if not isinstance(keys, np.ndarray):
        assert all(len(key) == KEY_BYTES for key in keys)
        keys = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
    assert keys.dtype == np.uint8, keys.dtype
    assert keys.ndim == 2, keys.shape
    assert keys.shape[1] == KEY_BYTES, keys.shape
    words = np.ascontiguousarray(keys).view("<u8")
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


def _groups(high: np.ndarray, low: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """int64 (n,): a label that records with one key or one cluster share."""
    order = np.lexsort((low, high))
    same = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
    sets = UnionFind(high.size)
    firsts = order[np.flatnonzero(np.concatenate([[True], ~same]))]
    sets.union(order, firsts[np.cumsum(np.concatenate([[False], ~same]))])
    if clusters is not None:
        assert len(clusters) == high.size, (len(clusters), high.size)
        sets.union(np.arange(high.size), np.asarray(clusters, dtype=np.int64))
    return sets.labels()
