"""Questions in, answers out: one, many, streamed, with the adapter's own prompt."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from ms_medqa import MedicalQA, load_model
from ms_medqa.config import UserError
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation import SamplingParams
from ms_medqa.generation.request import Request
from ms_medqa.generation.variant import find_tokenizer

QUESTIONS = ["感冒了怎么办？", "高血压患者的饮食注意事项有哪些？", "What is fever?"]
CONTEXTS = [None, "高血压患者应低盐饮食。", None]
GREEDY = {"temperature": 0, "max_new_tokens": 10}


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    """The device must be set up before the first tensor, whichever test comes first."""
    tiny.model()


def test_a_streamed_answer_is_the_answer() -> None:
    options = {"temperature": 1.5, "seed": 4, "max_new_tokens": 20}
    pieces = list(tiny.qa().stream(QUESTIONS[0], CONTEXTS[1], **options))
    assert len(pieces) > 3
    assert all(pieces)
    assert "".join(pieces) == tiny.qa().answer(QUESTIONS[0], CONTEXTS[1], **options)


def test_a_batch_answers_as_single_questions_do_and_in_order() -> None:
    qa = tiny.qa()
    singles = [qa.answer(question, context, **GREEDY) for question, context in zip(QUESTIONS, CONTEXTS, strict=True)]
    assert qa.answer_batch(QUESTIONS, CONTEXTS, **GREEDY) == singles
    assert qa.answer_batch(QUESTIONS, CONTEXTS, batch_size=2, **GREEDY) == singles
    assert len(set(singles)) == len(singles)


def test_seed_repeats_an_answer_and_no_seed_draws_anew() -> None:
    options = {"temperature": 5.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 10}
    first = tiny.qa().answer(QUESTIONS[0], seed=1, **options)
    assert tiny.qa().answer(QUESTIONS[0], seed=1, **options) == first
    assert tiny.qa().answer(QUESTIONS[0], seed=2, **options) != first
    assert tiny.qa().answer(QUESTIONS[0], **options) != tiny.qa().answer(QUESTIONS[0], **options)


def test_context_and_history_reach_the_model() -> None:
    qa = tiny.qa()
    plain = qa.encode(QUESTIONS[0])
    turns = [("你好吗？", "很好。")]
    assert "知识:多喝水" in qa.tokenizer.decode(qa.encode(QUESTIONS[0], "多喝水"))
    assert qa.encode(QUESTIONS[0], "  ") == plain
    with_history = qa.encode(QUESTIONS[0], history=turns)
    assert with_history[-len(plain) :] == plain
    assert "很好。" in qa.tokenizer.decode(with_history)
    assert qa.answer(QUESTIONS[0], history=turns, **GREEDY) != qa.answer(QUESTIONS[0], **GREEDY)


def test_an_answer_ends_at_the_prompts_end_token_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    qa = tiny.qa()
    full = _tokens(qa)
    end = full[5]
    monkeypatch.setitem(qa.variants, None, replace(qa.variants[None], end_ids=frozenset([end])))
    cut = full[: full.index(end)]
    assert qa.answer(QUESTIONS[0], repetition_penalty=1.0, **GREEDY) == qa.tokenizer.decode(cut)


def test_a_stop_string_ends_an_answer_alone_streamed_and_in_a_batch() -> None:
    qa = tiny.qa()
    whole = qa.answer_batch(QUESTIONS, CONTEXTS, **GREEDY)
    stop = whole[1][3:5]
    cut = [answer.partition(stop)[0] for answer in whole]
    assert qa.answer_batch(QUESTIONS, CONTEXTS, stop=[stop], **GREEDY) == cut != whole
    assert "".join(qa.stream(QUESTIONS[1], CONTEXTS[1], stop=[stop, "never"], **GREEDY)) == cut[1]


def _tokens(qa: MedicalQA) -> list[int]:
    request = Request(qa.encode(QUESTIONS[0]), SamplingParams(temperature=0, repetition_penalty=1.0), 10)
    return [output.choice.token for output in qa.engine.stream(request)]


def test_the_end_tokens_of_prompt_and_model_both_count() -> None:
    assert tiny.qa().tokenizer.eos_token_id in tiny.qa().end_ids
    assert set(tiny.model().config.eos_token_ids) <= tiny.qa().end_ids


def test_the_adapters_prompt_is_used_and_otherwise_the_default(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    model = load_model(tiny.folder())
    assert MedicalQA(model, adapter).prompt.name == "medqa"
    Prompt.named("plain", Tokenizer.load(tiny.folder())).save(adapter)
    qa = MedicalQA(tiny.folder(), adapter)
    assert qa.prompt.name == "plain"
    assert qa.tokenizer.decode(qa.encode("头痛")) == "头痛\n"


def test_a_prompt_in_the_model_folder_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    shutil.copytree(tiny.folder(), folder)
    Prompt.named("alpaca", Tokenizer.load(folder)).save(folder)
    assert MedicalQA(folder).prompt.name == "alpaca"


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    tokenizer_file = (tiny.folder() / "tokenizer.json").read_text(encoding="utf-8")
    extra = '"added_tokens": [{"id": 400, "content": "<|new|>", "single_word": false, "lstrip": false, "rstrip": false,'
    extra += ' "normalized": false, "special": true},'
    (adapter / "tokenizer.json").write_text(tokenizer_file.replace('"added_tokens": [', extra, 1), encoding="utf-8")
    shutil.copy(tiny.folder() / "tokenizer_config.json", adapter)
    with pytest.raises(UserError, match=r"401 tokens, the model 400"):
        MedicalQA(tiny.folder(), adapter)


def test_an_adapter_whose_tokenizer_has_other_ids_was_made_for_another_model(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    settings = json.loads((tiny.folder() / "tokenizer.json").read_text(encoding="utf-8"))
    shutil.copy(tiny.folder() / "tokenizer_config.json", adapter)
    # Written anew by another tool, the file differs and the tokens do not.
    (adapter / "tokenizer.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    assert find_tokenizer(tiny.model(), [adapter, tiny.folder()]).folder == adapter
    names = {i: token for token, i in settings["model"]["vocab"].items()}
    settings["model"]["vocab"] |= {names[7]: 9, names[9]: 7}
    (adapter / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter .* was made for another model: .*the id 7 ") as error:
        find_tokenizer(tiny.model(), [adapter, tiny.folder()])
    assert str(adapter) in str(error.value)


@pytest.mark.parametrize("question", ["", "  \n", None])
def test_an_empty_question_is_refused_before_anything_is_made(question: str) -> None:
    with pytest.raises(UserError, match="empty"):
        tiny.qa().stream(question)


def test_a_bad_question_of_a_batch_is_named() -> None:
    with pytest.raises(UserError, match=r"question 2: .*empty"):
        tiny.qa().answer_batch(["头痛怎么办", ""])
    with pytest.raises(UserError, match="2 questions but 1 contexts"):
        tiny.qa().answer_batch(["头痛怎么办", "发热怎么办"], [None])


def test_a_setting_out_of_range_or_unknown_is_named() -> None:
    with pytest.raises(UserError, match="temperature"):
        tiny.qa().answer("头痛怎么办", temperature=-1)
    with pytest.raises(UserError, match="temprature"):
        tiny.qa().answer("头痛怎么办", temprature=1)


def test_a_missing_adapter_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        MedicalQA(tiny.model(), tmp_path / "absent")


def test_the_disclaimer_is_one_line_in_two_languages() -> None:
    text = tiny.qa().disclaimer
    assert "\n" not in text
    assert "不能替代医生的诊断" in text
    assert "does not replace" in text
