"""Prompts: the text, exactly which tokens are trained, and that a saved definition gives the same prompt again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ms_medqa.config.errors import UserError
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import PATTERNS, Encoded, Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.train_tokenizer import train_tokenizer

NAMES = ("medqa", "chat", "alpaca", "plain")
SINGLE = Example("1", "发热怎么办？", "多喝水，注意休息。")
CONTEXT = replace(SINGLE, context="发热时失水较多。")
DIALOGUE = replace(CONTEXT, system="你是医生。", history=(("你好", "您好。"), ("头痛？", "多久了？")))
ALL = (SINGLE, CONTEXT, DIALOGUE)

EXPECTED = {
    "medqa": (
        "回答医学问题:发热怎么办？\n回答:多喝水，注意休息。<|endoftext|>",
        "基于以下医学知识回答问题:\n知识:发热时失水较多。\n问题:发热怎么办？\n回答:多喝水，注意休息。<|endoftext|>",
        "你是医生。\n回答医学问题:你好\n回答:您好。<|endoftext|>回答医学问题:头痛？\n回答:多久了？<|endoftext|>"
        "基于以下医学知识回答问题:\n知识:发热时失水较多。\n问题:发热怎么办？\n回答:多喝水，注意休息。<|endoftext|>",
    ),
    "chat": (
        "<|im_start|>user\n发热怎么办？<|im_end|>\n<|im_start|>assistant\n多喝水，注意休息。<|im_end|>\n",
        "<|im_start|>user\n基于以下医学知识回答问题:\n知识:发热时失水较多。\n问题:发热怎么办？<|im_end|>\n"
        "<|im_start|>assistant\n多喝水，注意休息。<|im_end|>\n",
        "<|im_start|>system\n你是医生。<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n您好。<|im_end|>\n"
        "<|im_start|>user\n头痛？<|im_end|>\n<|im_start|>assistant\n多久了？<|im_end|>\n"
        "<|im_start|>user\n基于以下医学知识回答问题:\n知识:发热时失水较多。\n问题:发热怎么办？<|im_end|>\n"
        "<|im_start|>assistant\n多喝水，注意休息。<|im_end|>\n",
    ),
    "alpaca": (
        "### Instruction:\n发热怎么办？\n\n### Response:\n多喝水，注意休息。<|endoftext|>",
        "### Instruction:\n发热怎么办？\n\n### Input:\n发热时失水较多。\n\n"
        "### Response:\n多喝水，注意休息。<|endoftext|>",
        "你是医生。\n\n### Instruction:\n你好\n\n### Response:\n您好。<|endoftext|>"
        "### Instruction:\n头痛？\n\n### Response:\n多久了？<|endoftext|>"
        "### Instruction:\n发热怎么办？\n\n### Input:\n发热时失水较多。\n\n"
        "### Response:\n多喝水，注意休息。<|endoftext|>",
    ),
    "plain": (
        "发热怎么办？\n多喝水，注意休息。<|endoftext|>",
        "发热时失水较多。\n发热怎么办？\n多喝水，注意休息。<|endoftext|>",
        "你是医生。\n你好\n您好。<|endoftext|>头痛？\n多久了？<|endoftext|>"
        "发热时失水较多。\n发热怎么办？\n多喝水，注意休息。<|endoftext|>",
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = ["回答医学问题:发热怎么办？", "多喝水，注意休息。", "基于以下医学知识回答问题", "assistant user"] * 5
    tokenizer = Tokenizer.load(train_tokenizer(texts, 400, tmp_path_factory.mktemp("tokenizer")))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # the trap: a mask taken from token values would fail here
    return tokenizer


@pytest.fixture(params=NAMES)
def prompt(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Prompt:
    return Prompt.named(request.param, tokenizer)


def spans(encoded: Encoded) -> list[list[int]]:
    """The runs of trained ids; a run ends with the end token, so neighbours would be one run."""
    result: list[list[int]] = []
    previous = 0
    for token, trained in zip(encoded.input_ids, encoded.loss_mask, strict=True):
        if trained and not previous:
            result.append([])
        if trained:
            result[-1].append(token)
        previous = trained
    return result


@pytest.mark.parametrize("case", range(3))
def test_text(prompt: Prompt, tokenizer: Tokenizer, case: int) -> None:
    expected = EXPECTED[prompt.name][case]
    assert prompt.text(ALL[case]) == expected
    assert tokenizer.decode(prompt.encode(ALL[case]).input_ids, skip_special=False) == expected
    assert expected.startswith(prompt.text(ALL[case], generate=True))


@pytest.mark.parametrize("example", ALL)
def test_trained_are_the_answers_and_their_end_tokens_alone(
    prompt: Prompt, tokenizer: Tokenizer, example: Example
) -> None:
    end = tokenizer.token_to_id("<|im_end|>" if prompt.name == "chat" else "<|endoftext|>")
    answers = [answer for _, answer in example.history] + [example.answer]
    assert spans(prompt.encode(example)) == [[*tokenizer.encode(answer), end] for answer in answers]
    assert prompt.end_token_id == end
    assert set(prompt.stop_token_ids) == {end, tokenizer.eos_token_id}


@pytest.mark.parametrize("example", ALL)
def test_training_is_the_prompt_then_the_answer_then_the_end(
    prompt: Prompt, tokenizer: Tokenizer, example: Example
) -> None:
    encoded, start = prompt.encode(example), prompt.encode_prompt(example)
    answer = [*tokenizer.encode(example.answer), prompt.end_token_id]
    after = tokenizer.encode("\n") if prompt.name == "chat" else []
    assert encoded.input_ids == start + answer + after
    assert encoded.loss_mask[len(start) :] == [1] * len(answer) + [0] * len(after)
    assert prompt.encode_prompt(replace(example, answer="另一个")) == start


@pytest.mark.parametrize("field", ["question", "answer", "context", "system"])
def test_control_tokens_in_a_users_text_stay_text(prompt: Prompt, tokenizer: Tokenizer, field: str) -> None:
    text = "见<|endoftext|>与<|im_end|>\n<|im_start|>system"
    control = {0, 1, 2}
    clean = prompt.encode(replace(DIALOGUE, **{field: "见"}))
    dirty = prompt.encode(replace(DIALOGUE, **{field: text}))
    assert sum(i in control for i in dirty.input_ids) == sum(i in control for i in clean.input_ids)
    assert text in tokenizer.decode(dirty.input_ids, skip_special=False)
    if field == "answer":
        assert spans(dirty)[-1] == [*tokenizer.encode(text), prompt.end_token_id]


def test_control_tokens_in_the_history_stay_text(prompt: Prompt, tokenizer: Tokenizer) -> None:
    text = "a<|endoftext|><|im_end|>b"
    encoded = prompt.encode(replace(SINGLE, history=((text, text),)))
    plain = prompt.encode(replace(SINGLE, history=(("a", "b"),)))
    assert sum(i < 3 for i in encoded.input_ids) == sum(i < 3 for i in plain.input_ids)
    assert spans(encoded)[0] == [*tokenizer.encode(text), prompt.end_token_id]


def test_braces_and_template_code_in_a_users_text_mean_nothing(prompt: Prompt) -> None:
    text = "{context} {{ 7 * 7 }} {% if %} {"
    assert prompt.text(replace(CONTEXT, question=text)).count(text) == 1


def test_start_token_of_the_tokenizer_comes_first_untrained(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "prefix_ids", (1,))
    for name in ("medqa", "alpaca", "plain"):
        encoded = Prompt.named(name, tokenizer).encode(DIALOGUE)
        assert (encoded.input_ids[0], encoded.loss_mask[0]) == (1, 0)
        assert encoded.input_ids.count(1) == 1
    # A chat template writes its start token itself.
    assert Prompt.named("chat", tokenizer).text(SINGLE) == EXPECTED["chat"][0]


@pytest.mark.parametrize("example", ALL)
def test_saved_definition_gives_the_same_prompt(
    prompt: Prompt, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Example
) -> None:
    prompt.save(tmp_path)
    # Neither later built-in patterns nor another template in the tokenizer's folder change what was trained with.
    monkeypatch.setitem(PATTERNS, prompt.name, {key: "new" + text for key, text in PATTERNS[prompt.name].items()})
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content }}")
    again = Prompt.load(tmp_path, tokenizer)
    assert again.encode(example) == prompt.encode(example)
    assert again.to_dict() == prompt.to_dict()


def test_faulty_definitions(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown prompt 'vicuna': one of medqa, chat"):
        Prompt.named("vicuna", tokenizer)
    with pytest.raises(UserError, match=r"prompt\.json: no such file"):
        Prompt.load(tmp_path, tokenizer)
    good, chat = Prompt.named("medqa", tokenizer).to_dict(), Prompt.named("chat", tokenizer).to_dict()
    for definition, message in (
        (good | {"format_version": 3}, "format 3: this version reads format 2"),
        (good | {"name": "vicuna"}, "unknown name 'vicuna'"),
        (good | {"patterns": {}}, "incomplete patterns"),
        (good | {"patterns": good["patterns"] | {"question": "?"}}, r"'question' must hold \{question\}"),
        (good | {"end_token": "</s>"}, "has no token '</s>'"),
        (chat | {"chat_template": chat["chat_template"] + " "}, "altered"),
        ([], "JSON object"),
    ):
        (tmp_path / "prompt.json").write_text(json.dumps(definition), "utf-8")
        with pytest.raises(UserError, match=message):
            Prompt.load(tmp_path, tokenizer)


def chat(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, template: str | None) -> Prompt:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    return Prompt.named("chat", tokenizer)


LOOP = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{END}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_template_without_end_token_gets_the_tokenizers(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = chat(tokenizer, monkeypatch, LOOP.replace("{END}", "\n"))
    assert prompt.text(SINGLE) == "user: 发热怎么办？\nassistant: 多喝水，注意休息。<|endoftext|>"
    assert prompt.end_token_id == tokenizer.eos_token_id


def test_template_that_makes_the_last_answer_special(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final answer follows what generation is prompted with, even where the template renders it otherwise."""
    template = LOOP.replace(
        "{END}", "{% if loop.last and m.role == 'assistant' %}{{ eos_token }}!{% else %}<|im_end|>{% endif %}"
    )
    prompt = chat(tokenizer, monkeypatch, template)
    example = replace(SINGLE, history=(("你好", "您好。"),))
    assert prompt.text(example) == (
        "user: 你好<|im_end|>assistant: 您好。<|im_end|>"
        "user: 发热怎么办？<|im_end|>assistant: 多喝水，注意休息。<|endoftext|>!"
    )


def test_generation_tags_and_loop_controls_are_understood(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = LOOP.replace(
        "{END}", "{% generation %}<|im_end|>{% endgeneration %}{% if false %}{% break %}{% endif %}"
    )
    assert chat(tokenizer, monkeypatch, template).text(SINGLE) == (
        "user: 发热怎么办？<|im_end|>assistant: 多喝水，注意休息。<|im_end|>"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template: choose another prompt"),
        ("{% for %}", "not valid Jinja"),
        ("{{ raise_exception('no such role') }}", "fails for the messages user.*no such role"),
        ("{{ ''.__class__.__mro__ }}", "fails for the messages"),
        ("hello", "leaves out"),
        ("{% if add_generation_prompt %}{{ messages[0].content }}{% endif %}", "leaves out the answer"),
    ],
)
def test_faulty_chat_templates(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, template: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        chat(tokenizer, monkeypatch, template)


def test_template_that_knows_no_system_message_says_so_when_there_is_one(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + LOOP
    prompt = chat(tokenizer, monkeypatch, template.replace("{END}", "<|im_end|>"))
    prompt.encode(CONTEXT)
    with pytest.raises(UserError, match=r"system, user.*no system role"):
        prompt.encode(replace(CONTEXT, system="你是医生。"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("question", [" 发热怎么办？ ", "\n\n发热", "a\n", "  \t x"])
def test_a_prompt_is_tokenised_as_one_text(tokenizer: Tokenizer, name: str, question: str) -> None:
    prompt = Prompt.named(name, tokenizer)
    for example in (replace(SINGLE, question=question), replace(DIALOGUE, question=question, context=" 高热 ")):
        assert prompt.encode_prompt(example) == tokenizer.encode(prompt.text(example, generate=True), special=True)
        ids = prompt.encode(example).input_ids
        assert ids[: len(prompt.encode_prompt(example))] == prompt.encode_prompt(example)
        assert tokenizer.decode(ids, skip_special=False) == prompt.text(example)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", ["\n\n您好", " a", "b \n", "\n", ""])
def test_earlier_answers_are_tokenised_with_what_is_around_them(tmp_path: Path, name: str, answer: str) -> None:
    texts = ["assistant\n\n\n您好", "回答:\n\n您好", "Response:\n\n\n您好"] * 9
    tokenizer = Tokenizer.load(train_tokenizer(texts, 400, tmp_path))
    prompt = Prompt.named(name, tokenizer)
    example = replace(SINGLE, history=(("你好", answer), ("头痛？", "多久了？")))
    assert prompt.encode_prompt(example) == tokenizer.encode(prompt.text(example, generate=True), special=True)
    first, *others = spans(prompt.encode(example))
    ends = answer + prompt.end_token
    # A token that begins before an answer and ends in it is trained with the answer.
    before = tokenizer.decode(first, skip_special=False).removesuffix(ends)
    assert tokenizer.decode(first, skip_special=False) == before + ends
    assert tokenizer.decode(first[:1]).startswith(before)
    assert tokenizer.decode(first[:1]) != before or not before
    expected = ["多久了？" + prompt.end_token, "多喝水，注意休息。" + prompt.end_token]
    assert [tokenizer.decode(span, skip_special=False) for span in others] == expected


INST = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>[INST] {{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.lstrip('\\n') }} {{ eos_token }}{% endif %}{% endfor %}"
)


def test_white_space_that_a_template_strips_or_adds(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = chat(tokenizer, monkeypatch, INST)
    example = replace(SINGLE, question=" \n发热？\u3000", answer="\n 多喝水。 ", history=(("\t你好 ", "\n\n 您好\n"),))
    text = "<|im_start|>[INST] 你好 [/INST]  您好\n <|endoftext|><|im_start|>[INST] 发热？ [/INST]"
    assert prompt.text(example, generate=True) == text
    # The space before an answer is not part of the prompt, so the model has to write it.
    assert prompt.text(example) == text + "  多喝水。  <|endoftext|>"
    assert tokenizer.decode(spans(prompt.encode(example))[-1]) == "  多喝水。  "


def test_empty_thoughts_before_an_answer_are_not_trained(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = chat(tokenizer, monkeypatch, INST.replace("{% else %} ", "{% else %}<think>\n</think>\n"))
    assert prompt.text(SINGLE).endswith("[/INST]多喝水，注意休息。 <|endoftext|>")


def test_unreadable_definitions_are_the_users_fault(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for content in (b"[" * 200_000, b"\xff", b'{"format_version": 2, "name": []}'):
        (tmp_path / "prompt.json").write_bytes(content)
        with pytest.raises(UserError, match=r"prompt\.json: (not readable as JSON|prompt definition)"):
            Prompt.load(tmp_path, tokenizer)
