"""All measurements of the data side in one run: writing, reading, memory, and every file of a folder of real data.

    pip install torch datasets transformers
    python benchmarks/data.py llama_data.json --model MODEL_DIR [--data FOLDER] [--work DIR]
        [--records 200000] [--rounds 3] [--million 1000000] [--step 1 128]

In this order, each step as the script that it names does it:

- `data_input.py` varies the records of llama_data.json until there are `--records`.
- `data_write.py` writes them: `ms-medqa convert` beside `datasets`. Aim: twice the peer's records per second.
- They are converted once more, and `data_read.py` reads the training part: packed, batches of 8 x 512, beside
  PyTorch's DataLoader. Aims: as fast as the faster of its sides, and 20 times what a training step takes in.
- That step is LoRA on q, k and v at `--step` rows x tokens, started as `memory.py` does; its metrics tell the speed.
  MODEL_DIR needs weights for it, such as `make_checkpoint.py` writes; of a tokenizer's folder the step is left out.
- `--million` records are converted. Aim: at most 1,500 MB in all processes together. 0 leaves it out.
- Every file of data below `--data` is converted by itself, without any option. Aim: kept + rejected = read, in the
  report and by the lines that are written. A file without a known column of records is refused, which is right where it
  holds no question with an answer: such files are listed with their error, for the reader to judge.

Everything lies in a temporary folder (in `--work`), which is removed at the end; 5 KB a record are enough for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data_input
import data_read
import data_write
import memory

from ms_medqa.data.inputs import InputFile, expand_inputs
from ms_medqa.data.tokenizer import TOKENIZER_FILES
from ms_medqa.training.metrics import read_metrics

_MEGABYTES = 1500
_BATCH, _LENGTH = 8, 512
# Records that the training step gets, and its steps, of which the first ones compile and are not counted.
_STEP_RECORDS = 2000
_STEPS, _COMPILING = 12, 2


@dataclass(frozen=True)
class Row:
    """A line of the last table; `met` is None where it was not measured."""

    what: str
    measured: str
    aim: str
    met: bool | None = None


def writing(source: Path, count: int, model: Path, place: Path, rounds: int, processes: int) -> list[Row]:
    """Records per second of every side of `convert`."""
    found = data_write.compare(source, model, place, data_write.SIDES, rounds, processes)
    data_write.show(found, count, processes)
    rows = []
    for side in [side for side in found if side.startswith("convert")]:
        speed = count / statistics.median(seconds for seconds, *_ in found[side])
        ratios = data_write.ratios(found, side, "datasets")
        measured = f"{speed:,.0f}, {data_write.spread(ratios)} x datasets"
        rows.append(Row(f"records/s, {side}", measured, ">= 2 x datasets", statistics.median(ratios) >= 2))
    return rows


def step_speed(source: Path, model: Path, place: Path, batch: int, length: int) -> float | None:
    """Tokens per second that LoRA training takes in, None where the model has no weights."""
    if not any(model.glob("*.safetensors")):
        return None
    few = place / "few.jsonl"
    with source.open(encoding="utf-8") as lines:
        few.write_text("".join(itertools.islice(lines, _STEP_RECORDS)), encoding="utf-8")
    # No validation part: it would only take time.
    settings = (f"model.path={model}", f"data.max_length={length}", "data.split=[1,0,0]")
    data_write.run(data_write.convert_command(few, place / "few", *settings), place)
    steps = {"gradient_accumulation_steps": 1, "logging_steps": 1, "epochs": _STEPS, "max_steps": _STEPS}
    memory.train(place, model, place / "few", batch, length, "qkv", **steps)
    records = [record for record in read_metrics(place / "run") if record["kind"] == "train"]
    return statistics.median(record["tokens_per_second"] for record in records[_COMPILING:])


def reading(folder: Path, place: Path, seconds: float, rounds: int, step: float | None) -> list[Row]:
    """Tokens per second out of a converted folder."""
    found = data_read.compare(folder, place, _BATCH, _LENGTH, seconds, rounds)
    data_read.show(found, _BATCH, _LENGTH)
    ours = statistics.median(run["tokens"] for run in found[data_read.SIDES[0]])
    fastest = max(data_read.SIDES[1:], key=lambda side: statistics.median(run["tokens"] for run in found[side]))
    ratios = data_read.ratios(found, fastest)
    first = Row("tokens/s read / training step", "left out: the model has no weights", ">= 20 x")
    if step is not None:
        times = ours / step
        first = Row(first.what, f"{ours:,.0f} / {step:,.1f} = {times:,.0f} x", first.aim, times >= 20)
    measured = f"{data_write.spread(ratios)} x {fastest}"
    return [first, Row("tokens/s read / DataLoader", measured, ">= 1 x", statistics.median(ratios) >= 1)]


def peak(records: Path, count: int, model: Path, place: Path) -> Row:
    """Memory of a conversion of many records."""
    command = data_write.convert_command(records, place / "many", f"model.path={model}")
    seconds, one, whole = data_write.run(command, place)
    measured = f"{whole:,.0f} MB in all processes, {one:,.0f} MB in the largest, {seconds:,.0f} s"
    return Row(f"memory, {count:,} records", measured, f"<= {_MEGABYTES:,} MB", whole <= _MEGABYTES)


def files(found: Sequence[InputFile], place: Path) -> Row:
    """Each file converted by itself; what became of it is printed."""
    counts = {"right": 0, "refused": 0, "wrong": 0}
    for file in found:
        output = place / "file"
        command = data_write.convert_command(file.path, output)
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            error = (result.stderr.strip().splitlines() or [f"ended with status {result.returncode}"])[-1]
            known = result.returncode == 2 and "unknown columns" in error
            state, text = "refused" if known else "wrong", error.removeprefix("ms-medqa convert: error: ")
        else:
            report = json.loads((output / "report.json").read_text(encoding="utf-8"))
            kept, rejected = (sum(report[name].values()) for name in ("kept", "rejected"))
            agrees = kept + rejected == report["read"] == written(output, report)
            state, text = "right" if agrees else "wrong", f"{report['read']:,} = {kept:,} kept + {rejected:,} rejected"
        counts[state] += 1
        print(f"{state:<9}{file.name}: {text}", flush=True)
    measured = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Row(f"{len(found)} files by themselves", measured, "kept + rejected = read", not counts["wrong"])


def written(output: Path, report: dict[str, Any]) -> int:
    """Records in the files of a converted folder, without the variants."""
    names = (f"{name}.jsonl" for name in ("train", "val", "test", "rejected"))
    return sum((output / name).read_bytes().count(b"\n") for name in names) - report["augmented"]


def main() -> None:
    """Run everything and print what came out beside what is aimed at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="JSON Lines with instruction, input, output")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="a folder of real data")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of reading")
    parser.add_argument("--processes", type=int, default=2, help="of datasets; convert takes one for each core")
    parser.add_argument("--million", type=int, default=1_000_000, help="records to measure the memory with")
    parser.add_argument("--step", type=int, nargs=2, default=(1, 128), metavar=("ROWS", "TOKENS"))
    options = parser.parse_args()
    inputs = expand_inputs([options.data]) if options.data else []
    # A tokenizer may lie among the data, and its vocabulary is JSON or text too.
    data = [file for file in inputs if file.path.name not in TOKENIZER_FILES]
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    # What was measured is shown even where a later step fails.
    with ExitStack() as stack:
        stack.callback(show, rows)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work)))
        records, converted = place / "records.jsonl", place / "converted"
        say(f"making {options.records:,} records")
        data_input.write(options.source, records, options.records)
        rows += writing(records, options.records, options.model, place, options.rounds, options.processes)
        say("converting them for reading, training a few steps")
        data_write.run(data_write.convert_command(records, converted, f"model.path={options.model}"), place)
        step = step_speed(records, options.model, place, *options.step)
        rows += reading(converted, place, options.seconds, options.rounds, step)
        if options.million:
            say(f"converting {options.million:,} records")
            data_input.write(options.source, records, options.million)
            rows.append(peak(records, options.million, options.model, place))
        if data:
            rows.append(files(data, place))


def show(rows: Sequence[Row]) -> None:
    """Print what was measured beside what is aimed at."""
    print(f"\n{'row':<32}{'measured':<66}aim")
    for row in rows:
        met = {True: "met", False: "missed", None: ""}[row.met]
        print(f"{row.what:<32}{row.measured:<66}{row.aim:<24}{met}".rstrip())


def say(text: str) -> None:
    """What is done next, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
