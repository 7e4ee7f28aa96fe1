"""The same ids as transformers, on real text, for real tokenizers and for one trained here."""

from __future__ import annotations

import base64
import itertools
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


@pytest.fixture(scope="module", params=["qwen2.5", "minimind", "own"])
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    if request.param == "own":
        sample = request.getfixturevalue("texts")[:300]
        folder = train_tokenizer(sample, 1000, tmp_path_factory.mktemp("own"))
    else:
        folder = shared_data / "tokenizers" / request.param
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


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
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for question, answer in example.history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": example.question})
    if answered:
        messages.append({"role": "assistant", "content": example.answer})
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
    return theirs(text, add_special_tokens=False)["input_ids"]


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


def all_texts(folder: Path) -> Iterator[str]:
    """Everything in the text files of `folder`: the strings of JSON data, other files in pieces of some lines."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if path.suffix in (".json", ".jsonl") and path.parent.parent.name != "tokenizers":
            try:
                yield from strings(json.loads("".join(lines)))
            except ValueError:
                for line in lines:
                    yield from strings(json.loads(line))
        else:
            for start in range(0, len(lines), 20):
                piece = "".join(lines[start : start + 20])
                yield from (piece[i : i + 20_000] for i in range(0, len(piece), 20_000))


@pytest.mark.slow
def test_ids_of_all_text(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "qwen2.5"
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    texts, count = all_texts(shared_data), 0
    while batch := list(dict.fromkeys(itertools.islice(texts, 2000))):
        expected = theirs(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        plain = [text for text in batch if ours.first_control_token(text) is None]
        found = dict(zip(plain, ours.encode_batch(plain), strict=True))
        for text, ids in zip(batch, expected, strict=True):
            assert (found[text] if text in found else ours.encode(text, special=True)) == ids
        count += sum(map(len, batch))
    assert count > 15_000_000


@pytest.mark.slow
def test_chat_prompt_of_real_questions(shared_data: Path) -> None:
    """Questions and answers as they are, alone and in dialogues, with and without system message."""
    folder = shared_data / "tokenizers" / "qwen2.5"
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    prompt = Prompt.named("chat", ours)
    lines = (shared_data / "huatuo_llama" / "llama_data.json").read_text("utf-8").splitlines()
    turns = [(r["instruction"], r["output"]) for r in map(json.loads, lines[::3])]
    for name in ("huatuo_llama/liver_cancer.json", "general_zh/alpaca_zh_demo.json"):
        turns += [(r["instruction"], r["output"]) for r in json.loads((shared_data / name).read_text("utf-8"))]
    assert len(turns) > 4000
    for i, (question, answer) in enumerate(turns):
        history = tuple(turns[max(0, i - i % 4) : i])  # none to three rounds
        example = Example(str(i), question, answer, system=[None, "你是一名谨慎的医生。"][i % 3 == 0], history=history)
        assert prompt.encode_prompt(example) == rendered(theirs, example, answered=False)
        if i % 5 == 0:
            assert prompt.encode(example).input_ids == rendered(theirs, example, answered=True)


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
    one, two = Tokenizer.load(qwen_1), Tokenizer.load(shared_data / "tokenizers" / "qwen2.5")
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


def test_llama_has_the_ids_of_transformers(texts: list[str], tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="reading tokenizer.model needs sentencepiece")
    with (tmp_path / "tokenizer.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts[::3]),
            model_writer=file,
            model_type="bpe",
            vocab_size=4000,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            minloglevel=2,
        )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}', "utf-8")
    ours, theirs = Tokenizer.load(tmp_path), transformers.LlamaTokenizer.from_pretrained(tmp_path)
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
