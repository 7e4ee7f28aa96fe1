"""The cleaning rules, each at its limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.claims import SHIPPED, ClaimList
from ms_medqa.data.clean import EXCERPT_LENGTH, Cleaner, Kept, digest_of
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


def cleaner(tokenizer: Tokenizer, **settings: Any) -> Cleaner:
    settings = {"min_question_tokens": 0, "min_answer_tokens": 0} | settings
    return Cleaner(DataSection(**settings), tokenizer, Prompt.named(settings.get("prompt", "medqa"), tokenizer))


def verdict(cleaner: Cleaner, *records: Any) -> list[str | None]:
    """The reason of each record, None where it is kept."""
    return [None if isinstance(v, Kept) else v.reason for v in cleaner.judge(records)]


def qa(number: int, question: str = "感冒了怎么办？", answer: str = "多休息，多喝水。", **more: Any) -> Example:
    return Example(str(number), question, answer, **more)


def test_empty(tokenizer: Tokenizer) -> None:
    records = [qa(1, question=""), qa(2, answer=""), qa(3, history=(("在吗", ""),)), PlainText("4", ""), qa(5)]
    assert verdict(cleaner(tokenizer), *records) == ["empty"] * 4 + [None]


def test_too_short_counts_tokens_of_the_bare_texts(tokenizer: Tokenizer) -> None:
    question, answer = "xyz q", "xy"
    n_question, n_answer = len(tokenizer.encode(question)), len(tokenizer.encode(answer))
    at_limit = {"min_question_tokens": n_question, "min_answer_tokens": n_answer}
    assert verdict(cleaner(tokenizer, **at_limit), qa(1, question, answer)) == [None]
    for name in at_limit:
        above = at_limit | {name: at_limit[name] + 1}
        assert verdict(cleaner(tokenizer, **above), qa(1, question, answer)) == ["too_short"]


def test_default_limits_are_five_and_three_tokens(tokenizer: Tokenizer) -> None:
    strict = Cleaner(DataSection(), tokenizer, Prompt.named("medqa", tokenizer))
    assert verdict(strict, qa(1, "xq z!"[:4], "abcd!"), qa(2, "xqz!!", "~!"), qa(3, "xqz!?", "~!^")) == [
        "too_short",
        "too_short",
        None,
    ]


def test_too_long_counts_question_and_answer_against_the_margin(tokenizer: Tokenizer) -> None:
    record = qa(1, "q" * 30, "a" * 10)
    total = sum(len(tokenizer.encode(text)) for text in (record.question, record.answer))
    for spare, expected in ((0, None), (-1, "too_long")):
        rules = cleaner(tokenizer, max_length=total + 40 + spare, length_margin=40, prompt="plain")
        assert verdict(rules, record) == [expected]


@pytest.mark.parametrize(
    "more", [{"context": "布洛芬" * 20}, {"history": (("你好" * 20, "您好"),)}, {"system": "医" * 30}]
)
def test_too_long_counts_all_that_is_rendered(tokenizer: Tokenizer, more: dict[str, Any]) -> None:
    length = len(Prompt.named("medqa", tokenizer).encode(qa(1, **more)).input_ids)
    for spare, expected in ((0, None), (-1, "too_long")):
        rules = cleaner(tokenizer, max_length=length + spare, length_margin=0)
        assert verdict(rules, qa(1, **more)) == [expected]


def test_plain_text_has_no_length_limit_and_every_token_is_trained(tokenizer: Tokenizer) -> None:
    text = "心脏分四腔。" * 50
    rules = cleaner(tokenizer, max_length=16, min_answer_tokens=3)
    (kept,) = rules.judge([PlainText("1", text)])
    assert isinstance(kept, Kept)
    assert kept.input_ids.tolist() == [*tokenizer.encode(text), tokenizer.eos_token_id]
    assert kept.loss_mask.tolist() == [1] * kept.input_ids.size


def test_duplicates_differ_in_nothing_but_space() -> None:
    first = digest_of(qa(1, "a  b?", "c"))
    assert digest_of(qa(2, "a b?\n", "c")) == first
    others = [
        qa(3, "a b?", "d"),
        qa(4, "a b?", "c", context="x"),
        qa(5, "a b?", "c", history=(("x", "y"),)),
        qa(6, "a b?", "c", system="x"),
        qa(7, "a", "b?c"),
        qa(8, "A b?", "c"),
    ]
    assert len({first, *map(digest_of, others)}) == 1 + len(others)


def test_wrong_claims_of_the_answers(tokenizer: Tokenizer) -> None:
    rules = cleaner(tokenizer)
    wrong = [
        qa(1, answer="这种保健茶可以根治糖尿病。"),
        qa(2, answer="服用偏方能 根治\u3000糖尿病"),
        qa(3, answer="Experts agree: Antibiotics kill viruses."),
        qa(4, history=(("疫苗安全吗？", "疫苗会导致自闭症。"),)),
        qa(5, answer="没有副作用。坚持服用可以根治糖尿病。"),
    ]
    assert verdict(rules, *wrong) == ["wrong_claim"] * len(wrong)
    right = [
        qa(11, answer="目前没有药物可以根治糖尿病。"),
        qa(12, answer="抗生素不能治疗病毒性感冒。"),
        qa(13, answer="It is a myth that antibiotics kill viruses."),
        qa(14, question="什么茶可以根治糖尿病？"),
        qa(15, answer="目前暂无根治糖尿病的方法，但血糖可以控制好。"),
        qa(16, answer="目前尚缺乏根治糖尿病的手段。"),
    ]
    assert verdict(rules, *right) == [None] * len(right)


def test_the_user_adds_claims(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "mine.yaml"
    path.write_text("- 多喝水可以代替降压药\n- {claim: 放血疗法, unless: [不推荐]}\n", encoding="utf-8")
    rules = cleaner(tokenizer, wrong_claims=["~/mine.yaml"])
    answers = ["多喝水可以代替降压药。", "推荐放血疗法。", "不推荐放血疗法。", "彻底治愈糖尿病很简单。"]
    assert verdict(rules, *(qa(i, answer=a) for i, a in enumerate(answers))) == [
        "wrong_claim",
        "wrong_claim",
        None,
        "wrong_claim",
    ]


@pytest.mark.parametrize(
    "text",
    ["claim: x", "- ''", "- {claim: x, unless: ['']}", "- [x]", "- 5", "- {unless: [x]}", "- 'x", "- 2024-13-45"],
)
def test_a_faulty_list_of_claims_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=str(path)):
        ClaimList([path])
    with pytest.raises(UserError, match="no such file"):
        ClaimList([tmp_path / "none.yaml"])


def test_the_shipped_list_is_readable_and_finds_each_of_its_claims() -> None:
    claims = ClaimList()
    assert len(claims.claims) >= 30
    assert len({claim.phrase for claim in claims.claims}) == len(claims.claims), SHIPPED
    for claim in claims.claims:
        assert claims.find([f"很多人都知道{claim.text}。"]) is not None, claim


def test_fill_context_takes_the_start_of_the_answer_and_only_where_context_is_missing(tokenizer: Tokenizer) -> None:
    answer = "多休息，多喝水。" * 20
    filled, own = cleaner(tokenizer, fill_context=True, max_length=2000).judge(
        [qa(1, answer=answer), qa(2, answer=answer, context="知识")]
    )
    assert filled.record.context == answer[:EXCERPT_LENGTH]
    assert own.record.context == "知识"
    assert cleaner(tokenizer, max_length=2000).judge([qa(1, answer=answer)])[0].record.context is None
