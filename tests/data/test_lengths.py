"""Records that are too long: rejected, cut by a fixed order, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner, Kept, Rejected, digest_of
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.prompt import PATTERNS, Prompt
from ms_medqa.data.prompt_encoding import TokenBatch
from ms_medqa.data.tokenizer import Tokenizer

LIMIT = 160
HISTORY = tuple((f"第{i}次咳嗽怎么办？", "多喝水，多休息。") for i in range(12))
QUESTION, ANSWER = "感冒了怎么办？", "多休息，多喝水。"


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


def cut(tokenizer: Tokenizer, record: Example, prompt: str = "medqa", **settings: Any) -> Any:
    data = DataSection(max_length=LIMIT, length_policy="truncate", prompt=prompt, **settings)
    return Cleaner(data, tokenizer, Prompt.named(prompt, tokenizer)).judge([record])[0]


@pytest.mark.parametrize("prompt", list(PATTERNS))
def test_the_context_is_cut_first(tokenizer: Tokenizer, prompt: str) -> None:
    record = Example("1", QUESTION, ANSWER, context="骨折后先固定患肢，再送医院。" * 20)
    kept = cut(tokenizer, record, prompt)
    assert kept.record.context
    assert record.context is not None
    assert record.context.startswith(kept.record.context)
    assert (kept.record.question, kept.record.answer) == (QUESTION, ANSWER)
    assert LIMIT - 8 < kept.input_ids.size <= LIMIT
    assert kept.input_ids.tolist() == Prompt.named(prompt, tokenizer).encode(kept.record).input_ids
    assert [note.reason for note in kept.notes] == ["cut"]
    assert "context" in kept.notes[0].detail


def test_then_the_oldest_rounds_are_left_out(tokenizer: Tokenizer) -> None:
    kept = cut(tokenizer, Example("1", QUESTION, ANSWER, context="骨折" * 60, history=HISTORY))
    assert kept.record.context is None
    assert 0 < len(kept.record.history) < len(HISTORY)
    assert kept.record.history == HISTORY[-len(kept.record.history) :]
    assert kept.record.answer == ANSWER
    assert kept.input_ids.size <= LIMIT


@pytest.mark.parametrize("prompt", list(PATTERNS))
def test_an_answer_that_is_cut_trains_no_end_token(tokenizer: Tokenizer, prompt: str) -> None:
    record = Example("1", QUESTION, "多休息，多喝水，按医嘱服药。" * 40, history=HISTORY)
    kept = cut(tokenizer, record, prompt)
    assert record.answer.startswith(kept.record.answer)
    assert kept.record.history == ()
    assert LIMIT - 8 < kept.input_ids.size <= LIMIT
    end = Prompt.named(prompt, tokenizer).end_token_id
    trained = kept.input_ids[kept.loss_mask == 1].tolist()
    assert end not in trained
    assert kept.loss_mask[-1] == 1
    assert kept.answer_tokens == len(tokenizer.encode(kept.record.answer))
    assert "no end token" in kept.notes[0].detail
    # An answer that is whole does end.
    short = cut(tokenizer, Example("2", QUESTION, ANSWER), prompt)
    assert end in short.input_ids[short.loss_mask == 1].tolist()
    assert short.notes == ()


def test_a_question_is_never_cut(tokenizer: Tokenizer) -> None:
    verdict = cut(tokenizer, Example("1", "咳嗽三天了，还发热，" * 40, ANSWER))
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "too_long"
    assert "no room for an answer" in verdict.detail


def test_cutting_counts_the_record_as_a_whole(tokenizer: Tokenizer) -> None:
    answer = "多喝水。" * 5
    size = len(Prompt.named("medqa", tokenizer).encode(Example("1", QUESTION, answer)).input_ids)
    assert size <= LIMIT
    assert cut(tokenizer, Example("1", QUESTION, answer), length_margin=LIMIT).notes == ()


def test_raise_names_file_and_record(tokenizer: Tokenizer) -> None:
    data = DataSection(max_length=LIMIT, length_policy="raise")
    cleaner = Cleaner(data, tokenizer, Prompt.named("medqa", tokenizer))
    assert isinstance(cleaner.judge([Example("1", QUESTION, ANSWER)])[0], Kept)
    with pytest.raises(UserError, match=r"qa\.jsonl record q-7: .* tokens, at most .*length_policy"):
        cleaner.judge([Example("q-7", QUESTION, "多喝水。" * 200, source="qa.jsonl")])
    assert isinstance(cleaner.judge([PlainText("1", "多喝水。" * 200)])[0], Kept)


@pytest.mark.parametrize("prompt", list(PATTERNS))
def test_a_batch_gives_the_tokens_of_each_record_alone(tokenizer: Tokenizer, prompt: str) -> None:
    records = [
        Example("1", QUESTION, ANSWER),
        Example("2", QUESTION, ANSWER, context="知识", system="你是医生", history=HISTORY),
        Example("3", "<|im_end|>是什么？", "a <|endoftext|> b", history=(("<|im_start|>", " x "),)),
        Example("4", "", ""),
        Example("5", QUESTION, QUESTION),
    ]
    renderer = Prompt.named(prompt, tokenizer)
    batch = TokenBatch(tokenizer)
    batch.add(QUESTION)
    together = [encoded.as_lists() for encoded in renderer.encode_batch(records, batch)]
    assert together == [renderer.encode(record) for record in records]
    assert list(batch.encode_part(QUESTION, None)) == tokenizer.encode(QUESTION)
    for record, encoded in zip(records, together, strict=True):
        start = renderer.encode_prompt(record)
        assert encoded.input_ids[: len(start)] == start


def test_a_batch_and_single_records_agree_on_real_data(shared_data: Path) -> None:
    import json

    path = shared_data / "huatuo_llama" / "llama_data.json"
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(200), strict=False)]
    records = [Example(str(i), row["instruction"], row["output"]) for i, row in enumerate(rows)]
    records += [Example("d", records[0].question, records[1].answer, history=(("你好", "您好"),))]
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / "qwen2.5")
    for name in PATTERNS:
        prompt = Prompt.named(name, tokenizer)
        together = [encoded.as_lists() for encoded in prompt.encode_batch(records)]
        assert together == [prompt.encode(record) for record in records]


def test_the_digest_knows_texts_only() -> None:
    record = Example("1", "a  b?", "c", source="x", label="A")
    assert digest_of(record) == digest_of(Example("2", "a b?", "c"))
    assert len(digest_of(record)) == 16
    others = [
        Example("1", "a", "b?c"),
        Example("1", "a b?", "c", context="d"),
        PlainText("1", "a b?"),
        PlainText("1", ""),
    ]
    assert len({digest_of(other) for other in (record, *others)}) == len(others) + 1
