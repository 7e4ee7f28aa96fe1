"""Lists in YAML files of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ms_medqa.config.errors import UserError


def read_list(path: Path, what: str, hint: str) -> list[Any]:
    """The entries of a YAML list.

    Args:
        path: the file.
        what: what it holds, for messages.
        hint: what an entry looks like, for messages.

    Raises:
        UserError: the file is absent, not readable or not such a list.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file") from None
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{what} {path}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date that is none
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{what} {path}{f' line {mark.line + 1}' if mark else ''}: not valid YAML") from None
    if not isinstance(entries, list):
        raise UserError(f"{what} {path}: a list is needed", hint)
    return entries
