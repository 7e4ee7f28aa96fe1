"""The fields of rank tables 1.0 and 1.2: servers with cards, all values strings."""

from __future__ import annotations

from typing import Any

from ms_medqa.launch.rank_table_fields import (
    Card,
    FieldError,
    all_ranks,
    ip_address,
    mappings,
    number_text,
    text,
    unique,
)


def check(document: dict[str, Any]) -> list[Card]:
    """The cards of a table of version 1.0 or 1.2.

    Raises:
        FieldError: a field is wrong.
    """
    servers = mappings(document.get("server_list"), "server_list", "server")
    names = [
        (f"server_list[{s}]", text(e.get("server_id"), f"server_list[{s}].server_id")) for s, e in enumerate(servers)
    ]
    unique(names, "server_id")
    count = document.get("server_count")
    # CANN's guide calls it optional since 1.2.
    if count != str(len(servers)) and not (count is None and document["version"] == "1.2"):
        raise FieldError("server_count", f"{count!r} is not {str(len(servers))!r}, as server_list says")
    pods = _super_pods(document, [name for _, name in names])
    cards = []
    for (where, name), server in zip(names, servers, strict=True):
        cards += _cards(where, name, server, document["version"], pods)
    all_ranks(cards)
    unique(((card.where, card.address) for card in cards), "device_ip")
    unique(((card.where, card.super_device) for card in cards), "super_device_id")
    for where, name in names:
        ranks = sorted(card.rank for card in cards if card.server == name)
        if ranks != list(range(ranks[0], ranks[0] + len(ranks))):
            raise FieldError(f"{where}.device", f"the ranks of a server must follow each other, found {ranks}")
    return cards


def _cards(where: str, name: str, server: dict[str, Any], version: str, pods: dict[str, str]) -> list[Card]:
    cards = []
    numbers = []
    for d, device in enumerate(mappings(server.get("device"), f"{where}.device", "card")):
        at = f"{where}.device[{d}]"
        numbers.append((at, number_text(device.get("device_id"), f"{at}.device_id")))
        rank = number_text(device.get("rank_id"), f"{at}.rank_id")
        address = device.get("device_ip")
        # Inside one SuperPoD the cards reach each other without their network ports.
        if address is not None or version == "1.0" or len(set(pods.values())) != 1:
            address = ip_address(address, f"{at}.device_ip")
        super_device = None
        if name in pods or (version == "1.2" and "super_device_id" in device):
            super_device = (pods.get(name, ""), number_text(device.get("super_device_id"), f"{at}.super_device_id"))
        cards.append(Card(at, rank, name, address, super_device))
    unique(numbers, "device_id")
    return cards


def _super_pods(document: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Check `super_pod_list`, where version 1.2 has one; server_id -> super_pod_id."""
    if document["version"] != "1.2" or "super_pod_list" not in document:
        return {}
    ids = []
    members = []
    pods = {}
    for p, pod in enumerate(mappings(document["super_pod_list"], "super_pod_list", "SuperPoD")):
        where = f"super_pod_list[{p}]"
        ids.append((where, text(pod.get("super_pod_id"), f"{where}.super_pod_id", longest=128)))
        for s, server in enumerate(mappings(pod.get("server_list"), f"{where}.server_list", "server")):
            at = f"{where}.server_list[{s}]"
            name = text(server.get("server_id"), f"{at}.server_id")
            if name not in names:
                raise FieldError(f"{at}.server_id", f"{name!r} is not in server_list")
            members.append((at, name))
            pods[name] = ids[-1][1]
    unique(ids, "super_pod_id")
    unique(members, "server_id")
    missing = [name for name in names if name not in pods]
    if missing:
        raise FieldError("super_pod_list", f"server {missing[0]!r} of server_list is in no SuperPoD")
    return pods
