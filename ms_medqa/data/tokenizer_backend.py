"""What turns text into ids and back: the contract of all formats, and the format of the `tokenizers` library."""

from __future__ import annotations

import functools
import itertools
import json
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Library

from ms_medqa.config.errors import UserError
from ms_medqa.data.tokenizer_fast import FastBytePairs, fast_byte_pairs

# What stands for something other than its text: `<|im_end|>`, `</think>`, `[INST]`.
MARKUP = re.compile(r"<[^<>\s]+>|\[[A-Z/_]+\]")

# Characters from which a text takes so long that other threads must not wait for it. A shorter one starts no threads of
# the library's, for the process may be one that forks.
_LONG = 4096

# Texts after which it is worth a second to have a faster way with them: as many as it takes no longer for.
_MANY = 20_000

_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


class Backend(Protocol):
    """One vocabulary, read from one file. Text given to it is plain text: control tokens in it are not parsed.

    Attributes:
        source: name of the file, for messages.
        added: the control tokens by id.
        roles: the tokens that the format itself fixes as `eos_token`, `bos_token` or `unk_token`.
        prefix_ids: ids that go before any text.
        prefix_after_control: the space that goes before a text goes before one behind a control token, too.
        tokenizer_json: what to save as tokenizer.json; None where `source` itself is what to save.
    """

    source: str
    added: Mapping[int, AddedToken]
    roles: Mapping[str, str]
    prefix_ids: tuple[int, ...]
    prefix_after_control: bool
    tokenizer_json: str | None

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, prefix: bool = True) -> list[int]:
        """Ids of `text`; `prefix` puts the space before it that this vocabulary wants there, if any.

        Raises TypeError or UnicodeEncodeError for half a surrogate pair.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """`encode` of each text; ids come as lists or as arrays of type `i`."""
        ...

    def expect_many(self) -> None:
        """Take a second to get ready for many texts in `encode_batch`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, control tokens by their names."""
        ...

    def token_to_id(self, token: str) -> int | None: ...

    def id_to_token(self, token_id: int) -> str | None: ...

    def definition(self) -> dict[str, Any]:
        """All that decides ids, as JSON values that do not change with the version of a library."""
        ...


class TokenizersBackend:
    """A `tokenizer.json`, from a file or made from another format. See `Backend`."""

    def __init__(self, library: Library, source: str, roles: Mapping[str, str], content: Path | str) -> None:
        self.source = source
        self.roles = roles
        self.tokenizer_json = content if isinstance(content, str) else None
        self._content = content
        self._library = library
        library.no_padding()
        library.no_truncation()
        added = library.get_added_tokens_decoder()
        # Some vocabularies add letters that they lack (DeepSeek: "ü"): those stand for themselves.
        self.added = {i: token for i, token in added.items() if token.special or MARKUP.fullmatch(token.content)}
        self._byte_fallback = getattr(library.model, "byte_fallback", False)
        # To a byte-level decoder such a letter is the name of a byte.
        byte_level = isinstance(library.decoder, decoders.ByteLevel)
        self._letters = {i: added[i].content for i in added.keys() - self.added.keys()} if byte_level else {}

        probe, bare = library.encode("a").ids, library.encode("a", add_special_tokens=False).ids
        extra = len(probe) - len(bare)
        self.prefix_ids = tuple(next((probe[:n] for n in range(extra + 1) if probe[n : n + len(bare)] == bare), ()))

        # encode_special_tokens keeps a control token that a user typed as text, but only where it is flagged special.
        library.add_special_tokens(
            [AddedToken(token.content, special=True, normalized=token.normalized) for token in self.added.values()]
        )
        library.encode_special_tokens = True
        self._asked = 0
        self._bare, self.prefix_after_control = _without_prefix(library)

    @classmethod
    def from_file(cls, path: Path) -> TokenizersBackend:
        """Read a `tokenizer.json`.

        Raises:
            UserError: the library cannot read it.
        """
        try:
            library = Library.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: not a tokenizer file ({error})") from None
        return cls(library, path.name, {}, path)

    @classmethod
    def from_definition(cls, definition: dict[str, Any], source: str, roles: Mapping[str, str]) -> TokenizersBackend:
        """The content of a `tokenizer.json` that was made from the file `source`."""
        content = json.dumps(definition, ensure_ascii=False)
        return cls(Library.from_str(content), source, roles, content)

    @property
    def vocab_size(self) -> int:
        return self._library.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, prefix: bool = True) -> list[int]:
        library = self._library if prefix else self._bare
        if len(text) < _LONG:
            return library.encode(text, add_special_tokens=False).ids
        # The library lets go of the interpreter's lock only for a batch.
        return library.encode_batch([text], add_special_tokens=False)[0].ids

    @functools.cached_property
    def _fast(self) -> FastBytePairs | None:
        return None if self._letters else fast_byte_pairs(self.definition())

    def expect_many(self) -> None:
        if self._fast is not None:
            self._asked = _MANY

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        self._asked += len(texts)
        if self._asked < _MANY or self._fast is None:
            return self._encode_all(texts)
        found = self._fast.encode_batch(texts)
        others = iter(self._encode_all([text for text, ids in zip(texts, found, strict=True) if ids is None]))
        return [next(others) if ids is None else ids for ids in found]

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._library.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        if self._letters:
            runs = itertools.groupby(ids, self._letters.get)
            return "".join(
                letter * len([*run]) if letter else self._library.decode([*run], skip_special_tokens=False)
                for letter, run in runs
            )
        if not self._byte_fallback or self._library.decoder is None:
            return self._library.decode(list(ids), skip_special_tokens=False)
        tokens = [token for i in ids if (token := self._library.id_to_token(i)) is not None]
        return self._library.decoder.decode(_join_bytes(tokens))

    def token_to_id(self, token: str) -> int | None:
        return self._library.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        return self._library.id_to_token(token_id)

    def definition(self) -> dict[str, Any]:
        text = self._content if isinstance(self._content, str) else self._content.read_text(encoding="utf-8")
        content = json.loads(text)
        for name in ("version", "padding", "truncation"):
            content.pop(name, None)
        model = content.get("model", {})
        if "merges" in model:  # older files write a merge as "a b", newer ones as ["a", "b"]
            model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        return content


def as_array(ids: Sequence[int]) -> array[int]:
    """Ids as an array of type `i`; one that is already is not copied."""
    return ids if isinstance(ids, array) else array("i", ids)


def _join_bytes(tokens: Iterable[str]) -> list[str]:
    """Byte tokens such as `<0xE9>` as the characters that they spell.

    The library's own decoder gives up a whole run of byte tokens where the run ends inside a character: in an answer
    that grows token by token, the characters before would be lost.
    """
    result: list[str] = []
    run = bytearray()
    for token in (*tokens, ""):
        if byte := _BYTE_TOKEN.fullmatch(token):
            run.append(int(byte[1], 16))
            continue
        if run:
            result.append(run.decode("utf-8", "replace"))
            run.clear()
        result.append(token)
    return result[:-1]


def _without_prefix(library: Library) -> tuple[Library, bool]:
    """The library without what puts a space before a text, and whether that also goes behind control tokens."""
    schemes: set[str] = set()
    parts = {name: getattr(library, name) for name in ("normalizer", "pre_tokenizer")}
    bare = {
        name: _bare_component(None if part is None else json.loads(part.__getstate__()), schemes)
        for name, part in parts.items()
    }
    if not schemes:
        return library, True
    copy = Library.from_str(json.dumps(json.loads(library.to_str()) | bare))
    copy.encode_special_tokens = True
    return copy, schemes != {"first"}


def _bare_component(component: Any, schemes: set[str]) -> Any:
    """A normaliser's or pre-tokeniser's definition without its prefix; adds to `schemes` where one was put."""
    if not isinstance(component, dict):
        return component
    if component["type"] == "Prepend":
        schemes.add("always")
        return None
    if component["type"] == "Metaspace" and component["prepend_scheme"] != "never":
        schemes.add(component["prepend_scheme"])
        return component | {"prepend_scheme": "never"}
    if component["type"] == "ByteLevel" and component["add_prefix_space"]:
        schemes.add("always")
        return component | {"add_prefix_space": False}
    if component["type"] == "Sequence":
        name = "normalizers" if "normalizers" in component else "pretokenizers"
        inner = [_bare_component(part, schemes) for part in component[name]]
        return component | {name: [part for part in inner if part is not None]}
    return component
