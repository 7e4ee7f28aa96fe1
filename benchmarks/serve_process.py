"""A server as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

_START_SECONDS, _END_SECONDS, _IDLE_SECONDS = 300.0, 60.0, 60.0
_KEY_VARIABLE = "MS_MEDQA_API_KEY"
_ROWS = re.compile(r"^medqa_(?:running|queued) (\d+)$", re.MULTILINE)
# What the server writes where something was not the client's fault.
_FAILURE = re.compile(r"Traceback|Exception|ASGI callable|failed|could not", re.IGNORECASE)


@dataclass(frozen=True)
class State:
    """What a server holds while it has nothing to do: MB of memory (resident, and its own), open files, threads."""

    resident: float
    own: float
    files: int
    threads: int


class Server:
    """`ms-medqa serve` on a free port of this machine.

    Args:
        model: folder, or name of a shipped model.
        overrides: config keys, such as `serve.max_batch=16`.
        place: folder for its log.
        threads: of its process.
        key: that it wants; None: it wants none.
    """

    def __init__(self, model: str, overrides: Sequence[str], place: Path, threads: int, key: str | None = None) -> None:
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        environment = {name: value for name, value in os.environ.items() if name != _KEY_VARIABLE}
        environment |= {"OMP_NUM_THREADS": str(threads), "GLOG_v": "3"}
        environment |= {} if key is None else {_KEY_VARIABLE: key}
        self._log = place / "serve.log"
        command = [sys.executable, "-m", "ms_medqa.cli.main", "serve", "--model", model, "--port", "0"]
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*command, "serve.model_name=base", *overrides],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.port = self._find_port()
        self.address = f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Its process is there."""
        return self._process.poll() is None

    def memory(self) -> tuple[float, float]:
        """Resident set, and what the process has written itself, in MB.

        A proportional set would change with the neighbours that have loaded the same libraries.
        """
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        found = {name: int(size) / 1e3 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        return found["Rss"], found["Private_Dirty"] + found["Swap"]

    def state(self) -> State:
        """What it holds once it has nothing to do."""
        end = time.monotonic() + _IDLE_SECONDS
        while self.rows() and time.monotonic() < end:
            time.sleep(0.1)
        # Connections that their clients have closed a moment ago.
        time.sleep(1.0)
        process = Path(f"/proc/{self._process.pid}")
        return State(*self.memory(), len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())))

    def rows(self) -> int:
        """Answers that run or wait, by its own count."""
        page = httpx.get(f"{self.address}/metrics", headers=self.headers, timeout=60)
        return sum(int(count) for count in _ROWS.findall(page.raise_for_status().text))

    def failures(self) -> list[str]:
        """Lines of its log that tell of a fault of its own."""
        with self._log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip() for line in lines if _FAILURE.search(line)]

    def tail(self) -> str:
        """The end of its log."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def stop(self) -> int | None:
        """Its exit status after SIGTERM; None where it does not end, or had ended before."""
        if not self.alive:
            return None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it, however it stands."""
        self._process.kill()
        self._process.wait()

    def _find_port(self) -> int:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self.alive:
            if found := re.search(r" on http://\S+:(\d+)$", self.tail(), re.MULTILINE):
                return int(found[1])
            time.sleep(0.1)
        self.close()
        raise SystemExit(f"the server did not start:\n{self.tail()}")


class Watch:
    """Notes a server's memory each second, until it is closed.

    Attributes:
        samples: (resident set, memory of its own) in MB.
    """

    def __init__(self, server: Server) -> None:
        self.samples: list[tuple[float, float]] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._over.set()
        self._thread.join()

    def thirds(self) -> list[tuple[float, float]]:
        """Means of (resident set, memory of its own) in the first, second and last third of the time."""
        size = len(self.samples) // 3
        assert size, "too short a time"
        parts = (self.samples[:size], self.samples[size : 2 * size], self.samples[2 * size :])
        return [(statistics.mean(rss for rss, _ in part), statistics.mean(own for _, own in part)) for part in parts]

    def _run(self) -> None:
        while not self._over.wait(1.0) and self._server.alive:
            self.samples.append(self._server.memory())
