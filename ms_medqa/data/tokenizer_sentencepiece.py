"""`tokenizer.model`, the vocabulary of LLaMA, Mistral, Baichuan and their kin, read with the `sentencepiece` library.

The library itself does the encoding. A merge list, as `tokenizer.json` has it, cannot say the same for vocabularies to
which tokens were added with one common score (most Chinese LLaMA models): of those the leftmost pair is joined first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ms_medqa.config.errors import UserError
from ms_medqa.data import sentencepiece_file
from ms_medqa.data.tokenizer_backend import MARKUP
from ms_medqa.data.tokenizer_settings import read_json, read_vocabulary, token_content

FILE_NAME = "tokenizer.model"

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_NAME_LISTS = ("additional_special_tokens", "extra_special_tokens")


class SentencePieceBackend:
    """A SentencePiece model and the tokens that a folder adds to it. See `Backend`.

    Each text starts with the model's dummy prefix, a space. Whether text behind a control token does depends on the
    folder's `legacy`, as in transformers; where it says nothing, Baichuan's tokenizer does and the others do not.

    Raises:
        UserError: not a SentencePiece model, or files beside it that contradict it.
    """

    source = FILE_NAME
    tokenizer_json = None

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        path = folder / FILE_NAME
        content = read_vocabulary(path)
        pieces = sentencepiece_file.pieces(path, content)
        model = self._model = sentencepiece_file.load(path, content)
        digest = hashlib.sha256(content).hexdigest()
        self._size = len(model)
        self.added = self._control_tokens(folder, settings, pieces)
        self._added_ids = {token.content: i for i, token in self.added.items()}

        dummy_prefix = settings.get("add_prefix_space") is not False
        # The library keeps control pieces out of texts; those of other types it would find in what a user wrote.
        open_pieces = {i for i in self.added if i < self._size and not (model.is_control(i) or model.is_unknown(i))}
        if open_pieces:
            content = sentencepiece_file.with_control(content, open_pieces)
            self._model = sentencepiece_file.load(path, content)
        # What goes on with a text: it puts no dummy prefix before what it is given.
        self._bare = sentencepiece_file.load(path, content + sentencepiece_file.NO_DUMMY_PREFIX)
        if not dummy_prefix:
            self._model = self._bare
        legacy = settings.get("legacy")
        if not isinstance(legacy, bool):
            legacy = settings.get("tokenizer_class") == "BaichuanTokenizer"
        self.prefix_after_control = legacy

        fixed = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
        self.roles = {name: model.id_to_piece(i) for name, i in fixed.items() if i >= 0}
        start = self.token_to_id(token_content(settings.get("bos_token")) or self.roles.get("bos_token", ""))
        # LLaMA's tokenizers and Baichuan's put the start token before a text unless the folder says otherwise.
        self.prefix_ids = (start,) if start is not None and settings.get("add_bos_token", True) else ()

        tokens = {t.content: [i, t.special, t.lstrip, t.rstrip] for i, t in sorted(self.added.items())}
        prefix = {"ids": list(self.prefix_ids), "dummy": dummy_prefix, "after_control": legacy}
        self._definition = {"sentencepiece_sha256": digest, "added_tokens": tokens, "prefix": prefix}

    @property
    def vocab_size(self) -> int:
        return max(self._size, *(i + 1 for i in self.added))

    def encode(self, text: str, prefix: bool = True) -> list[int]:
        # As bytes: versions of the library differ in what they do with half a surrogate pair.
        return (self._model if prefix else self._bare).encode(text.encode("utf-8"))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.encode([text.encode("utf-8") for text in texts])

    def expect_many(self) -> None:
        """Nothing: it has one way with texts, few or many."""

    def decode(self, ids: Iterable[int]) -> str:
        text: str = ""
        run: list[int] = []
        model = self._model
        for i in ids:
            if i in self.added:
                text += model.decode(run) + self.added[i].content
                run = []
                model = self._model if self.prefix_after_control else self._bare
            elif 0 <= i < self._size:
                run.append(i)
        return text + model.decode(run)

    def token_to_id(self, token: str) -> int | None:
        if token in self._added_ids:
            return self._added_ids[token]
        i = self._model.piece_to_id(token)
        return i if self._model.id_to_piece(i) == token else None

    def id_to_token(self, token_id: int) -> str | None:
        if token_id in self.added:
            return self.added[token_id].content
        return self._model.id_to_piece(token_id) if 0 <= token_id < self._size else None

    def definition(self) -> dict[str, Any]:
        return self._definition

    def _control_tokens(
        self, folder: Path, settings: dict[str, Any], pieces: list[tuple[str, int]]
    ) -> dict[int, AddedToken]:
        """Control pieces of the model, and what the folder's files add or declare to be control tokens."""
        model = self._model
        tokens: dict[int, AddedToken] = {}
        for i, (name, kind) in enumerate(pieces):
            # Not every piece that a vocabulary wants kept whole is a control token: "38.5" stands for itself.
            markup = kind == sentencepiece_file.USER_DEFINED and MARKUP.fullmatch(name)
            if markup or model.is_control(i) or model.is_unknown(i):
                tokens[i] = AddedToken(name, special=True, normalized=False)
        special = _special_names(settings)
        ids: dict[str, int] = {}
        for source, i, token in [*_added_tokens(folder, special), *_added_tokens_decoder(folder, settings, special)]:
            name = token.content
            piece = model.piece_to_id(name)  # that of the unknown token where there is none
            held = model.id_to_piece(i) if i < self._size else tokens.get(i, token).content
            expected = ids.get(name, piece if model.id_to_piece(piece) == name else i)
            if held != name or expected != i:
                raise UserError(
                    f"{folder}: {source} gives {name!r} the id {i}, which is not what the files beside it say",
                    "use the files of one model together",
                )
            tokens[i], ids[name] = token, i
        for name in special - set(ids):
            i = model.piece_to_id(name)
            if model.id_to_piece(i) == name:
                tokens.setdefault(i, AddedToken(name, special=True, normalized=False))
        return tokens


def _special_names(settings: dict[str, Any]) -> set[str]:
    values = [settings.get(name) for name in _NAMES]
    for listed in map(settings.get, _NAME_LISTS):
        values += listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else []
    return {name for value in values if (name := token_content(value)) is not None}


def _added_tokens(folder: Path, special: set[str]) -> Iterable[tuple[str, int, AddedToken]]:
    source = "added_tokens.json"
    for content, i in read_json(folder / source).items():
        if not content or not isinstance(i, int) or i < 0:
            raise UserError(f"{folder / source}: the id of {content!r} is {i!r}", "an integer from 0 is needed")
        yield source, i, AddedToken(content, special=content in special, normalized=False)


def _added_tokens_decoder(
    folder: Path, settings: dict[str, Any], special: set[str]
) -> Iterable[tuple[str, int, AddedToken]]:
    source, listed = "tokenizer_config.json", settings.get("added_tokens_decoder")
    for key, flags in (listed if isinstance(listed, dict) else {}).items():
        content = token_content(flags)
        if content is None or not isinstance(flags, dict) or not key.isdecimal():
            raise UserError(f"{folder / source}: added_tokens_decoder[{key!r}] is not a token with its content")
        token = AddedToken(
            content,
            special=bool(flags.get("special")) or content in special,
            normalized=False,
            lstrip=bool(flags.get("lstrip")),
            rstrip=bool(flags.get("rstrip")),
        )
        yield source, int(key), token
