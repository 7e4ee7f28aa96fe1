"""What a dialogue reads and writes: a context, and itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, check_readable, json_line
from ms_medqa.generation.session import Turn

# More than any model holds; a larger file was named by mistake.
MAX_CONTEXT_BYTES = 2**20


def read_context(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: no such file, no text in it, more than `MAX_CONTEXT_BYTES`, or another encoding than UTF-8.
    """
    # A device or a pipe might never end.
    check_readable(path)
    with path.open("rb") as file:
        data = file.read(MAX_CONTEXT_BYTES + 1)
    if len(data) > MAX_CONTEXT_BYTES:
        raise UserError(f"{path}: larger than {MAX_CONTEXT_BYTES >> 20} MiB", "keep what belongs to the question")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text", "save it as UTF-8") from None
    if not text:
        raise UserError(f"{path}: holds no text")
    return text


def write_dialogue(path: Path, turns: list[Turn]) -> int:
    """Write a dialogue as one line of JSON Lines, which `ms-medqa convert` reads.

    Turns stand under `messages`; the context of the last one stands under `context`, as `convert` wants it, and that of
    each other beside its question. A turn whose answer is empty is left out: `convert` would join its question to the
    next one, and to an answer that was given to that alone.

    Returns:
        How many turns were written.

    Raises:
        UserError: no turn has an answer.
    """
    turns = [turn for turn in turns if turn.answer.strip()]
    if not turns:
        raise UserError("there is nothing to save: no answer holds any text")
    messages: list[dict[str, Any]] = []
    for turn in turns:
        asked, answered = {"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}
        if turn.context and turn is not turns[-1]:
            asked["context"] = turn.context
        if turn.prepared.variant.adapter:
            answered["adapter"] = turn.prepared.variant.adapter
        messages += [asked, answered]
    context = {"context": turns[-1].context} if turns[-1].context else {}
    with atomic_write(path) as file:
        file.write(json_line({"messages": messages, **context}))
    return len(turns)
