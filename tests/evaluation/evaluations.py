"""Evaluations of the small model, as tests run them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny

from ms_medqa.config import Config
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.evaluation.contestants import contestants
from ms_medqa.evaluation.run import run_evaluation
from ms_medqa.evaluation.tasks import parse_specs

EXAMPLES = [
    Example("a", "头痛怎么办", "多休息，多喝水。", key="多休息"),
    Example("b", "糖尿病患者可以吃水果吗？", "可以，但要控制量。", context="水果含糖。"),
    Example("c", "还要注意什么", "规律运动。", history=(("高血压怎么办", "低盐饮食。"),), key="运动"),
    Example("d", "What is fever?", "A body temperature above 37.3 degrees."),
    Example("e", "感冒吃什么药", "对症处理。"),
]
EXAM = [
    {
        "id": f"q{number}",
        "question": f"第{number}题：缺铁性贫血首选？",
        "options": {"A": "休息", "B": "补铁", "C": f"手术{number}"},
        "answer": "ABC"[number % 3],
        "subject": "内科" if number % 2 else "外科",
    }
    for number in range(6)
]
SETTINGS = EvalSection(batch_size=2, max_new_tokens=8)
FILES = {"answers.jsonl", "eval.json", "report.html", "report.json", "report.md", "skipped.jsonl"}


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluate(
    folder: Path,
    named: Sequence[tuple[str, str]] = (),
    *,
    data: Path | None = None,
    tasks: Sequence[str] = (),
    general: Sequence[str] = (),
    base: bool = False,
    settings: EvalSection = SETTINGS,
    **options: Any,
) -> dict[str, Any]:
    """`ms-medqa eval` of the small model, and its report."""
    models = contestants(named or [("model", str(tiny.folder()))], str(tiny.folder()), base)
    specs = parse_specs(str(data) if data else None, tasks, general)
    return run_evaluation(specs, models, folder, Config(eval=settings), **options)


def values(report: Mapping[str, Any], model: str = "model", task: int = 0) -> dict[str, float]:
    return {name: figure["value"] for name, figure in report["tasks"][task]["figures"][model].items()}
