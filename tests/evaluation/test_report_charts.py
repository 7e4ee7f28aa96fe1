"""Charts of an evaluation: what is drawn is where the numbers say, and long series lose no extreme."""

from __future__ import annotations

import itertools
import random
from xml.etree import ElementTree

import pytest

from ms_medqa.evaluation.report.charts import dots, lines, thin
from ms_medqa.evaluation.report.confusion import confusion_of
from ms_medqa.evaluation.report.spread import columns_of, three_of
from ms_medqa.evaluation.report.words import EN


def test_a_long_series_keeps_its_ends_and_its_spikes() -> None:
    draw = random.Random(1)
    points = [(float(step), draw.gauss(2, 0.1)) for step in range(50_000)]
    points[31_234] = (31_234.0, 90.0)
    points[777] = (777.0, -5.0)
    short = thin(points)
    assert 300 < len(short) <= 400
    assert short == sorted(short)
    assert {points[0], points[-1], points[31_234], points[777]} <= set(short)
    assert thin(points[:400]) == points[:400]


def test_a_line_runs_where_the_numbers_are() -> None:
    chart = ElementTree.fromstring(
        lines({"loss": [(0.0, 4.0), (50.0, 2.0), (100.0, 0.0)]}, {"loss": "m1"}, axis="step", title="loss")
    )
    (line,) = chart.iter("polyline")
    (x1, y1), (x2, y2), (x3, y3) = (
        [float(each) for each in pair.split(",")] for pair in line.get("points", "").split()
    )
    assert (x1 + x3) / 2 == pytest.approx(x2, abs=0.1)
    assert (y1 + y3) / 2 == pytest.approx(y2, abs=0.1)
    assert x1 < x3
    assert y1 < y3
    assert {"0", "4"} <= {text.text for text in chart.iter("text")}


@pytest.mark.parametrize(
    "points",
    [[], [(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, 5e-5), (2.0, 5e-5)], [(1.0, -3.0), (2.0, 1e300)]],
)
def test_few_or_equal_points_are_drawn_too(points: list[tuple[float, float]]) -> None:
    chart = lines({"loss": points}, {"loss": "m1"}, axis="step", title="loss")
    assert "nan" not in chart
    assert "inf" not in chart
    assert len(list(ElementTree.fromstring(chart).iter("circle"))) == len(points)


def group(n: int, value: float | None = 0.5, low: float | None = 0.25, high: float | None = 1.0) -> dict[str, object]:
    return {"n": n, "figures": {"tuned": {"accuracy": {"value": value, "low": low, "high": high}}}}


def test_whiskers_reach_from_end_to_end_of_the_interval() -> None:
    chart, rest = dots({"a": group(10)}, "accuracy", {"tuned": "m1"}, form=".1%", title="accuracy")
    root = ElementTree.fromstring(chart)
    whisker = next(line for line in root.iter("line") if "m1" in line.get("class", ""))
    (dot,) = root.iter("circle")
    ticks = {text.text: float(text.get("x", "")) for text in root.iter("text")}
    assert float(whisker.get("x1", "")) == pytest.approx(ticks["25%"], abs=0.1)
    assert float(whisker.get("x2", "")) == pytest.approx(ticks["100%"], abs=0.1)
    assert float(dot.get("cx", "")) == pytest.approx(ticks["50%"], abs=0.1)
    assert rest == []
    assert "n = 10" in ticks


def test_the_forty_largest_groups_are_drawn_and_the_others_named() -> None:
    groups = {f"g{n}": group(n) for n in range(50)}
    chart, rest = dots(groups, "accuracy", {"tuned": "m1"}, form=".1%", title="accuracy")
    counts = [text.text for text in ElementTree.fromstring(chart).iter("text") if (text.text or "").startswith("n = ")]
    assert counts == [f"n = {n}" for n in range(49, 9, -1)]
    assert rest == [f"g{n}" for n in range(9, -1, -1)]


def test_groups_without_a_value_have_no_dot() -> None:
    groups = {"a": group(3, None, None, None), "b": group(2, 0.5, None, None), "c": {}, "d": None, "<b>": group(1)}
    chart, _ = dots(groups, "accuracy", {"tuned": "m1", "other": "m2"}, form=".1%", title="<accuracy>")
    root = ElementTree.fromstring(chart)
    assert len(list(root.iter("circle"))) == 2
    assert root.get("aria-label") == "<accuracy>"
    assert len(list(root.iter("b"))) == 0


def test_a_long_chinese_label_is_cut_to_its_room() -> None:
    name = "神经内科学与临床神经电生理学基础（含实习）" * 3
    chart, _ = dots({name: group(1)}, "accuracy", {"tuned": "m1"}, form=".1%", title="accuracy")
    label = next(text for text in ElementTree.fromstring(chart).iter("text") if (text.text or "").endswith("…"))
    assert len(label.text or "") <= 13
    assert next(label.iter("title")).text == name


def test_columns_hold_every_answer_once() -> None:
    draw = random.Random(2)
    models = {"base": [draw.randrange(0, 700) for _ in range(500)], "tuned": [0, 19, 20, 699]}
    edges, counts = columns_of(models, shares=False)
    assert len(edges) <= 41
    for model, values in models.items():
        wanted = [sum(low <= value < end for value in values) for low, end in itertools.pairwise(edges)]
        assert counts[model] == wanted
    shares = [place / 100 for place in range(101)]
    edges, found = columns_of({"base": shares}, shares=True)
    assert found["base"] == [5] * 20 + [1]
    assert edges[:4] == [0, 0.05, 0.1, 0.15]
    assert three_of([5, 1, 2, 10]) == (1, 3.5, 10)


def test_of_many_classes_the_small_ones_are_summed_up() -> None:
    size = 60
    counts = [[(i + j) % 3 + (size - i) for j in range(size)] for i in range(size)]
    matrix = confusion_of({"labels": [f"c{i}" for i in range(size)], "counts": counts}, EN)
    assert len(matrix.columns) == len(matrix.rows) == 40
    assert matrix.columns[0] == "c0"
    assert matrix.columns[-1] == "(21 other labels)"
    total = sum(int(cell.replace(",", "")) for _, row, _ in matrix.rows for cell, _ in row)
    assert total == sum(map(sum, counts))


def test_a_matrix_that_does_not_fit_its_labels_loses_no_count() -> None:
    matrix = confusion_of({"labels": ["a", None], "counts": [[3, 1, 6], [0, None]]}, EN)
    assert matrix.columns == ["a", "–", "–"]
    assert matrix.rows[0] == ("a", [("3", 3), ("1", 1), ("6", 6)], "10")
    assert confusion_of({}, EN).rows == []
    assert confusion_of({"labels": ["a"], "counts": [[0]]}, EN).rows == [("a", [("0", 0)], "0")]
