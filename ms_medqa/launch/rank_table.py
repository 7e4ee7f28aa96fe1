"""Read and check a rank table: the JSON file that says which card of which server has which rank.

Formats, by the HCCL user guide of CANN: 1.0 (Atlas 800, 800T A2) and 1.2 (Atlas A3), where every value is a string, and
2.0 (Atlas 350 to 950), which lists ranks with integers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.launch import rank_table_v1, rank_table_v2
from ms_medqa.launch.rank_table_fields import Card, FieldError

WAIT_SECONDS = 600.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class RankTable:
    """A rank table whose fields are right.

    Attributes:
        path: of the file, absolute.
        cards: in the order of their ranks.
        document: what the file holds.
    """

    path: Path
    cards: tuple[Card, ...]
    document: dict[str, Any]

    @property
    def version(self) -> str:
        """`1.0`, `1.2` or `2.0`."""
        return str(self.document["version"])

    @property
    def servers(self) -> list[tuple[str, range]]:
        """(server_id, its ranks) in the order of the ranks; none in version 2.0, which does not name servers."""
        if self.version == "2.0":
            return []
        blocks = [(server, [card.rank for card in cards]) for server, cards in groupby(self.cards, lambda c: c.server)]
        return [(server, range(ranks[0], ranks[-1] + 1)) for server, ranks in blocks]

    @property
    def sorted_servers(self) -> bool:
        """Whether the ranks follow the dictionary order of server_id, as MindSpore's documentation asks."""
        names = [name for name, _ in self.servers]
        return names == sorted(names)

    def check_job(self, device_num: int, node_num: int | None = None) -> None:
        """Check that the table is that of a job.

        Args:
            device_num: cards of the job, on all hosts.
            node_num: hosts of the job, each with as many cards as the others; None does not look at hosts.

        Raises:
            UserError: it has other cards or servers; the message names the field.
        """
        field = "rank_count" if self.version == "2.0" else "server_list"
        if len(self.cards) != device_num:
            raise UserError(
                f"rank table {self.path}: {field}: it has {len(self.cards)} cards, but DEVICE_NUM is {device_num}"
            )
        if node_num is None or not self.servers:
            return
        if len(self.servers) != node_num:
            raise UserError(
                f"rank table {self.path}: server_list: it has {len(self.servers)} servers, but NODE_NUM is {node_num}"
            )
        for name, ranks in self.servers:
            if len(ranks) != device_num // node_num:
                raise UserError(
                    f"rank table {self.path}: server_list: server {name} has {len(ranks)} cards",
                    f"with DEVICE_NUM {device_num} and NODE_NUM={node_num} each has {device_num // node_num}",
                )


def load_rank_table(path: str | Path, wait_seconds: float = WAIT_SECONDS) -> RankTable:
    """Read a rank table, wait until it is complete, and check its fields.

    Args:
        path: the JSON file.
        wait_seconds: how long its `status` may stay `initializing`, as on Kubernetes until all pods are there; negative
            waits for ever.

    Raises:
        UserError: the file cannot be read, stays incomplete, or a field is wrong; the message names the field.
    """
    path = user_path(path).absolute()
    return checked(path, _completed(path, wait_seconds))


def checked(path: Path, document: dict[str, Any]) -> RankTable:
    """The table that a document holds.

    Args:
        path: where it is, or will be.
        document: what the file holds.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    try:
        cards = _CHECKS[_version(document)](document)
    except FieldError as error:
        raise UserError(f"rank table {path}: {error.field}: {error.problem}") from None
    return RankTable(path, tuple(sorted(cards, key=lambda card: card.rank)), document)


def check_rank_table(
    path: str | Path, device_num: int, node_num: int | None = None, wait_seconds: float = WAIT_SECONDS
) -> Path:
    """Check that a rank table describes a job, before anything of it starts.

    Args:
        path: the JSON file.
        device_num: cards of the job, on all hosts.
        node_num: hosts of the job; None does not look at hosts.
        wait_seconds: how long its `status` may stay `initializing`.

    Returns:
        The absolute path.

    Raises:
        UserError: the file cannot be read, stays incomplete, or a field is wrong; the message names the field.
    """
    table = load_rank_table(path, wait_seconds)
    table.check_job(device_num, node_num)
    if not table.sorted_servers:
        say(f"note: {order_note(table)}")
    return table.path


def order_note(table: RankTable) -> str:
    """What to say of a table whose ranks do not follow server_id.

    It is no error: CANN's guide only forbids that the ranks of servers mix, and a platform that writes the table itself
    may number servers by other things.
    """
    order = ", ".join(f"{name} (ranks {ranks[0]}-{ranks[-1]})" for name, ranks in table.servers)
    return f"rank table {table.path}: MindSpore asks for ranks in the dictionary order of server_id, these are {order}"


def _completed(path: Path, wait_seconds: float) -> dict[str, Any]:
    document = _read(path)
    if document.get("status") != "initializing":
        return document
    limit = "as long as it takes" if wait_seconds < 0 else f"up to {wait_seconds:.0f} s"
    if wait_seconds:
        say(f"rank table {path}: status is 'initializing', waiting {limit} for 'completed'")
    began = time.monotonic()
    while document.get("status") == "initializing":
        if 0 <= wait_seconds <= time.monotonic() - began:
            raise UserError(
                f"rank table {path}: status: still 'initializing' after {wait_seconds:.0f} s",
                "the platform that writes it has not placed all of the job",
            )
        time.sleep(_POLL_SECONDS)
        document = _read(path)
    return document


def _version(document: dict[str, Any]) -> str:
    version = document.get("version")
    if not isinstance(version, str) or version not in _CHECKS:
        raise FieldError("version", f"{version!r} is not one of {', '.join(map(repr, _CHECKS))}")
    if document.get("status") != "completed":
        raise FieldError("status", f"{document.get('status')!r} is not 'completed'")
    return version


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"rank table {path}: no such file") from None
    except OSError as error:
        raise UserError(f"rank table {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"rank table {path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise UserError(f"rank table {path} line {error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(table, dict):
        raise UserError(f"rank table {path}: it must be a mapping with version, server_list and status")
    return table


_CHECKS: dict[str, Callable[[dict[str, Any]], list[Card]]] = {
    "1.0": rank_table_v1.check,
    "1.2": rank_table_v1.check,
    "2.0": rank_table_v2.check,
}
