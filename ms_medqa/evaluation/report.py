"""What an evaluation leaves behind: a table for people, files for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.files import atomic_write, json_line, write_json
from ms_medqa.evaluation.evaluate import Evaluator, Metrics, Result

# Name -> (label, format), in the order of the table; counts of the set stand in its title.
_LINES: dict[str, tuple[str, str]] = {
    "perplexity": ("perplexity of the answers (lower is better)", ".2f"),
    "token_accuracy": ("next-token accuracy", ".1%"),
    "rouge_l": ("ROUGE-L", ".1%"),
    "key_fact_rate": ("answers with the key fact", ".1%"),
    "answer_tokens": ("mean answer length, tokens", ".1f"),
    "finished_rate": ("answers that end by themselves", ".1%"),
}


def table(columns: Mapping[str, Metrics]) -> str:
    """Metrics side by side; a column for each model."""
    first = next(iter(columns.values()))
    rows = [
        (label, [format(m[name], form) for m in columns.values()])
        for name, (label, form) in _LINES.items()
        if name in first
    ]
    left = max(len(label) for label, _ in rows)
    widths = [max(len(name), *(len(values[i]) for _, values in rows)) for i, name in enumerate(columns)]

    def line(label: str, values: Sequence[str]) -> str:
        return "  ".join(
            [label.ljust(left), *(value.rjust(width) for value, width in zip(values, widths, strict=True))]
        )

    title = f"{first['n']} questions, {first['tokens']} answer tokens"
    if first["skipped"]:
        title += f", {first['skipped']} records skipped"
    return "\n".join([title, line("", list(columns)), *(line(label, values) for label, values in rows)])


def write_results(
    folder: Path,
    evaluator: Evaluator,
    result: Result,
    base: Result | None,
    about: Mapping[str, Any],
) -> None:
    """Write `answers.jsonl`, `skipped.jsonl` and, last, `eval.json`.

    Args:
        folder: made when absent.
        evaluator: what was asked.
        result: the model's figures and answers.
        base: those of the base model under a comparison.
        about: what was measured and how, added to `eval.json`.
    """
    with atomic_write(folder / "answers.jsonl") as file:
        for i, example in enumerate(evaluator.kept):
            line: dict[str, Any] = {"id": example.id, "question": example.question}
            if example.context:
                line["context"] = example.context
            line |= {"reference": example.answer, "answer": result.answers[i], "key": example.key}
            if base is not None:
                line["base_answer"] = base.answers[i]
            file.write(json_line(line))
    with atomic_write(folder / "skipped.jsonl") as file:
        for skipped in evaluator.skipped:
            file.write(json_line({"id": skipped.id, "reason": skipped.reason}))
    report: dict[str, Any] = {"tasks": {"qa": result.metrics}}
    if base is not None:
        report["base"] = {"qa": base.metrics}
    write_json(folder / "eval.json", report | dict(about))
