"""An answer ends before the first stop string, wherever tokens begin and end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest

from ms_medqa.config import UserError
from ms_medqa.config.assets import resolve_model
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation.stops import AnswerText

TEXT = "感冒时多休息、多喝水😀。发热时可以服药。\n\n问题: What is fever?\n回答: A high temperature."


class Cuts:
    """A tokenizer whose tokens are the given bytes, in turn."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = list(pieces)

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")


@cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve_model("medqa-tiny"))


def expected(text: str, stops: Iterable[str]) -> str:
    places = [text.find(stop) for stop in stops]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def cut(text: str, rng: np.random.Generator) -> list[bytes]:
    """The text's bytes in pieces of any length, also in the middle of a character."""
    data = text.encode()
    borders = np.flatnonzero(rng.random(len(data)) < rng.uniform(0.05, 1)).tolist()
    return [data[i:j] for i, j in itertools.pairwise([0, *borders, len(data)])]


def run(pieces: list[bytes], stops: Iterable[str] = ()) -> tuple[list[str], AnswerText]:
    text = AnswerText(Cuts(pieces), list(stops))
    return [*map(text.push, range(len(pieces))), text.flush()], text


@pytest.mark.parametrize("alphabet", ["ab", "abc", "a。😀"])
def test_the_answer_is_the_text_before_the_first_stop_string(alphabet: str) -> None:
    rng = np.random.default_rng(len(alphabet))
    stopped = 0
    for _ in range(2000):
        text = "".join(rng.choice(list(alphabet), rng.integers(0, 30)))
        stops = ["".join(rng.choice(list(alphabet), rng.integers(1, 7))) for _ in range(rng.integers(0, 4))]
        pieces, answer = run(cut(text, rng), stops)
        assert "".join(pieces) == expected(text, stops), (text, stops)
        assert answer.stopped == any(stop in text for stop in stops)
        assert not any("\ufffd" in piece for piece in pieces)
        stopped += answer.stopped
    assert 200 < stopped < 1800


def test_text_is_held_back_no_longer_than_it_must_be() -> None:
    """After each token, what has been given out is what all texts that can still follow have in common."""
    alphabet, longest = "abc", 4
    rng = np.random.default_rng(0)
    endings = ["".join(letters) for size in range(longest) for letters in itertools.product(alphabet, repeat=size)]
    for _ in range(300):
        text = "".join(rng.choice(list(alphabet), rng.integers(1, 12)))
        stops = ["".join(rng.choice(list(alphabet), rng.integers(1, longest + 1))) for _ in range(3)]
        pieces = cut(text, rng)
        answer = AnswerText(Cuts(pieces), stops)
        known = given = ""
        for place, piece in enumerate(pieces):
            known += piece.decode()
            given += answer.push(place)
            possible = {expected(known + ending, stops) for ending in endings}
            assert given == min(possible, key=len), (known, stops)
            assert answer.stopped == (len(possible) == 1 and len(given) < len(known)), (known, stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "given"),
    [
        (["aa", "ab"], ["aab"], ["", "a", ""]),
        (["a", "a", "a", "b"], ["aab"], ["", "", "a", "", ""]),
        (["多喝水", "。", "\n", "问", "题"], ["\n问题"], ["多喝水", "。", "", "", "", ""]),
        (["多喝水。\n问题: 还有"], ["\n问题"], ["多喝水。", ""]),
        (["x#", "##", "y"], ["####"], ["x", "", "###y", ""]),
        (["x#", "##"], ["####"], ["x", "", "###"]),
        (["ab", "c"], ["b", "abcd"], ["", "", "a"]),
        (["ab", "x"], ["b", "abcd"], ["", "a", ""]),
        (["ab", "cd"], ["b", "abcd"], ["", "", ""]),
        (["one", " END"], [" END", "END"], ["one", "", ""]),
        (["", "a", ""], ["b"], ["", "a", "", ""]),
    ],
)
def test_pieces(pieces: list[str], stops: list[str], given: list[str]) -> None:
    assert run([piece.encode() for piece in pieces], stops)[0] == given


def test_everything_behind_a_stop_string_is_dropped() -> None:
    text = AnswerText(Cuts([b"one. Two", b". Three", b"four"]), ["."])
    assert [text.push(0), text.stopped] == ["one", True]
    assert [text.push(1), text.push(2), text.flush(), text.stopped] == ["", "", "", True]


def test_an_answer_cut_off_in_the_middle_of_a_character_ends_as_decode_does() -> None:
    pieces, answer = run(["热".encode(), "😀".encode()[:2]], ["\n"])
    assert pieces == ["热", "", "\ufffd"]
    assert not answer.stopped


def test_a_stop_string_of_one_character_in_several_tokens() -> None:
    pieces, answer = run([b"a", *(bytes([byte]) for byte in "😀".encode()), b"b"], ["😀"])
    assert pieces == ["a", "", "", "", "", "", ""]
    assert answer.stopped


@pytest.mark.parametrize("stops", [[], ["问题:"], ["。\n\n问"], ["😀"], ["?", "fever"], ["nothing of that"], ["感冒"]])
def test_with_the_tokens_of_a_model(stops: list[str]) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    text = AnswerText(tokenizer, stops)
    pieces = [text.push(i) for i in ids]
    assert "".join(pieces) + text.flush() == expected(TEXT, stops)
    assert text.stopped == (expected(TEXT, stops) != TEXT)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        AnswerText(Cuts([]), ["x", ""])
