"""The errors a user sees: one line that says what, where and what to do."""

from __future__ import annotations

import errno
import signal
import sys
import traceback

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_WRONG_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
# Those without an exception class of their own: a read-only file system, a name that is too long, links in a circle.
_WRONG_PATH_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


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


class Stopped(SystemExit):
    """A signal ended the program: exit status 128 + its number.

    As a SystemExit it also ends a process forked from this one without a traceback.

    Args:
        number: of the signal.
        detail: what is left behind, for the user.
    """

    def __init__(self, number: int, detail: str | None = None) -> None:
        super().__init__(128 + number)
        name = signal.Signals(number).name
        self.text = f"ended by {name}" if detail is None else f"ended by {name}: {detail}"


def from_os_error(error: OSError) -> UserError | RunError | None:
    """What an error of the operating system is to the user: a full disk, a wrong path, or None for anything else."""
    if error.errno in NO_SPACE:
        return RunError(f"no space left writing {error.filename or 'a file'}")
    if error.filename and (isinstance(error, _WRONG_PATH) or error.errno in _WRONG_PATH_NUMBERS):
        return UserError(f"{error.filename}: {error.strerror}")
    return None


def fail(program: str, error: Exception, debug: bool = False) -> int:
    """Print an error that a user can mend as one line on standard error.

    Args:
        program: what the line starts with.
        error: a UserError, RunError or OSError; anything else is a defect of the program and is raised again.
        debug: print the traceback first.

    Returns:
        The exit status: 2 for the user's fault, 1 for a failed run.
    """
    known = from_os_error(error) if isinstance(error, OSError) else error
    if not isinstance(known, (UserError, RunError)):
        raise error
    if debug:
        traceback.print_exception(error)
    print(f"{program}: error: {' '.join(str(known).splitlines())}", file=sys.stderr)
    return 2 if isinstance(known, UserError) else 1
