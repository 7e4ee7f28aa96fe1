"""A tokenizer folder in Hugging Face layout, read with the `tokenizers` library alone."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from ms_medqa.config.errors import UserError

# What makes up a tokenizer in a model folder; only tokenizer.json is required.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


class Tokenizer:
    """Text to token ids and back. Build one with `Tokenizer.load`; safe to use from several threads.

    Control tokens are the added tokens of `tokenizer.json` (also those that it does not flag as special, such as
    `<tool_call>`). They are parsed only in text encoded with `special=True`, which is for templates, never for what a
    user wrote.

    Attributes:
        folder: where it was loaded from.
        eos_token, eos_token_id: end of an answer.
        pad_token_id: the pad token, or the end token where none is named.
        bos_token_id: None where the tokenizer has no start token.
        prefix_ids: ids that the tokenizer itself puts before any text (the start token of some families), often empty.
        chat_template: Jinja source, or None.
    """

    def __init__(self, backend: Backend, folder: Path, settings: dict[str, Any], chat_template: str | None) -> None:
        self._backend = backend
        self.folder = folder
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)
        _check_added_tokens(backend, folder, settings.get("added_tokens_decoder"))

        self.eos_token, self.eos_token_id = _end_token(backend, folder, settings)
        self.special_tokens: dict[str, str] = {}
        ids: dict[str, int] = {}
        for name in ("bos_token", "pad_token", "unk_token"):
            content = _content(settings.get(name))
            if content is not None and (i := backend.token_to_id(content)) is not None:
                self.special_tokens[name], ids[name] = content, i
        self.special_tokens["eos_token"] = self.eos_token
        self.bos_token_id: int | None = ids.get("bos_token")
        self.pad_token_id: int = ids.get("pad_token", self.eos_token_id)
        self._special_ids |= {self.eos_token_id, self.pad_token_id}

        probe, bare = backend.encode("a").ids, backend.encode("a", add_special_tokens=False).ids
        extra = len(probe) - len(bare)
        self.prefix_ids = tuple(next((probe[:n] for n in range(extra + 1) if probe[n : n + len(bare)] == bare), ()))

        control = {token.content: i for i, token in added.items()}
        control.update((text, backend.token_to_id(text)) for text in self.special_tokens.values())
        self._control = control
        self._control_pattern = _control_pattern(added.values(), control)
        # encode_special_tokens keeps a control token that a user typed as text, but only where it is flagged special.
        backend.add_special_tokens(
            [AddedToken(token.content, special=True, normalized=token.normalized) for token in added.values()]
        )
        backend.encode_special_tokens = True

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json` and, beside it, the files that name end, pad and start token and the chat template.

        Raises:
            UserError: no `tokenizer.json`, an unreadable file, or no end token named anywhere.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"{folder}: no tokenizer.json",
                "give a model folder in Hugging Face layout; transformers' save_pretrained writes this file",
            )
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: not a tokenizer file ({error})") from None
        backend.no_padding()
        backend.no_truncation()
        settings = read_settings(folder)
        return cls(backend, folder, settings, _chat_template(folder, settings))

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
        start = 0
        for match in self._control_pattern.finditer(text):
            if match.start() > start:
                ids += self._encode(text[start : match.start()])
            ids.append(self._control_id(match[0]))
            start = match.end()
        if start < len(text):
            ids += self._encode(text[start:])
        return ids

    def encode_batch(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """`encode` of each text; plain text is spread over the cores."""
        if special:
            return [self.encode(text, special=True) for text in texts]
        try:
            return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]
        except TypeError:
            return [self._encode(text) for text in texts]  # names the text at fault

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`; bytes that make no character come out as U+FFFD."""
        kept = [int(i) for i in ids if not (skip_special and i in self._special_ids)]
        return self._backend.decode(kept, skip_special_tokens=False)

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
        return self._backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over what decides ids: `tokenizer.json` without the parts that do not, end token, chat template.

        The same tokenizer saved by another tool or version keeps its fingerprint.
        """
        raw = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        for name in ("version", "padding", "truncation"):
            raw.pop(name, None)
        model = raw.get("model", {})
        if "merges" in model:  # older files write a merge as "a b", newer ones as ["a", "b"]
            model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        content = {"tokenizer": raw, "eos_token": self.eos_token, "chat_template": self.chat_template}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Copy the tokenizer's files into `folder` (made when absent)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            source = self.folder / name
            if source.is_file() and source.resolve() != (folder / name).resolve():
                # copyfile, not copy: a read-only model folder must not make read-only copies.
                shutil.copyfile(source, folder / name)
        if _content(read_settings(folder).get("eos_token")) is None:
            # The end token was named by the model's config, which does not travel with an adapter.
            path = folder / "tokenizer_config.json"
            settings = _read_json(path) | {"eos_token": self.eos_token}
            path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _control_id(self, matched: str) -> int:
        # Some tokens take the space around them along.
        return self._control[matched if matched in self._control else matched.strip()]

    def _encode(self, text: str) -> list[int]:
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except TypeError:
            text.encode("utf-8", "replace")  # anything but a str is a programming error and raises here
            raise UserError(
                "a text holds half a surrogate pair (such as \\ud83d alone), which is no character", "remove it"
            ) from None


class TextStream:
    """Decodes a growing answer token by token; never gives out half a character."""

    # A character has at most 4 bytes, so at most 3 of them can still be waiting for the rest.
    _MAX_PENDING = 3

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """Take one token; returns the text that is now certain, often empty."""
        self._ids.append(int(token_id))
        text = self._tokenizer.decode(self._ids)
        certain = len(text)
        while certain and text[certain - 1] == "\ufffd" and len(text) - certain < self._MAX_PENDING:
            certain -= 1
        piece = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if certain == len(text) and len(self._ids) > 16:
            # Decoding restarts from the last token, so that the cost of a push does not grow with the answer.
            self._ids = self._ids[-1:]
            self._shown = len(self._tokenizer.decode(self._ids))
        return piece

    def flush(self) -> str:
        """The rest, incomplete characters as U+FFFD; the stream can be used again afterwards."""
        piece = self._tokenizer.decode(self._ids)[self._shown :]
        self._ids, self._shown = [], 0
        return piece


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; null entries of the first do not hide the second."""
    settings = _read_json(folder / "special_tokens_map.json")
    settings.update((k, v) for k, v in _read_json(folder / "tokenizer_config.json").items() if v is not None)
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object is needed")
    return content


def _content(token: Any) -> str | None:
    """A special token as the configs write it: a string, or an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _end_token(backend: Backend, folder: Path, settings: dict[str, Any]) -> tuple[str, int]:
    content = _content(settings.get("eos_token"))
    if content is not None:
        i = backend.token_to_id(content)
        if i is None:
            raise UserError(f"{folder}: the end token {content!r} of tokenizer_config.json is not in tokenizer.json")
        return content, i
    for name in ("generation_config.json", "config.json"):
        i = _read_json(folder / name).get("eos_token_id")
        i = i[0] if isinstance(i, list) and i else i
        if isinstance(i, int) and (token := backend.id_to_token(i)) is not None:
            return token, i
    raise UserError(f"{folder}: no end token", 'name it in tokenizer_config.json, such as "eos_token": "<|endoftext|>"')


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None


def _check_added_tokens(backend: Backend, folder: Path, named: Any) -> None:
    """A control token that tokenizer.json does not know would silently be spelt out as text."""
    for i, token in (named if isinstance(named, dict) else {}).items():
        content = _content(token)
        if content is not None and backend.token_to_id(content) != int(i):
            raise UserError(
                f"{folder}: tokenizer_config.json gives {content!r} the id {i}, tokenizer.json does not",
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
