"""Clients of a real server on a port of this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from serving_fakes import ENDLESS, Fixture

Make = Callable[..., Fixture]
ENDLESS_BODY = {"model": "base", "prompt": "水果", "temperature": ENDLESS, "max_tokens": 2000}
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def port_of(address: str) -> int:
    """The port of a server's address."""
    return int(address.rpartition(":")[2])


def request(body: dict[str, Any], spaces: int = 0) -> bytes:
    """A request for a plain text, whose body ends in so many spaces."""
    data = json.dumps(body).encode() + b" " * spaces
    return f"{HEAD}Content-Length: {len(data)}\r\n\r\n".encode() + data


def post(address: str, body: dict[str, Any], **options: Any) -> Any:
    """A plain text to a server."""
    import httpx

    return httpx.post(f"{address}/v1/completions", json=body, timeout=20, **options)
