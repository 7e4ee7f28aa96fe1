"""Groups of records dealt to three parts by scikit-learn: strata even, sizes right in records, no part left empty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CLASSES = 64
_MOST_MOVES = 2000


def deal(strata: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int, occupied: np.ndarray) -> np.ndarray:
    """The part of each group.

    scikit-learn can stratify or keep groups together, not both with shares of records. So each group is one item whose
    stratum is its type and its size class (1, 2-3, 4-7, … records), strata with too few groups for both sides are
    merged, first within their type, then all to one, and `train_test_split` is called twice: training against the rest,
    then validation against test. What the sizes in records still miss is made good by moving whole groups. Where there
    are as many groups as parts with a share, each of these gets at least one; fewer groups go to the largest part.

    Args:
        strata: integer (g,), the type of each group, in an order that does not depend on that of the input.
        sizes: int64 (g,), records in each.
        shares: of the three parts, sum 1.
        seed: of the choice.
        occupied: bool (3,), parts that have records already and so need none.

    Returns:
        int8 (g,), indices of parts. Sizes in records are off by less than the smallest group that could make it good,
        hence exact where there are enough groups of one record.
    """
    share = np.asarray(shares, dtype=float)
    counts = _counts(sizes.size, share, occupied)
    codes = strata.astype(np.int64) * _CLASSES + np.log2(np.maximum(sizes, 1)).astype(np.int64)
    everything = np.arange(sizes.size)
    held_out = _take(everything, codes, int(counts[1:].sum()), seed)
    test = _take(held_out, codes, int(counts[2]), seed)
    result = np.zeros(sizes.size, dtype=np.int8)
    result[held_out] = 1
    result[test] = 2
    _balance(result, sizes, share, needed=(share > 0) & ~occupied)
    return result


def get_ready() -> None:
    """Import what `deal` needs, which takes a second: for when others are at work."""
    import sklearn.model_selection  # noqa: F401


def _counts(groups: int, share: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """How many groups each part gets: largest remainders, and one at least where there are enough."""
    wanted = share > 0
    if groups < wanted.sum():
        return np.where(np.arange(share.size) == share.argmax(), groups, 0)
    exact = np.round(share * groups, 9)
    counts = np.floor(exact).astype(np.int64)
    for part in np.argsort(counts - exact, kind="stable")[: groups - counts.sum()]:
        counts[part] += 1
    for part in np.flatnonzero(wanted & ~occupied & (counts == 0)):
        counts[part] += 1
        counts[counts.argmax()] -= 1
    return counts


def _take(items: np.ndarray, codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the items, drawn stratum by stratum."""
    if count in (0, items.size):
        return items[:count]
    from sklearn.model_selection import train_test_split

    merged = _merge(codes[items], count)
    _, taken = train_test_split(
        items, test_size=count, random_state=seed % 2**32, stratify=merged if np.ptp(merged) else None
    )
    return np.asarray(taken)


def _merge(codes: np.ndarray, count: int) -> np.ndarray:
    """The strata; too small ones lose their size class, and if that is not enough, are joined to one."""
    smaller = min(count, codes.size - count)
    # So many members that both sides get one.
    least = max(2, -(-codes.size // smaller))
    _, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    codes = np.where(sizes[inverse] < least, codes // _CLASSES * _CLASSES + _CLASSES - 1, codes)
    values, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.argsort(sizes, kind="stable")
    joined = int((sizes < least).sum())
    # Their sum too must be large enough, and every stratum needs a place on the smaller side.
    while joined and (sizes[order[:joined]].sum() < least or values.size - joined + 1 > smaller):
        if joined == values.size:
            break
        joined += 1
    if not joined and values.size > smaller:
        joined = values.size - smaller + 1
    labels = np.arange(values.size)
    labels[order[:joined]] = values.size
    return labels[inverse]


def _balance(parts: np.ndarray, sizes: np.ndarray, share: np.ndarray, needed: np.ndarray) -> None:
    """Moves groups, in place, from the part with most records too many to the one that lacks most, while it helps."""
    total = int(sizes.sum())
    records = np.bincount(parts, weights=sizes, minlength=share.size)
    groups = np.bincount(parts, minlength=share.size)
    for _ in range(_MOST_MOVES):
        excess = np.round(records - share * total, 6)
        can_give = groups > np.where(needed, 1, 0)
        if not can_give.any():
            return
        donor = int(np.argmax(np.where(can_give, excess, -np.inf)))
        taker = int(np.argmin(np.where(share > 0, excess, np.inf)))
        # A move of `size` records lessens the sum of the errors if it is below this.
        bound = excess[donor] - excess[taker]
        fitting = min(excess[donor], -excess[taker])
        members = np.flatnonzero((parts == donor) & (sizes < bound)) if fitting > 0 else parts[:0]
        if not members.size:
            return
        gain = bound - np.abs(excess[donor] - sizes[members]) - np.abs(excess[taker] + sizes[members])
        best = int(np.argmax(gain))
        if gain[best] < 1:
            return
        moved = members[best]
        parts[moved] = taker
        records[donor] -= sizes[moved]
        records[taker] += sizes[moved]
        groups[donor] -= 1
        groups[taker] += 1
