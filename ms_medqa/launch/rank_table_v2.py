"""The fields of rank table 2.0: ranks with network levels, all numbers integers."""

from __future__ import annotations

from typing import Any

from ms_medqa.launch.rank_table_fields import Card, FieldError, all_ranks, integer, mappings, text


def check(document: dict[str, Any]) -> list[Card]:
    """The cards of a table of version 2.0.

    Raises:
        FieldError: a field is wrong.
    """
    entries = mappings(document.get("rank_list"), "rank_list", "rank")
    count = integer(document.get("rank_count"), "rank_count")
    if count != len(entries):
        raise FieldError("rank_count", f"{count} is not {len(entries)}, as rank_list says")
    cards = []
    for r, entry in enumerate(entries):
        where = f"rank_list[{r}]"
        for field in ("device_id", "local_id"):
            integer(entry.get(field), f"{where}.{field}")
        _check_levels(entry.get("level_list"), f"{where}.level_list")
        cards.append(Card(where, integer(entry.get("rank_id"), f"{where}.rank_id")))
    all_ranks(cards)
    return cards


def _check_levels(levels: Any, where: str) -> None:
    for n, level in enumerate(mappings(levels, where, "network level")):
        at = f"{where}[{n}]"
        integer(level.get("net_layer"), f"{at}.net_layer")
        text(level.get("net_instance_id"), f"{at}.net_instance_id", longest=1024)
        addresses = level.get("rank_addr_list")
        # A level whose links the topology file describes may have none.
        if not isinstance(addresses, list):
            raise FieldError(f"{at}.rank_addr_list", "it must be a list of addresses")
        for a, address in enumerate(addresses):
            if not isinstance(address, dict):
                raise FieldError(f"{at}.rank_addr_list[{a}]", "it must be a mapping with addr_type and addr")
            for field in ("addr_type", "addr"):
                text(address.get(field), f"{at}.rank_addr_list[{a}].{field}", longest=128)
