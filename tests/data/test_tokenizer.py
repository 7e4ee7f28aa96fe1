"""Tokenizer folders: what is read from them, control tokens, streaming, and training one's own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from ms_medqa.config.errors import UserError
from ms_medqa.data.segment import segment
from ms_medqa.data.tokenizer import TextStream, Tokenizer
from ms_medqa.data.train_tokenizer import CONTROL_TOKENS, main, train_tokenizer

TEXTS = ["高血压患者的饮食应当清淡。", "糖尿病患者应当定期检查血糖。", "A patient with fever should rest."] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(TEXTS, 400, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def copy_of(folder: Path, target: Path, **settings: object) -> Path:
    """A copy of a tokenizer folder with changed settings; a setting of None is removed."""
    target.mkdir(exist_ok=True)
    (target / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    content = json.loads((folder / "tokenizer_config.json").read_text("utf-8")) | settings
    content = {key: value for key, value in content.items() if value is not None}
    (target / "tokenizer_config.json").write_text(json.dumps(content), "utf-8")
    return target


@pytest.mark.parametrize(
    "text",
    [
        "高血压患者",
        "",
        " leading, trailing ",
        "2.5mg/kg\r\n\t𠮷 😀 ①",
        "龘靐 never seen before",
        "<|im_end|><|endoftext|>",
    ],
)
def test_text_survives_encode_and_decode(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text
    assert tokenizer.encode_batch([text, "x"]) == [tokenizer.encode(text), tokenizer.encode("x")]


def test_control_tokens_are_parsed_only_where_asked(tokenizer: Tokenizer) -> None:
    text = "<|im_start|>user\n发热<|im_end|>"
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    ids = tokenizer.encode(text, special=True)
    assert (ids[0], ids[-1]) == (start, end)
    assert ids[1:-1] == tokenizer.encode("user\n发热")
    assert tokenizer.encode_batch([text], special=True) == [ids]
    assert not {start, end, tokenizer.eos_token_id} & set(tokenizer.encode(text + "<|endoftext|>"))
    assert tokenizer.decode(ids) == "user\n发热"
    assert tokenizer.decode(ids, skip_special=False) == text


def test_added_tokens_that_are_not_flagged_special_are_control_tokens_too(shared_data: Path) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / "qwen2.5")
    assert tokenizer.encode("<tool_call>", special=True) == [tokenizer.token_to_id("<tool_call>")]
    assert tokenizer.token_to_id("<tool_call>") not in tokenizer.encode("a <tool_call> b")
    # They are content of an answer, though: only special ones are left out of its text.
    ids = tokenizer.encode("<tool_call>x<|im_end|>", special=True)
    assert tokenizer.decode(ids) == "<tool_call>x"


def test_control_token_that_swallows_space(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path)
    content = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    content["added_tokens"][2] |= {"lstrip": True, "rstrip": True}
    (copy / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    tokenizer = Tokenizer.load(copy)
    expected = [*tokenizer.encode("发"), 2, *tokenizer.encode("热")]
    assert tokenizer.encode("发 <|im_end|>\n热", special=True) == expected


def test_special_tokens_of_the_folder(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.bos_token_id is None
    assert tokenizer.prefix_ids == ()
    assert tokenizer.chat_template is not None
    last = tokenizer.vocab_size - 1
    assert 259 < last < 400
    assert tokenizer.id_to_token(last) is not None
    assert tokenizer.id_to_token(last + 1) is None


def test_end_token_as_object_and_pad_token(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path, eos_token={"content": "<|im_end|>", "lstrip": False}, pad_token="<|im_start|>")
    tokenizer = Tokenizer.load(copy)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<|im_end|>", 2, 1)


def test_without_pad_token_the_end_token_pads(folder: Path, tmp_path: Path) -> None:
    assert Tokenizer.load(copy_of(folder, tmp_path, eos_token="<|im_end|>", pad_token=None)).pad_token_id == 2


def test_end_token_of_special_tokens_map(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path, eos_token=None)
    (copy / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}', "utf-8")
    assert Tokenizer.load(copy).eos_token_id == 2


def test_end_token_of_the_model_config_travels_with_a_saved_copy(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "model", eos_token=None)
    (copy / "config.json").write_text('{"eos_token_id": 1}', "utf-8")
    assert Tokenizer.load(copy).eos_token_id == 1
    (copy / "generation_config.json").write_text('{"eos_token_id": [2, 1]}', "utf-8")
    tokenizer = Tokenizer.load(copy)
    assert tokenizer.eos_token_id == 2
    tokenizer.save(tmp_path / "adapter")
    again = Tokenizer.load(tmp_path / "adapter")
    assert again.eos_token_id == 2
    assert again.fingerprint == tokenizer.fingerprint


def test_start_token_that_the_tokenizer_itself_adds(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path)
    content = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (copy / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    tokenizer = Tokenizer.load(copy)
    assert tokenizer.prefix_ids == (1,)
    assert 1 not in tokenizer.encode("发热")


def test_chat_template_file_goes_before_the_config(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(
        folder, tmp_path, chat_template=[{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]
    )
    assert Tokenizer.load(copy).chat_template == "D"
    (copy / "chat_template.jinja").write_text("J", "utf-8")
    assert Tokenizer.load(copy).chat_template == "J"


def test_faulty_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json.*Hugging Face"):
        Tokenizer.load(tmp_path)
    copy = copy_of(folder, tmp_path / "a", eos_token=None)
    with pytest.raises(UserError, match="no end token"):
        Tokenizer.load(copy)
    copy = copy_of(folder, tmp_path / "b", eos_token="</s>")
    with pytest.raises(UserError, match=r"'</s>'.* is not in tokenizer\.json"):
        Tokenizer.load(copy)
    copy = copy_of(folder, tmp_path / "c", added_tokens_decoder={"500": {"content": "<new>"}})
    with pytest.raises(UserError, match="'<new>' the id 500"):
        Tokenizer.load(copy)
    (copy / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match="not a tokenizer file"):
        Tokenizer.load(copy)
    copy = copy_of(folder, tmp_path / "d")
    (copy / "tokenizer_config.json").write_text("[", "utf-8")
    with pytest.raises(UserError, match="not readable as JSON"):
        Tokenizer.load(copy)


def test_half_a_surrogate_pair_is_the_users_fault(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode("a\ud83d")
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode_batch(["a", "\udc00"])


def test_fingerprint_tells_what_changes_ids_and_nothing_else(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    same = copy_of(folder, tmp_path / "same", model_max_length=77)
    content = json.loads((same / "tokenizer.json").read_text("utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    (same / "tokenizer.json").write_text(json.dumps(content, indent=1), "utf-8")
    assert Tokenizer.load(same).fingerprint == tokenizer.fingerprint
    assert Tokenizer.load(same).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])  # a saved truncation plays no part
    other = train_tokenizer(TEXTS[:2], 300, tmp_path / "other")
    prints = {
        tokenizer.fingerprint,
        Tokenizer.load(other).fingerprint,
        Tokenizer.load(copy_of(folder, tmp_path / "eos", eos_token="<|im_end|>")).fingerprint,
        Tokenizer.load(copy_of(folder, tmp_path / "chat", chat_template="x")).fingerprint,
    }
    assert len(prints) == 4


def test_loading_needs_neither_transformers_nor_mindspore(folder: Path) -> None:
    code = (
        "import sys; from ms_medqa.data.tokenizer import Tokenizer; from ms_medqa.data import prompt, dataset;"
        f"Tokenizer.load({str(folder)!r}); print(sorted({{'transformers', 'mindspore', 'torch'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_stream_gives_whole_characters_and_the_whole_text(tokenizer: Tokenizer) -> None:
    text = "高血压 😀𠮷龘 end. " * 12
    stream = TextStream(tokenizer)
    ids = tokenizer.encode(text)
    assert len(ids) > 3 * len("😀𠮷龘") * 12  # characters without a token of their own come in pieces
    pieces = [stream.push(i) for i in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == text
    assert stream.flush() == ""


def test_stream_of_broken_bytes_goes_on_and_ends_as_decode_does(tokenizer: Tokenizer) -> None:
    broken = tokenizer.encode("龘")[:-1]
    ids = [*tokenizer.encode("热"), *broken, *tokenizer.encode("发热"), *broken * 6, tokenizer.eos_token_id, *broken]
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in ids]
    assert len("".join(pieces)) >= len(tokenizer.decode(ids)) - 3  # never waits for more than one character
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)


def test_other_threads_have_their_turns_while_a_long_text_is_encoded(tokenizer: Tokenizer) -> None:
    text, turns = TEXTS[-1] * 30_000, 0
    with ThreadPoolExecutor(1) as pool:
        encoding = pool.submit(tokenizer.encode, text)
        while not encoding.done():
            time.sleep(0.001)
            turns += 1
    assert tokenizer.decode(encoding.result()) == text
    # A few pass before it begins; a thread that kept the interpreter's lock would leave no others.
    assert turns > 20


def test_training_is_repeatable_and_keeps_words_together(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    again = train_tokenizer(iter(TEXTS), 400, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert len(tokenizer.encode("高血压患者")) <= 2
    assert [tokenizer.decode([i]) for i in tokenizer.encode("120")] == ["1", "2", "0"]
    # The same word has the same tokens after a mark, which is what makes a prompt's segments harmless.
    assert tokenizer.encode("问题:患者")[-len(tokenizer.encode("患者")) :] == tokenizer.encode("患者")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


def test_no_token_spans_the_border_of_two_words(tmp_path: Path) -> None:
    """A sentence that recurs would otherwise become a few long tokens."""
    sentence = "慢性阻塞性肺疾病患者应当坚持吸入支气管扩张剂并且定期复查肺功能"
    tokenizer = Tokenizer.load(train_tokenizer([sentence] * 200, 1000, tmp_path))
    # Compared as byte-level BPE spells them: a token may hold a part of a character.
    spell = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    words = [spell(word)[0][0] for word in segment(sentence)]
    tokens = [tokenizer.id_to_token(i) for i in range(len(CONTROL_TOKENS), tokenizer.vocab_size)]
    assert [token for token in tokens if not any(token in word for word in words) and len(token) > 1] == []
    # Inside the words everything has been merged.
    assert len(words) > 5
    assert set(words) <= set(tokens)


def test_training_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        {"text": "高血压患者应当少吃盐。"},
        {"question": "发热怎么办？", "answer": "多喝水。", "context": "发热时失水多。"},
    ]
    source.write_text("".join(json.dumps(lines[i % 2], ensure_ascii=False) + "\n" for i in range(8)), "utf-8")
    assert main([str(source), "--vocab-size", "300", "--output", str(tmp_path / "out")]) == 0
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert len(tokenizer.encode("多喝水")) < len("多喝水".encode())
    assert len(tokenizer.encode("失水多")) < len("失水多".encode())
    capsys.readouterr()
    assert main([str(source), "--vocab-size", "100", "--output", str(tmp_path / "out")]) == 2
    assert main([str(tmp_path / "none.jsonl"), "--output", str(tmp_path / "out")]) == 2
    assert main([str(source), "--vocab-size", "300", "--output", str(source / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "at least 259" in errors[0]
    assert "none.jsonl: no such file" in errors[1]
    assert str(source) in errors[2]
