"""Evaluation of ms_medqa beside what the field uses on CPU PyTorch: same weights, same tokens, same threads.

    python benchmarks/evaluate.py MODEL --data EXAM [--rounds 3] [--threads 2] [--cases choice qa]

MODEL comes from `make_checkpoint.py` (shape `qwen2.5-0.5b`, float32, with a tokenizer), EXAM is any file of exam
questions that `convert` reads, such as MedQA's.

- `choice`: items/s over `--questions` questions by the likelihood of their options (`B. text` behind the prompt),
  beside the `hf` model of EleutherAI's lm-evaluation-harness, `loglikelihood` of context and continuation in batches of
  `--peer-batch`. Both get the same token ids; told is how many picks are the same.
- `qa`: answers/s, `--answers` prompts of 24 to 160 tokens, 16 at a time, beside a loop over batches of 16 through
  transformers' `generate`. Each answer is greedy and ends at one of a fortieth of all tokens, or after 128: random
  weights would never end one, and answers that end apart are what an evaluation has.
- Peak memory is the largest resident set of each side's process, after both cases.

The sides take turns, each in its own process. Printed are medians, the median of the ratios of each round and their
range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from sides import Side, show

SIDES = ("ms_medqa", "peer")
CASES = ("choice", "qa")
# Questions, or answers, before those that count.
WARM_UP = 16


def turns(sides: dict[str, Side], case: str, rounds: int) -> list[dict[str, dict]]:
    """Measure both sides, in alternating order, after each has done some of the work."""
    for name in SIDES:
        sides[name].ask(json.dumps({"case": case, "few": WARM_UP}))
    found = []
    for number in range(rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        found.append({name: sides[name].ask(json.dumps({"case": case, "few": None})) for name in order})
        seconds = ", ".join(f"{name} {found[-1][name]['seconds']:.0f} s" for name in SIDES)
        print(f"  round {number + 1}: {seconds}", flush=True)
    return found


def table(
    name: str, unit: str, rounds: list[dict[str, dict]], value: Callable[[dict], float], form: str = ".2f"
) -> None:
    """A line: both medians, and ours over the peer's."""
    own, other = ([value(turn[side]) for turn in rounds] for side in SIDES)
    ratios = [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    shown = "".join(f"{format(statistics.median(each), form):>10}" for each in (own, other))
    print(f"{name:<8}{shown} {unit:<10} {show(ratios)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--peer-batch", type=int, default=4)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    args = parser.parse_args()
    print(f"float32, {args.threads} threads, {args.rounds} rounds, the peer's batch {args.peer_batch}")
    print(f"{'':<8}{'ms_medqa':>10}{'peer':>10}            ratio, range")
    with tempfile.TemporaryDirectory(prefix="ms_medqa-evaluate-") as folder:
        script = Path(__file__).with_name("evaluate_sides.py")
        spec = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        sides = {name: Side(script, "--side", {**spec, "side": name}, Path(folder), args.threads) for name in SIDES}
        last: dict[str, dict] = {}
        for case in args.cases:
            rounds = turns(sides, case, args.rounds)
            last = rounds[-1]
            own, other = (last[name]["results"] for name in SIDES)
            same = sum(mine == theirs for mine, theirs in zip(own, other, strict=True))
            what = "picks" if case == "choice" else "answers"
            print(f"{case}: {same} of {len(own)} {what} are the peer's")
            table(case, f"{what}/s", rounds, lambda one: len(one["results"]) / one["seconds"])
        if last:
            table("memory", "GB", [last], lambda one: one["peak"] / 1e9)
        for side in sides.values():
            side.close()


if __name__ == "__main__":
    main()
