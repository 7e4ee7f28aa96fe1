"""Records to measure with: those of a real file, varied until there are as many as wanted.

    python benchmarks/data_input.py llama_data.json OUT.jsonl --records 200000

Each is a record of the file with another opening of the question, its answer's sentences in another order, and one
sentence of another record's answer among them: no two are equal, and the lengths are about those of the file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

_SENTENCES = re.compile(r"[^。！？!?；;]+[。！？!?；;]?")
_PEOPLE = ("我", "我妈妈", "我爸爸", "我爱人", "家里老人", "我的孩子", "我同事", "一个朋友", "我姐姐", "我弟弟")
_TIMES = ("从昨天开始", "这两天", "上个星期以来", "大半个月了", "最近", "前天晚上", "三天前", "今天早上", "近一年")


def varied(source: Path, count: int, seed: int = 0) -> Iterator[str]:
    """`count` lines of JSON with `instruction`, `input`, `output`.

    Args:
        source: JSON Lines with these keys.
        count: lines wanted.
        seed: of the variation.
    """
    records = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    sentences = [_SENTENCES.findall(record["output"]) for record in records]
    generator = random.Random(seed)
    for number in range(count):
        record = records[number % len(records)]
        answer = [*sentences[number % len(records)], generator.choice(generator.choice(sentences) or ["请及时就医。"])]
        generator.shuffle(answer)
        opening = f"{generator.choice(_PEOPLE)}{generator.choice(_TIMES)}，年龄{generator.randint(1, 99)}岁，"
        line = {"instruction": opening + record["instruction"], "input": record["input"], "output": "".join(answer)}
        yield json.dumps(line, ensure_ascii=False)


def write(source: Path, output: Path, count: int) -> None:
    """Write so many of them to a file; a million would fill the memory."""
    with output.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in varied(source, count))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--records", type=int, default=200_000)
    options = parser.parse_args()
    write(options.source, options.output, options.records)


if __name__ == "__main__":
    main()
