"""The hosts of a run over several machines, as the environment tells them.

NODE_NUM, NODE_RANK, MASTER_ADDR and MASTER_PORT mean what they mean to other launchers, and DEVICE_NUM counts the cards
of the whole job, of which every host has the same number.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ms_medqa.config.errors import UserError

# msrun's own defaults.
MASTER_PORT = 8118
CLUSTER_TIME_OUT = 600
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Nodes:
    """The hosts, and which of them this one is.

    Attributes:
        num: how many hosts; 1 is a run on this machine alone, which needs nothing of the rest.
        rank: of this host, from 0.
        master_addr: address or name of host 0, where the scheduler listens.
        master_port: its port; None takes a free one.
        time_out: seconds that the processes wait for each other at the start; negative waits for ever.
    """

    num: int = 1
    rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int | None = None
    time_out: int = CLUSTER_TIME_OUT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Nodes:
        """Read NODE_NUM, NODE_RANK, MASTER_ADDR, MASTER_PORT and CLUSTER_TIME_OUT.

        Raises:
            UserError: a variable is missing or wrong; the message names it.
        """
        variables = os.environ if environment is None else environment
        time_out = _number(variables, "CLUSTER_TIME_OUT", CLUSTER_TIME_OUT, low=-1)
        num = _number(variables, "NODE_NUM", 1, low=1)
        if num == 1:
            # Platforms set the other variables for a single host as well; there, a free port is better.
            return cls(time_out=time_out)
        for name in ("NODE_RANK", "MASTER_ADDR"):
            if not variables.get(name):
                raise UserError(f"NODE_NUM={num}, but {name} is not set", _MEANING[name])
        rank = _number(variables, "NODE_RANK", 0, low=0)
        if rank >= num:
            raise UserError(f"NODE_RANK={rank}: with NODE_NUM={num} it must be below {num}", _MEANING["NODE_RANK"])
        port = _number(variables, "MASTER_PORT", MASTER_PORT, low=1024, high=65535)
        return cls(num, rank, variables["MASTER_ADDR"], port, time_out)

    def share(self, device_num: int) -> int:
        """How many of the job's cards this host has.

        Raises:
            UserError: the cards cannot be dealt out evenly.
        """
        if device_num % self.num:
            raise UserError(
                f"DEVICE_NUM {device_num}: it cannot be divided by NODE_NUM={self.num}",
                "DEVICE_NUM counts the cards of all hosts, and each has as many as the others",
            )
        return device_num // self.num

    def ranks(self, device_num: int) -> range:
        """The ranks of this host's workers."""
        share = self.share(device_num)
        return range(self.rank * share, (self.rank + 1) * share)

    def check_master(self) -> None:
        """Check MASTER_ADDR, and on host 0 also that it is an address of this host and that MASTER_PORT is free.

        Otherwise msrun starts no scheduler, or one that ends, and every host waits for it in vain.

        Raises:
            UserError: the address or the port is wrong.
        """
        if self.num == 1:
            return
        place = self._resolve()
        if self.rank == 0:
            self._check_bind(*place)

    def _resolve(self) -> tuple[int, Any]:
        """(address family, socket address) of the scheduler."""
        began = time.monotonic()
        told = False
        while True:
            try:
                found = socket.getaddrinfo(self.master_addr, self.master_port, type=socket.SOCK_STREAM)
                return found[0][0], found[0][4]
            except socket.gaierror as error:
                # On Kubernetes the name of host 0 appears a while after its pod.
                if self.rank == 0 or 0 <= self.time_out <= time.monotonic() - began:
                    raise UserError(
                        f"MASTER_ADDR={self.master_addr}: {error.strerror}", _MEANING["MASTER_ADDR"]
                    ) from None
            if not told:
                print(f"MASTER_ADDR={self.master_addr} has no address yet, waiting", flush=True)
                told = True
            time.sleep(_POLL_SECONDS)

    def _check_bind(self, family: int, place: Any) -> None:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                # As servers do: a port whose last connections are just closing counts as free.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"MASTER_PORT={self.master_port}: another program listens there", "take another one on all hosts"
                ) from None
            raise UserError(
                f"MASTER_ADDR={self.master_addr} is no address of this host, but NODE_RANK=0",
                _MEANING["MASTER_ADDR"],
            ) from None


ALONE = Nodes()

_MEANING = {
    "NODE_RANK": "the number of this host, from 0",
    "MASTER_ADDR": "it must be an address of the host with NODE_RANK=0",
}


def _number(variables: Mapping[str, str], name: str, default: int, low: int, high: int | None = None) -> int:
    text = variables.get(name) or str(default)
    try:
        number = int(text)
    except ValueError:
        raise UserError(f"{name}={text}: it must be a number") from None
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{name}={text}: it must be {wanted}")
    return number
