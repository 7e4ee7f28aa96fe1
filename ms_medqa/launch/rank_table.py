"""Read and check a rank table: the JSON file that says which card of which server has which rank.

Formats: version 1.0 (Atlas 800, 800T A2) and 1.2 (Atlas A3) with `server_list`, where every value is a string.
Source of the format: the HCCL user guide of CANN.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError

_VERSIONS = ("1.0", "1.2")


def check_rank_table(path: str | Path, device_num: int) -> Path:
    """Check that a rank table describes `device_num` cards.

    Args:
        path: the JSON file.
        device_num: number of cards of the run.

    Returns:
        The absolute path.

    Raises:
        UserError: the file cannot be read, or a field is wrong; the message names the field.
    """
    path = Path(path)
    table = _read(path)

    def fail(field: str, problem: str) -> UserError:
        return UserError(f"rank table {path}: {field}: {problem}")

    if table.get("version") not in _VERSIONS:
        raise fail("version", f"{table.get('version')!r} is not one of {', '.join(map(repr, _VERSIONS))}")
    if table.get("status") != "completed":
        raise fail("status", f"{table.get('status')!r}, wait until the cluster has made it 'completed'")
    servers = table.get("server_list")
    if not isinstance(servers, list) or not servers:
        raise fail("server_list", "it must be a list with at least one server")
    if table.get("server_count") != str(len(servers)):
        raise fail("server_count", f"{table.get('server_count')!r} is not {str(len(servers))!r}, as server_list says")

    devices: list[tuple[str, dict[str, Any]]] = []
    for s, server in enumerate(servers):
        entries = server.get("device") if isinstance(server, dict) else None
        if not isinstance(entries, list) or not entries:
            raise fail(f"server_list[{s}].device", "it must be a list with at least one card")
        for d, device in enumerate(entries):
            where = f"server_list[{s}].device[{d}]"
            if not isinstance(device, dict):
                raise fail(where, "it must be a mapping of device_id, device_ip and rank_id")
            devices.append((where, device))
        _check_unique(
            fail, [(f"server_list[{s}].device[{d}]", device) for d, device in enumerate(entries)], "device_id"
        )
    if len(devices) != device_num:
        raise fail("server_list", f"it has {len(devices)} cards, but DEVICE_NUM is {device_num}")
    for where, device in devices:
        for field in ("device_id", "rank_id"):
            if not (isinstance(device.get(field), str) and device[field].isdecimal()):
                raise fail(f"{where}.{field}", f'{device.get(field)!r} is not a number in quotes, such as "0"')
        _check_ip(fail, f"{where}.device_ip", device.get("device_ip"))
    _check_unique(fail, devices, "rank_id")
    _check_unique(fail, devices, "device_ip")
    ranks = sorted(int(device["rank_id"]) for _, device in devices)
    if ranks != list(range(device_num)):
        raise fail("rank_id", f"the ranks must be 0 to {device_num - 1}, found {ranks}")
    return path.resolve()


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


def _check_unique(fail: Any, devices: list[tuple[str, dict[str, Any]]], field: str) -> None:
    seen: dict[Any, str] = {}
    for where, device in devices:
        value = str(device.get(field))
        if value in seen:
            raise fail(f"{where}.{field}", f"{value!r} is also that of {seen[value]}")
        seen[value] = where


def _check_ip(fail: Any, field: str, value: Any) -> None:
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise fail(field, f"{value!r} is not an IP address") from None
