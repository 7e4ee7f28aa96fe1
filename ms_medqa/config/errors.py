"""The errors a user sees: one line that says what, where and what to do."""

from __future__ import annotations


class UserError(ValueError):
    """A fault in what the user gave: an input file, a config key, a model folder.

    The command line prints it as one line and exits with status 2; a library caller catches it as a ValueError.

    Args:
        message: what is wrong and where (file, line, key).
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}: {hint}")
        self.message = message
        self.hint = hint


class RunError(RuntimeError):
    """A run that failed for no fault of its arguments (disk full, a worker that died): exit status 1."""
