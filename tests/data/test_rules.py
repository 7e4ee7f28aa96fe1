"""The rules on texts: what each finds, what it leaves alone, and that each can be turned off."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.loader import load_config
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner, Kept
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.rules.boilerplate import BoilerplateList
from ms_medqa.data.rules.copied import copied_share, url_share
from ms_medqa.data.rules.language import language_share
from ms_medqa.data.rules.markup import strip
from ms_medqa.data.rules.mojibake import mojibake_share
from ms_medqa.data.tokenizer import Tokenizer

QUESTION = "高血压患者平时饮食上要注意什么？"
PICTURE = '<img src="a.png">'
ANSWER = "低盐低脂，多吃蔬菜水果，限制饮酒。"


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


def judge(tokenizer: Tokenizer, record: Any, **rules: Any) -> Any:
    settings = DataSection(max_length=8192, min_question_tokens=0, min_answer_tokens=0, rules=rules)
    return Cleaner(settings, tokenizer, Prompt.named("medqa", tokenizer)).judge([record])[0]


@pytest.mark.parametrize(
    ("reason", "record", "off"),
    [
        ("empty", Example("1", QUESTION, ""), {"empty": False}),
        ("empty", PlainText("1", ""), {"empty": False}),
        ("empty", Example("1", f"{QUESTION}\nA. {PICTURE}\nB. 水", "B. 水", choices=(PICTURE, "水")), {"empty": False}),
        ("html", Example("1", QUESTION, '<p style="color:red">' * 20 + "多喝水"), {"html": "keep"}),
        ("mojibake", Example("1", QUESTION, ANSWER.encode().decode("gbk", "replace")), {"mojibake": False}),
        ("mojibake", PlainText("1", "锟斤拷锟斤拷"), {"mojibake": None}),
        ("url", Example("1", QUESTION, "见 https://example.org/a/b?c=d"), {"url": False}),
        ("boilerplate", Example("1", QUESTION, "请咨询医生。"), {"boilerplate": False}),
        ("copied", Example("1", QUESTION, QUESTION), {"copied": False}),
        ("wrong_claim", Example("1", QUESTION, "这种茶可以根治糖尿病。"), {"wrong_claim": False}),
    ],
)
def test_each_rule_has_a_name_and_can_be_turned_off(
    tokenizer: Tokenizer, reason: str, record: Any, off: dict[str, Any]
) -> None:
    verdict = judge(tokenizer, record)
    assert not isinstance(verdict, Kept)
    assert (verdict.reason, bool(verdict.detail)) == (reason, True)
    assert isinstance(judge(tokenizer, record, **off), Kept)


def test_the_languages_are_off_until_they_are_named(tokenizer: Tokenizer) -> None:
    english = Example(
        "1", "What lowers blood pressure?", "Less salt, more vegetables, regular exercise and less alcohol."
    )
    mixed = Example("2", QUESTION, "EGFR-TKI 用于有 EGFR 突变的非小细胞肺癌 (NSCLC) 患者。")
    assert isinstance(judge(tokenizer, english), Kept)
    assert judge(tokenizer, english, languages=["zh"]).reason == "language"
    assert isinstance(judge(tokenizer, english, languages=["zh", "en"]), Kept)
    assert isinstance(judge(tokenizer, mixed, languages=["zh"]), Kept)
    assert isinstance(judge(tokenizer, Example("3", QUESTION, "CT"), languages=["zh"]), Kept)
    japanese = Example("4", QUESTION, "塩分を控えて、野菜をたくさん食べるようにしましょう。")
    assert judge(tokenizer, japanese, languages=["zh", "en"]).reason == "language"
    russian = "Меньше соли, больше овощей"
    assert language_share(russian, ["zh", "en"])[0] == 0
    assert language_share("12.5 %", ["zh"]) == (1.0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "<0.05",
        "p<0.01",
        "a<b>c",
        "若 P<p>q",
        "a<b and c>d",
        "IL-6<10 & CRP>5",
        "<患者>",
        "R&D; AT&T",
        "<|im_end|>",
        "</s><s>[INST] a [/INST]",
        "<user>: 你好 <bot>:",
        "1 < 2 > 0",
        "写成 `<br>`",
        "```html\n<p>x</p>\n```",
    ],
)
def test_text_that_only_looks_like_markup_stays(text: str) -> None:
    assert strip(text) == (text, 0, 0)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("<p>低盐</p><p>低脂</p>", "低盐\n\n低脂"),
        ("低盐<BR/>低脂<br>多运动", "低盐\n低脂\n多运动"),
        ("白细胞 10<sup>9</sup>/L，H<sub>2</sub>O", "白细胞 10^9/L，H2O"),
        ("p&nbsp;&lt;&nbsp;0.05，37&deg;C", "p < 0.05，37°C"),
        ("<a href='http://x.org'>指南</a>", "指南"),
        ("<b>重点</b>：a<b>c", "重点：a<b>c"),
        ("<script>if (a<b>c) {}</script>好<!-- 注 -->的", "好的"),
        ("<ul><li class=x>一</li><li>二</li></ul>", "一\n\n二"),
        ("<table><tr><td>药</td><td>量</td></tr></table>", "药 量"),
        ("İ<script>x</script>好", "İ好"),
    ],
)
def test_markup_is_taken_out(text: str, clean: str) -> None:
    stripped = strip(text)
    assert re.sub(r"\n+", "\n", stripped.text) == re.sub(r"\n+", "\n", clean)
    assert stripped.places > 0


def test_markup_in_any_field_is_noted_and_may_be_refused(tokenizer: Tokenizer) -> None:
    record = Example("1", QUESTION, "<p>多喝水。</p>", context="血压&lt;140", history=(("你好<br>", "您好"),))
    kept = judge(tokenizer, record)
    assert (kept.record.answer, kept.record.context, kept.record.history) == (
        "多喝水。",
        "血压<140",
        (("你好", "您好"),),
    )
    assert [(note.reason, note.count) for note in kept.notes] == [("cleaned_html", 4)]
    assert judge(tokenizer, record, html="reject").reason == "html"
    assert judge(tokenizer, record, html=False).record == record
    assert judge(tokenizer, Example("2", QUESTION, "<br>&nbsp;")).reason == "empty"
    plain = judge(tokenizer, Example("3", QUESTION, ANSWER))
    assert (plain.record.answer, plain.notes) == (ANSWER, ())


@pytest.mark.parametrize("wrong", [("utf-8", "gbk"), ("gbk", "latin-1"), ("utf-8", "cp1252"), ("gbk", "utf-8")])
def test_wrongly_decoded_chinese_is_found(wrong: tuple[str, str]) -> None:
    encoding, other = wrong
    assert mojibake_share((QUESTION + ANSWER).encode(encoding).decode(other, "replace")) > 0.2


@pytest.mark.parametrize(
    "text",
    [
        "Ménière、Sjögren、Guillain–Barré 综合征",
        "café à la crème, déjà vu",
        "5 µg ± 2，«β受体»",
        "烫伤要用冷水冲",
        "鏈球菌、鎮靜劑",
        "京械注准×××××××××××",
        "内固定后····可以吃西洋参吗",
        "",
    ],
)
def test_sound_text_is_not_taken_for_mojibake(text: str) -> None:
    assert mojibake_share(text) == 0


def test_a_copied_question_needs_to_fill_the_answer() -> None:
    assert copied_share("感冒了怎么办？", "感冒了，怎么办") == 1
    assert copied_share("感冒了怎么办？", "感冒了怎么办？多休息，多喝水，必要时就医。") < 0.5
    assert copied_share("感冒了怎么办？", "多休息。") == 0
    assert copied_share("？", "！") == 0


def test_a_url_among_words_is_fine() -> None:
    assert url_share("https://example.org/x") == 1
    assert url_share("见：www.example.org。") > 0.5
    assert url_share("多喝水，多休息，不适时及时就医，更多知识见 http://a.cn。") < 0.5


def test_boilerplate_is_the_whole_answer_or_its_beginning(tmp_path: Path) -> None:
    shipped = BoilerplateList()
    for answer in (
        "无",
        "无。",
        " N/A",
        "ｎ／ａ",
        "I don't know.",
        "As an AI language model, I cannot say.",
        "作为AI语言模型，我",
    ):
        assert shipped.find(answer), answer
    for answer in ("Na", "无需用药，多休息。", "请咨询医生后再停药，不可自行停药。", "无" + "…" * 500 + "发热", ANSWER):
        assert shipped.find(answer) is None, answer
    mine = tmp_path / "mine.yaml"
    mine.write_text("- 多喝热水\n- {starts: 亲，}\n", encoding="utf-8")
    own = BoilerplateList([mine])
    assert (own.find("多喝热水！"), own.find("亲，多喝水"), own.find("多喝热水，多休息")) == ("多喝热水", "亲，", None)


@pytest.mark.parametrize("text", ["a: b", "- 5", "- {begins: x}", "- '。'", "- [x]"])
def test_a_faulty_list_of_boilerplate_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        BoilerplateList([path])


def test_none_is_a_fine_answer_to_an_exam_question(tokenizer: Tokenizer) -> None:
    assert judge(tokenizer, Example("1", QUESTION, "None")).reason == "boilerplate"
    assert isinstance(judge(tokenizer, Example("1", QUESTION, "None", choices=("Zinc", "None"), label="B")), Kept)


def test_the_command_line_turns_rules_off() -> None:
    rules = load_config(None, ["data.rules.copied=false", "data.rules.html=false", "data.rules.url=null"]).data.rules
    assert (rules.copied, rules.html, rules.url) == (None, "keep", None)
    with pytest.raises(UserError, match=r"data\.rules\.copied"):
        load_config(None, ["data.rules.copied=true"])


@pytest.mark.parametrize("piece", ["<script>", "<b>", "<!--", "<a <", "&lt", "</p", "ï»¿", "http://", "<p ="])
def test_no_text_takes_long(piece: str) -> None:
    text = piece * 20_000
    start = time.process_time()
    strip(text)
    mojibake_share(text)
    url_share(text)
    language_share(text, ["zh"])
    copied_share(text, text)
    assert time.process_time() - start < 2
