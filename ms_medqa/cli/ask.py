"""Ask a model: one question, a dialogue (--interactive), or a file of questions (--input, --output)."""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

from ms_medqa.backend.interrupt import hold_interrupt, start_threads
from ms_medqa.cli.adapters import any_adapters
from ms_medqa.config import Config, load_config
from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.files import check_readable, check_writable, user_path

if TYPE_CHECKING:
    from ms_medqa.generation import MedicalQA

# A question may well hold an equals sign (`BMI=28算肥胖吗`), so only a dotted key makes an override.
_OVERRIDE = re.compile(r"[A-Za-z_]+(\.[A-Za-z0-9_]+)+=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("question", nargs="*", metavar="QUESTION", help="the question, in quotes; or key=value")
    parser.add_argument("--model", metavar="DIR", help="model folder or name of a shipped model (default: medqa-tiny)")
    parser.add_argument(
        "--adapter",
        metavar="[NAME=]DIR",
        action="append",
        default=[],
        help="adapter folder, as `train` writes it; repeated with names, records and commands choose, else the first",
    )
    parser.add_argument(
        "--no-merge", action="store_true", help="keep the adapter apart from the weights, instead of adding it to them"
    )
    parser.add_argument("--context", metavar="TEXT", help="medical knowledge that the answer may rest on")
    parser.add_argument(
        "--truncate-context",
        action="store_true",
        help="cut the end of a context off that is too long for the model, and say so",
    )
    parser.add_argument("--interactive", action="store_true", help="ask question after question; /help lists commands")
    parser.add_argument(
        "--input", metavar="FILE", help='JSON Lines: {"question", "context"?, "id"?, "adapter"?} or a string'
    )
    parser.add_argument("--output", metavar="FILE", help='JSON Lines: {"id", "question", "answer"} or {"id", "error"}')
    parser.add_argument("--seed", type=int, metavar="N", help="repeats an answer exactly")
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="take the likeliest token, after generate.repetition_penalty (1 turns that off): no draw is made",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer (default: 200)")
    parser.add_argument("--n", type=int, metavar="N", help="so many answers to each question")
    parser.add_argument("--num-beams", type=int, metavar="N", help="search the likeliest answer with N beams; no draws")
    parser.add_argument("--config", metavar="FILE", help="YAML config; its section `generate` holds the defaults")


def run(args: argparse.Namespace) -> int:
    """Answer."""
    overrides = [text for text in args.question if _OVERRIDE.match(text)]
    questions = [text for text in args.question if not _OVERRIDE.match(text)]
    for name in ("input", "output"):
        if getattr(args, name) is not None:
            # Shells leave the `~` of `--output=~/answers.jsonl` alone.
            setattr(args, name, user_path(getattr(args, name)))
    _check_mode(args, questions)
    # A terminal that has not all of Unicode shows a question mark; an answer does not end for it.
    if sys.stdout.isatty():
        _on_error(sys.stdout, "replace")
    config = load_config(args.config, overrides + _option_overrides(args))
    if args.interactive and config.generate.n > 1:
        raise UserError(f"generate.n = {config.generate.n}: a dialogue goes on with one answer", "leave it at 1")
    if args.input is None and not args.interactive and not questions[0].strip():
        raise UserError("the question is empty", "ask something")
    adapters, named = any_adapters(args.adapter)
    if args.input is not None:
        # Before a model is loaded, which takes long.
        check_readable(args.input)
        check_writable(args.output)
    with hold_interrupt():
        _set_up(config)
        start_threads()
    if args.interactive:
        return _converse(args, config, adapters, named)
    qa, adapter = _load(args, config, adapters, named)
    _note(qa.disclaimer)
    with hold_interrupt():
        return _answer_file(qa, args, adapter) if args.input is not None else _answer(qa, args, adapter, questions[0])


def _answer(qa: MedicalQA, args: argparse.Namespace, adapter: str | None, question: str) -> int:
    prepared = qa.prepare(question, args.context, adapter=adapter)
    if prepared.cut:
        _note(str(prepared.cut))
    if qa.settings.n == 1:
        for piece in qa.stream_prepared(prepared, qa.settings):
            _write(piece)
        _write("\n")
        return 0
    [answers] = qa.answer_prepared([prepared], qa.settings)
    for number, answer in enumerate(answers, start=1):
        _write(f"[{number}] {answer}\n")
    return 0


def _check_mode(args: argparse.Namespace, questions: list[str]) -> None:
    modes = [bool(questions), args.interactive, args.input is not None]
    if sum(modes) != 1:
        raise UserError("give one of: a QUESTION, --interactive, or --input FILE --output FILE")
    if len(questions) > 1:
        raise UserError(f"{len(questions)} questions", "put a question in quotes, or use --input for several")
    if (args.input is None) != (args.output is None):
        raise UserError("--input and --output go together")
    if args.input is not None:
        if args.context is not None:
            raise UserError("--context goes with one question", "in a file each record has its own `context`")
        if args.output.is_dir():
            raise UserError(f"--output {args.output}: is a folder", "name a file")
        if args.input.resolve() == args.output.resolve():
            raise UserError("--input and --output name the same file")


def _option_overrides(args: argparse.Namespace) -> list[str]:
    overrides = ["generate.temperature=0"] if args.greedy else []
    for name in ("seed", "max_new_tokens", "num_beams", "n"):
        if (value := getattr(args, name)) is not None:
            overrides.append(f"generate.{name}={value}")
    if args.truncate_context:
        overrides.append("generate.truncate_context=true")
    return overrides


def _set_up(config: Config) -> None:
    from ms_medqa.backend.device import setup_runtime

    device = setup_runtime(config.runtime, mode="pynative")
    if device.notice:
        _note(device.notice)


def _load(
    args: argparse.Namespace, config: Config, adapters: dict[str, str], named: bool
) -> tuple[MedicalQA, str | None]:
    """The model, and the name of the adapter that answers where nothing else is chosen."""
    from ms_medqa.generation import MedicalQA

    path, options = args.model or config.model.path, {"settings": config.generate, "dtype": config.runtime.dtype}
    if len(adapters) == 1 and not named:
        return MedicalQA(path, *adapters.values(), merge=not args.no_merge, **options), None
    return MedicalQA(path, adapters=adapters, **options), next(iter(adapters), None)


def _answer_file(qa: MedicalQA, args: argparse.Namespace, adapter: str | None) -> int:
    from ms_medqa.generation.batch import answer_file, read_requests

    requests = read_requests(args.input, qa, qa.settings, adapter)
    good = [request.prepared for request in requests if request.prepared is not None]
    with progress(total=len(good), desc="answers", unit="answer") as bar:
        answered, failed = answer_file(qa, requests, args.output, qa.settings, bar.update, _note)
    if not answered:
        reason = next(request.error for request in requests)
        raise RunError(f"none of the {failed} records could be answered ({reason}, …): {args.output} says why")
    cut = sum(prepared.cut is not None for prepared in good)
    _note(f"{answered} answered{f' ({cut} with a cut context)' if cut else ''}, {failed} failed: {args.output}")
    return 0


def _converse(args: argparse.Namespace, config: Config, adapters: dict[str, str], named: bool) -> int:
    from ms_medqa.generation.dialogue import BANNER, Dialogue
    from ms_medqa.generation.opening import open_comparable
    from ms_medqa.generation.session import Session

    load_base = None
    if len(adapters) == 1 and not named:
        [(adapter, folder)] = adapters.items()
        qa, load_base = open_comparable(
            args.model or config.model.path,
            folder,
            adapter,
            settings=config.generate,
            merge=not args.no_merge,
            dtype=config.runtime.dtype,
            note=_note,
        )
        chosen = None if load_base else adapter
    else:
        qa, chosen = _load(args, config, adapters, named)
    _note(qa.disclaimer)
    # Bytes that are no text reach the dialogue, which can say so and go on.
    _on_error(sys.stdin, "surrogateescape")
    terminal = sys.stdin.isatty()
    if terminal:
        _note(BANNER)
    with Session(qa, qa.settings, args.context, adapter=chosen, note=_note, load_base=load_base) as session:
        dialogue = Dialogue(session, _write, _note, lambda: shutil.get_terminal_size().columns)
        dialogue.run(lambda: _read(terminal))
    return 0


def _read(terminal: bool) -> str | None:
    if not terminal or not sys.stdout.isatty():
        # Where standard output is a file, it holds answers alone, and input() would put its prompt there.
        if terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline() or None
    import readline  # noqa: F401  # gives input() line editing and a history

    try:
        return input("> ")
    except EOFError:
        return None


def _on_error(stream: TextIO, errors: str) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)


def _write(piece: str) -> None:
    try:
        sys.stdout.write(piece)
    except UnicodeEncodeError as error:
        strange = error.object[error.start]
        raise RunError(
            f"standard output is written in {sys.stdout.encoding}, which has no {strange!r}: set PYTHONIOENCODING=utf-8"
        ) from None
    sys.stdout.flush()


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
