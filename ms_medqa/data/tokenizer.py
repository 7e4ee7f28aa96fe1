"""A tokenizer folder in Hugging Face layout; no code of the folder is run."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.data import tokenizer_sentencepiece, tokenizer_tiktoken
from ms_medqa.data.tokenizer_backend import Backend, TokenizersBackend, as_array
from ms_medqa.data.tokenizer_settings import (
    CHATML_TEMPLATE,
    CHATML_TOKENS,
    added_token_ids,
    chat_template,
    named_end_ids,
    read_json,
    read_settings,
    start_token_setting,
    talks_chatml,
    token_content,
)
from ms_medqa.data.tokenizer_stream import TextStream as TextStream

# The files that hold a vocabulary, and what reads them; of several in a folder the first is used.
_READERS: dict[str, Callable[[Path, dict[str, Any]], Backend]] = {
    "tokenizer.json": lambda folder, settings: TokenizersBackend.from_file(folder / "tokenizer.json"),
    tokenizer_tiktoken.FILE_NAME: tokenizer_tiktoken.read_tiktoken,
    tokenizer_sentencepiece.FILE_NAME: tokenizer_sentencepiece.SentencePieceBackend,
}

# What makes up a tokenizer in a model folder; only one of the vocabularies is required.
TOKENIZER_FILES = (
    *_READERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


class Tokenizer:
    """Text to token ids and back. Build one with `Tokenizer.load`; safe to use from several threads.

    Control tokens are the added tokens of the vocabulary that are special or look like markup, such as `<tool_call>`.
    They are parsed only in text encoded with `special=True`, which is for templates, never for what a user wrote: no
    other text becomes one.

    Attributes:
        folder: where it was loaded from.
        eos_token, eos_token_id: end of an answer.
        pad_token_id: the pad token, or the end token where none is named.
        bos_token_id: None where the tokenizer has no start token.
        prefix_ids: ids that the tokenizer itself puts before any text (the start token of some families), often empty.
        chat_template: Jinja source, or None.
    """

    def __init__(self, backend: Backend, folder: Path, settings: dict[str, Any]) -> None:
        self._backend = backend
        self.folder = folder
        self._special_ids = frozenset(i for i, token in backend.added.items() if token.special)
        _check_added_tokens(backend, folder, settings)

        self.eos_token, self.eos_token_id = _end_token(backend, folder, settings)
        self.special_tokens: dict[str, str] = {}
        ids: dict[str, int] = {}
        for name in ("bos_token", "pad_token", "unk_token"):
            content = token_content(settings.get(name)) or backend.roles.get(name)
            if content is not None and (i := backend.token_to_id(content)) is not None:
                self.special_tokens[name], ids[name] = content, i
        self.special_tokens["eos_token"] = self.eos_token
        self.bos_token_id: int | None = ids.get("bos_token")
        self.pad_token_id: int = ids.get("pad_token", self.eos_token_id)
        self._special_ids |= {self.eos_token_id, self.pad_token_id}
        self.prefix_ids = backend.prefix_ids
        starts = start_token_setting(settings)
        if starts is not None and self.bos_token_id is not None:
            self.prefix_ids = (self.bos_token_id,) if starts else ()

        control = {token.content: i for i, token in backend.added.items()}
        control.update((text, backend.token_to_id(text)) for text in self.special_tokens.values())
        self._control = control
        # What no text may become. Characters that the vocabulary lacks do become the token for the unknown.
        reserved = set(backend.added) - {ids.get("unk_token")}
        self._reserved = frozenset({self.eos_token_id, ids.get("bos_token", self.eos_token_id), *reserved})
        self._reserved_ids = np.array(sorted(self._reserved), np.int32)
        self._control_pattern = _control_pattern(backend.added.values(), control)
        # All records have the same few pieces of template.
        self._split_template = functools.lru_cache(maxsize=64)(lambda text: tuple(self._split_control(text)))

        self.chat_template = chat_template(folder, settings)
        if self.chat_template is None and control.keys() >= set(CHATML_TOKENS) and talks_chatml(folder, settings):
            self.chat_template = CHATML_TEMPLATE

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read the vocabulary and, beside it, the files that name control tokens and the chat template.

        The vocabulary is `tokenizer.json`, `qwen.tiktoken` or `tokenizer.model`: the first of these that is there.

        Raises:
            UserError: no vocabulary, an unreadable file, files that contradict each other, or no end token anywhere.
        """
        folder = Path(folder)
        for name, read in _READERS.items():
            if (folder / name).is_file():
                settings = read_settings(folder)
                return cls(read(folder, settings), folder, settings)
        *others, last = _READERS
        raise UserError(
            f"{folder}: this needs a tokenizer, and there is no {', '.join(others)} or {last}",
            "give a model folder in Hugging Face layout with one of these files",
        )

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`, without start or end token.

        Args:
            text: any text.
            special: parse control tokens such as `<|im_end|>`; False leaves them the text that they are.

        Raises:
            UserError: the text holds half a surrogate pair, which is no character.
        """
        if not special:
            return self._encode(text)
        ids: list[int] = []
        previous: str | int | None = None
        for part in self._split_control(text):
            ids += self.encode_part(part, previous)
            previous = part
        return ids

    def encode_part(self, part: str | int, previous: str | int | None) -> list[int]:
        """Ids of a part of a longer text: plain text, or the id of a control token.

        Args:
            part: the part.
            previous: what stands directly before it, None at the start. Vocabularies that put a space before a text do
                so there, and many also behind a control token.
        """
        if isinstance(part, int):
            return [part]
        starts = previous is None or (isinstance(previous, int) and self._backend.prefix_after_control)
        return self._encode(part, prefix=starts)

    def split_control(self, text: str) -> tuple[str | int, ...]:
        """The ids of the control tokens in a template's text, and the text between them. Each text is split once."""
        return self._split_template(text)

    def _split_control(self, text: str) -> Iterator[str | int]:
        start = 0
        for match in self._control_pattern.finditer(text):
            if match.start() > start:
                yield text[start : match.start()]
            yield self._control_id(match[0])
            start = match.end()
        if start < len(text):
            yield text[start:]

    def encode_batch(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """`encode` of each text; plain text is spread over the cores."""
        if special:
            return [self.encode(text, special=True) for text in texts]
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[array[int]]:
        """`encode_batch` of plain text, without an object for each id: arrays of type `i`."""
        try:
            batch = self._backend.encode_batch(texts)
        except (TypeError, UnicodeEncodeError):
            batch = [self._encode(text) for text in texts]  # names the text at fault
        arrays = list(map(as_array, batch))
        # All ids at once: an object for each, to look it up in the set, takes as long as its making did.
        if np.isin(np.frombuffer(b"".join(arrays), np.int32), self._reserved_ids, kind="table").any():
            both = zip(arrays, texts, strict=True)
            return [ids if self._reserved.isdisjoint(ids) else as_array(self._encode(text)) for ids, text in both]
        return arrays

    def expect_many(self) -> None:
        """Take a second now to be faster with the tens of thousands of texts that will be encoded in batches."""
        self._backend.expect_many()

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`; bytes that make no character come out as U+FFFD."""
        kept = [int(i) for i in ids if not (skip_special and i in self._special_ids)]
        return self._backend.decode(kept)

    def token_to_id(self, token: str) -> int | None:
        """The id of one token by its exact name, None when there is no such token."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The exact name of one token (for byte-level families not its text), None when there is no such id."""
        return self._backend.id_to_token(token_id)

    def first_control_token(self, text: str) -> tuple[str, int] | None:
        """(text up to and with the first control token, that token's id), or None when there is none."""
        match = self._control_pattern.search(text)
        if match is None:
            return None
        return text[: match.end()], self._control_id(match[0])

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's embedding may have more rows, never fewer."""
        return self._backend.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over what decides ids: the vocabulary without the parts that do not, end token, chat template.

        The same tokenizer saved by another tool or version keeps its fingerprint.
        """
        content = {
            "tokenizer": self._backend.definition(),
            "eos_token": self.eos_token,
            "chat_template": self.chat_template,
        }
        if self.prefix_ids != self._backend.prefix_ids:
            content["prefix_ids"] = self.prefix_ids
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into `folder` (made when absent), so that it loads there as the same tokenizer.

        Files are copied as they are. What only the model's own folder says (an end token in its config, a chat format)
        is added to the copy of tokenizer_config.json; a `qwen.tiktoken` gets a `tokenizer.json` of the same ids beside
        it. Files of another tokenizer in `folder` are removed: they would be read in place of these.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() == self.folder.resolve():
            return
        for name in TOKENIZER_FILES:
            source = self.folder / name
            if source.is_file():
                # copyfile, not copy: a read-only model folder must not make read-only copies.
                shutil.copyfile(source, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        if self._backend.tokenizer_json is not None:
            with atomic_write(folder / "tokenizer.json") as file:
                file.write(self._backend.tokenizer_json)
        settings, added = read_settings(folder), {}
        if token_content(settings.get("eos_token")) is None:
            added["eos_token"] = self.eos_token
        if self.chat_template is not None and chat_template(folder, settings) is None:
            added["chat_template"] = self.chat_template
        if added:
            path = folder / "tokenizer_config.json"
            write_json(path, read_json(path) | added)

    def _control_id(self, matched: str) -> int:
        # Some tokens take the space around them along.
        return self._control[matched if matched in self._control else matched.strip()]

    def _encode(self, text: str, prefix: bool = True) -> list[int]:
        try:
            ids = self._backend.encode(text, prefix)
        except (TypeError, UnicodeEncodeError):
            text.encode("utf-8", "replace")  # anything but a str is a programming error and raises here
            raise UserError(
                "a text holds half a surrogate pair (such as \\ud83d alone), which is no character", "remove it"
            ) from None
        if len(text) < 2 or self._reserved.isdisjoint(ids):
            return ids
        # Some vocabularies spell a control token like any word. Cut in two often enough, its name is text again.
        middle = len(text) // 2
        return self._encode(text[:middle], prefix) + self._encode(text[middle:], prefix=False)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether `Tokenizer.load` finds a vocabulary in `folder`."""
    return any((Path(folder) / name).is_file() for name in _READERS)


def _end_token(backend: Backend, folder: Path, settings: dict[str, Any]) -> tuple[str, int]:
    content = token_content(settings.get("eos_token"))
    if content is not None and backend.token_to_id(content) is None:
        raise UserError(f"{folder}: the end token {content!r} of tokenizer_config.json is not in {backend.source}")
    content = content or backend.roles.get("eos_token")
    if content is not None and (i := backend.token_to_id(content)) is not None:
        return content, i
    for i in named_end_ids(folder)[1][:1]:
        if (token := backend.id_to_token(i)) is not None:
            return token, i
    raise UserError(f"{folder}: no end token", 'name it in tokenizer_config.json, such as "eos_token": "<|endoftext|>"')


def _check_added_tokens(backend: Backend, folder: Path, settings: dict[str, Any]) -> None:
    """A control token that the vocabulary does not know would silently be spelt out as text."""
    source, ids = added_token_ids(folder, settings)
    for content, i in ids.items():
        if str(backend.token_to_id(content)) != i:
            raise UserError(
                f"{folder}: {source} gives {content!r} the id {i}, {backend.source} does not",
                "save the tokenizer anew with transformers' save_pretrained",
            )


def _control_pattern(added: Iterable[AddedToken], control: dict[str, int]) -> re.Pattern[str]:
    flags = {token.content: token for token in added}
    options = []
    for content in sorted(control, key=len, reverse=True):  # the longest of two that start alike wins
        token = flags.get(content)
        left = r"\s*" if token is not None and token.lstrip else ""
        right = r"\s*" if token is not None and token.rstrip else ""
        options.append(left + re.escape(content) + right)
    return re.compile("|".join(options))
