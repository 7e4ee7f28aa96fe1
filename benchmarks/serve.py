"""`ms-medqa serve` under load and under attack: a process of its own on this machine, with real connections.

    python benchmarks/serve.py [MODEL] [--cases load hostile locked] [--seconds 180] [--requests 100000] [key=value…]

MODEL is a folder or the name of a shipped one (medqa-tiny). `key=value` are config keys of the server, such as
`serve.max_batch=16`.

- `load`: first a client alone asks every question: these are the answers that have to come. Then `--clients` clients
  stream greedy answers for `--seconds`, in `--rounds` turns with one client alone. None may be lost, fail, or be that
  of another question; together they get at least `--times` the tokens/s of one. Memory must be flat: in the last third
  of the time its mean is at most `--flat-mb` above that of the second third. Printed are medians and ranges of the
  turns, and times over all answers.
- `hostile`: `--requests` connections of `hostile_wire.py`, `--connections` at a time, a function of `--seed`. No status
  but 2xx, 4xx and 503, no line of a failure in the log, and none left over: rows, and within limits open files, threads
  and memory, are at the end what they were before, when `--before` such connections had made whatever is made once
  (graphs, pools, caches). Meanwhile a client that asks well gets its answer, and `--unread` connections are held whose
  answers nobody reads: the server must let them go.
- `locked`: the same of a server with a key, which most connections show, with a tenth of the requests.

Prints lines of figures, and a line for each rule. The exit status is 1 where one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path

from hostile_exchange import Outcome, Unread, exchange
from hostile_wire import Wire, bearer, request, wires
from serve_connections import Connections
from serve_load import Asker, Question, Tally, alone, telling, together
from serve_process import Server, State, Watch
from sides import show

from ms_medqa.config.assets import MEDQA_MINI

CASES = ("load", "hostile", "locked")
MAX_BODY = 1_048_576
WITNESS_SECONDS = 0.5
EXCHANGE_SECONDS = 120.0
# More than the server gives a client to take what it has been sent.
UNREAD_SECONDS = 90.0
# Connections that end at the moment of the count.
SPARE_FILES = 3
# Of the pool that encodes prompts, which grows up to a size of its own.
SPARE_THREADS = 8
SHOWN_FAULTS = 10


class Rules:
    """Tells of each rule whether it holds."""

    def __init__(self) -> None:
        self.broken = 0

    def must(self, holds: bool, what: str) -> None:
        """One rule."""
        self.broken += not holds
        print(f"  {'holds ' if holds else 'BROKEN'}  {what}", flush=True)


def questions(count: int) -> list[Question]:
    """Different questions of the shipped records."""
    with MEDQA_MINI.open(encoding="utf-8") as lines:
        texts = dict.fromkeys(json.loads(line)["question"] for line in lines)
    step = max(1, len(texts) // count)
    return [Question(text) for text in list(texts)[: step * count : step]]


def load(args: argparse.Namespace, place: Path, rules: Rules) -> None:
    """Clients side by side."""
    server = Server(args.model, [f"serve.max_queue={2 * args.clients}", *args.overrides], place, args.threads)
    try:
        asyncio.run(_load(args, server, rules))
        _end(server, rules)
    finally:
        server.close()


async def _load(args: argparse.Namespace, server: Server, rules: Rules) -> None:
    one, many = Tally(), Tally()
    rates, ones, other_words, same = [], [], 0, True
    with closing(Connections(server.port, server.headers)) as connections:
        asker = Asker(connections, args.tokens)
        asked = telling((await alone(asker, questions(args.questions), one))[0])
        rules.must(len(asked) > args.rounds, f"questions whose answers tell them apart: {len(asked)}")
        if len(asked) <= args.rounds:
            return
        # What compiles, and kernels that try numbers of threads, belong to neither side, nor does the memory of caches
        # that are made once: for each power of two of rows, when so many answers first meet a long one.
        counts = [1 << power for power in range(args.clients.bit_length())]
        for count in 2 * counts:
            await together(asker, count, args.warm_up / len(2 * counts), asked, Tally())
        one.clear_times()
        watch = Watch(server)
        for number in range(args.rounds + 1):
            part = asked[number :: args.rounds + 1]
            again, rate = await alone(asker, part, one)
            same = same and again == part
            ones.append(rate)
            if number < args.rounds:
                rate, different = await together(asker, args.clients, args.seconds / args.rounds, asked, many)
                rates.append(rate)
                other_words += different
        watch.close()
    ratios = [2 * rate / (ones[i] + ones[i + 1]) for i, rate in enumerate(rates)]
    print(f"one client: {show(ones)} tokens/s; {one.times()}")
    print(f"{args.clients} clients: {show(rates)} tokens/s, {show(ratios)} x one; {many.times()}")
    print(f"{many.answers} answers, {many.tokens} tokens, {many.refused} times told to come back")
    thirds = _print_memory(watch)
    faults = one.faults + many.faults
    rules.must(min(one.answers, many.answers) > 0, f"answers came: {one.answers} to one, {many.answers} to all")
    times = statistics.median(ratios)
    rules.must(times >= args.times, f"all together get {times:.1f} times the tokens/s of one, at least {args.times:g}")
    rules.must(not faults, f"no answer failed, was lost or another's: {_shown(faults)}")
    rules.must(same, "one client alone gets the same answers all along")
    rules.must(
        other_words <= many.answers / 100,
        f"answers with other words than alone, by rounding: {other_words}, at most 1 %",
    )
    grown = thirds[2][1] - thirds[1][1]
    rules.must(grown <= args.flat_mb, f"memory is flat: {grown:+.1f} MB from the second third to the last")
    rules.must(server.rows() == 0, "no row is left over")


def hostile(args: argparse.Namespace, place: Path, rules: Rules, key: str | None = None) -> None:
    """Whatever a connection may bring."""
    limits = [f"serve.max_body_bytes={MAX_BODY}", f"serve.max_queue={16 * args.connections}"]
    # What a request leaves out is decided here, and long answers are not what is tried.
    server = Server(args.model, [*limits, "generate.max_new_tokens=8", *args.overrides], place, args.threads, key)
    try:
        asyncio.run(_hostile(args, server, rules, key))
        _end(server, rules)
    finally:
        server.close()


def locked(args: argparse.Namespace, place: Path, rules: Rules) -> None:
    """The same, behind a key."""
    fewer = argparse.Namespace(**vars(args) | {"requests": args.requests // 10})
    hostile(fewer, place, rules, key="a-key")


def _unread(key: str | None) -> bytes:
    """Requests whose responses together are larger than what the system holds of them by itself."""
    return 1000 * request("/openapi.json", headers=bearer(key), method="GET")


async def _hostile(args: argparse.Namespace, server: Server, rules: Rules, key: str | None) -> None:
    stream = wires(args.seed, ["base"], MAX_BODY, key)
    seen: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []

    async def client() -> None:
        for wire in part:
            if not server.alive:
                return
            outcome = await _try(server, wire)
            seen.update((wire.kind, f"{status // 100}xx") for status in outcome.statuses or [0])
            if outcome.fault and server.alive:
                faults.append(f"{wire.kind}: {outcome.fault}")

    with closing(Connections(server.port, server.headers)) as connections:
        asker, tally = Asker(connections, args.tokens), Tally()
        (known, *_), _ = await alone(asker, questions(1), tally)
        unread = Unread(server.port, [_unread(key)] * args.unread)
        watch = Watch(server)
        witness = asyncio.ensure_future(_witness(asker, known, tally))
        began, states = time.monotonic(), list[State]()
        for size in (args.before, args.requests):
            part = islice(stream, size)
            await asyncio.gather(*(client() for _ in range(args.connections)))
            if not server.alive:
                break
            states.append(await asyncio.to_thread(server.state))
        held = await asyncio.to_thread(unread.left, UNREAD_SECONDS) if server.alive else 0
        seconds = time.monotonic() - began
        unread.close()
        watch.close()
        witness.cancel()
        wrong = (await asyncio.gather(witness, return_exceptions=True))[0]
        last = await asker.ask(known.text, tally) if server.alive else None
    _print_kinds(seen)
    count = args.before + args.requests
    print(f"{count} connections in {seconds:.0f} s, {args.connections} at a time; {tally.answers} good answers")
    _print_memory(watch)
    for fault in faults[:SHOWN_FAULTS]:
        print(f"  {fault}")
    rules.must(server.alive, "the server runs")
    rules.must(not faults, f"every response is one that the request deserves: {len(faults)} are not")
    if not server.alive:
        return
    rules.must(
        tally.answers and last == known.answer and not tally.faults and not isinstance(wrong, AssertionError),
        f"who asks well is answered as before, all along: {_shown(tally.faults)}",
    )
    rules.must(not held, f"connections whose answers nobody reads are let go: {held} of {args.unread} are not")
    first, end = states
    rules.must(server.rows() == 0, "no row is left over")
    rules.must(end.files <= first.files + SPARE_FILES, f"open files: {first.files}, then {end.files}")
    rules.must(end.threads <= first.threads + SPARE_THREADS, f"threads: {first.threads}, then {end.threads}")
    grown = end.own - first.own
    rules.must(grown <= args.leak_mb, f"memory of its own: {first.own:.0f} MB, then {end.own:.0f} MB")


async def _try(server: Server, wire: Wire) -> Outcome:
    try:
        return await exchange(server.port, wire, EXCHANGE_SECONDS)
    except OSError as error:
        return Outcome(fault=f"no connection: {error}")


async def _witness(asker: Asker, known: Question, tally: Tally) -> None:
    """Ask one question again and again."""
    while True:
        text = await asker.ask(known.text, tally)
        assert text in (None, known.answer), "another answer"
        await asyncio.sleep(WITNESS_SECONDS)


def _print_kinds(seen: Counter[tuple[str, str]]) -> None:
    columns = ("2xx", "4xx", "5xx", "0xx")
    print(f"{'':<18}" + "".join(f"{'none' if column == '0xx' else column:>9}" for column in columns))
    for kind in sorted({kind for kind, _ in seen}):
        print(f"{kind:<18}" + "".join(f"{seen[kind, column]:>9}" for column in columns))


def _print_memory(watch: Watch) -> list[tuple[float, float]]:
    thirds = watch.thirds()
    for name, number in (("resident", 0), ("its own", 1)):
        print(f"memory, {name}: {', '.join(f'{third[number]:.0f}' for third in thirds)} MB in each third of the time")
    return thirds


def _end(server: Server, rules: Rules) -> None:
    failures = server.failures()
    rules.must(not failures, f"the log tells of no failure: {len(failures)} lines")
    for line in failures[:SHOWN_FAULTS]:
        print(f"  {line}")
    rules.must(server.stop() == 0, "after SIGTERM it ends with status 0")


def _shown(faults: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in faults.items()) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words", nargs="*", metavar="MODEL | key=value", help="the model, and config keys of the server"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--warm-up", type=float, default=60, help="seconds of load before anything is measured")
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--times", type=float, default=5, help="tokens/s of all clients, at least so many of one's")
    parser.add_argument("--flat-mb", type=float, default=8)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--before", type=int, default=30_000, help="connections before files and memory are counted")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--unread", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leak-mb", type=float, default=64)
    args = parser.parse_args()
    args.overrides = [word for word in args.words if "=" in word]
    args.model = next((word for word in args.words if "=" not in word), "medqa-tiny")
    rules = Rules()
    # The server must not outlive a benchmark that is told to end.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="ms_medqa-serve-") as folder:
        for case in args.cases:
            print(f"{case}: {args.model}, {args.threads} threads {' '.join(args.overrides)}", flush=True)
            {"load": load, "hostile": hostile, "locked": locked}[case](args, Path(folder), rules)
    return 1 if rules.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
