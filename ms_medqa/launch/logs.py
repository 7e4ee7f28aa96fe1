"""The logs of a distributed run: one worker's is shown while it grows, a failed one's end is told."""

from __future__ import annotations

import re
import sys
from pathlib import Path

# MindSpore's own lines, such as `[INFO] DISTRIBUTED(123,…`: they stay in the log file.
_MINDSPORE_LINE = re.compile(r"\[(DEBUG|INFO|WARNING)\] [A-Z_]+\(\d+")
_TAIL_LINES = 40


class LogView:
    """Shows a log file on standard output, as far as it has come.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def show(self) -> None:
        """Print the whole lines that have come since the last call, without MindSpore's own."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return
        # Only whole lines: a character of several bytes may be half written.
        end = text.rfind(b"\n") + 1
        for line in text[:end].decode("utf-8", errors="replace").splitlines(keepends=True):
            if not _MINDSPORE_LINE.match(line):
                sys.stdout.write(line)
        sys.stdout.flush()
        self._position += end


def log_tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """The last traceback of a log, or its last lines where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError:
        return "(no log)"
    text = [line for line in text if not _MINDSPORE_LINE.match(line)]
    start = max((n for n, line in enumerate(text) if line.startswith("Traceback (most recent call last)")), default=0)
    text = text[start:]
    # MindSpore puts places in its C++ code, under a line of dashes, below its errors, and they would hide the error.
    end = next((n for n, line in enumerate(text) if line.startswith("- C++ Call Stack")), None)
    if end:
        text = "\n".join(text[: end - 1]).rstrip().splitlines()
    return "\n".join(text[-lines:]) or "(the log is empty)"


def remove_old_logs(log_dir: Path, ranks: range, device_num: int) -> None:
    """Remove an earlier run's logs of `ranks`, and with rank 0 among them those that no host will write anew.

    Another host of the same run may share the folder and have begun already: its logs stay.
    """
    old = [log_dir / f"worker_{rank}.log" for rank in ranks]
    if 0 in ranks:
        old.append(log_dir / "scheduler.log")
        old += [path for path in log_dir.glob("worker_*.log") if _rank(path) >= device_num]
    for path in old:
        path.unlink(missing_ok=True)


def _rank(path: Path) -> int:
    number = path.stem.removeprefix("worker_")
    return int(number) if number.isdecimal() else -1
