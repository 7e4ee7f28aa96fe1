"""The report as Markdown: the same as the page, and no text of a user becomes markup."""

from __future__ import annotations

from typing import Any

import pytest
from report_sample import PIPES, SCRIPT, sample

from ms_medqa.evaluation.report.markdown_text import block, inline, quote
from ms_medqa.evaluation.report.md import markdown
from ms_medqa.evaluation.report.titles import TITLES
from ms_medqa.evaluation.report.words import EN, WORDS

HOSTILE = [
    SCRIPT,
    PIPES,
    "![x](http://evil.example/x.png)",
    "<img src=x onerror=alert(1)>",
    "# title",
    "- item",
    "1. item",
    "===",
    "---",
    "```\ncode",
    "[x]: http://evil.example",
    "a\\|b",
    "$x$ ~~y~~ **z** __w__",
]


def tokens(text: str) -> list[Any]:
    markdown_it = pytest.importorskip("markdown_it")
    found = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [each for token in found for each in (token, *(token.children or ()))]


def plain(text: str) -> str:
    """What a reader sees, on one line."""
    kinds = {"text": None, "text_special": None, "softbreak": " ", "hardbreak": " ", "fence": None}
    return " ".join("".join(kinds[t.type] or t.content for t in tokens(text) if t.type in kinds).split())


def test_the_sections_are_those_of_the_page() -> None:
    heads = [line.removeprefix("## ") for line in markdown(sample()).splitlines() if line.startswith("## ")]
    keys = ["summary", "results", "forgetting", "groups", "training", "answers", "confusion", "examples", "skipped"]
    assert heads == [EN[key] for key in [*keys, "overlap", "data_report", "repeat"]]


def test_every_figure_and_all_that_is_told_stands_in_it() -> None:
    report = sample()
    text = markdown(report)
    for task in report["tasks"]:
        for figures in task["figures"].values():
            for name, figure in figures.items():
                if figure["value"] is not None and "low" in figure:
                    value, low, high = (format(figure[key], TITLES[name].form) for key in ("value", "low", "high"))
                    assert f"{value} [{low}, {high}]" in text, name
    for each in [*report["commands"], *report["versions"].values(), "q_proj", "too\\_short"]:
        assert each in text, each
    assert "**better** McNemar's p &lt; 0.001; only base right: 0, only tuned right: 187" in text
    assert EN["disclaimer"] in text


def test_every_table_has_as_many_cells_in_each_row() -> None:
    found = tokens(markdown(sample()))
    rows: list[int] = []
    widths = []
    for token in found:
        if token.type == "table_open":
            rows = []
        if token.type == "tr_open":
            rows.append(0)
        if token.type in ("th_open", "td_open"):
            rows[-1] += 1
        if token.type == "table_close":
            widths.append(set(rows))
    assert len(widths) > 15
    assert all(len(width) == 1 for width in widths)
    # A pipe of a user is in no way the end of a cell.
    lines = markdown(sample()).splitlines()
    tables = [line for line in lines if line.startswith("| ")]
    assert all(line.endswith(" |") for line in tables)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_of_a_user_becomes_markup(language: str) -> None:
    found = tokens(markdown(sample(), language))
    assert not {token.type for token in found} & {
        "html_block",
        "html_inline",
        "link_open",
        "image",
        "code_inline",
        "em_open",
    }
    heads = [
        found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open" and token.tag == "h2"
    ]
    assert len(heads) == 12
    assert {WORDS[language][key] for key in ("summary", "repeat")} <= set(heads)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text: str) -> None:
    allowed = {"inline", "text", "text_special", "paragraph_open", "paragraph_close", "softbreak", "hardbreak"}
    line = inline(text)
    assert {token.type for token in tokens(line)} <= allowed
    assert plain(line) == " ".join(text.split())
    cell = f"| head |\n| --- |\n| {line} |"
    assert plain(cell) == "head" + " ".join(text.split())
    quoted = quote(f"first\n{text}\nlast")
    assert {token.type for token in tokens(quoted)} <= allowed | {"blockquote_open", "blockquote_close"}
    assert plain(quoted) == " ".join(f"first\n{text}\nlast".split())


def test_a_fence_within_a_text_does_not_end_its_block() -> None:
    text = "a\n```\nb\n`````\n# c"
    found = tokens(block(text, "bash") + "\n\nafter")
    assert [token.content for token in found if token.type == "fence"] == [text + "\n"]
    assert not [token for token in found if token.type == "heading_open"]


def test_what_is_absent_is_left_out() -> None:
    text = markdown({})
    assert EN["no_comparison"] in text
    assert EN["no_general"] in text
    for key in sample():
        for value in ({}, {key: None}):
            markdown({name: each for name, each in sample().items() if name != key} | value)
    for number, task in enumerate(sample()["tasks"]):
        for key in task:
            report = sample()
            report["tasks"][number][key] = None
            markdown(report)
            del report["tasks"][number][key]
            assert "None" not in markdown(report)
