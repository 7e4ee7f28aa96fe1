"""Values of a parsed `config.json`, each checked where it is read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ms_medqa.config.errors import UserError

# What an int32 holds: positions, ids and widths of a layer are such numbers.
LARGEST = 2**31 - 1


def whole(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number from 1 on; absent or null gives the default, and without one a KeyError."""
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if key not in raw:
        raise KeyError(key)
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise UserError(f"{key} = {value!r} must be a whole number from 1 to {LARGEST}")
    return value


def flag(raw: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """true or false; absent or null gives the default."""
    value = raw.get(key)
    if value is None:
        return default
    if type(value) is not bool:
        raise UserError(f"{key} = {value!r} must be true or false")
    return value


def positive(raw: Mapping[str, Any], key: str, default: Any) -> Any:
    """A number above 0; absent or null gives the default."""
    value = raw.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise UserError(f"{key} = {value!r} must be a number above 0")
    return float(value)


def only(raw: Mapping[str, Any], key: str, supported: Sequence[Any]) -> None:
    """Refuse an option that would change what the model computes; the first supported value is its default."""
    if raw.get(key, supported[0]) not in supported:
        names = ", ".join(map(repr, supported))
        raise UserError(f"{key} = {raw[key]!r} is not supported", f"supported: {names}")
