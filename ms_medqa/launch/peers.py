"""Is the rest of a run over several hosts still there? The scheduler on host 0 is what all hosts can see."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

from ms_medqa.launch.nodes import Nodes

# MindSpore's scheduler ends half a minute after a worker has gone silent, and the workers' sums fail by then, too. A
# collective library may wait longer, HCCL half an hour: the launcher ends its workers when they have had that chance.
LOST_SECONDS = 60.0
_PROBE_SECONDS = 5.0
_CONNECT_SECONDS = 3.0
_TIMED_OUT = re.compile(r"The node: (\d+) is timed out")


class Peers:
    """Watches the scheduler of a run.

    Args:
        nodes: the hosts of the run; of one alone nothing is watched, for msrun does.
        lost_seconds: how long the scheduler may be silent; None takes LOST_SECONDS.
    """

    def __init__(self, nodes: Nodes, lost_seconds: float | None = None) -> None:
        self._nodes = nodes
        self._lost_seconds = LOST_SECONDS if lost_seconds is None else lost_seconds
        self._next = time.monotonic()
        self._answered: float | None = None

    @property
    def lost(self) -> bool:
        """Whether the scheduler was there once, and has not answered for too long. Looks every few seconds."""
        now = time.monotonic()
        if self._nodes.num == 1 or now < self._next:
            return False
        if self.scheduler_answers():
            self._answered = time.monotonic()
        self._next = time.monotonic() + _PROBE_SECONDS
        return self._answered is not None and now - self._answered > self._lost_seconds

    @property
    def what_is_lost(self) -> str:
        """One line to end a run with whose scheduler is lost."""
        place = f"{self._nodes.master_addr}:{self._nodes.master_port}"
        return (
            f"the scheduler at {place} has not answered for {self._lost_seconds:.0f} s: another host has failed, "
            "see what its launcher said"
        )

    def scheduler_answers(self) -> bool:
        """Whether somebody listens at MASTER_ADDR, MASTER_PORT."""
        assert self._nodes.master_port is not None
        try:
            with socket.create_connection((self._nodes.master_addr, self._nodes.master_port), _CONNECT_SECONDS):
                return True
        except OSError:
            return False

    def failed_first(self, log_dir: Path, device_num: int) -> str | None:
        """Where to look for the cause, if it is another host that failed first; None where nothing says so."""
        nodes = self._nodes
        if nodes.num == 1:
            return None
        if nodes.rank > 0:
            if self.scheduler_answers():
                return None
            if self._answered is None:
                place = f"MASTER_ADDR={nodes.master_addr}, MASTER_PORT={nodes.master_port}"
                return f"host 0 has never answered at {place}: was it started, and can this host reach it?"
            return f"the scheduler on {nodes.master_addr} had ended before: see what the launcher on host 0 said"
        try:
            text = (log_dir / "scheduler.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        match = _TIMED_OUT.search(text)
        if match is None or int(match[1]) in nodes.ranks(device_num):
            return None
        host = int(match[1]) // nodes.share(device_num)
        return f"worker {match[1]} on host {host} had gone silent before: see what the launcher there said"
