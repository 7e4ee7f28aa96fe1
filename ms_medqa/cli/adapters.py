"""`--adapter NAME=DIR`, as `ask` and `serve` take it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_RULE = "a name has letters, digits, dots, hyphens and underscores, at most 64"


def named_adapters(arguments: Iterable[str]) -> dict[str, str]:
    """Folders by name.

    Raises:
        UserError: an argument is not of the form NAME=DIR, or two have one name.
    """
    pairs = []
    for argument in arguments:
        pair = _split(argument)
        if pair is None:
            raise UserError(f"--adapter {argument}: not of the form NAME=DIR", _NAME_RULE)
        pairs.append((argument, *pair))
    return _by_name(pairs)


def any_adapters(arguments: Iterable[str]) -> tuple[dict[str, str], bool]:
    """Folders by name, where a folder may stand alone: its own name is the adapter's then.

    A folder's path may have an equals sign in it: an argument that is a folder as a whole, or has no name before its
    first equals sign, is a path. `./a=b` is always a path, and `a=./b` never.

    Returns:
        The folders, and whether all arguments had a name.

    Raises:
        UserError: two have one name.
    """
    pairs, named = [], True
    for argument in arguments:
        pair = None if user_path(argument).is_dir() else _split(argument)
        if pair is None:
            named = False
            pair = user_path(argument).resolve().name, argument
        pairs.append((argument, *pair))
    return _by_name(pairs), named


def _split(argument: str) -> tuple[str, str] | None:
    name, _, folder = argument.partition("=")
    return (name, folder) if folder and _NAME.fullmatch(name) else None


def _by_name(pairs: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    adapters: dict[str, str] = {}
    for argument, name, folder in pairs:
        if name in adapters:
            raise UserError(f"--adapter {argument}: the name {name} is taken", "give another: --adapter NAME=DIR")
        adapters[name] = folder
    return adapters
