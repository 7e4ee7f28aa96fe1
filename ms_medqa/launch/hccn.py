"""Addresses that a rank table is made of: those of the cards' own network ports, and that of this server."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ms_medqa.config.errors import UserError

HCCN_CONF = Path("/etc/hccn.conf")
_HCCN_TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"
_SECONDS = 30


def card_addresses(device_ids: Sequence[int], hccn_conf: Path | None = None) -> dict[int, str]:
    """The address of each card's network port.

    Args:
        device_ids: numbers of the cards on this server.
        hccn_conf: a file with lines `address_N=ADDRESS`; None takes /etc/hccn.conf where there is one, else asks
            `hccn_tool`.

    Raises:
        UserError: an address is missing or is none, or there is nothing to ask.
    """
    if hccn_conf is None and not HCCN_CONF.exists():
        return {number: _ask(number) for number in device_ids}
    return _read(device_ids, hccn_conf or HCCN_CONF)


def server_address() -> str:
    """The address that this machine's name stands for.

    Raises:
        UserError: the name stands for nothing, or for an address that only this machine knows.
    """
    name = socket.gethostname()
    hint = "give the address by which the other servers know this one: --server-ip ADDRESS"
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        raise UserError(f"the name of this machine, {name}, has no address ({error.strerror or error})", hint) from None
    if ipaddress.ip_address(address).is_loopback:
        raise UserError(f"the name of this machine, {name}, stands for {address}", hint)
    return address


def _read(device_ids: Sequence[int], path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "give another file: --hccn-conf FILE") from None
    found = {int(n): value for n, value in re.findall(r"^\s*address_(\d+)\s*=\s*(\S*)", text, re.MULTILINE)}
    addresses = {}
    for number in device_ids:
        if number not in found:
            raise UserError(f"{path}: there is no line address_{number}=…", "`hccn_tool -i N -ip -s …` sets it")
        addresses[number] = _address(found[number], f"{path}: address_{number}")
    return addresses


def _ask(number: int) -> str:
    tool = shutil.which("hccn_tool") or (_HCCN_TOOL if Path(_HCCN_TOOL).exists() else None)
    if tool is None:
        raise UserError(
            f"there is neither {HCCN_CONF} nor hccn_tool to tell the cards' addresses",
            "run this on the server with the cards, or give its file: --hccn-conf FILE",
        )
    command = [tool, "-i", str(number), "-ip", "-g"]
    shown = " ".join(["hccn_tool", *command[1:]])
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"`{shown}` did not run: {error}") from None
    match = re.search(r"ipaddr:\s*(\S+)", done.stdout)
    if match is None:
        said = " ".join((done.stdout + done.stderr).split()) or f"exit status {done.returncode}"
        raise UserError(f"`{shown}` tells no address: {said}", "it often needs root")
    return _address(match[1], f"`{shown}`")


def _address(value: str, where: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise UserError(f"{where}: {value!r} is not an IP address") from None
