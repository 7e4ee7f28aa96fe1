"""What a report says of models, of what was left out and of examples, on the page and in Markdown alike."""

from __future__ import annotations

from typing import Any

import pytest
from report_sample import sample
from test_report_page import shown

from ms_medqa.evaluation.report.groups import groups_of
from ms_medqa.evaluation.report.md import markdown
from ms_medqa.evaluation.report.page import page
from ms_medqa.evaluation.report.sentences import overlap
from ms_medqa.evaluation.report.words import EN, WORDS


def verdict_of(n: int, p: float | None, low: float = 0.01) -> str:
    """The kind of what the page says of an accuracy that is larger by an interval from `low` to 0.3."""
    figures = {name: {"accuracy": {"value": 0.5, "low": 0.3, "high": 0.7, "n": n}} for name in "ab"}
    difference: dict[str, Any] = {"base": "a", "figures": {"accuracy": {"value": 0.15, "low": low, "high": 0.3}}}
    if p is not None:
        difference["mcnemar"] = {"accuracy": {"only_base": 0, "only_tuned": 5, "p": p}}
    task = {"name": "exam", "n": n, "figures": figures, "differences": {"b": difference}}
    found = shown({"tasks": [task]})
    assert f"n = {n})." in found.text
    kinds = {str(attributes["class"]).removeprefix("badge ") for tag, attributes in found.tags if tag == "b"}
    (kind,) = kinds
    return kind


def test_few_items_are_not_enough_to_call_a_model_better() -> None:
    assert verdict_of(29, None) == "few"
    assert verdict_of(30, None) == "better"
    # McNemar's test is exact: it needs no least number, but has to agree.
    assert verdict_of(6, 0.031) == "better"
    assert verdict_of(500, 0.0625) == "same"
    assert verdict_of(500, 0.04, low=-0.01) == "same"


def test_a_model_alone_is_told_by_its_headline_with_interval_and_number_of_items() -> None:
    figures = {"tiny": {"perplexity": {"value": 8.0, "low": 7.5, "high": 8.5, "n": 300}}}
    figures["tiny"]["rouge_l"] = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 298}
    report = {"models": [{"name": "tiny"}], "tasks": [{"name": "qa", "n": 300, "figures": figures}]}
    for text in (shown(report).text, markdown(report).replace("\\", "")):
        assert "qa: tiny has ROUGE-L 25.0% [20.0%, 30.0%] (n = 298)." in text
        assert EN["no_comparison"] in text
        assert EN["points"] not in text


def test_what_was_not_compared_is_said() -> None:
    text = shown(sample()).text
    assert "Not compared between 微调 <b>二</b> and base, for their tokenizers differ: next-token accuracy." in text
    assert "Answers are decoded greedily, to at most 64 tokens." in text
    assert "1 item has no group." in text
    assert "there are 301 groups" in text
    assert "7 of 1,280 records not used (eval.limit = 1,273)" in text


def example(number: int, gain: float | None, score: float) -> dict[str, Any]:
    return {"id": f"id-{number}", "question": "q", "answers": {"b": "x"}, "gain": gain, "scores": {"b": score}}


def headings(report: dict[str, Any]) -> list[str]:
    text = markdown(report)
    section = text[text.index(f"## {EN['examples']}") :]
    section = section[: section.index("\n## ")]
    return [line.lstrip("# ") for line in section.splitlines() if line.startswith("###")]


def test_examples_stand_by_what_was_lost_and_gained() -> None:
    given = [example(1, -2.0, 0.1), example(2, 0.0, 0.5), example(3, 0.5, 0.7), example(4, 1.5, 0.9)]
    task = {"name": "qa", "figures": {"b": {}}, "examples": given, "compared": {"tuned": "b", "base": "a"}}
    assert headings({"tasks": [task]}) == ["qa: lost most", "id-1", "qa: gained most", "id-3", "id-4"]
    assert "of b against a" in shown({"tasks": [task]}).text
    alone = [example(place, None, score) for place, score in enumerate((0.1, 0.2, 0.8, 0.9))]
    task |= {"examples": alone, "compared": {"tuned": "b", "base": None}, "score": "token_f1"}
    wanted = ["qa: lowest score", "id-0", "id-1", "qa: highest score", "id-3", "id-2"]
    assert headings({"tasks": [task]}) == wanted
    assert "of b; score: token F1 of the answer with the reference" in shown({"tasks": [task]}).text


def test_long_texts_of_examples_are_cut() -> None:
    task = {"examples": [{"id": "1", "question": "W" * 5007, "reference": "V" * 5000, "answers": {"a": "U" * 9000}}]}
    text = shown({"tasks": [task]}).text
    assert "W" * 5000 + "… (7 more characters: see the file of answers)" in text
    assert "V" * 5000 in text
    assert "U… (4,000 more characters" in text


def test_of_many_reasons_the_rare_ones_are_summed_up_and_the_file_is_named() -> None:
    reasons = {f"reason-{place:02}": 50 - place for place in range(40)}
    skipped = {"count": 1220, "reasons": reasons, "items": [{"id": "1", "reason": "reason-00"}]}
    report = {"tasks": [{"name": "qa", "read": 2000, "n": 780, "skipped": skipped}]}
    for text in (shown(report).text, markdown(report)):
        assert "reason-29" in text
        assert "reason-30" not in text
        assert str(sum(50 - place for place in range(30, 40))) in text
        assert "the first 1 of 1,220; all are in skipped.jsonl" in text


def test_empty_answers_are_counted_and_listed() -> None:
    empty = {"a": {"count": 2, "ids": ["x-1", "x-2"]}, "b": {"count": 0, "ids": []}, "c": {"count": 1, "ids": ["x-3"]}}
    report = {"tasks": [{"name": "qa", "read": 9, "n": 9, "empty": empty}]}
    for text in (shown(report).text, markdown(report)):
        assert "a: 2 of 9 answers are empty." in text
        assert "c: 1 of 9 answers is empty." in text
        assert "b: " not in text
        assert "x-1, x-2" in text
    assert "a：9 条回答中有 2 条为空。" in markdown(report, "zh")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("line 7: column 'answer' says A, column 'answer_idx' says B", "第 7 行：column 'answer' says A, column"),
        ("base: needs 611 positions, the model holds 512", "base：需要 611 个位置，模型只有 512 个"),
        (
            "a: needs more positions, the model holds 9; b: an option has no tokens",
            "a：超出模型的 9 个位置；b：有选项",
        ),
        ("the right option 'E' is none of A to D", "正确选项 'E' 不在 A 至 D 之内"),
        ("13-gram", "含相同的 13-gram"),
        ("what nobody knows", "what nobody knows"),
    ],
)
def test_reasons_are_told_in_chinese_as_far_as_they_are_known(reason: str, words: str) -> None:
    skipped = {"count": 1, "reasons": {reason: 1}, "items": [{"id": "1", "reason": reason}]}
    report = {"tasks": [{"name": "qa", "read": 2, "n": 1, "skipped": skipped}]}
    assert shown(report, "zh").text.count(words) == 2
    assert reason in shown(report).text


def test_how_a_tuned_model_differs_is_told_of_each_group() -> None:
    report = sample()
    text = shown(report).text
    # McNemar's p has to be below 0.05 as well.
    assert "+5.4 [+1.4, +9.4] betterMcNemar's p = 0.040; only base right: 1, only tuned right: 13" in text
    assert "+5.2 [+1.2, +9.2] no difference shownMcNemar's p = 0.067" in text
    assert EN["by_chance"] in text
    lines = [line for line in markdown(report).splitlines() if line.startswith(("| 第 4 科", "| 第 44 科"))]
    assert lines[0].endswith("**better** McNemar's p = 0.040; only base right: 1, only tuned right: 13 |")
    # Of this one nothing is known.
    assert lines[1].endswith("| – |")
    for task in report["tasks"]:
        for group in task.get("groups", {}).values():
            group.pop("differences")
    assert EN["by_chance"] not in shown(report).text + markdown(report)


def test_a_long_table_of_groups_is_closed_and_a_short_one_open() -> None:
    html = page(sample())
    groups = html[html.index('<section id="groups">') :]
    groups = groups[: groups.index("</section>")]
    assert groups.count("<details>") == 1
    assert groups.index("心血管内科") < groups.index("<details>") < groups.rindex("第 44 科")


def test_nothing_is_held_out_where_nothing_was_measured() -> None:
    task = {"name": "qa", "n": 0, "overlap": {"checked": True, "items": 0, "of": 0, "train": "t"}}
    for language, reason in (("en", "no item was measured"), ("zh", "没有测量任何条目")):
        said = overlap(task, WORDS[language])
        assert said.kind == "unknown"
        assert reason in said.words


def test_the_subject_table_goes_by_a_figure_that_the_questions_have() -> None:
    """Of questions with several right options no likelihood is a figure."""
    empty, letters = {"value": None, "low": None, "high": None, "n": 0}, {"value": 0.5, "low": 0.2, "high": 0.8, "n": 9}
    figures = {"a": {"accuracy": empty, "letter_accuracy": letters}}
    found = groups_of({"groups": {"内科": {"n": 9, "figures": figures}}}, ["a"], "en")
    assert found is not None
    assert found.headline == "letter_accuracy"
