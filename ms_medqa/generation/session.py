"""A dialogue: earlier turns are part of the next question's prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.qa import MedicalQA

COMMANDS = "/reset starts over, /quit ends"


class Session:
    """Asks one model question after question.

    Attributes:
        turns: (question, answer) pairs so far, oldest first.
        dropped: turns that the last question left out, because the model holds no more positions.
    """

    def __init__(self, qa: MedicalQA, settings: GenerateSection, context: str | None = None) -> None:
        self.qa = qa
        self.settings = settings
        self.context = context
        self.turns: list[tuple[str, str]] = []
        self.dropped = 0
        self._asked = 0

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()
        self.dropped = 0

    def ask(self, question: str) -> Iterator[str]:
        """The answer piece by piece. The turn counts as said when the last piece has been taken.

        Raises:
            UserError: an empty question, or one that does not fit even without earlier turns.
        """
        history, self.dropped = self._fitting(question)
        settings = self.settings
        if settings.seed is not None:
            # The same draws in every turn would make answers to like questions follow each other.
            settings = settings.model_copy(update={"seed": settings.seed + self._asked})
        pieces = []
        for piece in self.qa.stream(question, self.context, history=history, settings=settings):
            pieces.append(piece)
            yield piece
        self.turns.append((question, "".join(pieces)))
        self._asked += 1

    def _fitting(self, question: str) -> tuple[list[tuple[str, str]], int]:
        """The newest turns that fit before the question, and how many older ones do not."""
        for dropped in range(len(self.turns) + 1):
            history = self.turns[dropped:]
            try:
                self.qa.encode(question, self.context, history=history, max_new_tokens=self.settings.max_new_tokens)
            except UserError:
                if not history:
                    raise
            else:
                return history, dropped
        raise AssertionError("an empty history either fits or raises")


def converse(
    session: Session, read: Callable[[], str | None], write: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Run a dialogue until `/quit` or the end of the input.

    Args:
        session: the dialogue.
        read: the next line, None at the end.
        write: takes the answer's pieces as they are made.
        note: takes a line that is no part of an answer.
    """
    while (line := read()) is not None:
        question = line.strip()
        if question in ("/quit", "/exit"):
            return
        if question == "/reset":
            session.reset()
            note("a new dialogue")
        elif question.startswith("/"):
            note(f"unknown command {question.split()[0]!r}: {COMMANDS}")
        elif question:
            _answer(session, question, write, note)


def _answer(session: Session, question: str, write: Callable[[str], None], note: Callable[[str], None]) -> None:
    try:
        for piece in session.ask(question):
            write(piece)
    except UserError as error:
        note(f"error: {error}")
        return
    except KeyboardInterrupt:
        # Ctrl-C stops an answer that goes astray; a second one, at the question, ends the dialogue.
        write("\n")
        note("stopped; this turn is forgotten")
        return
    write("\n")
    if session.dropped:
        note(f"the {session.dropped} oldest turns were left out: the model holds no more")
