"""The commands of `ms-medqa ask --interactive`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ms_medqa.backend.interrupt import hold_interrupt
from ms_medqa.config.errors import RunError, UserError, from_os_error
from ms_medqa.config.files import user_path
from ms_medqa.config.side_by_side import side_by_side
from ms_medqa.generation.answer import AnswerStream
from ms_medqa.generation.dialogue_files import read_context, write_dialogue
from ms_medqa.generation.session import Session

QUIT = ("/quit", "/exit")
# What removes a context or an adapter; no adapter has that name.
NONE = "-"
HELP = {
    "/context [FILE]": f"knowledge for the answers from here on; {NONE} removes it, without FILE: what is set",
    "/adapter [NAME]": f"who answers from here on; {NONE} is the base model, without NAME: who there is",
    "/base": "the last question again without the adapter, both answers side by side",
    "/save FILE": "writes the dialogue, one line of JSON that `ms-medqa convert` reads",
    "/reset": "forgets the turns so far",
    "/help": "this list",
    "/quit": "ends, as the end of the input does; Ctrl-C ends an answer",
}
BANNER = "ask away; /help lists the commands, /quit ends"
_LONGEST_SHOWN = 40
_LONGEST_ERROR = 200


class Dialogue:
    """Runs a dialogue line by line.

    Args:
        session: the dialogue.
        write: takes the pieces of its answers as they are made.
        note: takes a line, or several, that are no part of an answer.
        width: cells of a line of the terminal.
    """

    def __init__(
        self,
        session: Session,
        write: Callable[[str], object],
        note: Callable[[str], object],
        width: Callable[[], int] = lambda: 80,
    ) -> None:
        self.session = session
        self._write = write
        self._note = note
        self._width = width
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/context": self._context,
            "/adapter": self._adapter,
            "/base": self._base,
            "/save": self._save,
            "/reset": self._reset,
            "/help": self._help,
        }

    def run(self, read: Callable[[], str | None]) -> None:
        """Take lines from `read` until `/quit`, or None at the end of the input."""
        while (line := read()) is not None:
            line = line.strip()
            if line in QUIT:
                return
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        name, *rest = line.split(maxsplit=1)
        try:
            # Where Python puts the bytes that are no text.
            if any("\udc80" <= char <= "\udcff" for char in line):
                raise UserError("this line is not text in the terminal's encoding", "write it anew, as UTF-8")
            if not line.startswith("/"):
                self._answer(line)
            elif name in self._commands:
                self._commands[name](rest[0] if rest else "")
            else:
                self._note(f"unknown command {name!r}: /help lists them")
        except BrokenPipeError:
            # Nobody reads the answers any more.
            raise
        except Exception as error:
            known = from_os_error(error) if isinstance(error, OSError) else error
            if not isinstance(known, (UserError, RunError)):
                # Memory that has run out, or a defect of the program: no reason to lose what has been said.
                known = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_ERROR]}"
            self._note(f"error: {known}")

    def _answer(self, question: str) -> None:
        before, written = len(self.session.turns), False
        # Ctrl-C stops an answer that goes astray; at the question it ends the program.
        try:
            with hold_interrupt(), closing(self.session.ask(question)) as stream:
                for piece in stream:
                    self._write(piece)
                    written = True
        except BrokenPipeError:
            raise
        except Exception:
            if written:
                self._write("\n")
            raise
        except KeyboardInterrupt:
            self._write("\n")
            self._note("stopped" + ("; this turn is forgotten" if len(self.session.turns) == before else ""))
            return
        self._write("\n")
        self._note(f"[{speed(stream)}]")

    def _base(self, _: str) -> None:
        try:
            with hold_interrupt():
                turn, stream = self.session.ask_base()
                with closing(stream):
                    answer = "".join(stream)
        except KeyboardInterrupt:
            self._note("stopped")
            return
        name = turn.prepared.variant.adapter or "with the adapter"
        self._note(side_by_side({"base": answer, name: turn.answer}, self._width()))
        self._note(f"[base: {speed(stream)}]")

    def _context(self, argument: str) -> None:
        if argument == NONE:
            self.session.context = None
            self._note("no context from here on")
        elif argument:
            self.session.context = read_context(user_path(argument))
            self._note(f"context: {_shown(self.session.context)}")
        elif self.session.context:
            self._note(f"context: {_shown(self.session.context)}; /context {NONE} removes it")
        else:
            self._note("no context is set")

    def _adapter(self, argument: str) -> None:
        known = self.session.qa.adapters
        if not known:
            raise UserError("there are no adapters to choose from", "start with --adapter NAME=DIR, once for each")
        if argument and argument != NONE and argument not in known:
            raise UserError(f"there is no adapter {argument!r}", f"there are: {', '.join(known)}")
        if argument:
            self.session.adapter = None if argument == NONE else argument
        now = self.session.adapter or "the base model"
        self._note(f"{now} answers" + ("" if argument else f"; adapters: {', '.join(known)}"))

    def _save(self, argument: str) -> None:
        if not argument:
            raise UserError("/save needs the name of a file", "/save dialogue.jsonl")
        if not self.session.turns:
            raise UserError("there is nothing to save yet")
        path = user_path(argument).resolve()
        again = path in self._saved
        if path.exists() and not again:
            raise UserError(f"{path} exists and was not saved by this dialogue", "choose another name")
        saved = write_dialogue(path, self.session.turns)
        self._saved.add(path)
        left_out = len(self.session.turns) - saved
        more = f", {left_out} without an answer left out" if left_out else ""
        self._note(f"{_count(saved, 'turn')} saved{' again' if again else ''}{more}: {path}")

    def _reset(self, _: str) -> None:
        self.session.reset()
        # Its file holds what has been forgotten now.
        self._saved.clear()
        self._note("a new dialogue" + ("; the context stays" if self.session.context else ""))

    def _help(self, _: str) -> None:
        width = max(map(len, HELP)) + 2
        self._note("\n".join(f"{command:<{width}}{text}" for command, text in HELP.items()))


def speed(stream: AnswerStream) -> str:
    """An answer that has ended, in numbers."""
    parts = [f"prompt {_count(len(stream.prepared.prompt), 'token')}", f"answer {_count(stream.tokens, 'token')}"]
    if stream.tokens_per_second:
        parts.append(f"{stream.tokens_per_second:.1f} tokens/s, the first after {stream.first_seconds:.2f} s")
    if stream.finish == "length":
        parts.append("cut off by generate.max_new_tokens")
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _shown(text: str) -> str:
    start = " ".join(text[:_LONGEST_SHOWN].split())
    return f"{_count(len(text), 'character')}, {start}" + ("…" if len(text) > _LONGEST_SHOWN else "")
