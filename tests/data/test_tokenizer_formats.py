"""Which vocabulary of a folder is read, and qwen.tiktoken (tokenizer.model has tests of its own)."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config.errors import UserError
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer, has_tokenizer

# Texts with the words into which Qwen's rules cut them, by hand.
WORDS = [
    ["高血压患者的饮食应当清淡", "，少吃盐", "，多吃蔬菜和水果", "。"],
    ["糖尿病患者应当定期检查血糖", "。\n", "糖尿病患者", " ", "2", " 次"],
    ["It", "'s", " ", "1", "2", "0", "/", "8", "0", " mmHg", "!\n\n", " I", "'LL", " rest", " ..."],
    ["a", "  ", " b", "\r\n", "\tc", "   "],
    [" caf\u00e9", " \u00e9", "😀𠮷"],
    ["<", "|im", "_end", "|>"],
    ["aaaaaaa", " aaaaa", "-----", " aaa", "\n\n\n"],
]


def write(folder: Path, name: str, content: bytes, **settings: Any) -> Path:
    """A model folder with one vocabulary and a tokenizer_config.json of `settings`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def learn_ranks(words: list[str], merges: int) -> dict[bytes, int]:
    """Byte-level BPE learnt from words in the plainest way."""
    ranks = {bytes([value]): value for value in range(256)}
    pieces = [[bytes([value]) for value in word.encode()] for word in words]
    for _ in range(merges):
        pairs = Counter(pair for word in pieces for pair in itertools.pairwise(word))
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks[left + right] = len(ranks)
        for word in pieces:
            for i in range(len(word) - 1):
                if word[i : i + 2] == [left, right]:
                    word[i : i + 2] = [left + right]
    return ranks


def reference_ids(words: list[str], ranks: dict[bytes, int]) -> list[int]:
    """In each word, of all neighbours that make a token those of the lowest rank are joined first."""
    ids = []
    for word in words:
        parts = [bytes([value]) for value in unicodedata.normalize("NFC", word).encode()]
        while pairs := [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]:
            i = min(pairs)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


RANKS = learn_ranks([word for words in WORDS for word in words] * 2, 90)
LINES = [base64.b64encode(token) + b" %d" % rank for token, rank in RANKS.items()]
FIRST_CONTROL = len(RANKS)


def qwen(folder: Path, content: bytes = b"\n".join(LINES) + b"\n", **settings: Any) -> Path:
    return write(folder, "qwen.tiktoken", content, **{"tokenizer_class": "QWenTokenizer"} | settings)


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0].strip())
def test_tiktoken_gives_the_ids_of_bpe_by_ranks(tmp_path: Path, words: list[str]) -> None:
    tokenizer = Tokenizer.load(qwen(tmp_path))
    text = "".join(words)
    ids = tokenizer.encode(text)
    assert ids == reference_ids(words, RANKS)
    assert tokenizer.encode_batch([text, ""]) == [ids, []]
    assert tokenizer.encode(unicodedata.normalize("NFD", text)) == ids
    assert tokenizer.decode(ids, skip_special=False) == text
    assert len(reference_ids(WORDS[0], RANKS)) < len("".join(WORDS[0]).encode()) / 2  # many merges take part


def test_tiktoken_control_tokens_follow_the_ranks(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(qwen(tmp_path))
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>", "<|extra_1|>"]
    assert tokenizer.encode("".join(names), special=True) == [FIRST_CONTROL + i for i in range(5)]
    assert tokenizer.token_to_id("<|extra_204|>") == FIRST_CONTROL + 207 == tokenizer.vocab_size - 1
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == FIRST_CONTROL
    assert tokenizer.prefix_ids == ()
    assert max(tokenizer.encode("".join(names))) < FIRST_CONTROL  # in a user's text they stay text


def test_tiktoken_line_ends_and_order_of_lines_do_not_matter(tmp_path: Path) -> None:
    one = Tokenizer.load(qwen(tmp_path / "a"))
    two = Tokenizer.load(qwen(tmp_path / "b", b"\r\n".join(reversed(LINES))))
    assert two.fingerprint == one.fingerprint


def test_chat_folders_of_qwen_1_talk_chatml(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(qwen(tmp_path / "class"))
    prompt = Prompt.named("chat", tokenizer)
    example = Example("1", "发热怎么办？", "多喝水。", system="S")
    turns = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n发热怎么办？<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.text(example, generate=True) == turns
    assert prompt.end_token == "<|im_end|>"
    assert prompt.stop_token_ids == (FIRST_CONTROL + 2, FIRST_CONTROL)
    # Without the class, generation_config.json decides; a template of the folder's own goes before.
    folder = qwen(tmp_path / "format", tokenizer_class=None)
    assert Tokenizer.load(folder).chat_template is None
    (folder / "generation_config.json").write_text('{"chat_format": "chatml"}', "utf-8")
    assert Tokenizer.load(folder).chat_template == tokenizer.chat_template
    assert Tokenizer.load(qwen(tmp_path / "own", chat_template="T")).chat_template == "T"


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    folder = qwen(tmp_path, auto_map={"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]})
    (folder / "tokenization_qwen.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    tokenizer = Tokenizer.load(folder)
    tokenizer.save(tmp_path / "copy")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "copy" / "tokenization_qwen.py").exists()


def test_saved_tiktoken_is_the_same_tokenizer_without_its_model(tmp_path: Path) -> None:
    folder = qwen(tmp_path / "model", tokenizer_class=None)
    (folder / "generation_config.json").write_text(
        json.dumps({"chat_format": "chatml", "eos_token_id": FIRST_CONTROL}), "utf-8"
    )
    tokenizer = Tokenizer.load(folder)
    tokenizer.save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "qwen.tiktoken").read_bytes() == (folder / "qwen.tiktoken").read_bytes()
    texts = ["".join(words) for words in WORDS]
    for name in ("tokenizer.json", "qwen.tiktoken"):  # each of the two alone will do
        copy = shutil.copytree(tmp_path / "adapter", tmp_path / name)
        (copy / name).unlink()
        again = Tokenizer.load(copy)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode_batch(texts) == tokenizer.encode_batch(texts)
        assert (again.eos_token_id, again.chat_template) == (tokenizer.eos_token_id, tokenizer.chat_template)
    tokenizer.save(folder)
    assert not (folder / "tokenizer.json").exists()  # a model's own folder stays as it is


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n".join(LINES)[:-1], "the rank of line 35 again|no token has rank|line 346"),
        (b"\n".join(LINES)[: 6 * 256 + 5], "line .*: not a token in base64"),
        (b"\n".join(LINES[:200]), "the byte 0xc8 has no token"),
        (b"\n".join([*LINES[:300], *LINES[301:]]), "no token has rank 300"),
        (b"\n".join([*LINES, b"QUJDREVG 300"]), "line 347: the rank of line 301 again"),
        (b"\n".join([*LINES, b"QQ== 346"]), "line 347: the token of line 66 again"),
        (b"\n".join([*LINES, b"QUJDREVG 346"]), "do not make the token of rank 346"),
        (b"\n".join([*LINES, b"Q?JD 346"]), "line 347: not a token in base64"),
        (b"\n".join([*LINES, b"QUJD x"]), "line 347: not a token in base64"),
        (b"\n".join(LINES).decode().encode("utf-16"), "line 1: not a token in base64"),
        (b'{"model": {}}', "line 1: not a token in base64"),
    ],
)
def test_faulty_tiktoken(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Tokenizer.load(qwen(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert "qwen.tiktoken" in str(caught.value)


def test_tiktoken_that_lost_its_end_does_not_move_the_control_tokens(tmp_path: Path) -> None:
    folder = qwen(tmp_path, b"\n".join(LINES[:-5]))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 151643}), "utf-8")
    with pytest.raises(UserError, match="has the end token 151643, which is none of the 208 control tokens"):
        Tokenizer.load(folder)


def test_first_vocabulary_of_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, "tokenizer.model", b"not read")
    Tokenizer.load(qwen(tmp_path / "qwen")).save(tmp_path / "json")
    shutil.copy(tmp_path / "json" / "qwen.tiktoken", folder)
    assert Tokenizer.load(folder).eos_token == "<|endoftext|>"
    shutil.copy(tmp_path / "json" / "tokenizer.json", folder)
    (folder / "qwen.tiktoken").write_bytes(b"not read")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|extra_0|>"}', "utf-8")
    assert Tokenizer.load(folder).eos_token_id == FIRST_CONTROL + 3


def test_folder_without_any(tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    names = r"tokenizer\.json, qwen\.tiktoken or tokenizer\.model"
    with pytest.raises(UserError, match=rf"needs a tokenizer, and there is no {names}") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert has_tokenizer(qwen(tmp_path))
