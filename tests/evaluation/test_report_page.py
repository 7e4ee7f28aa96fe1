"""The page of an evaluation: everything in it can be seen, nothing of it is fetched or run, and it claims no more than
the data show."""

from __future__ import annotations

import copy
import string
from typing import Any

import pytest
from html_page import HtmlPage
from report_sample import LONG, SCRIPT, sample

from ms_medqa.config import UserError
from ms_medqa.evaluation.report.md import markdown
from ms_medqa.evaluation.report.page import page
from ms_medqa.evaluation.report.table import table
from ms_medqa.evaluation.report.titles import HEADLINES, TITLES
from ms_medqa.evaluation.report.words import EN, WORDS, ZH
from ms_medqa.evaluation.tasks import KINDS

LANGUAGES = ("en", "zh")


def shown(report: dict[str, Any], language: str = "en") -> HtmlPage:
    return HtmlPage(page(report, language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_fetched_and_nothing_is_run(language: str) -> None:
    html = page(sample(), language)
    found = HtmlPage(html)
    assert not {tag for tag, _ in found.tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "use",
        "form",
        "base",
    }
    for tag, attributes in found.tags:
        assert not {"src", "srcset", "xlink:href", "action", "style"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#"), attributes
    policy = next(dict(a) for tag, a in found.tags if tag == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in str(policy["content"])
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert '"Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei"' in style
    assert f'<html lang="{WORDS[language]["lang"]}">' in html


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_of_the_contents_leads_somewhere(language: str) -> None:
    for report in (sample(), {}):
        tags = shown(report, language).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {f"#{each}" for each in ids} == {attributes["href"] for tag, attributes in tags if tag == "a"}


def test_every_figure_of_the_sample_appears_with_its_interval() -> None:
    text = shown(sample()).text
    for task in sample()["tasks"]:
        groups = [group["figures"] for group in task.get("groups", {}).values()]
        for figures in (task["figures"], *groups):
            for name, figure in ((name, figure) for model in figures.values() for name, figure in model.items()):
                if figure["value"] is None:
                    continue
                form = TITLES[name].form if name in TITLES else ".3f"
                assert format(figure["value"], form) in text, name
                if "low" in figure:
                    low, high = (format(figure[end], form) for end in ("low", "high"))
                    assert f"[{low}, {high}]" in text, name


def test_all_that_is_told_stands_in_it() -> None:
    report = sample()
    text = shown(report).text
    wanted = [*report["commands"], *report["versions"].values(), *report["signatures"].values(), "q_proj", "a" * 64]
    wanted += [
        "CPU",
        "42",
        "too_short",
        "150",
        "c" * 64,
        "the answer is empty",
        "records.jsonl:3",
        LONG,
        "0.432",
        SCRIPT,
    ]
    wanted += ["tokenizer-fingerprint", "0.000321", "repeated, by the weights of the inputs", "123,456", "65,432"]
    wanted += ["mixed in: general.jsonl", "the pick | ", "问答: rouge_l", "seed of the bootstrap"]
    wanted += ["心血管内科", "解毒药为乙酰半胱氨酸。", "nothing in this report is medical advice", "n = 198"]
    wanted += ["McNemar's p < 0.001; only base right: 0, only tuned right: 187", "McNemar's p = 0.110"]
    for each in wanted:
        assert each in text, each
    # Two charts of groups, two curves of each of two models, two measures of two models.
    assert [tag for tag, _ in shown(report).tags].count("svg") == 2 + 2 * 2 + 2 * 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_better_and_worse_are_said_where_the_interval_leaves_out_zero(language: str) -> None:
    report = {"tasks": [sample()["tasks"][3]]}
    difference = report["tasks"][0]["differences"]["tuned"]
    figure = difference["figures"]["perplexity"]
    del report["tasks"][0]["differences"]["tuned"]["figures"]["bits_per_byte"]
    words = WORDS[language]
    for low, high, verdict in ((-3.0, -1.0, "better"), (1.0, 3.0, "worse"), (-1.0, 3.0, "same"), (0.0, 3.0, "same")):
        figure |= {"value": (low + high) / 2, "low": low, "high": high}
        found = shown(report, language)
        badges = [attributes["class"] for tag, attributes in found.tags if tag == "b"]
        # In the summary and in the table.
        assert badges == [f"badge {verdict}"] * 2
        sentence = words[f"says_{verdict}"].format(
            task="wiki 通用",
            tuned="tuned",
            base="base",
            figure=TITLES["perplexity"].name(language),
            values=words["each_has"].format(base="base", tuned="tuned", before="18.31", after="21.87"),
            change=f"{(low + high) / 2:+.2f} [{low:+.2f}, {high:+.2f}]".replace("+0.00", "0.00"),
            n=50,
        )
        assert sentence in found.text
        # Before and after are said of a model that was made of the other.
        difference["same_weights"] = True
        assert words["before_after"].format(before="18.31", after="21.87") in shown(report, language).text
        del difference["same_weights"]
    figure |= {"low": None}
    said = words["says_nothing"].format(task="wiki 通用", tuned="tuned", base="base", n=50)
    assert said in shown(report, language).text
    assert words["no_interval"] in shown(report, language).text
    assert words["no_interval"] in markdown(report, language)


def test_a_length_that_changes_is_neither_better_nor_worse() -> None:
    figures = {"a": {"answer_tokens": {"value": 60}}, "b": {"answer_tokens": {"value": 20}}}
    change = {"answer_tokens": {"value": -40, "low": -44, "high": -36}}
    report = {"tasks": [{"name": "qa", "figures": figures, "differences": {"b": {"base": "a", "figures": change}}}]}
    text = shown(report).text
    assert "qa: b differs from a in answer length, tokens: a 60.0, b 20.0, difference -40.0" in text
    # But for the words that tell what it means.
    assert "better" not in text.replace(EN["judged"].format(fewest=30), "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_is_said_only_where_all_was_checked_and_nothing_found(language: str) -> None:
    def texts(overlap: Any) -> list[str]:
        report = sample()
        report["tasks"] = [report["tasks"][0] | {"overlap": overlap}]
        terminal = [table(report)] if language == "en" else []
        return [shown(report, language).text, markdown(report, language), *terminal]

    claim = {"en": "held-out", "zh": "留出"}[language]
    data = {"checked": True, "train": "train.jsonl"}
    for text in texts(data | {"items": 0, "of": 300}):
        assert claim in text.lower()
        assert "train.jsonl" in text
    for text in texts(data | {"items": 3, "of": 300, "ids": ["x1"]}):
        assert claim not in text.lower()
        assert WORDS[language]["overlap_some"].format(items=3, of=300, train="train.jsonl") in text
    for text in texts(data | {"items": 1, "of": 300, "ids": ["x1"]}):
        assert WORDS[language]["overlap_some_one"].format(items=1, of=300, train="train.jsonl") in text
    gaps = (
        ({"of": 200}, "gap_items", {"n": 100}),
        ({"unread": 2}, "gap_unread", {"n": 2}),
        ({"unread": 1}, "gap_unread_one", {"n": 1}),
        ({"models": {"a": True, "b": False}}, "gap_models", {"models": "b"}),
        ({"models": {"a": None}}, "gap_models", {"models": "a"}),
    )
    for more, word, fields in gaps:
        for text in texts(data | {"items": 0, "of": 300} | more):
            assert claim not in text.lower()
            assert WORDS[language][word].format(**fields) in text
        # Nor is a gap passed over where something was found.
        for text in texts(data | {"items": 3, "of": 300} | more):
            assert WORDS[language][word].format(**fields) in text
    for text in texts(data | {"items": 0, "of": 300, "unread": 0, "models": {"a": True, "b": True}}):
        assert claim in text.lower()
    for text in texts(data | {"items": 3, "of": 300, "reasons": {"the question": 2, "a near copy": 1}}):
        assert f"the question{WORDS[language]['colon']}2" in text
    for text in texts({"checked": False, "why": "no training data was named"}):
        assert claim not in text.lower()
        assert WORDS[language]["overlap_unknown"].format(why="no training data was named") in text
    unclear = (None, {}, {"checked": True}, {"checked": True, "items": None, "of": 300}, {"checked": "yes", "items": 0})
    for text in (text for overlap in unclear for text in texts(overlap)):
        assert claim not in text.lower()
        assert WORDS[language]["no_reason"] in text


def test_only_one_word_of_each_language_claims_it() -> None:
    assert [key for key, word in EN.items() if "held" in word.lower()] == ["overlap_none"]
    assert [key for key, word in ZH.items() if "留出" in word] == ["overlap_none"]


def test_what_the_models_forgot_has_its_own_section_and_is_missed_where_it_is_not_known() -> None:
    html = page(sample())
    section = html[html.index('<section id="forgetting">') :]
    assert "wiki 通用" in section[: section.index("</section>")]
    assert "what the model forgot is not known" in shown({"tasks": sample()["tasks"][:1]}).text


HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "</title></style></svg></pre><script>",
    "&lt;b&gt;",
    "{{ 7 * 7 }}",
    "%s {0} {x}",
]


def replaced(value: Any, name: str) -> Any:
    """The same report with the name in the place of every text, and beside every key that a user has chosen."""
    if isinstance(value, dict):
        new = {key: replaced(each, name) for key, each in value.items()}
        for key in (
            "reasons",
            "versions",
            "signatures",
            "groups",
            "training",
            "data_report",
            "figures",
            "config",
            "rejected",
        ):
            if isinstance(new.get(key), dict) and new[key]:
                new[key][name] = copy.deepcopy(next(iter(new[key].values())))
        return new
    if isinstance(value, list):
        return [replaced(each, name) for each in value]
    return name if isinstance(value, str) else value


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_are_text_wherever_they_stand(name: str) -> None:
    found = shown(replaced(sample(), name))
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert [tag for tag, _ in found.tags].count("style") == 1
    assert found.text.count(name) >= 60


def test_what_is_no_text_for_a_page_is_marked() -> None:
    report = sample()
    report["title"] = "a\ud83d\x00\x1b[2J\u202eb\r\nc"
    html = page(report)
    html.encode("utf-8")
    assert "a\ufffd\ufffd\ufffd[2J\ufffdb\nc" in html


def test_both_languages_have_all_words() -> None:
    assert EN.keys() == ZH.keys()

    def fields(word: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(word) if field is not None}

    for key, word in EN.items():
        assert word.strip(), key
        assert ZH[key].strip(), key
        assert fields(word) == fields(ZH[key]), key
    for name, title in TITLES.items():
        assert title.en, name
        assert title.zh, name
        assert title.better in ("higher", "lower", None)
        format(0.5, title.form)
    assert set(HEADLINES) <= TITLES.keys()
    with pytest.raises(UserError, match="known are en, zh"):
        page(sample(), "fr")


def test_no_word_is_left_that_no_report_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    used = set()

    class Recording(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            used.add(key)
            return super().__getitem__(key)

        def get(self, key: str, default: Any = None) -> Any:
            used.update({key} & self.keys())
            return super().get(key, default)

    monkeypatch.setitem(WORDS, "en", Recording(EN))
    length = {"value": -40, "low": -44, "high": -36}
    more = sample()
    more["tasks"][0] |= {
        "differences": {"tuned": {"base": "base", "figures": {"answer_tokens": length}}, "base": {"base": "tuned"}},
        "overlap": {"checked": True, "items": 0, "of": 200},
        "skipped": {"count": 2, "items": [{"id": "1", "reason": "x"}]},
        "confusion": {"tuned": {"labels": [str(i) for i in range(50)], "counts": [[1] * 50] * 50}},
        "charts": {"answer_tokens": {"base": [3]}},
    }
    other = sample()
    for task in other["tasks"]:
        for difference in task["differences"].values():
            difference["same_weights"] = not difference.get("same_weights")
    # One of everything that is counted, or no more than is enough.
    one = {
        "name": "one",
        "n": 1,
        "read": 3,
        "ungrouped": 2,
        "figures": {"a": {"accuracy": {"value": 1.0, "low": None, "high": None, "n": 1}}, "b": {}},
        "differences": {"b": {"base": "a", "figures": {"accuracy": {"value": 0.1, "low": -0.1, "high": 0.3, "n": 1}}}},
        "skipped": {"count": 40, "reasons": {str(place): 1 for place in range(40)}, "items": [{"id": "1"}]},
    }
    one["differences"]["b"] |= {"same_prompt": False}
    one["figures"]["b"] = {"accuracy": {"value": 1.0, "n": 2}}
    data = {"checked": True, "train": "t"}
    scores = [*(kind.score_is for kind in KINDS.values()), "all_letters"]
    every = [
        one | {"overlap": data | {"items": 0, "of": 1, "unread": 1}},
        one | {"overlap": data | {"items": 0, "of": 0}, "differences": {}},
        one | {"overlap": data | {"items": 0, "of": 2, "unread": 1}, "n": 3},
        one | {"overlap": data | {"items": 1, "of": 1}, "compared": {"tuned": "b"}, "examples": [{}, {}]},
        *(one | {"score": name, "compared": {"tuned": "b"}, "examples": [{}]} for name in scores),
        one | {"empty": {"b": {"count": 1, "ids": ["1"]}}},
        {"examples": [{"question": "x" * 5001}, {"question": "x" * 6000}]},
    ]
    for report in (sample(), more, other, {"tasks": every}, {}):
        page(report)
        markdown(report)
    assert EN.keys() == used


def test_a_chinese_page_has_no_english_of_its_own() -> None:
    report = sample()
    text = shown(report, "zh").text
    text = text[text.index("摘要") :]
    for key, word in EN.items():
        if len(word) > 9 and "{" not in word:
            assert word not in text, key


def test_what_is_absent_is_left_out() -> None:
    for language in LANGUAGES:
        assert WORDS[language]["no_comparison"] in shown({}, language).text
    for key in sample():
        for change in ("absent", "null"):
            report = sample()
            if change == "absent":
                del report[key]
            else:
                report[key] = None
            page(report)
    for number, task in enumerate(sample()["tasks"]):
        for key in task:
            for change in ("absent", "null"):
                report = sample()
                if change == "absent":
                    del report["tasks"][number][key]
                else:
                    report["tasks"][number][key] = None
                page(report)


def test_no_number_at_all_is_a_page_of_dashes() -> None:
    def nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: nulls(each) for key, each in value.items()}
        if isinstance(value, list):
            return [nulls(each) for each in value]
        return None if isinstance(value, int | float) and not isinstance(value, bool) else value

    text = shown(nulls(sample())).text
    assert "–" in text
    for wrong in ("None", "nan"):
        assert wrong not in text, wrong


def test_the_same_report_gives_the_same_page() -> None:
    assert page(sample()) == page(sample())


def test_at_most_twenty_examples_and_forty_groups_in_the_chart() -> None:
    report = sample()
    report["tasks"][0]["examples"] = [{"id": f"id-{i}", "question": f"question-{i}!", "gain": 1} for i in range(30)]
    text = shown(report).text
    assert "question-19!" in text
    assert "question-20!" not in text
    assert "Left out of the chart (fewest items): 第 40 科, subject 41, 第 42 科, subject 43, 第 44 科." in text
