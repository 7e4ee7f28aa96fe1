"""Rank tables for tests, with addresses that documentation is free to use (RFC 5737)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "rank_tables"
EIGHT = FOLDER / "rank_table_8pcs.json"
SIXTEEN = FOLDER / "rank_table_16pcs.json"


def load(path: Path) -> dict[str, Any]:
    """What a file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def super_pods() -> dict[str, Any]:
    """Version 1.2: two SuperPoDs of one server with two cards each."""
    servers = [
        {
            "server_id": f"node_{s}",
            "device": [
                {
                    "device_id": str(d),
                    "super_device_id": str(d),
                    "device_ip": f"198.51.100.{10 * s + d}",
                    "rank_id": str(2 * s + d),
                }
                for d in range(2)
            ],
        }
        for s in range(2)
    ]
    pods = [{"super_pod_id": str(s), "server_list": [{"server_id": f"node_{s}"}]} for s in range(2)]
    return {"version": "1.2", "server_list": servers, "super_pod_list": pods, "status": "completed"}


def ranks() -> dict[str, Any]:
    """Version 2.0 with two ranks."""
    level = {
        "net_layer": 0,
        "net_instance_id": "rack",
        "net_type": "CLOS",
        "rank_addr_list": [{"addr_type": "IPV4", "addr": "198.51.100.1", "ports": ["0/1"], "plane_id": "a"}],
    }
    rank_list = [{"rank_id": n, "local_id": n, "device_id": n, "level_list": [copy.deepcopy(level)]} for n in range(2)]
    return {"version": "2.0", "status": "completed", "rank_count": 2, "rank_list": rank_list}
