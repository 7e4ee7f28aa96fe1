"""Tokens per second into the training: the batches of `ms-medqa train` beside PyTorch's DataLoader over `datasets`.

    pip install torch datasets
    python benchmarks/data_read.py CONVERTED [--batch 8] [--length 512] [--seconds 10] [--rounds 5]

Both give the same packed rows (ids, positions, segments, labels: int32 batch x length) in the same order. The peer's
rows are packed beforehand, as its users do, and lie on disk as Arrow; the project packs while it reads. The peer runs
without worker processes and with two. Tokens are counted without padding. Sides alternate, in a process of their own
each, for some seconds after the first batch has come; the time to the first batch is shown beside.

It also shows, of the project's side: the share of the positions that hold a token, and the time from a loader being
asked for a step in the middle to its first batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data_write import spread

from ms_medqa.data.dataset import COLUMNS, BatchPlan, Rows, batches, build_rows
from ms_medqa.data.manifest import load_split

SIDES = ("ms_medqa", "DataLoader, 0 workers", "DataLoader, 2 workers")
_EPOCHS = 50


def rows_of(folder: Path, length: int) -> Rows:
    """The packed rows of a converted folder's training part."""
    return build_rows(load_split(folder, "train", None, None), length, packing=True)


def save_for_peer(rows: Rows, place: Path) -> None:
    """The same rows as an Arrow data set."""
    from datasets import Dataset, Features, List, Value

    def generate() -> Iterator[dict[str, np.ndarray]]:
        for index in range(len(rows)):
            yield rows.row(index)

    features = Features({name: List(Value("int32"), length=rows.max_length) for name in COLUMNS})
    Dataset.from_generator(generate, features=features, cache_dir=str(place / "cache")).save_to_disk(
        str(place / "rows")
    )


def peer_batches(place: Path, batch: int, workers: int) -> Iterable[dict[str, Any]]:
    """Batches of PyTorch's loader over it, in random order."""
    from datasets import load_from_disk
    from torch.utils.data import DataLoader

    data = load_from_disk(str(place / "rows")).with_format("torch")
    while True:
        yield from DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers)


def measure(side: str, folder: Path, place: Path, batch: int, length: int, seconds: float) -> dict[str, float]:
    """Tokens per second of a side, in this process."""
    began = time.perf_counter()
    if side == SIDES[0]:
        rows = rows_of(folder, length)
        plan = BatchPlan(rows, batch, 1, 1, seed=0)
        found: Iterator[Any] = (b for *_, b in batches(rows, plan, 0, 0, 0, _EPOCHS))
    else:
        found = iter(peer_batches(place, batch, int(side.split()[1])))
    tokens = 0
    next(found)
    start = time.perf_counter()
    for one in found:
        tokens += int((one["segment_ids"] > 0).sum())
        if time.perf_counter() - start > seconds:
            break
    result = {"tokens": tokens / (time.perf_counter() - start), "first": start - began}
    if side == SIDES[0]:
        result["filled"] = float(rows.token_counts.sum() / (len(rows) * length))
        result["rows"] = len(rows)
        asked = time.perf_counter()
        middle = batches(rows, plan, 0, 3, plan.steps_per_epoch // 2, _EPOCHS)
        next(middle)
        result["seek"] = time.perf_counter() - asked
    return result


def compare(
    folder: Path, place: Path, batch: int, length: int, seconds: float, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Side → what `measure` gives in each round; the peer's rows are written to the folder `place`."""
    save_for_peer(rows_of(folder, length), place)
    names = ("--batch", str(batch), "--length", str(length), "--seconds", str(seconds), "--place", str(place))
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, __file__, str(folder), *names, "--here", side]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[side].append(json.loads(output.splitlines()[-1]))
    return found


def ratios(found: Mapping[str, Sequence[Mapping[str, float]]], side: str) -> list[float]:
    """How many times as many tokens per second as a side the project gave, in each round."""
    return [mine["tokens"] / run["tokens"] for mine, run in zip(found[SIDES[0]], found[side], strict=True)]


def show(found: Mapping[str, Sequence[Mapping[str, float]]], batch: int, length: int) -> None:
    """Print a table."""
    ours = found[SIDES[0]]
    print(f"batch {batch} x {length}, packed, {len(ours)} rounds, medians")
    print(f"{'side':<24}{'tokens/s':>12}{'first batch':>13}   ms_medqa / side, range")
    for side, runs in found.items():
        tokens, first = (statistics.median(run[key] for run in runs) for key in ("tokens", "first"))
        print(f"{side:<24}{tokens:>12,.0f}{first:>11.1f} s   {spread(ratios(found, side))}")
    seek = statistics.median(run["seek"] for run in ours)
    print(f"{ours[0]['rows']:,.0f} rows, {100 * ours[0]['filled']:.1f} % of the positions filled; a loader that starts")
    print(f"in the middle of the fourth epoch gives its first batch after {1000 * seek:.0f} ms", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (options.batch, options.length)
    if options.here:
        print(json.dumps(measure(options.here, options.folder, options.place, *shape, options.seconds)))
        return
    with tempfile.TemporaryDirectory() as place:
        show(compare(options.folder, Path(place), *shape, options.seconds, options.rounds), *shape)


if __name__ == "__main__":
    main()
