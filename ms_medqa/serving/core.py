"""What the server asks of the decoder, which makes one token of every running answer in each step."""

from __future__ import annotations

from typing import Any, Protocol

from ms_medqa.generation.request import Output, Request


class Core(Protocol):
    """A batch whose rows come and go, such as `Scheduler`. One thread makes it and owns it; no other calls it.

    What `add` hands out for a row the server only hands back, and tells rows apart by identity.

    """

    @property
    def free(self) -> int:
        """Rows that could be taken now."""
        ...

    def check(self, request: Request) -> None:
        """Raise UserError where a request cannot be answered: too long, empty, an unknown adapter."""
        ...

    def add(self, request: Request) -> Any:
        """Take a row; its prompt is read in the next step."""
        ...

    def step(self) -> list[Output]:
        """One token for every row."""
        ...

    def remove(self, running: Any) -> None:
        """Free a row at once, before its answer is over."""
        ...
