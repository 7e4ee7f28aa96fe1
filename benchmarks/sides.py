"""The two sides of a comparison, each a process of its own, so that they take turns and share nothing."""

from __future__ import annotations

import atexit
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


class Side:
    """A process that works on demand, and waits in between.

    Args:
        script: is started with `arguments`, and the path of a JSON file that holds `spec`.
        place: a folder for that file and the process's log.
        threads: of the process.
    """

    def __init__(self, script: Path, argument: str, spec: dict[str, Any], place: Path, threads: int) -> None:
        path = place / f"{spec['side']}.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.log = (place / f"{spec['side']}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(script), argument, str(path)],
            env={**os.environ, **count},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        # Where the other side fails, this one must not go on by itself.
        atexit.register(self.close)
        self.start = self._answer()

    def ask(self, what: object) -> dict[str, Any]:
        """Give it a line; returns what it says of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        self.log.seek(0)
        raise SystemExit(f"a side ended:\n{self.log.read()[-2000:]}")


def show(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def answer(values: dict[str, Any]) -> None:
    """What a side says: the line that `Side.ask` waits for."""
    print("@" + json.dumps(values), flush=True)
