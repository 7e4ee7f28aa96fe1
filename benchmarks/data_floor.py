"""What no conversion to MindRecord can do without: JSON Lines parsed, tokenised and written. A side of `data_write.py`.

Several processes take a share of the file each, and nothing goes from one to another. No record is judged, compared or
written down as text, and there are no parts and no report. The prompt is `medqa`. Tokenizer and writer are the
project's own: the first works through fastokens where its ids are certain to be the same, the second reads back what
it wrote.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data_write import medqa_prompt

from ms_medqa.data.mindrecord import write_records
from ms_medqa.data.records import Row
from ms_medqa.data.tokenizer import Tokenizer

_BATCH = 1000


def lines_of(path: Path, share: int, shares: int) -> Iterator[bytes]:
    """The lines that begin in one of several equal stretches of a file."""
    size = path.stat().st_size
    begin, end = size * share // shares, size * (share + 1) // shares
    with path.open("rb") as file:
        file.seek(max(0, begin - 1))
        if begin:
            file.readline()
        while file.tell() < end and (line := file.readline()):
            yield line


def rows_of(lines: Iterator[bytes], tokenizer: Tokenizer) -> Iterator[Row]:
    """(id, tokens, loss mask) of each record."""
    end = tokenizer.token_to_id(tokenizer.eos_token)
    assert end is not None
    while batch := [json.loads(line) for line in itertools.islice(lines, _BATCH)]:
        prompts = [medqa_prompt(record["instruction"], record["input"]) for record in batch]
        ids = tokenizer.encode_arrays([*prompts, *(record["output"] for record in batch)])
        for prompt, answer in zip(ids[: len(batch)], ids[len(batch) :], strict=True):
            mask = np.repeat(np.array([0, 1], np.uint8), (len(prompt), len(answer) + 1))
            yield "record", np.frombuffer(prompt + answer + array("i", [end]), np.int32), mask


def write(source: Path, model: Path, output: Path, share: int, shares: int) -> None:
    """One process's work."""
    os.environ["FASTOKENS_BPE_THREADS"] = "1"
    tokenizer = Tokenizer.load(model)
    tokenizer.expect_many()
    write_records(output / f"{share}.mindrecord", rows_of(lines_of(source, share, shares), tokenizer))


def main() -> None:
    """Run all processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir()
    case = (options.source, options.model, options.output)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        pool.starmap(write, [(*case, share, options.processes) for share in range(options.processes)])


if __name__ == "__main__":
    main()
