"""`ms-medqa COMMAND …`: find the command, run it, turn errors into one line and an exit status."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType
from typing import NoReturn

from ms_medqa import __version__

# Name -> (module, help). Modules are imported only when their command is named: MindSpore takes seconds to import.
COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("ms_medqa.cli.convert", "turn raw records into a data set for training"),
    "train": ("ms_medqa.cli.train", "train as a config says"),
    "eval": ("ms_medqa.cli.eval", "measure a model on questions with known answers"),
    "ask": ("ms_medqa.cli.ask", "answer a question, a dialogue or a file of questions"),
    "serve": ("ms_medqa.cli.serve", "answer over HTTP, with the interface of OpenAI"),
    "export": ("ms_medqa.cli.export", "write a model, an adapter merged into it, for other tools"),
    "merge": ("ms_medqa.cli.merge", "merge an adapter into its base: short for export --format hf"),
    "import-bin": ("ms_medqa.cli.import_bin", "turn PyTorch's *.bin weights into safetensors"),
    "inspect": ("ms_medqa.cli.inspect", "show what raw or converted data holds"),
    "rank-table": ("ms_medqa.cli.rank_table", "make, merge or check rank tables of Ascend clusters"),
    "doctor": ("ms_medqa.cli.doctor", "check this machine: versions, devices, known traps"),
    "demo": ("ms_medqa.cli.demo", "run convert, train, eval and ask on the shipped sample"),
}

# A closing terminal sends SIGHUP twice, and the second must not interrupt the clean-up. Later ones count again: Python
# drops an exception that is raised in a destructor.
_AGAIN_SECONDS = 3.0


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, and which says which option was probably meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; positional arguments may stand before, between and after options."""
        args, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            name = unknown[0].split("=", 1)[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            self.error(f"unknown argument {unknown[0]!r}" + (f", did you mean {near[0]}?" if near else ""))
        return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after `ms-medqa`; those of the process by default.

    Returns:
        The exit status: 0 done, 1 failed, 2 the user's fault, 128 + N ended by signal N (130 by Ctrl-C).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments[:1]
    if debug:
        arguments = arguments[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"ms-medqa {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"ms-medqa: error: unknown command {name!r}: {hint}", file=sys.stderr)
        return 2
    return _run(name, arguments[1:], debug)


class _Stopped(SystemExit):
    """SIGTERM or SIGHUP. As a SystemExit it also ends a process forked from this one without a traceback."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.text = f"ended by {signal.Signals(number).name}"


@contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP an exception inside the block, as SIGINT is one: what is half written is removed then."""
    taken: list[signal.Signals] = []
    last = -_AGAIN_SECONDS

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _AGAIN_SECONDS:
            last = now
            raise _Stopped(number)

    # One rank of several may be waiting for a dead one in native code, where no exception would reach it.
    alone = "MS_ROLE" not in os.environ and os.environ.get("RANK_SIZE", "1") in ("", "1")
    if alone and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored and stays so; a handler of a caller's own is the caller's wish.
            if signal.getsignal(number) is signal.SIG_DFL:
                taken.append(number)
                signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _run(name: str, arguments: list[str], debug: bool) -> int:
    try:
        with _stoppable():
            # Inside: these imports take a moment too, in which Ctrl-C may come.
            from ms_medqa.backend.device import quiet_environment

            quiet_environment()
            module = importlib.import_module(COMMANDS[name][0])
            args = _parse(name, module, arguments)
            debug = debug or args.debug
            status = module.run(args)
            # A reader that has gone (`ms-medqa … | head`) shows only when the last output leaves the buffer.
            sys.stdout.flush()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        # A signal: `_Stopped`, or `config.errors.Stopped` of a run that has saved itself first.
        text = getattr(stop, "text", None)
        return status if text is None else _fail(name, text, status, stop if debug else None)
    except KeyboardInterrupt as error:
        return _fail(name, "interrupted", 128 + signal.SIGINT, error if debug else None)
    except BrokenPipeError:
        # Otherwise Python complains once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ImportError as error:
        # Not a fault of the program but of its installation, such as MindSpore under NumPy 2.
        if (error.name or "").startswith("ms_medqa"):
            raise
        text = f"error: {error}: `ms-medqa doctor` says what is broken"
        return _fail(name, text, 1, error if debug else None)
    except MemoryError as error:
        text = f"error: out of memory ({str(error) or 'no more to be had'}): smaller batches or shorter texts need less"
        return _fail(name, text, 1, error if debug else None)
    except (ValueError, RuntimeError, OSError) as error:
        # UserError and RunError are among them; what is neither is raised again.
        from ms_medqa.config.errors import fail

        return fail(f"ms-medqa {name}", error, debug)
    return status


def _parse(name: str, module: ModuleType, arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog=f"ms-medqa {name}", description=module.__doc__, allow_abbrev=False)
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse(arguments)
    # For what tells how it can be repeated.
    args.command_line = ["ms-medqa", name, *arguments]
    return args


def _fail(name: str, text: str, status: int, error: BaseException | None) -> int:
    if error is not None:
        traceback.print_exception(error)
    # A terminal that has been closed takes no more lines.
    with suppress(OSError):
        print(f"ms-medqa {name}: {' '.join(text.splitlines())}", file=sys.stderr)
    return status


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ms-medqa COMMAND [ARGUMENT…]",
            "",
            "Medical question answering on MindSpore: from raw records to a tuned model that answers.",
            "",
            "commands:",
            *lines,
            "",
            "`ms-medqa COMMAND --help` tells a command's arguments, `ms-medqa --version` the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
