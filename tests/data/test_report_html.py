"""`report.html`: every figure of the report in one page that loads nothing, runs nothing and trusts no file name."""

from __future__ import annotations

import copy
import socket
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from html_page import HtmlPage

from ms_medqa.data.report_html import render_report_html, write_report_html
from ms_medqa.data.svg_chart import bars, histogram
from ms_medqa.data.tallies import tally

REPORT: dict[str, Any] = {
    "read": 1_300,
    "kept": {"train": 900, "val": 120, "test": 80},
    "augmented": 30,
    "rejected": {"too_short": 50, "duplicate": 150},
    "kind": "sft",
    "files": [
        {
            "file": "huatuo.json",
            "layout": "JSON Lines",
            "formats": {"alpaca (instruction, input, output)": 1_300},
            "read": 1_300,
            "kept": 1_100,
            "rejected": {"too_short": 50, "duplicate": 150},
        }
    ],
    "tokens": {
        "train": {"total": 40_000, "trained": 21_000, "record": {"min": 9, "p50": 40, "max": 512}},
        "val": {"total": 4_000, "trained": 2_100, "record": {"min": 11, "p50": 41, "max": 300}},
    },
    "tokenizer": "3c5d81531b2217083c1c7405ee2d2043",
    "seed": 42,
    "prompt": {"name": "medqa", "patterns": {"question": "回答医学问题:{question}\n回答:"}},
    "settings": {"max_length": 512, "split": [0.8, 0.1, 0.1]},
}
HISTOGRAMS = {
    name: {"train": tally(range(5, 500, 3)).histogram(), "val": ([0, 10, 20], [3, 0])}
    for name in ("record", "question", "answer")
}
TYPES = {"train": {"symptom": 400, "drug": 500}, "val": {"drug": 120}}


def page(report: dict[str, Any] = REPORT, histograms: Any = HISTOGRAMS, types: Any = TYPES) -> HtmlPage:
    return HtmlPage(render_report_html(report, histograms, types))


def test_the_page_says_what_the_report_says() -> None:
    shown = page()
    assert "1,300 read = 1,100 kept + 200 rejected" in shown.text
    assert "do not add up" not in shown.text
    for word in ("huatuo.json", "JSON Lines", "duplicate", "too_short", "symptom", "drug", "512", "42", "medqa"):
        assert word in shown.text, word
    assert REPORT["tokenizer"] in shown.text
    assert "回答医学问题:{question}" in shown.text
    # Kept, reasons, types and files; three measures of two parts.
    assert [tag for tag, _ in shown.tags].count("svg") == 4 + 3 * 2


def test_records_that_are_unaccounted_for_are_said_aloud() -> None:
    shown = page(REPORT | {"read": 1_301})
    assert "do not add up: 1 records" in shown.text


def test_it_needs_no_network_and_runs_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    shown = page()
    assert not shown.names & {"script", "link", "img", "iframe", "object", "embed", "foreignobject", "use"}
    for tag, attributes in shown.tags:
        assert not {"src", "href", "xlink:href", "srcset"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    html = render_report_html(REPORT, HISTOGRAMS, TYPES)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</title></svg><script>",
        "&lt;b&gt;",
        "{{ 7 * 7 }}",
    ],
)
def test_names_are_text_wherever_they_stand(name: str) -> None:
    report = copy.deepcopy(REPORT)
    report["files"][0] |= {"file": name, "layout": name, "formats": {name: 3}, "rejected": {name: 200}}
    report |= {"rejected": {name: 200}, "kind": name, "prompt": {"name": name}, "settings": {name: name}}
    report |= {name: name, "kept": {"train": 1_000, name: 100}, "tokens": {name: {"record": {name: 1}}}}
    shown = page(report, {"record": {name: ([0, 1], [2])}}, {name: {name: 3}})
    assert not shown.names & {"script", "img", "b"}
    assert shown.text.count(name) >= 12


def test_a_name_that_is_no_utf8_or_steers_a_display_is_readable(tmp_path: Path) -> None:
    report = copy.deepcopy(REPORT)
    report["files"][0]["file"] = "a\udcff\x00\x1b[2J\u202eb.json"
    write_report_html(report, {}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a\ufffd\ufffd\ufffd[2J\ufffdb.json" in text


def test_what_is_absent_is_left_out_and_what_is_new_is_listed() -> None:
    assert "0 kept + 0 rejected" in page({}, {}, None).text
    assert "No record was rejected" in page({"read": 5, "kept": {"train": 5}}, {}, None).text
    assert "lexicon" in page(REPORT | {"lexicon": {"coverage": 0.7}}, {}, None).text
    for key in REPORT:
        page({name: value for name, value in REPORT.items() if name != key}, HISTOGRAMS, None)
    assert "Types of question" in page(REPORT | {"types": TYPES}, {}, None).text


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report_html(REPORT, HISTOGRAMS, tmp_path / name, TYPES)
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert len(first) < 100_000


def test_a_thousand_files_are_in_the_table_and_the_largest_in_the_chart() -> None:
    files = [{"file": f"f{number}.json", "read": number, "kept": number, "rejected": {}} for number in range(1_000)]
    html = render_report_html(REPORT | {"files": files}, {}, None)
    assert all(f"f{number}.json" in html for number in range(1_000))
    assert "The 25 largest of 1,000 files" in html


def test_columns_and_bars_are_as_tall_and_wide_as_their_counts() -> None:
    def heights(chart: str, attribute: str) -> list[float]:
        return [float(rect.get(attribute, "")) for rect in ElementTree.fromstring(chart).iter("rect")]

    tall = heights(histogram([0, 10, 20, 30], [50, 100, 0], css="train", axis="tokens"), "height")
    assert tall[1] == pytest.approx(2 * tall[0], abs=0.2)
    wide = heights(bars({"a": {"kept": 300}, "b": {"kept": 100}}, {"kept": "train"}, title="files"), "width")
    assert wide[0] + 2 == pytest.approx(3 * (wide[1] + 2), abs=0.4)
    # A thousand bins become columns that can still be seen, and lose no record.
    chart = ElementTree.fromstring(histogram(list(range(1_001)), [1] * 1_000, css="train", axis="tokens"))
    titles = [title.text or "" for title in chart.iter("title")]
    assert len(titles) == 40
    assert sum(int(title.rsplit(": ", 1)[1]) for title in titles) == 1_000
