"""The same ids as transformers, on real text, for real tokenizers and for one trained here."""

from __future__ import annotations

import base64
import functools
import io
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_tiktoken import CONTROL_TOKENS
from ms_medqa.data.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[dict[str, str]]:
    path = shared_data / "huatuo_llama" / "llama_data.json"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()][::8]


@pytest.fixture(scope="module")
def texts(records: list[dict[str, str]], shared_data: Path) -> list[str]:
    dialogues = json.loads((shared_data / "huatuo_llama" / "liver_cancer.json").read_text("utf-8"))[::10]
    mixed = ["", " a  b\n\n c\t", "e\u0301 ﬁ ㎎ 𠮷😀", "<think>2.5 mg/kg</think>", "x <|im_end|>\n", "It's 3°C.\r\n"]
    return [r[k] for r in records + dialogues for k in ("instruction", "output")] + mixed


@functools.cache
def load_pair(folder: Path) -> tuple[Tokenizer, Any]:
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=["qwen2.5", "minimind", "own"])
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    if request.param == "own":
        sample = request.getfixturevalue("texts")[:300]
        folder = train_tokenizer(sample, 1000, tmp_path_factory.mktemp("own"))
    else:
        folder = shared_data / "tokenizers" / request.param
    return load_pair(folder)


def test_ids_and_text(pair: tuple[Tokenizer, Any], texts: list[str]) -> None:
    ours, theirs = pair
    assert len(texts) > 2000
    parsed = [ours.encode(text, special=True) for text in texts]
    assert parsed == theirs(texts, add_special_tokens=False)["input_ids"]
    # No text of the sample but the mixed ones looks like a control token, so both ways of encoding agree on it.
    assert ours.encode_batch(texts[:-6]) == parsed[:-6]
    for ids in parsed[::5] + parsed[-6:]:
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special=skip) == expected


def test_special_tokens(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.vocab_size == len(theirs)
    assert ours.chat_template == theirs.chat_template


def rendered(theirs: Any, example: Example, answered: bool) -> list[int]:
    return theirs(rendered_text(theirs, example, answered), add_special_tokens=False)["input_ids"]


def rendered_text(theirs: Any, example: Example, answered: bool) -> str:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for question, answer in example.history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": example.question})
    if answered:
        messages.append({"role": "assistant", "content": example.answer})
    return theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)


UNUSUAL = [
    " 发热",
    "\n\n发热",
    "发热 \n\n",
    "a\n\n\n\nb",
    "\t x  ",
    "\r\n血压\r\n",
    "😀👨‍👩‍👧 🇨🇳",
    "e\u0301",
    "\u3000热\u3000",
]
UNUSUAL += ["It's 120/80.", "\u2581 a", "don't\u200b", "1234567"]


def unusual_examples(systems: tuple[str | None, ...]) -> Iterator[Example]:
    """Text in all places of a dialogue that begins, ends or goes on in a way that tokenizers treat apart."""
    for text in UNUSUAL:
        for system in systems:
            yield Example("1", text, "好", system=system and system + text)
            yield Example("1", text, "好", system=system, history=((text, text), ("q", text)))
            yield Example("1", "q", "好", system=system, history=(("q", "a"), (text, "a")))


def test_chat_prompt_of_unusual_text(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    prompt = Prompt.named("chat", ours)
    for example in unusual_examples((None, "", "S")):
        assert prompt.encode_prompt(example) == rendered(theirs, example, answered=False)
        assert prompt.encode(example).input_ids == rendered(theirs, example, answered=True)


@pytest.mark.parametrize("system", [None, "你是一名谨慎的医生。"])
@pytest.mark.parametrize("rounds", [0, 2])
def test_chat_prompt(
    pair: tuple[Tokenizer, Any], records: list[dict[str, str]], system: str | None, rounds: int
) -> None:
    ours, theirs = pair
    prompt = Prompt.named("chat", ours)
    turns = [(r["instruction"].strip(), r["output"].strip()) for r in records[:200]]
    for i in range(rounds, len(turns)):
        question, answer = turns[i]
        example = Example(str(i), question, answer, system=system, history=tuple(turns[i - rounds : i]))
        assert prompt.encode_prompt(example) == rendered(theirs, example, answered=False)
        assert prompt.encode(example).input_ids == rendered(theirs, example, answered=True)


def test_saved_copy_loads_in_transformers(pair: tuple[Tokenizer, Any], tmp_path: Path, texts: list[str]) -> None:
    ours, theirs = pair
    ours.save(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts[:50])["input_ids"] == theirs(texts[:50])["input_ids"]
    assert again.chat_template == theirs.chat_template


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, the keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def all_texts(folder: Path) -> list[str]:
    """Everything in the text files of `folder`, once: the strings of JSON data, other files in pieces of some lines."""
    whole: dict[str, None] = {}
    short: dict[str, None] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_text("utf-8")
        # The words of a vocabulary go together: there are hundreds of thousands.
        found = short if path.parent.parent.name == "tokenizers" else whole
        if path.suffix in (".json", ".jsonl"):
            try:
                found.update(dict.fromkeys(strings(json.loads(content))))
            except ValueError:
                for line in content.splitlines():
                    found.update(dict.fromkeys(strings(json.loads(line))))
        elif found is short:
            found.update(dict.fromkeys(content.splitlines()))
        else:
            lines = content.splitlines(keepends=True)
            found.update(dict.fromkeys("".join(lines[start : start + 20]) for start in range(0, len(lines), 20)))
    words = list(short)
    return [*whole, *("\n".join(words[start : start + 200]) for start in range(0, len(words), 200))]


@pytest.mark.slow
def test_ids_of_all_text(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "qwen2.5"
    ours, theirs = load_pair(folder)
    texts = all_texts(shared_data)
    assert sum(map(len, texts)) > 6_500_000
    for start in range(0, len(texts), 2000):
        batch = texts[start : start + 2000]
        expected = theirs(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        plain = [text for text in batch if ours.first_control_token(text) is None]
        found = dict(zip(plain, ours.encode_batch(plain), strict=True))
        for text, ids in zip(batch, expected, strict=True):
            assert (found[text] if text in found else ours.encode(text, special=True)) == ids


@pytest.mark.slow
def test_chat_prompt_of_real_questions(shared_data: Path) -> None:
    """Questions and answers as they are, alone and in dialogues, with and without system message."""
    folder = shared_data / "tokenizers" / "qwen2.5"
    ours, theirs = load_pair(folder)
    prompt = Prompt.named("chat", ours)
    lines = (shared_data / "huatuo_llama" / "llama_data.json").read_text("utf-8").splitlines()
    turns = [(r["instruction"], r["output"]) for r in map(json.loads, lines[::3])]
    for name in ("huatuo_llama/liver_cancer.json", "general_zh/alpaca_zh_demo.json"):
        turns += [(r["instruction"], r["output"]) for r in json.loads((shared_data / name).read_text("utf-8"))]
    assert len(turns) > 4000
    found, texts = [], []
    for i, (question, answer) in enumerate(turns):
        history = tuple(turns[max(0, i - i % 4) : i])  # none to three rounds
        example = Example(str(i), question, answer, system=[None, "你是一名谨慎的医生。"][i % 3 == 0], history=history)
        found.append(prompt.encode_prompt(example))
        texts.append(rendered_text(theirs, example, answered=False))
        if i % 5 == 0:
            found.append(prompt.encode(example).input_ids)
            texts.append(rendered_text(theirs, example, answered=True))
    expected = theirs(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    assert all(ours == other for ours, other in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def qwen_1(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Qwen-1 model, whose text tokens are those of Qwen2.5."""
    content = json.loads((shared_data / "tokenizers" / "qwen2.5" / "vocab.json").read_text("utf-8"))
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    values = {chr(v): v for v in printable} | {chr(256 + i): v for i, v in enumerate(others)}
    tokens = ((bytes(values[char] for char in name), i) for name, i in content.items() if i < 151_643)
    folder = tmp_path_factory.mktemp("qwen-1")
    lines = (base64.b64encode(token) + b" %d\n" % i for token, i in sorted(tokens, key=lambda pair: pair[1]))
    (folder / "qwen.tiktoken").write_bytes(b"".join(lines))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "QWenTokenizer"}', "utf-8")
    chat = {"chat_format": "chatml", "eos_token_id": 151_643}
    (folder / "generation_config.json").write_text(json.dumps(chat), "utf-8")
    return folder


def test_qwen_1_has_the_ids_of_qwen_2(qwen_1: Path, shared_data: Path, texts: list[str], tmp_path: Path) -> None:
    one, two = Tokenizer.load(qwen_1), load_pair(shared_data / "tokenizers" / "qwen2.5")[0]
    expected = two.encode_batch(texts)
    assert one.encode_batch(texts) == expected
    turn = "<|im_start|>user\n发热<|im_end|>\n<|endoftext|>"
    assert one.encode(turn, special=True) == two.encode(turn, special=True)
    assert (one.vocab_size, one.eos_token_id) == (151_851, 151_643)
    assert Prompt.named("chat", one).stop_token_ids == (151_645, 151_643)
    one.save(tmp_path)
    # Other libraries read the tokenizer.json that the copy has.
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs(texts[:500], add_special_tokens=False)["input_ids"] == expected[:500]


def test_qwen_1_has_the_ids_of_tiktoken(qwen_1: Path, texts: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="comparing with tiktoken needs tiktoken")
    lines = (line.split() for line in (qwen_1 / "qwen.tiktoken").read_bytes().splitlines())
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    theirs = tiktoken.Encoding(
        "qwen",
        pat_str=words,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        special_tokens={token: 151_643 + i for i, token in enumerate(CONTROL_TOKENS)},
    )
    ours = Tokenizer.load(qwen_1)
    runs = [char * n + tail for char in "a \n=-0中😀" for n in range(1, 70) for tail in ("", "x")]
    for text, ids in zip(texts + runs, ours.encode_batch(texts + runs), strict=True):
        assert ids == theirs.encode(unicodedata.normalize("NFC", text), disallowed_special=())
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids)


@pytest.fixture(scope="module")
def llama(texts: list[str]) -> bytes:
    """A tokenizer.model with the settings of LLaMA's."""
    spm = pytest.importorskip("sentencepiece", reason="reading tokenizer.model needs sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts[::3], *(["[INST] <<SYS>>\n a b [/INST]\n<</SYS>>\n\n"] * 99)]),
        model_writer=model,
        model_type="bpe",
        vocab_size=4000,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
    )
    return model.getvalue()


def llama_pair(folder: Path, content: bytes, **settings: Any) -> tuple[Tokenizer, Any]:
    (folder / "tokenizer.model").write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"} | settings), "utf-8")
    return Tokenizer.load(folder), transformers.LlamaTokenizer.from_pretrained(folder)


def test_llama_has_the_ids_of_transformers(texts: list[str], llama: bytes, tmp_path: Path) -> None:
    ours, theirs = llama_pair(tmp_path, llama)
    # Recent versions of transformers convert the model, and differ from SentencePiece in what they do with a space in
    # front of a text and inside its control tokens.
    plain = [text for text in texts if not text.startswith(" ") and ours.first_control_token(text) is None]
    assert len(plain) > 2000
    parsed = ours.encode_batch(plain)
    assert parsed == theirs(plain, add_special_tokens=False)["input_ids"]
    assert [ours.decode(ids) for ids in parsed[::5]] == [theirs.decode(ids) for ids in parsed[::5]]
    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)
    ours.save(tmp_path / "adapter")
    again = transformers.LlamaTokenizer.from_pretrained(tmp_path / "adapter")
    assert again(plain[:200], add_special_tokens=False)["input_ids"] == parsed[:200]


# What LLaMA-2 and Mistral render; the first strips messages and puts spaces around answers.
INST_TEMPLATES = {
    "llama-2": (
        "{% for m in messages if m.role != 'system' %}{% set text = m.content %}"
        "{% if loop.first and messages[0].role == 'system' %}"
        "{% set text = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' + text %}{% endif %}"
        "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", INST_TEMPLATES)
@pytest.mark.parametrize("saved_as", ["tokenizer.model", "tokenizer.json"])
def test_chat_prompt_of_llama(llama: bytes, tmp_path: Path, name: str, legacy: bool, saved_as: str) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    ours, theirs = llama_pair(tmp_path, llama, legacy=legacy, chat_template=INST_TEMPLATES[name], **names)
    if saved_as == "tokenizer.json":
        theirs.save_pretrained(tmp_path / "saved")
        ours = Tokenizer.load(tmp_path / "saved")
        assert ours.token_to_id("</s>") == 2
    prompt = Prompt.named("chat", ours)
    for example in unusual_examples((None, "S ") if name == "llama-2" else (None,)):
        ids = prompt.encode_prompt(example)
        assert ids == rendered(theirs, example, answered=False)
        assert prompt.encode(example).input_ids == rendered(theirs, example, answered=True)
        # The template writes the start token: once for LLaMA-2 in each round, else once.
        assert ids.count(1) == (1 + len(example.history) if name == "llama-2" else 1)
