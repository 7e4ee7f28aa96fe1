"""Records per second from JSON Lines to tokenised data on disk: `ms-medqa convert` beside Hugging Face `datasets`.

    pip install datasets transformers
    python benchmarks/data_input.py llama_data.json IN.jsonl --records 200000
    python benchmarks/data_write.py IN.jsonl --model MODEL_DIR [--rounds 3] [--sides …] [--processes 2]

Both make the same tokens and the same loss mask of the records that they keep (compared by `--check`), but where
`convert` changes a text, such as one that ends with a space. The sides:

- `convert`: `ms-medqa convert` as it comes: all its rules, near duplicates, variants, split, and reading back.
- `convert-bare`: the same without near duplicates and variants, which the peer does not do either.
- `convert-plain`: also without any rule on records, without duplicates and without a limit on the length: every record
  is kept, as the peer keeps it. What no setting turns off stays: bringing characters to one form, digests of questions
  and records, MinHash signatures of questions, the split by groups of one question, JSON Lines beside MindRecord,
  report and manifest with the sha256 of every file, and reading every byte of MindRecord back.
- `floor`: what no conversion to MindRecord can do without (`data_floor.py`); it has no aim.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

_BARE = ("data.near_duplicates=null", "data.aug_rate=0")
_PLAIN = (
    *_BARE,
    # 1: only questions with equal signatures are one group, so that one comparison of each is enough.
    "data.cluster_similarity=1",
    "data.min_question_tokens=0",
    "data.min_answer_tokens=0",
    "data.length_margin=0",
    "data.max_length=1048576",
    *(f"data.rules.{rule}=false" for rule in ("empty", "html", "mojibake", "url", "boilerplate", "copied")),
    *(f"data.rules.{rule}=false" for rule in ("wrong_claim", "duplicate")),
)
_SETTINGS = {"convert": (), "convert-bare": _BARE, "convert-plain": _PLAIN}
PEERS = ("datasets", "datasets-batched")
_FLOOR = "floor"
SIDES = (*_SETTINGS, _FLOOR, *PEERS)

# (seconds, most MB of the largest process, most MB of all added up) of a command.
Run = tuple[float, float, float]


def medqa_prompt(question: str, context: str) -> str:
    """The prompt `medqa`, spelled once more, so that `--check` compares two."""
    if context:
        return f"基于以下医学知识回答问题:\n知识:{context}\n问题:{question}\n回答:"
    return f"回答医学问题:{question}\n回答:"


def run_datasets(source: Path, model: Path, output: Path, batched: bool, processes: int) -> None:
    """What the peer does, in this process."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def join(prompt: list[int], answer: list[int]) -> dict[str, list[int]]:
        answer = [*answer, tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    def one(record: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(medqa_prompt(record["instruction"], record["input"]), add_special_tokens=False).input_ids
        return join(prompt, tokenizer(record["output"], add_special_tokens=False).input_ids)

    def many(records: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = list(map(medqa_prompt, records["instruction"], records["input"]))
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
    common = [str(source), "--model", str(model), "--output", str(output), "--processes", str(processes)]
    if side in PEERS:
        return [sys.executable, __file__, *common, "--here", side]
    if side == _FLOOR:
        return [sys.executable, str(Path(__file__).with_name("data_floor.py")), *common]
    return convert_command(source, output, f"model.path={model}", *_SETTINGS[side])


def convert_command(source: Path, output: Path, *settings: str) -> list[str]:
    """The command `ms-medqa convert` of this checkout or installation."""
    return [sys.executable, "-m", "ms_medqa.cli.main", "convert", str(source), "--output", str(output), *settings]


def run(command: Sequence[str], folder: Path) -> Run:
    """Run a command with log and cache in `folder`, and measure it.

    Its memory is sampled: the largest resident set, and the proportional ones added up, as pages that processes share
    are in memory once.
    """
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
                memory = one.memory_full_info()
                sizes.append((memory.rss, memory.pss))
            resident, shares = zip(*sizes, strict=True)
            most["one"], most["all"] = max(most["one"], *resident), max(most["all"], sum(shares))
        except psutil.Error:
            pass
        time.sleep(0.2)


def check(source: Path, model: Path, processes: int, folder: Path) -> None:
    """Compare tokens and masks of both sides."""
    import numpy as np
    from datasets import load_from_disk

    from ms_medqa.data.manifest import load_split

    sides = ("convert-bare", "convert-plain")
    for side in (*sides, "datasets-batched"):
        run(command_of(side, source, model, folder / side, processes), folder)
    theirs: set[bytes] = set()
    for row in load_from_disk(str(folder / "datasets-batched")).with_format("numpy"):
        ids, labels = row["input_ids"].astype(np.int32), row["labels"] != -100
        theirs.add(ids.tobytes() + labels.astype(np.uint8).tobytes())
    for side in sides:
        found = missed = 0
        for part in ("train", "val", "test"):
            records = load_split(folder / side, part, None, None)
            for index in range(len(records)):
                tokens, mask = records.record(index)
                if tokens.tobytes() + mask.tobytes() in theirs:
                    found += 1
                else:
                    missed += 1
        print(f"check, {side}: {found} kept records have the peer's tokens and mask, {missed} have others")


def compare(
    source: Path, model: Path, place: Path, sides: Sequence[str], rounds: int, processes: int
) -> dict[str, list[Run]]:
    """Side → its runs; what they write goes to the folder `place` and is removed after each."""
    found: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            folder = place / f"{side}-{number}"
            folder.mkdir()
            found[side].append(run(command_of(side, source, model, folder / "out", processes), folder))
            shutil.rmtree(folder)
            print(f"round {number + 1}, {side}: {found[side][-1][0]:.1f} s", file=sys.stderr, flush=True)
    return found


def ratios(found: Mapping[str, Sequence[Run]], side: str, peer: str) -> list[float]:
    """How many times as fast as the peer a side was, in each round."""
    return [theirs[0] / ours[0] for ours, theirs in zip(found[side], found[peer], strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def show(found: Mapping[str, Sequence[Run]], count: int, processes: int) -> None:
    """Print a table of runs on `count` records."""
    peers = [side for side in found if side in PEERS]
    rounds = len(next(iter(found.values())))
    print(f"{count} records, {processes} processes, {rounds} rounds, medians")
    heads = "".join(f"{f'x {peer}, range':>32}" for peer in peers)
    print(f"{'side':<18}{'records/s':>10}{'largest process':>17}{'all processes':>15}{heads}")
    for side, runs in found.items():
        seconds, one, whole = (statistics.median(values) for values in zip(*runs, strict=True))
        line = f"{side:<18}{count / seconds:>10,.0f}{one:>14,.0f} MB{whole:>12,.0f} MB"
        print(line + "".join(f"{spread(ratios(found, side, peer)):>32}" for peer in peers), flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="compare what both sides make, instead of timing")
    parser.add_argument("--here", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        batched = options.here.endswith("batched")
        run_datasets(options.source, options.model, options.output, batched, options.processes)
        return
    with options.source.open("rb") as file:
        count = sum(1 for _ in file)
    with tempfile.TemporaryDirectory() as place:
        if options.check:
            check(options.source, options.model, options.processes, Path(place))
            return
        case = (options.sides, options.rounds, options.processes)
        show(compare(options.source, options.model, Path(place), *case), count, options.processes)


if __name__ == "__main__":
    main()
