"""Make, merge or check rank tables: the JSON files that say which card of which server has which rank."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ms_medqa.config import UserError
from ms_medqa.config.files import user_path

if TYPE_CHECKING:
    from ms_medqa.launch.rank_table import RankTable
    from ms_medqa.launch.rank_table_make import SuperPod


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--merge", nargs="+", metavar="FILE", help="make one table of those of several servers")
    what.add_argument("--check", metavar="FILE", help="check a table; --device-num says how many cards it must have")
    parser.add_argument(
        "--device-num", metavar="N", help='cards of this server: 8, or a half-open range such as "[0,4)" for 0 to 3'
    )
    parser.add_argument("--server-ip", metavar="IP", help="server_id (default: what this machine's name stands for)")
    parser.add_argument(
        "--hccn-conf", metavar="FILE", help="the cards' addresses (default: /etc/hccn.conf, else ask hccn_tool)"
    )
    parser.add_argument(
        "--output", metavar="PATH", help="file, or folder for a file of the known name (default: this folder)"
    )
    parser.add_argument(
        "--version", choices=("1.0", "1.2"), default="1.0", help="1.0: Atlas 800, A2 (default); 1.2: Atlas A3 SuperPoD"
    )
    parser.add_argument("--super-pod-id", metavar="ID", help="1.2: the SuperPoD that this server belongs to")
    parser.add_argument(
        "--super-device-ids",
        metavar="ID,ID,…",
        help="1.2: the SDID of each card, in their order (npu-smi info -t spod-info -i ID -c CHIP)",
    )
    parser.add_argument("--host-ip", metavar="IP", help="1.2: the server's host address, which re-execution needs")
    parser.add_argument(
        "--wait", type=float, default=600.0, metavar="S", help="seconds to wait for a complete table (default: 600)"
    )


def run(args: argparse.Namespace) -> int:
    """Do what is asked and say which ranks are where."""
    # Printed and not said: with a RANK_ID in the environment, as on a platform, `say` may be silent.
    from ms_medqa.launch.rank_table import checked, load_rank_table, order_note
    from ms_medqa.launch.rank_table_make import file_name, merge, parse_device_num, write

    made = ("server_ip", "hccn_conf", "super_pod_id", "super_device_ids", "host_ip")
    if args.check is not None:
        _refuse("--check", args, (*made, "output"))
        table = load_rank_table(args.check, args.wait)
        if args.device_num is not None:
            table.check_job(len(parse_device_num(args.device_num)))
        print(f"{args.check}: version {table.version}, {len(table.cards)} cards, nothing is wrong")
        _say_ranks(table)
        if not table.sorted_servers:
            print(f"note: {order_note(table)}")
        return 0
    if args.merge is not None:
        _refuse("--merge", args, (*made, "device_num"))
        document = merge([load_rank_table(path, args.wait) for path in args.merge])
    elif args.device_num is None:
        raise UserError("nothing to do", "give --device-num N, --merge FILE FILE… or --check FILE")
    else:
        document = _server_table(args, parse_device_num(args.device_num))
    table = checked(_path(args.output or ".", file_name(document)), document)
    what = write(table)
    print(f"{table.path}: {what}" + (", something else was in it" if what == "replaced" else ""))
    _say_ranks(table)
    return 0


def _path(output: str, name: str) -> Path:
    path = user_path(output).absolute()
    return path / name if output.endswith("/") or path.is_dir() else path


def _server_table(args: argparse.Namespace, cards: range) -> dict[str, Any]:
    from ms_medqa.launch.hccn import card_addresses, server_address
    from ms_medqa.launch.rank_table_make import server_table

    super_pod = _super_pod(args)
    addresses = card_addresses(cards, None if args.hccn_conf is None else user_path(args.hccn_conf))
    return server_table(args.server_ip or server_address(), addresses, super_pod)


def _super_pod(args: argparse.Namespace) -> SuperPod | None:
    from ms_medqa.launch.rank_table_make import SuperPod

    if args.version == "1.0":
        _refuse("--version 1.0", args, ("super_pod_id", "super_device_ids", "host_ip"))
        return None
    for name in ("super_pod_id", "super_device_ids"):
        if getattr(args, name) is None:
            raise UserError(f"version 1.2 needs {_option(name)}", "see `ms-medqa rank-table --help`")
    return SuperPod(args.super_pod_id, tuple(args.super_device_ids.replace(" ", "").split(",")), args.host_ip)


def _refuse(what: str, args: argparse.Namespace, names: tuple[str, ...]) -> None:
    """An option that would be ignored is an error."""
    for name in names:
        if getattr(args, name) is not None:
            raise UserError(f"{what} does not take {_option(name)}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _say_ranks(table: RankTable) -> None:
    for name, ranks in table.servers:
        print(f"  {name}: ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"  {name}: rank {ranks[0]}")
