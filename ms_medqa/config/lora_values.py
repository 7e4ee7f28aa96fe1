"""Checks of the `lora` section's values, in words that a config error can show."""

from __future__ import annotations

import re
from typing import Any

_NUMBERS = "a layer's number from 0, or a list of them"


def names_or_expression(value: Any) -> Any:
    """A list of names, or one regular expression; ValueError where it is neither."""
    if isinstance(value, str):
        expression(value)
    elif not _is_list_of_names(value):
        raise ValueError("a list of names, or one regular expression")
    return value


def name_or_names(value: Any) -> Any:
    """A name or a list of names, each a regular expression for one part of a path."""
    if not _is_list_of_names([value] if isinstance(value, str) else value):
        raise ValueError("a name, or a list of names")
    for text in [value] if isinstance(value, str) else value:
        expression(text)
    return value


def layer_numbers(value: Any) -> Any:
    """A layer's number, or a list of them."""
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(_NUMBERS)
    return value


def pattern(value: Any, whole: bool) -> Any:
    """A mapping from regular expressions to numbers above 0, whole ones or any."""
    kinds, what = ((int,), "whole numbers") if whole else ((int, float), "numbers")
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"a mapping from names of layers to {what} above 0")
    for key, number in value.items():
        expression(rf"({key})")
        if type(number) not in kinds or not number > 0:
            raise ValueError(f"a mapping from names of layers to {what} above 0, which {number!r} is not")
    return value


def expression(text: str) -> None:
    """ValueError where a text is no regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression ({error})") from None
    if not text:
        raise ValueError("an empty text names no layer")


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
