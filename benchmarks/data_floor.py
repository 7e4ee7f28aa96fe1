"""What no conversion to MindRecord can do without: JSON Lines parsed, tokenised and written. A side of `data_write.py`.

Several processes take a share of the file each, and nothing goes from one to another. No record is judged, compared or
written down as text, there are no parts and no report, and by default nothing is read back. The prompt is `medqa`; the
tokenizer is the project's own, through tiktoken where its ids are certain to be the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data_write import medqa_prompt

from ms_medqa.data import mindrecord
from ms_medqa.data.mindrecord import Row
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
        ids = tokenizer.encode_batch([*prompts, *(record["output"] for record in batch)])
        for prompt, answer in zip(ids[: len(batch)], ids[len(batch) :], strict=True):
            mask = np.repeat(np.array([0, 1], np.uint8), (len(prompt), len(answer) + 1))
            yield "record", np.array([*prompt, *answer, end], np.int32), mask


def write(source: Path, model: Path, output: Path, read_back: bool, share: int, shares: int) -> None:
    """One process's work."""
    if not read_back:
        mindrecord._compare = lambda path, meant: None
    rows = rows_of(lines_of(source, share, shares), Tokenizer.load(model))
    mindrecord.write_records(output / f"{share}.mindrecord", list(rows))


def main() -> None:
    """Run all processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--read-back", action="store_true", help="read every row back, as the project does")
    options = parser.parse_args()
    options.output.mkdir()
    case = (options.source, options.model, options.output, options.read_back)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        pool.starmap(write, [(*case, share, options.processes) for share in range(options.processes)])


if __name__ == "__main__":
    main()
