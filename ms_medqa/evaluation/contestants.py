"""Which models are measured: as named on the command line, each with what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE

_NAMED = re.compile(r"([\w.-]{1,64})=(.+)", re.DOTALL)
# Folders that every run has; what tells runs apart is where these lie.
_COMMON = ("adapter", "model", "merged")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model that is measured.

    Attributes:
        name: heads its column.
        model: folder, or name of a shipped model.
        adapter: folder, None for the model alone.
        base: name of the contestant that it is compared with.
        prompt_of: folder of the adapter whose prompt the model is asked with; None: its own.
    """

    name: str
    model: str
    adapter: str | None = None
    base: str | None = None
    prompt_of: str | None = None


def contestants(named: Sequence[tuple[str, str]], default: str, compare_base: bool) -> list[Contestant]:
    """The models of a command line, bases before what is made of them.

    Args:
        named: ("model" | "adapter", value) in the order given; a value is a folder, the name of a shipped model, or
            NAME=FOLDER. An adapter belongs to the model before it.
        default: the model of adapters before which none stands.
        compare_base: measure the model of each adapter by itself as well, with the adapter's prompt.

    Raises:
        UserError: two have one name, or a comparison has no adapter.
    """
    pairs = _pairs(named, default)
    if compare_base and not any(pair.adapter for pair in pairs):
        raise UserError("--compare-base compares an adapter with its base", "name the adapter: --adapter DIR")
    tuned = [Contestant(name, pair.model, pair.adapter) for name, pair in zip(_names(pairs), pairs, strict=True)]
    found: list[Contestant] = []
    for one, pair in zip(tuned, pairs, strict=True):
        if one.adapter is None:
            found.append(one)
            continue
        base = _base_of(one, found)
        if base is None and compare_base:
            name = _base_name(pair, pairs, found)
            base = Contestant(name, one.model, prompt_of=one.adapter)
            found.append(base)
        found.append(replace(one, base=base.name if base else None, prompt_of=one.adapter))
    return _checked(found)


def _checked(found: list[Contestant]) -> list[Contestant]:
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models are called {name!r}", "name them apart: --adapter NAME=DIR")
    first = found[0]
    # Whatever has no base of its own here is compared with the first.
    return [first, *(one if one.base or _is_base(one, found) else replace(one, base=first.name) for one in found[1:])]


def _is_base(one: Contestant, found: Sequence[Contestant]) -> bool:
    return any(other.base == one.name for other in found)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A model and an adapter, or none, as they were named: `model_name` and `name` are the NAME of NAME=DIR."""

    model: str
    model_name: str | None = None
    adapter: str | None = None
    name: str | None = None


def _pairs(named: Sequence[tuple[str, str]], default: str) -> list[_Pair]:
    kinds = [kind for kind, _ in named]
    if kinds[:1] == ["adapter"] and "model" in kinds:
        raise UserError("an adapter stands before the first --model", "name each adapter behind its model")
    found: list[_Pair] = []
    current, alone = _Pair(default), not named
    for kind, value in named:
        # A folder may have such a name itself.
        match = None if user_path(value).exists() else _NAMED.fullmatch(value)
        name, value = (match[1], match[2]) if match else (None, value)
        if kind == "model":
            found += [current] if alone else []
            current, alone = _Pair(value, name), True
        else:
            found.append(replace(current, adapter=value, name=name))
            alone = False
    return [*found, *([current] if alone else [])]


def _names(pairs: Sequence[_Pair]) -> list[str]:
    own = [pair.name if pair.adapter else pair.model_name for pair in pairs]
    if len(pairs) == 1:
        return [own[0] or ("tuned" if pairs[0].adapter else "model")]
    return [name or _folder_name(pair.adapter or pair.model) for name, pair in zip(own, pairs, strict=True)]


def _folder_name(folder: str) -> str:
    path = Path(folder)
    parts = [part for part in path.parts if part not in ("/", ".", "..")]
    while len(parts) > 1 and parts[-1] in _COMMON:
        parts.pop()
    return parts[-1] if parts else folder


def _base_of(one: Contestant, found: Sequence[Contestant]) -> Contestant | None:
    """A contestant that is the adapter's model by itself, asked with the same prompt."""
    return next(
        (
            other
            for other in found
            if other.adapter is None
            and user_path(other.model) == user_path(one.model)
            # An adapter that is not there is told later, as such.
            and user_path(one.adapter or "").is_dir()
            and _prompt(other.prompt_of or other.model) == _prompt(one.adapter)
        ),
        None,
    )


def _prompt(folder: str | None) -> bytes | None:
    """The prompt that is saved there."""
    assert folder is not None
    path = (user_path(folder) if user_path(folder).is_dir() else resolve_model(folder)) / PROMPT_FILE
    return path.read_bytes() if path.is_file() else None


def _base_name(pair: _Pair, pairs: Sequence[_Pair], found: Sequence[Contestant]) -> str:
    several = len({other.model for other in pairs}) > 1
    name = pair.model_name or (f"base {_folder_name(pair.model)}" if several else "base")
    same = sum(other.name == name or other.name.startswith(f"{name} (") for other in found)
    return f"{name} ({same + 1})" if same else name
