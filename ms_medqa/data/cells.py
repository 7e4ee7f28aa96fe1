"""Values of tables with types, as values that JSON can hold."""

from __future__ import annotations

import datetime
from typing import Any


def plain(value: Any) -> Any:
    """A cell's value as text, number, bool, None, list or dict.

    Dates and times become ISO 8601, decimal numbers their digits. Bytes become their text where they are UTF-8, as old
    writers of Parquet left it; other bytes (pictures) only tell their size.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return f"<{len(value):,} bytes>"
    return str(value)
