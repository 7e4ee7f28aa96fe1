"""The report on a terminal: what a user reads off it, and that it lines up and steers nothing."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from report_sample import sample

from ms_medqa.evaluation.report.table import table
from ms_medqa.evaluation.report.titles import TITLES


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def small(**task: Any) -> dict[str, Any]:
    figures = {
        "基座": {"perplexity": {"value": 8.1, "low": 7.9, "high": 8.3, "n": 300}},
        "微调后的模型": {"perplexity": {"value": 6.0, "low": 5.8, "high": 6.2, "n": 300}},
    }
    difference = {"value": -2.1, "low": -2.4, "high": -1.8}
    differences = {"微调后的模型": {"base": "基座", "figures": {"perplexity": difference}}}
    built = {"name": "问答", "read": 310, "n": 300, "figures": figures, "differences": differences}
    return {"models": [{"name": "基座"}, {"name": "微调后的模型"}], "tasks": [built | task]}


def test_it_tells_the_difference_with_its_interval_and_what_was_skipped() -> None:
    shown = table(small(skipped={"count": 10, "reasons": {"the answer is empty": 4, "too long": 6}}))
    assert "问答: 300 items; 10 of 310 records skipped (too long: 6; the answer is empty: 4)" in shown
    row = next(line for line in shown.splitlines() if line.startswith("perplexity"))
    assert re.split(r"\s{2,}", row) == ["perplexity (lower is better)", "8.10", "6.00", "-2.10 [-2.40, -1.80]"]


def test_records_behind_a_limit_are_told_of() -> None:
    assert "8 of 310 records not used" in table(small(skipped={"count": 2}))


def test_columns_line_up_where_characters_are_wide() -> None:
    report = sample()
    for task in report["tasks"]:
        # Blank cells have no end to look at.
        for each in task["differences"].values():
            each.pop("mcnemar", None)
    for block in table(report).split("\n\n")[:-1]:
        lines = block.splitlines()
        rows = lines[next(i for i, line in enumerate(lines) if line.startswith("  ")) :]
        ends = []
        for row in rows:
            cells = [match.end() for match in re.finditer(r"\S+(?: \S+)*", row)]
            ends.append([width(row[:end]) for end in (cells if row.startswith("  ") else cells[1:])])
        assert len(ends) > 2
        assert all(end == ends[0] for end in ends), block


def test_every_figure_of_every_model_stands_in_it() -> None:
    shown = table(sample())
    for task in sample()["tasks"]:
        for figures in task["figures"].values():
            for name, figure in figures.items():
                value = figure["value"]
                form = TITLES[name].form if name in TITLES else ".3f"
                assert (format(value, form) if value is not None else "–") in shown, (task["name"], name)


def test_what_is_null_is_a_dash_and_fewer_items_are_told() -> None:
    report = small()
    report["tasks"][0]["figures"]["基座"]["perplexity"] = {"value": None, "low": None, "high": None, "n": 12}
    report["tasks"][0]["figures"]["微调后的模型"]["perplexity"] = {"value": 6.0, "n": 298}
    report["tasks"][0]["differences"]["微调后的模型"]["figures"]["perplexity"] = None
    row = next(line for line in table(report).splitlines() if line.startswith("perplexity"))
    assert re.split(r"\s{2,}", row)[1:] == ["– (n = 12)", "6.00 (n = 298)", "–"]


def test_p_of_mcnemar_stands_where_there_is_one() -> None:
    report = small(figures={"a": {"accuracy": {"value": 0.5}}, "b": {"accuracy": {"value": 0.6}}})
    difference = {"value": 0.1, "low": 0.02, "high": 0.18}
    for p, written in ((0.0171, "0.017"), (1e-9, "<0.001"), (1.0, "1.000"), (None, "–")):
        test = {"accuracy": {"only_base": 10, "only_tuned": 25, "p": p}}
        differences = {"b": {"base": "a", "figures": {"accuracy": difference}, "mcnemar": test}}
        report["tasks"][0]["differences"] = differences
        head, row = table(report).splitlines()[2:4]
        assert "McNemar's p" in head
        assert re.split(r"\s{2,}", row) == ["accuracy (likelihood)", "50.0%", "60.0%", "+10.0 [+2.0, +18.0]", written]


@pytest.mark.parametrize(
    ("value", "low", "high", "written"),
    [
        (0.0003, 0.0001, 0.0005, "+0.03 [+0.01, +0.05]"),
        (-0.5, -1.0, -0.0004, "-50.00 [-100.00, -0.04]"),
        (-0.00001, -0.02, 0.02, "0.0 [-2.0, +2.0]"),
        (0.0, 0.0, 0.0, "0.0 [0.0, 0.0]"),
        (0.25, None, None, "+25.0"),
        (None, None, None, "–"),
    ],
)
def test_an_interval_without_zero_does_not_look_as_if_it_had_it(
    value: float | None, low: float | None, high: float | None, written: str
) -> None:
    report = small(figures={"a": {"accuracy": {"value": 0.5}}, "b": {"accuracy": {"value": 0.6}}})
    figure = {"value": value, "low": low, "high": high}
    report["tasks"][0]["differences"] = {"b": {"base": "a", "figures": {"accuracy": figure}}}
    row = next(line for line in table(report).splitlines() if line.startswith("accuracy"))
    assert re.split(r"\s{2,}", row)[3] == written


def test_a_perplexity_beyond_all_bounds_does_not_fill_the_screen() -> None:
    report = small()
    report["tasks"][0]["figures"]["基座"]["perplexity"]["value"] = 1e304
    assert "1.000e+304" in table(report)


def test_the_overlap_with_the_training_data_is_said() -> None:
    some = table(small(overlap={"checked": True, "train": "train.jsonl", "items": 3, "of": 300}))
    assert "3 of its 300 items overlap the training data (train.jsonl)" in some
    assert "held-out" not in some.lower()


def test_one_is_not_called_many() -> None:
    text = table(small(read=1, n=1, overlap={"checked": True, "train": "t", "items": 1, "of": 1}))
    assert "问答: 1 item; no record skipped" in text
    assert "1 of its 1 items overlaps the training data" in text


def test_names_cannot_steer_the_terminal() -> None:
    shown = table(small(name="a\x1b[2J\u202eb\nc\x9b31m\ud83d", skipped={"count": 1, "reasons": {"x\x07\ty": 1}}))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", shown)
    assert shown.startswith("a\ufffd[2J\ufffdb c\ufffd31m\ufffd: 300 items")


def test_what_is_absent_is_left_out() -> None:
    assert table({}) == ""
    assert table({"tasks": None, "models": None}) == ""
    assert "–: – items; no record skipped" in table({"tasks": [{}]})
    for key in ("models", "tasks"):
        report = sample()
        del report[key]
        table(report)
    for number in range(len(sample()["tasks"])):
        for key in sample()["tasks"][number]:
            for change in ("absent", "null"):
                report = sample()
                if change == "absent":
                    del report["tasks"][number][key]
                else:
                    report["tasks"][number][key] = None
                table(report)
