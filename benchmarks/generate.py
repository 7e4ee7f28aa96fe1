"""Decoding of ms_medqa beside transformers' `generate` with a PEFT adapter on CPU PyTorch: same weights, same threads.

    python benchmarks/generate.py MODEL [--rounds 5] [--threads 2] [--cases one batch first load memory]

MODEL comes from `make_checkpoint.py` (shape `qwen2.5-0.5b`, float32). Both sides fold a LoRA adapter of rank 16 into
the weights at load and answer greedily, with no token that ends an answer. Tokens are random.

- `one`: tokens/s after the first token, one prompt of 128 tokens, 128 new. `of bandwidth` sets the bytes that a token
  needs (each weight once, what the cache holds once) over the time it took, as a share of what the peer's process reads
  in a sum over 1 GB of float32: the mean of right before our turn and right after it, each the best of three.
- `batch`: tokens/s from the request to the last token, 8 prompts of 33 to 128 tokens, 128 new each.
- `first`: seconds to the first token, one prompt of 512 tokens.
- `load`: seconds from loading the model to the first token of a prompt of 128 tokens, imports left out, each time in a
  process of its own; `process` counts from its start.
- `memory`: largest resident set of a process that answers 8 prompts of 896 tokens with 128 new ones.

The sides take turns, each in its own process. Printed are medians, the median of the ratios of each round and their
range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from sides import Side, show

from ms_medqa.models.checkpoint import load_config

SIDES = ("ms_medqa", "peer")
CASES = ("one", "batch", "first", "load", "memory")
UNEQUAL = (128, 100, 64, 33, 120, 90, 77, 50)
WARM_UP = 2


def requests(vocabulary: int) -> dict[str, tuple[list[list[int]], int]]:
    """(prompts, new tokens) of each case."""
    rng = np.random.default_rng(0)

    def prompts(*lengths: int) -> list[list[int]]:
        return [rng.integers(0, vocabulary, length).tolist() for length in lengths]

    return {
        "one": (prompts(128), 128),
        "batch": (prompts(*UNEQUAL), 128),
        "first": (prompts(512), 1),
        "load": (prompts(128), 1),
        "memory": (prompts(*[896] * 8), 128),
    }


def bytes_read(model: Path, positions: float) -> float:
    """Bytes of float32 that one row's next token needs: the weights, and `positions` keys and values of each layer."""
    config = load_config(model)
    hidden, inner = config.hidden_size, config.intermediate_size
    kv_width = config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * config.num_attention_heads * config.head_dim + 2 * hidden * kv_width + 3 * hidden * inner
    cache = 2 * positions * kv_width
    return 4.0 * (config.vocab_size * hidden + config.num_hidden_layers * (layer + cache))


class Bench:
    """Both sides on one model.

    Args:
        model: folder.
        place: for files.
        rounds, threads: see the module.
    """

    def __init__(self, model: Path, place: Path, rounds: int, threads: int) -> None:
        self.model, self.place, self.rounds, self.threads = model, place, rounds, threads
        self.requests = requests(load_config(model).vocab_size)
        # PEFT writes the adapter that both fold in.
        self.side("peer", make_adapter=True).close()

    def side(self, name: str, make_adapter: bool = False) -> Side:
        """Start one."""
        spec = {"side": name, "model": str(self.model), "adapter": str(self.place / "adapter"), "threads": self.threads}
        script = Path(__file__).with_name("generate_sides.py")
        return Side(script, "--make" if make_adapter else "--side", spec, self.place, self.threads)

    def turns(self, measure: Callable[[str], dict]) -> list[dict[str, dict]]:
        """Measure both sides, in alternating order."""
        rounds = []
        for number in range(self.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            rounds.append({name: measure(name) for name in order})
        return rounds

    def running(self, case: str) -> list[dict[str, dict]]:
        """A case on processes that have warmed up."""
        prompts, new = self.requests[case]
        line = json.dumps({"prompts": prompts, "new": new})
        sides = {name: self.side(name) for name in SIDES}
        try:
            # MindSpore tries numbers of threads in the first 25 calls of a product.
            answers = {name: [side.ask(line) for _ in range(WARM_UP)][-1] for name, side in sides.items()}
            own, other = (answers[name]["tokens"] for name in SIDES)
            same = int((np.array(own) == np.array(other)).sum())
            print(f"{case}: {same} of {np.size(own)} tokens are the peer's")
            if case != "one":
                return self.turns(lambda name: sides[name].ask(line))
            return self.turns(lambda name: between_sums(sides, name, line))
        finally:
            for side in sides.values():
                side.close()

    def fresh(self, case: str) -> list[dict[str, dict]]:
        """A case with a process for each measurement."""
        prompts, new = self.requests[case]

        def measure(name: str) -> dict:
            side = self.side(name)
            try:
                return {**side.start, **side.ask(json.dumps({"prompts": prompts, "new": new}))}
            finally:
                side.close()

        return self.turns(measure)

    def run(self, case: str) -> None:
        """Measure one case and print its lines."""
        prompts, new = self.requests[case]
        rounds = self.fresh(case) if case in ("load", "memory") else self.running(case)
        if case == "one":
            table(case, "tokens/s", rounds, lambda a: (new - 1) / (a["seconds"] - a["first"]))
            needed = bytes_read(self.model, 128 + new / 2)
            own = [turn["ms_medqa"] for turn in rounds]
            rates = [one["bandwidth"] for one in own]
            times = [(one["seconds"] - one["first"]) / (new - 1) for one in own]
            shares = [needed / time / rate for time, rate in zip(times, rates, strict=True)]
            middle = statistics.median(rates) / 1e9
            print(f"{'':<8}{needed / 1e9:.2f} GB a token, {middle:.1f} GB/s: {show(shares)} of bandwidth", flush=True)
        elif case == "batch":
            table(case, "tokens/s", rounds, lambda a: len(prompts) * new / a["seconds"])
        elif case == "first":
            table(case, "s", rounds, lambda a: a["first"])
        elif case == "load":
            table(case, "s", rounds, lambda a: a["loading"] + a["first"])
            table("process", "s", rounds, lambda a: a["process"] + a["first"])
        else:
            table(case, "GB", rounds, lambda a: a["peak"] / 1e9)


def between_sums(sides: Mapping[str, Side], name: str, line: str) -> dict:
    """A side's answer; ours with the memory's rate around it, for another guest of the machine may change that."""
    if name == "peer":
        return sides[name].ask(line)
    rates = [sides["peer"].ask(json.dumps({"sum": True}))["bandwidth"]]
    answer = sides[name].ask(line)
    rates.append(sides["peer"].ask(json.dumps({"sum": True}))["bandwidth"])
    return {**answer, "bandwidth": statistics.mean(rates)}


def table(case: str, unit: str, rounds: list[dict[str, dict]], value: Callable[[dict], float]) -> None:
    """A line: both medians, and ours over the peer's."""
    own, other = ([value(turn[name]) for turn in rounds] for name in SIDES)
    ratios = [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    print(
        f"{case:<8}{statistics.median(own):>9.2f}{statistics.median(other):>9.2f} {unit:<9} {show(ratios)}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    args = parser.parse_args()
    print(f"float32, {args.threads} threads, {args.rounds} rounds")
    print(f"{'':<8}{'ms_medqa':>9}{'peer':>9}           ratio, range")
    with tempfile.TemporaryDirectory(prefix="ms_medqa-generate-") as folder:
        bench = Bench(args.model, Path(folder), args.rounds, args.threads)
        for case in args.cases:
            bench.run(case)


if __name__ == "__main__":
    main()
