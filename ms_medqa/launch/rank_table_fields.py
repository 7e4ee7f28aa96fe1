"""What the checks of all rank table formats need: a card, an error that names its field, checks of one value."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """One card of a rank table.

    Attributes:
        where: its place in the file, such as `server_list[0].device[3]`.
        rank: its number in the run.
        server: server_id of its server; empty where the format names none.
        address: of its network port, or None.
        super_device: (super_pod_id, super_device_id), or None outside a SuperPoD.
    """

    where: str
    rank: int
    server: str = ""
    address: str | None = None
    super_device: tuple[str, int] | None = None


class FieldError(Exception):
    """A field of a rank table is wrong.

    Args:
        field: its place, such as `server_list[0].device[3].rank_id`.
        problem: what is wrong with it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def mappings(value: Any, field: str, of_what: str) -> list[dict[str, Any]]:
    """A list of at least one mapping."""
    if not isinstance(value, list) or not value:
        raise FieldError(field, f"it must be a list with at least one {of_what}")
    for n, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise FieldError(f"{field}[{n}]", f"it must be a mapping that describes a {of_what}")
    return value


def number_text(value: Any, field: str) -> int:
    """A number that is written as a string."""
    # isdecimal also takes digits of other scripts.
    if not (isinstance(value, str) and value.isascii() and value.isdecimal()):
        raise FieldError(field, f'{value!r} is not a number in quotes, such as "0"')
    return int(value)


def integer(value: Any, field: str) -> int:
    """A number that is written without quotes."""
    if type(value) is not int or value < 0:
        raise FieldError(field, f"{value!r} is not a number without quotes, such as 0")
    return value


def text(value: Any, field: str, longest: int = 64) -> str:
    """A string that is neither empty nor too long."""
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise FieldError(field, f"{value!r} is not a text of 1 to {longest} characters")
    return value


def ip_address(value: Any, field: str) -> str:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise FieldError(field, f"{value!r} is not an IP address") from None
    return str(value)


def unique(values: Iterable[tuple[str, Any]], field: str) -> None:
    """No value of (place, value) twice; None is no value."""
    seen: dict[Any, str] = {}
    for where, value in values:
        if value is None:
            continue
        if value in seen:
            shown = value[-1] if isinstance(value, tuple) else value
            raise FieldError(f"{where}.{field}", f"{str(shown)!r} is also that of {seen[value]}")
        seen[value] = where


def all_ranks(cards: list[Card]) -> None:
    """The ranks are 0 to n - 1."""
    unique(((card.where, card.rank) for card in cards), "rank_id")
    ranks = sorted(card.rank for card in cards)
    if ranks != list(range(len(cards))):
        raise FieldError("rank_id", f"the ranks must be 0 to {len(cards) - 1}, found {ranks}")
