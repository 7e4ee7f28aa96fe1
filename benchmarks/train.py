"""LoRA steps of ms_medqa beside those of transformers and PEFT on CPU PyTorch: same weights, batches and threads.

    python benchmarks/train.py MODEL [--small SMALL] [--data CONVERTED] [--rounds 7] [--steps 3] [--threads 2]
        [--cases equal-1x128 equal-2x256 labels-1x128 labels-2x256 small-8x128]

MODEL and SMALL come from `make_checkpoint.py` (shapes `qwen2.5-0.5b` and `qwen2.5-4x896`, float32), CONVERTED from
`ms-medqa convert … --model MODEL`.

- `equal`: random tokens, every one of them is trained: both sides do the same work.
- `labels`: real records, one a row, cut to its length; the prompt is masked, and its rows never meet our vocabulary
  matrix. Tokens of both sides are all positions of the batch.
- `small`: `equal` on SMALL.

Each side is a process of its own, which waits while the other one trains. They take turns; printed are the medians of
all steps, the median of the ratios of each round, and their range. The losses of the first steps must agree, for the
two sides begin with the same weights (an adapter begins as nothing). `of MatMul` sets the step's arithmetic, 4
operations a token for each frozen weight and 6 for each of an adapter's, over what MindSpore's own MatMul does with the
same weights and rows and nothing else (`benchmarks/train_sides.py`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from sides import Side, show
from train_sides import R, operations

from ms_medqa.data.dataset import build_rows
from ms_medqa.data.manifest import load_split
from ms_medqa.data.records import TokenRecords, from_rows
from ms_medqa.models.checkpoint import load_config

_BATCHES = 8
CASES = ("equal-1x128", "equal-2x256", "labels-1x128", "labels-2x256", "small-8x128")


def equal_batches(batch: int, length: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Random tokens, all of them trained."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (_BATCHES, batch, length), np.int32)
    labels = np.full_like(ids, -100)
    labels[..., :-1] = ids[..., 1:]
    return {"input_ids": ids, "segment_ids": np.ones_like(ids), "labels": labels}


def labelled_batches(batch: int, length: int, data: Path) -> dict[str, np.ndarray]:
    """Records of a converted folder in its order, cut to `length` where they are longer."""
    records = load_split(data, "train", None, None)
    rows = build_rows(_cut(records, _BATCHES * batch, length), length, packing=False)
    arrays = rows.batch(np.arange(len(rows)))
    names = ("input_ids", "segment_ids", "labels")
    return {name: arrays[name].reshape(_BATCHES, batch, length) for name in names}


def _cut(records: TokenRecords, wanted: int, length: int) -> TokenRecords:
    rows: list[tuple[str, np.ndarray, np.ndarray]] = []
    for number in range(len(records)):
        tokens, mask = records.record(number)
        # A record whose answer is cut off as a whole would have no label.
        if mask[1:length].any():
            rows.append((records.ids[number], tokens[:length], mask[:length]))
        if len(rows) == wanted:
            return from_rows(rows)
    raise SystemExit(f"fewer than {wanted} records")


def measure(case: str, model: Path, batches: dict[str, np.ndarray], rounds: int, steps: int, threads: int) -> None:
    """Run one case and print its lines."""
    tokens = batches["input_ids"][0].size
    most = int((batches["labels"] >= 0).sum((1, 2)).max())
    with tempfile.TemporaryDirectory(prefix="ms_medqa-train-") as folder:
        place = Path(folder)
        np.savez(place / "batches.npz", **batches)
        sides, seconds, peaks = {}, {}, {}
        turns: list[dict[str, float]] = []
        try:
            for name in ("ms_medqa", "peer", "matmul"):
                spec = {"side": name, "model": str(model), "batches": str(place / "batches.npz"), "threads": threads}
                sides[name] = Side(Path(__file__).with_name("train_sides.py"), "--side", spec, place, threads)
                seconds[name] = []
            own, other = (sides[name].start["loss"] for name in ("ms_medqa", "peer"))
            assert abs(own - other) < 1e-3 * abs(other), f"the first losses differ: {own} and {other}"
            for number in range(rounds):
                turn = {}
                for name in list(sides) if number % 2 == 0 else list(reversed(sides)):
                    answer = sides[name].ask(steps)
                    turn[name], peaks[name] = statistics.median(answer["seconds"]), answer["peak"]
                    seconds[name] += answer["seconds"]
                turns.append(turn)
        finally:
            for side in sides.values():
                side.close()
    done = operations(load_config(model), tokens, most)
    products = operations(load_config(model), tokens, most, adapters=False)
    share = [(done / turn["ms_medqa"]) / (products / turn["matmul"]) for turn in turns]
    speed = [turn["peer"] / turn["ms_medqa"] for turn in turns]
    step = {name: statistics.median(values) for name, values in seconds.items()}
    first, memory = sides["ms_medqa"].start["first_step"], peaks["ms_medqa"] / peaks["peer"]
    print(
        f"{case:<13}{tokens / step['ms_medqa']:>9.1f}{tokens / step['peer']:>9.1f}   {show(speed)}"
        f"   {peaks['ms_medqa'] / 1e9:.2f}/{peaks['peer'] / 1e9:.2f} GB = {memory:.2f}"
        f"   {done / step['ms_medqa'] / 1e9:.0f}/{products / step['matmul'] / 1e9:.0f} = {show(share)}"
        f"   {first:.1f} s   {100 * most / tokens:.0f} %",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES)
    args = parser.parse_args()
    cases = args.cases or [
        case
        for case in CASES
        if not (case.startswith("small") and not args.small) and not (case.startswith("labels") and not args.data)
    ]
    print(f"LoRA r={R}, float32, {args.threads} threads, {args.rounds} rounds of {args.steps} steps")
    print(
        f"{'':<13}{'tokens/s':>9}{'peer':>9}   ratio, range          peak, ms_medqa/peer      "
        "GFLOP/s of step/MatMul = share, range    first step   labels"
    )
    for case in cases:
        kind, _, shape = case.partition("-")
        batch, length = map(int, shape.split("x"))
        model = args.small if kind == "small" else args.model
        if kind == "labels":
            batches = labelled_batches(batch, length, args.data)
        else:
            batches = equal_batches(batch, length, load_config(model).vocab_size)
        measure(case, model, batches, args.rounds, args.steps, args.threads)


if __name__ == "__main__":
    main()
