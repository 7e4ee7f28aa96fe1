"""How the numbers of a report are written, and the few readers of a plain dict in which anything may be absent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"
# Larger values are written with an exponent.
_LARGE = 1e6
_MOST_DIGITS = 6
# What a page or a terminal would take for a command or for a turn of the direction of writing, and half characters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping that is there, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listing(value: Any) -> Sequence[Any]:
    """The list that is there, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def text(value: Any) -> str:
    """Anything as one text without control characters; "–" for None."""
    if value is None:
        return NOTHING
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return clean(value)


def clean(value: str) -> str:
    """A text with U+FFFD for what neither a page nor a terminal may be given; line ends become line feeds."""
    return _FORBIDDEN.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n"))


def counted(value: Any) -> str:
    """A count with separators of thousands; "–" where there is none."""
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}"


def shown(value: Any, form: str) -> str:
    """A value under its format specification, "–" where there is none."""
    found = number(value)
    if found is None:
        return NOTHING
    return format(found, form) if abs(found) < _LARGE else f"{found:.3e}"


def span(low: Any, high: Any, form: str) -> str:
    """An interval such as "[7.90, 8.30]"; empty where an end is missing."""
    if number(low) is None or number(high) is None:
        return ""
    return f"[{shown(low, form)}, {shown(high, form)}]"


def sign_of(low: Any, high: Any) -> int:
    """1 or -1 where an interval leaves out 0 and lies above or below it, else 0."""
    bottom, top = number(low), number(high)
    if bottom is None or top is None:
        return 0
    return 1 if bottom > 0 else -1 if top < 0 else 0


def change(value: Any, low: Any, high: Any, form: str) -> str:
    """A difference with its interval, such as "-2.1 [-2.4, -1.8]"; of percentages in points.

    It has as many decimals as its figure, and more where an interval that leaves out 0 would else seem to begin there.
    """
    found = number(value)
    if found is None:
        return NOTHING
    scale = 100.0 if form.endswith("%") else 1.0
    decimals = re.search(r"\.(\d+)", form)
    digits = int(decimals.group(1)) if decimals else 0
    if sign_of(low, high):
        nearest = scale * min(abs(low), abs(high))
        while digits < _MOST_DIGITS and float(f"{nearest:.{digits}f}") == 0:
            digits += 1
    written = _signed(scale * found, digits)
    if number(low) is None or number(high) is None:
        return written
    return f"{written} [{_signed(scale * low, digits)}, {_signed(scale * high, digits)}]"


def p_value(value: Any) -> str:
    """A probability: three decimals, "<0.001" below; "–" where there is none."""
    found = number(value)
    return NOTHING if found is None else "<0.001" if found < 0.001 else f"{found:.3f}"


def _signed(value: float, digits: int) -> str:
    if abs(value) >= _LARGE:
        return f"{value:+.3e}"
    written = f"{value:+.{digits}f}"
    # Neither +0.0 nor -0.0 says anything.
    return written[1:] if float(written) == 0 else written
