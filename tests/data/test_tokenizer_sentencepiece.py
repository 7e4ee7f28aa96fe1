"""tokenizer.model, the vocabulary of LLaMA and its kin: the same ids as sentencepiece, whatever the model."""

from __future__ import annotations

import io
import json
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models

from ms_medqa.config.errors import UserError
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import TextStream, Tokenizer

spm = pytest.importorskip("sentencepiece", reason="reading tokenizer.model needs sentencepiece")

SENTENCES = [
    "高血压患者的饮食应当清淡，少吃盐，多吃蔬菜和水果。",
    "糖尿病患者应当定期检查血糖，按医嘱服药。",
    "A patient with fever should rest and drink enough water.",
    "It's 120/80 mmHg; the patient's pressure isn't high.",
    "def f(x):\n    return x  # four spaces\n",
]
TEXTS = [
    *SENTENCES,
    *("", " ", "   ", "\n", "\n\n\n", "a", " a", "  a  b   c    ", "\t tab \r\n line", "1234567890 3.14 １２３"),
    *("😀👨‍👩‍👧🇨🇳 𠮷龘", "e\u0301 \u00e9 ﬁ ㎎", "▁ and a\u2581b", "a\x00b", "zero\u200bwidth\ufeff", "血压" * 50),
    *("<s>", "x</s> y", "<unk> <0x0A>", "<|im_end|>"),
]


def write(folder: Path, content: bytes, name: str = "tokenizer.model", **settings: Any) -> Path:
    """A model folder with one vocabulary and a tokenizer_config.json of `settings`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def train(**options: Any) -> bytes:
    """A model with the settings of LLaMA's, unless `options` say otherwise."""
    llama = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, "normalization_rule_name": "identity"}
    spaces = {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "split_digits": True}
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9), model_writer=model, minloglevel=2, **llama | spaces | options
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def llama() -> bytes:
    return train()


def with_pieces(content: bytes, pieces: list[tuple[str, float, int]]) -> bytes:
    """The model with more pieces (text, score, type) at its end: protobuf joins what stands behind to what is there."""
    parts = [content]
    for text, score, kind in pieces:
        body = b"\x0a" + bytes([len(text.encode())]) + text.encode() + b"\x15" + struct.pack("<f", score)
        parts.append(b"\x0a" + bytes([len(body) + 2]) + body + b"\x18" + bytes([kind]))
    return b"".join(parts)


def reference(content: bytes) -> Any:
    return spm.SentencePieceProcessor(model_proto=content)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False},
        {"byte_fallback": False, "vocab_size": 150},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"model_type": "unigram", "vocab_size": 350},
        {"user_defined_symbols": ["    ", "38.5", "mmHg"]},
    ],
    ids=str,
)
def test_sentencepiece_gives_the_ids_of_sentencepiece(tmp_path: Path, options: dict[str, Any]) -> None:
    content = train(**options)
    tokenizer, library = Tokenizer.load(write(tmp_path, content)), reference(content)
    expected = library.encode(TEXTS)
    assert tokenizer.encode_batch(TEXTS) == expected
    assert [tokenizer.encode(text) for text in TEXTS] == expected
    assert tokenizer.vocab_size == len(library)
    known = [ids for ids in expected if library.unk_id() not in ids]
    assert len(known) > 5
    assert [tokenizer.decode(ids) for ids in known] == [library.decode(ids) for ids in known]


def test_pieces_of_one_score_are_joined_from_the_left(llama: bytes, tmp_path: Path) -> None:
    """Chinese words were added so to LLaMA's vocabulary; a list of merges, one before the other, gives other ids."""
    content = with_pieces(llama, [(word, 1.0, 1) for word in ("清少", "果清", "多果", "少多")])
    tokenizer = Tokenizer.load(write(tmp_path, content))
    text = "清少多果清少多果"
    for start in range(4):
        ids = tokenizer.encode(text[start : start + 4])
        assert ids == reference(content).encode(text[start : start + 4])
        assert [tokenizer.id_to_token(i) for i in ids[1:]] == [text[start : start + 2], text[start + 2 : start + 4]]


def test_start_token_goes_before_a_text_unless_the_folder_says_otherwise(llama: bytes, tmp_path: Path) -> None:
    # Old LLaMA folders name the control tokens with empty strings.
    empty = {"bos_token": "", "eos_token": "", "unk_token": ""}
    tokenizer = Tokenizer.load(write(tmp_path / "a", llama, **empty))
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("</s>", 2, 2)
    assert (tokenizer.bos_token_id, tokenizer.prefix_ids) == (1, (1,))
    assert Prompt.named("plain", tokenizer).encode_prompt(Example("1", "a", "b"))[0] == 1
    without = Tokenizer.load(write(tmp_path / "b", llama, add_bos_token=False))
    assert (without.bos_token_id, without.prefix_ids) == (1, ())
    assert without.fingerprint != tokenizer.fingerprint
    bare = Tokenizer.load(write(tmp_path / "c", llama, add_prefix_space=False))
    # Behind a line end there is no dummy prefix, with either.
    assert tokenizer.encode("patient") != bare.encode("patient") == tokenizer.encode("\npatient")[2:]


@pytest.mark.parametrize(
    ("settings", "spaced"),
    [
        ({"legacy": True}, True),
        ({"legacy": False}, False),
        ({}, False),
        ({"tokenizer_class": "BaichuanTokenizer"}, True),
        ({"tokenizer_class": "BaichuanTokenizer", "legacy": False}, False),
        ({"legacy": True, "add_prefix_space": False}, False),
    ],
    ids=str,
)
def test_dummy_prefix_behind_a_control_token(
    llama: bytes, tmp_path: Path, settings: dict[str, Any], spaced: bool
) -> None:
    tokenizer = Tokenizer.load(write(tmp_path, llama, **settings))
    ids = tokenizer.encode("<s>fever</s>\n</s>fever", special=True)
    space = "\u2581" * spaced
    assert "".join(map(tokenizer.id_to_token, ids)) == f"<s>{space}fever</s>{space}\n</s>{space}fever"
    # Behind other text there is none, and it is one text.
    parts = ["[x] ", "a patient"]
    ids = tokenizer.encode_part(parts[0], 1) + tokenizer.encode_part(parts[1], parts[0])
    assert tokenizer.id_to_token(tokenizer.encode_part("a", "b")[0]) == "a"
    assert tokenizer.decode([2, *ids], skip_special=False) == "</s>" + "".join(parts)


def test_stream_of_sentencepiece_loses_no_space(llama: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path, llama)
    (folder / "added_tokens.json").write_text('{"<tool>": 400}', "utf-8")
    tokenizer = Tokenizer.load(folder)
    texts = ["patient  fever ", "\u9f98\U0001f600", " a   b", "\n\n c"]
    pool = [i for text in texts for i in tokenizer.encode(text)] + [0, 1, 2, 400] * 3
    draw = random.Random(1)
    for _ in range(200):
        ids = draw.choices(pool, k=60)
        stream = TextStream(tokenizer)
        assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)


def test_control_tokens_of_sentencepiece_are_parsed_only_where_asked(llama: bytes, tmp_path: Path) -> None:
    content = with_pieces(llama, [("<reserved_1>", 0.0, 4), ("[PAD]", 0.0, 1), ("38.5", 0.0, 4)])
    size = len(reference(content))
    added = {str(size + 1): {"content": "<|end|>", "lstrip": True, "special": True}}
    folder = write(tmp_path, content, pad_token="[PAD]", added_tokens_decoder=added, legacy=True)
    (folder / "added_tokens.json").write_text(json.dumps({"<tool>": size + 3}), "utf-8")
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.pad_token_id, tokenizer.vocab_size) == (size - 2, size + 4)
    text = "<s>a<reserved_1>[PAD]b <|end|><tool></s>"
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    ids = tokenizer.encode(text, special=True)
    assert ids == [1, *a, size - 3, size - 2, *b, size + 1, size + 3, 2]
    assert tokenizer.decode(ids) == "a b<tool>"
    assert tokenizer.decode(ids, skip_special=False) == "<s>a<reserved_1>[PAD]b<|end|><tool></s>"
    typed = tokenizer.encode(text)
    assert not {1, 2, size - 3, size - 2, size + 1, size + 3} & set(typed)
    assert tokenizer.decode(typed) == text
    assert size - 1 in tokenizer.encode("a 38.5 b")  # a piece that only stands for its text is always found
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode_batch(["a", "b\ud83d"])


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("added_tokens.json", {"<x>": 5}, "'<x>' the id 5"),
        ("added_tokens.json", {"</s>": 400}, "'</s>' the id 400"),
        ("added_tokens.json", {"<x>": 400, "<y>": 400}, "'<y>' the id 400"),
        ("added_tokens.json", {"<x>": "400"}, "id of '<x>' is '400'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "<x>"}}}, "'<x>' the id 1"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": 5}}, r"added_tokens_decoder\['1'\]"),
        ("tokenizer_config.json", {"eos_token": "<x>"}, "'<x>' of tokenizer_config.json is not in tokenizer.model"),
    ],
)
def test_files_that_contradict_the_model(
    llama: bytes, tmp_path: Path, name: str, entry: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path, llama)
    (folder / name).write_text(json.dumps(entry), "utf-8")
    with pytest.raises(UserError, match=message):
        Tokenizer.load(folder)


def test_saved_sentencepiece_is_the_same_tokenizer(llama: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", llama, tokenizer_class="LlamaTokenizer")
    (folder / "added_tokens.json").write_text('{"<tool>": 400}', "utf-8")
    tokenizer = Tokenizer.load(folder)
    # What another run left there would be read first.
    write(tmp_path / "adapter", b"{}", "tokenizer.json", chat_template="T")
    tokenizer.save(tmp_path / "adapter")
    again = Tokenizer.load(tmp_path / "adapter")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (tmp_path / "adapter" / "tokenizer.model").read_bytes() == llama


@pytest.mark.parametrize("fallback", ["tokenizer.model", "tokenizer.json"])
def test_characters_spelt_in_bytes_stream_whole(request: pytest.FixtureRequest, tmp_path: Path, fallback: str) -> None:
    if fallback == "tokenizer.model":
        write(tmp_path, request.getfixturevalue("llama"))
    else:
        vocab = {"<unk>": 0, **{f"<0x{i:02X}>": i + 1 for i in range(256)}, "▁": 257, "</s>": 258}
        library = Library(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        write(tmp_path, library.to_str().encode(), fallback, eos_token="</s>")
    tokenizer = Tokenizer.load(tmp_path)
    text = "龘😀𠮷靐" * 9
    ids = tokenizer.encode(text)
    assert len(ids) >= len(text.encode())
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert tokenizer.decode([*ids, ids[-4]]) == text + "\ufffd"


def test_large_vocabulary_loads_in_seconds(llama: bytes, tmp_path: Path) -> None:
    content = with_pieces(llama, [(f"w{i:x}", -float(i), 1) for i in range(125_696 - 400)])
    began = time.process_time()
    tokenizer = Tokenizer.load(write(tmp_path, content))
    assert time.process_time() - began < 5
    assert tokenizer.vocab_size == 125_696


def test_faulty_sentencepiece_models(llama: bytes, tmp_path: Path) -> None:
    pieces_only = with_pieces(b"", [("<unk>", 0.0, 2), ("a", -1.0, 1)])
    assert reference(pieces_only).encode("a")  # the library alone would take it
    faulty = [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
        (pieces_only, "not a whole SentencePiece model"),
        (with_pieces(llama, [("a", 0.0, 1)]), "not a SentencePiece model .*already defined"),
        *((llama[: len(llama) * i // 23], "not a whole SentencePiece model") for i in range(1, 23)),
        *((content, "not a whole SentencePiece model") for content in (b"QQ== 0\nQg== 1\n", b'{"a": 1}', bytes(64))),
        ("词".encode("utf-16"), "not a whole SentencePiece model"),
        (llama.replace(b"<s>", b"<\xff>"), "not a whole SentencePiece model"),
    ]
    for content, message in faulty:
        with pytest.raises(UserError, match=message) as caught:
            Tokenizer.load(write(tmp_path, content))
        assert str(tmp_path / "tokenizer.model") in str(caught.value)
        assert "\n" not in str(caught.value)
