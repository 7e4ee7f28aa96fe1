"""Any text: how likely the model finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ms_medqa.data.example import Example, Record
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.items import Item
from ms_medqa.evaluation.likelihood import WIDTH
from ms_medqa.evaluation.task import Asked, Measured, Task, whole_text
from ms_medqa.evaluation.token_figures import bits_per_byte, token_figures
from ms_medqa.evaluation.trees import Score, Tree


class PerplexityTask(Task):
    """A text is read in windows of 512 tokens that do not overlap, so that models with more positions are not favoured:
    each token is scored once, its window's first behind the last of the window before. That is the rolling likelihood
    of EleutherAI's harness, with `max_length` 512. A text's first token is scored where the tokenizer has a start
    token."""

    kind: ClassVar[str] = "perplexity"
    generates: ClassVar[bool] = False

    def unfit(self, item: Item) -> str | None:
        return None if text_of(item.record).strip() else "the text is empty"

    def asked(self, item: Item, prompt: Prompt) -> Asked:
        ids = whole_text(prompt.tokenizer, text_of(item.record))
        # One more token stands before each window: what it is read behind.
        starts = range(0, max(1, len(ids) - 1), WIDTH - 1)
        windows = [ids[start : start + WIDTH] for start in starts]
        return Asked([Tree(window, targets=range(1, len(window))) for window in windows])

    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        scores = [sum((tree[0] for tree in one.scores), Score()) for _, one in measured]
        sizes = [len(text_of(item.record).encode("utf-8", "surrogatepass")) for item, _ in measured]
        return [*token_figures(scores), bits_per_byte([score.loss for score in scores], sizes)]

    def reference(self, item: Item) -> dict[str, Any]:
        return {"id": item.id}

    def row(self, item: Item, measured: Measured) -> dict[str, Any]:
        score = sum((tree[0] for tree in measured.scores), Score())
        return {"loss": score.loss, "tokens": score.tokens}


def text_of(record: Record) -> str:
    """Plain text as it is; of a question with its answer, whatever stands in it."""
    if not isinstance(record, Example):
        return record.text
    turns = [text for turn in record.history for text in turn]
    parts = [record.system, *turns, record.context, record.question, record.answer]
    return "\n".join(part for part in parts if part)
