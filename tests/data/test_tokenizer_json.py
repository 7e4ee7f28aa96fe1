"""tokenizer.json in the forms that released models have it: spaces before a text, added letters, start tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from ms_medqa.config.errors import UserError
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import TextStream, Tokenizer

CHARACTERS = sorted(set("abcdefghijklmnopqrstuvwxyz</>[]_| \u2581\n血压高"))
VOCABULARY = {"<unk>": 0, "<s>": 1, "</s>": 2} | {char: i for i, char in enumerate(CHARACTERS, start=3)}


def folder(path: Path, library: Library, **settings: Any) -> Path:
    path.mkdir(exist_ok=True)
    library.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"} | settings), "utf-8")
    return path


def characters(**options: Any) -> Library:
    """A vocabulary of single characters and three control tokens, whose names it holds as words, too."""
    library = Library(models.BPE(VOCABULARY, [], unk_token="<unk>", **options))
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def words() -> Library:
    library = Library(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def unigram() -> Library:
    scores = [(text, 0.0 if len(text) > 1 else -5.0) for text in VOCABULARY]
    library = Library(models.Unigram(scores, unk_id=0))
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def merged() -> Library:
    vocabulary = VOCABULARY | {"</": 100, "</s": 101}
    library = Library(models.BPE(vocabulary, [("<", "/"), ("</", "s"), ("</s", ">")], unk_token="<unk>"))
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


@pytest.mark.parametrize(
    "library",
    [characters(ignore_merges=True), words(), unigram(), merged()],
    ids=["ignore_merges", "words", "unigram", "merged"],
)
@pytest.mark.parametrize("text", ["</s>", "a</s>b", "a </s> <s> b"])
def test_no_vocabulary_makes_a_control_token_of_a_users_text(tmp_path: Path, library: Library, text: str) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, library))
    ids = tokenizer.encode(text)
    assert not {1, 2} & set(ids)
    assert tokenizer.encode_batch(["a", text]) == [tokenizer.encode("a"), ids]
    assert 2 in tokenizer.encode(text, special=True)
    if not isinstance(library.model, models.WordLevel):
        assert "".join(tokenizer.id_to_token(i) or "" for i in ids) == text


def test_long_text_of_nothing_but_control_tokens_is_encoded_in_no_time(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, merged()))
    text = "</s>" * 20_000
    began = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - began < 5
    assert "".join(tokenizer.id_to_token(i) or "" for i in ids) == text


def spaces(kind: str) -> Library:
    """LLaMA's way of spaces, as converters have written it over the years."""
    library = characters()
    space = normalizers.Replace(" ", "\u2581")
    if kind == "prepend":
        library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space])
    elif kind != "none":
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    else:
        library.normalizer = space
    strip = [] if kind in ("none", "never") else [decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), *strip])
    return library


@pytest.mark.parametrize("kind", ["prepend", "always", "first", "never", "none"])
def test_space_before_a_text_is_put_where_the_library_puts_it(tmp_path: Path, kind: str) -> None:
    library = spaces(kind)
    tokenizer = Tokenizer.load(folder(tmp_path, library, bos_token="<s>"))
    for text in ("ab", "<s>ab</s>c", "<s>a b</s> c", "a</s>\nb", "<s></s>a"):
        assert tokenizer.encode(text, special=True) == library.encode(text, add_special_tokens=False).ids
    space = VOCABULARY["\u2581"]
    # A text is continued without it, whatever the vocabulary does at a start.
    assert tokenizer.encode_part("ab", "x") == [VOCABULARY["a"], VOCABULARY["b"]]
    expected = [1, 2] + ([space] if kind in ("prepend", "always") else []) + [VOCABULARY["a"]]
    assert [i for part in (1, 2, "a") for i in tokenizer.encode_part(part, 2)] == expected
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"


@pytest.mark.parametrize("kind", ["prepend", "none"])
def test_a_long_text_has_the_ids_of_a_short_one(tmp_path: Path, kind: str) -> None:
    library = spaces(kind)
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = Tokenizer.load(folder(tmp_path, library))
    short = tokenizer.encode_part("ab </s>", "x")
    assert tokenizer.encode_part("ab </s>" * 2000, "x") == short * 2000
    start = [VOCABULARY["\u2581"]] if kind == "prepend" else []
    assert tokenizer.encode("ab </s>" * 2000) == start + short * 2000


@pytest.mark.parametrize("kind", ["prepend", "first"])
def test_answer_continues_the_prompt_without_another_space(tmp_path: Path, kind: str) -> None:
    library = spaces(kind)
    tokenizer = Tokenizer.load(folder(tmp_path, library))
    prompt = Prompt.named("plain", tokenizer)
    example = Example("1", "a", "b c", history=(("d", "e"),))
    assert prompt.encode(example).input_ids == library.encode("d\ne</s>a\nb c</s>", add_special_tokens=False).ids
    encoded = prompt.encode(example)
    trained = [i for i, mask in zip(encoded.input_ids, encoded.loss_mask, strict=True) if mask]
    assert "".join(tokenizer.id_to_token(i) or "" for i in trained) == "e</s>b\u2581c</s>"


def test_stream_keeps_the_space_behind_a_token_without_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, spaces("first")))
    ids = [*tokenizer.encode("abc" * 6), 2, *tokenizer.encode(" a  b"), 1, 2, *tokenizer.encode(" c")] * 3
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)


def byte_level() -> Library:
    """As DeepSeek's: letters of its byte alphabet that stand for no byte are added as tokens of their own."""
    alphabet = [char for char in sorted(pre_tokenizers.ByteLevel.alphabet()) if char not in "üö"]
    library = Library(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.post_processor = processors.ByteLevel()
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>"])
    library.add_tokens([AddedToken(char, normalized=True) for char in "üö"] + [AddedToken("<|EOT|>")])
    return library


def test_letters_that_were_added_stay_letters(tmp_path: Path) -> None:
    library = byte_level()
    tokenizer = Tokenizer.load(folder(tmp_path, library))
    text = "Tür höö 血压"
    ids = tokenizer.encode(text)
    assert ids == library.encode(text).ids
    assert {tokenizer.token_to_id("ü"), tokenizer.token_to_id("ö")} < set(ids)
    assert tokenizer.decode(ids) == text
    stream = TextStream(tokenizer)
    assert "".join(stream.push(i) for i in ids) + stream.flush() == text
    assert tokenizer.token_to_id("<|EOT|>") not in tokenizer.encode("<|EOT|>")
    assert tokenizer.encode("<|EOT|>", special=True) == [tokenizer.token_to_id("<|EOT|>")]


def test_start_token_of_a_llama_class_is_as_the_folder_says(tmp_path: Path) -> None:
    llama = {"bos_token": "<s>", "tokenizer_class": "LlamaTokenizerFast"}
    start = byte_level().token_to_id("<s>")
    tokenizers = {
        add: Tokenizer.load(folder(tmp_path / str(add), byte_level(), **llama, add_bos_token=add))
        for add in (True, False, None)
    }
    assert [tokenizer.prefix_ids for tokenizer in tokenizers.values()] == [(start,), (), ()]
    assert tokenizers[True].fingerprint != tokenizers[False].fingerprint == tokenizers[None].fingerprint
    ids = Prompt.named("plain", tokenizers[True]).encode(Example("1", "a", "b", history=(("c", "d"),))).input_ids
    assert [i for i, token in enumerate(ids) if token == start] == [0]
    # The general class does as tokenizer.json says.
    general = folder(tmp_path / "g", byte_level(), bos_token="<s>", tokenizer_class="PreTrainedTokenizerFast")
    assert Tokenizer.load(general).prefix_ids == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("added_tokens.json", b'{"<new>": 77}', r"added_tokens.json gives '<new>' the id 77, tokenizer.json does not"),
        ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja: not UTF-8"),
        ("tokenizer_config.json", b"[" * 200_000, "tokenizer_config.json: not readable as JSON"),
    ],
)
def test_faulty_files_beside_it(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder(tmp_path, characters())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("number", [-1, 10**14])
def test_impossible_end_token_of_the_model_config(tmp_path: Path, number: int) -> None:
    folder(tmp_path, characters(), eos_token=None)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": number}), "utf-8")
    with pytest.raises(UserError, match="no end token"):
        Tokenizer.load(tmp_path)
