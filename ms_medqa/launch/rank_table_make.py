"""Make rank tables: that of one server, and several merged into that of a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write
from ms_medqa.launch.rank_table import RankTable

_RANGE = re.compile(r"\s*\[\s*(\d+)\s*,\s*(\d+)\s*\)\s*")


@dataclass(frozen=True)
class SuperPod:
    """What version 1.2 says beyond 1.0 of a server in a SuperPoD.

    Attributes:
        pod_id: super_pod_id.
        device_ids: super_device_id of each card, in the order of the cards.
        host_ip: of the server, which HCCL's re-execution needs; None leaves it out.
    """

    pod_id: str
    device_ids: tuple[str, ...]
    host_ip: str | None = None


def parse_device_num(text: str) -> range:
    """The cards that `8` (0 to 7) or the half-open range `[4,8)` names.

    Raises:
        UserError: it is neither.
    """
    if match := _RANGE.fullmatch(text):
        cards = range(int(match[1]), int(match[2]))
    elif text.strip().isascii() and text.strip().isdecimal():
        cards = range(int(text))
    else:
        raise UserError(f"--device-num {text}: it is neither a number nor a range", 'such as 8, or "[0,8)" for 0 to 7')
    if not cards:
        raise UserError(f"--device-num {text}: it names no card")
    return cards


def server_table(server_id: str, addresses: Mapping[int, str], super_pod: SuperPod | None = None) -> dict[str, Any]:
    """The rank table of one server: version 1.2 in a SuperPoD, else 1.0.

    Args:
        server_id: its address, or another name that no other server has.
        addresses: number of each card -> address of its network port.
        super_pod: the SuperPoD.

    Raises:
        UserError: there is not one super_device_id a card.
    """
    device = [
        {"device_id": str(number), "device_ip": address, "rank_id": str(rank)}
        for rank, (number, address) in enumerate(addresses.items())
    ]
    server: dict[str, Any] = {"server_id": server_id, "device": device, "host_nic_ip": "reserve"}
    table: dict[str, Any] = {"version": "1.0", "server_count": "1", "server_list": [server], "status": "completed"}
    if super_pod is None:
        return table
    if len(super_pod.device_ids) != len(device):
        raise UserError(f"--super-device-ids: {len(super_pod.device_ids)} numbers for {len(device)} cards")
    for entry, number in zip(device, super_pod.device_ids, strict=True):
        entry["super_device_id"] = number
    del server["host_nic_ip"]
    if super_pod.host_ip is not None:
        server["host_ip"] = super_pod.host_ip
    pods = [{"super_pod_id": super_pod.pod_id, "server_list": [{"server_id": server_id}]}]
    return table | {"version": "1.2", "super_pod_list": pods}


def merge(tables: Sequence[RankTable]) -> dict[str, Any]:
    """One table of the servers of several, ranks in the dictionary order of server_id.

    The order of `tables` plays no part: with it, the ranks would depend on how a shell sorts file names.

    Raises:
        UserError: the tables are of different versions, or of 2.0, or two hold the same server.
    """
    versions = sorted({table.version for table in tables})
    if versions not in (["1.0"], ["1.2"]):
        raise UserError(f"--merge: versions {', '.join(versions)}", "it takes tables of 1.0, or tables of 1.2")
    servers: dict[str, dict[str, Any]] = {}
    holders: dict[str, Path] = {}
    pods: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for server in table.document["server_list"]:
            name = server["server_id"]
            if name in servers:
                raise UserError(f"--merge: server {name} is both in {holders[name]} and in {table.path}")
            servers[name], holders[name] = server, table.path
        for pod in table.document.get("super_pod_list", []):
            pods.setdefault(pod["super_pod_id"], []).extend(pod["server_list"])
    ranked = []
    rank = 0
    for name in sorted(servers):
        device = []
        for entry in sorted(servers[name]["device"], key=lambda entry: int(entry["rank_id"])):
            device.append(entry | {"rank_id": str(rank)})
            rank += 1
        ranked.append(servers[name] | {"device": device})
    merged: dict[str, Any] = {
        "version": versions[0],
        "server_count": str(len(ranked)),
        "server_list": ranked,
        "status": "completed",
    }
    if pods:
        merged["super_pod_list"] = [
            {"super_pod_id": name, "server_list": sorted(members, key=lambda member: member["server_id"])}
            for name, members in sorted(pods.items())
        ]
    return merged


def file_name(document: Mapping[str, Any]) -> str:
    """The name that users of the Ascend tools know: `hccl_8p_01234567_ADDRESS.json`, merged `hccl_2s_16p.json`."""
    servers = document["server_list"]
    count = sum(len(server["device"]) for server in servers)
    if len(servers) > 1:
        return f"hccl_{len(servers)}s_{count}p.json"
    numbers = "".join(entry["device_id"] for entry in servers[0]["device"])
    server_id = re.sub(r"[^\w.:-]", "_", servers[0]["server_id"])
    return f"hccl_{count}p_{numbers}_{server_id}.json"


def to_text(document: Mapping[str, Any]) -> str:
    """JSON with a line for each card."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    # Mappings that hold no other: a raw line break cannot be inside a JSON string.
    return re.sub(r"\{\s+([^{}\[\]]*?)\s+\}", lambda match: "{" + re.sub(r",\n\s+", ", ", match[1]) + "}", text) + "\n"


def write(table: RankTable) -> str:
    """Write a table to its path, atomically.

    Returns:
        What became of the file: `written`, `unchanged`, or `replaced` where something else was in it.
    """
    text = to_text(table.document)
    what = "written"
    if table.path.is_file():
        if table.path.read_bytes() == text.encode():
            return "unchanged"
        what = "replaced"
    with atomic_write(table.path) as file:
        file.write(text)
    return what
