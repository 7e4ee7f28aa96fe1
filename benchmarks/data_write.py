"""Records per second from JSON Lines to tokenised data on disk: `ms-medqa convert` beside Hugging Face `datasets`.

    pip install datasets transformers
    python benchmarks/data_input.py llama_data.json IN.jsonl --records 200000
    python benchmarks/data_write.py IN.jsonl --model MODEL_DIR [--rounds 3] [--sides …] [--processes 2]

Both make the same tokens and the same loss mask of the records that they keep (compared by `--check`). The sides:

- `convert`: `ms-medqa convert` as it comes: all its rules, near duplicates, variants, split, and reading back.
- `convert-bare`: the same without near duplicates and variants, which the peer does not do either.
- `datasets`: `load_dataset("json").map(tokenize, num_proc=…)`, then `save_to_disk`; `tokenize` takes one record.
- `datasets-batched`: the same with `batched=True`, so that the tokenizer gets 1,000 texts at a time.

`convert` takes as many processes as there are cores, the peer `--processes`. Each run is a process of its own with an
empty cache, timed from its start to its end. Rounds alternate between the sides. MODEL_DIR needs tokenizer files only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

_BARE = ("data.near_duplicates=null", "data.aug_rate=0")
SIDES = ("convert", "convert-bare", "datasets", "datasets-batched")


def run_datasets(source: Path, model: Path, output: Path, batched: bool, processes: int) -> None:
    """What the peer does, in this process."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def prompt_of(question: str, context: str) -> str:
        # The prompt `medqa`.
        if context:
            return f"基于以下医学知识回答问题:\n知识:{context}\n问题:{question}\n回答:"
        return f"回答医学问题:{question}\n回答:"

    def join(prompt: list[int], answer: list[int]) -> dict[str, list[int]]:
        answer = [*answer, tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    def one(record: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(prompt_of(record["instruction"], record["input"]), add_special_tokens=False).input_ids
        return join(prompt, tokenizer(record["output"], add_special_tokens=False).input_ids)

    def many(records: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = list(map(prompt_of, records["instruction"], records["input"]))
        prompts = tokenizer(texts, add_special_tokens=False).input_ids
        answers = tokenizer(records["output"], add_special_tokens=False).input_ids
        rows = list(map(join, prompts, answers))
        return {name: [row[name] for row in rows] for name in ("input_ids", "labels")}

    data = load_dataset("json", data_files=str(source), split="train")
    data = data.map(
        many if batched else one, batched=batched, num_proc=processes, remove_columns=["instruction", "input", "output"]
    )
    data.save_to_disk(str(output))


def command_of(side: str, source: Path, model: Path, output: Path, processes: int) -> list[str]:
    """The command of a side."""
    if side.startswith("datasets"):
        names = ("--here", side, "--output", str(output), "--processes", str(processes))
        return [sys.executable, __file__, str(source), "--model", str(model), *names]
    settings = (f"model.path={model}", *(_BARE if side == "convert-bare" else ()))
    paths = (str(source), "--output", str(output))
    return [sys.executable, "-m", "ms_medqa.cli.main", "convert", *paths, *settings]


def run(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """(seconds, most MB of the largest process, most MB of all added up) of a command; resident sets, sampled."""
    environment = os.environ | {"HF_HOME": str(folder / "cache"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        most = {"one": 0, "all": 0}
        watch = threading.Thread(target=_watch, args=(process, most))
        watch.start()
        status = process.wait()
        seconds = time.perf_counter() - began
        watch.join()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()[-3000:]}")
    return seconds, most["one"] / 1e6, most["all"] / 1e6


def _watch(process: subprocess.Popen[Any], most: dict[str, int]) -> None:
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            sizes = []
            for one in (root, *root.children(recursive=True)):
                sizes.append(one.memory_info().rss)
            most["one"], most["all"] = max(most["one"], *sizes), max(most["all"], sum(sizes))
        except psutil.Error:
            pass
        time.sleep(0.2)


def check(source: Path, model: Path, processes: int, folder: Path) -> None:
    """Compare tokens and masks of both sides."""
    from datasets import load_from_disk

    from ms_medqa.data.manifest import load_split

    for side in ("convert-bare", "datasets-batched"):
        run(command_of(side, source, model, folder / side, processes), folder)
    theirs: dict[bytes, int] = {}
    import numpy as np

    for row in load_from_disk(str(folder / "datasets-batched")).with_format("numpy"):
        ids, labels = row["input_ids"].astype(np.int32), row["labels"] != -100
        theirs[ids.tobytes() + labels.astype(np.uint8).tobytes()] = 1
    found = missed = 0
    for part in ("train", "val", "test"):
        records = load_split(folder / "convert-bare", part, None, None)
        for index in range(len(records)):
            tokens, mask = records.record(index)
            if tokens.tobytes() + mask.tobytes() in theirs:
                found += 1
            else:
                missed += 1
    print(f"check: {found} kept records have the peer's tokens and mask, {missed} have others")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="compare what both sides make, instead of timing")
    parser.add_argument("--here", choices=SIDES[2:], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        batched = options.here.endswith("batched")
        run_datasets(options.source, options.model, options.output, batched, options.processes)
        return
    with options.source.open("rb") as file:
        count = sum(1 for _ in file)
    found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in options.sides}
    with tempfile.TemporaryDirectory() as place:
        if options.check:
            check(options.source, options.model, options.processes, Path(place))
            return
        for number in range(options.rounds):
            for side in options.sides:
                folder = Path(place, f"{side}-{number}")
                folder.mkdir()
                command = command_of(side, options.source, options.model, folder / "out", options.processes)
                found[side].append(run(command, folder))
                shutil.rmtree(folder)
                print(f"round {number + 1}, {side}: {found[side][-1][0]:.1f} s", file=sys.stderr, flush=True)
    peers = [side for side in options.sides if side.startswith("datasets")]
    print(f"{count} records, {options.processes} processes, {options.rounds} rounds, medians")
    heads = "".join(f"{f'x {peer}, range':>32}" for peer in peers)
    print(f"{'side':<18}{'records/s':>10}{'largest process':>17}{'all processes':>15}{heads}")
    for side, runs in found.items():
        seconds, one, whole = (statistics.median(values) for values in zip(*runs, strict=True))
        line = f"{side:<18}{count / seconds:>10,.0f}{one:>14,.0f} MB{whole:>12,.0f} MB"
        for peer in peers:
            ratios = [theirs[0] / ours[0] for ours, theirs in zip(runs, found[peer], strict=True)]
            text = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            line += f"{text:>32}"
        print(line)


if __name__ == "__main__":
    main()
