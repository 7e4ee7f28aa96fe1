"""Any text: how likely the model finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ms_medqa.data.example import Example, Record
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.items import Item
from ms_medqa.evaluation.likelihood import WIDTH
from ms_medqa.evaluation.task import Asked, Measured, Task
from ms_medqa.evaluation.token_figures import bits_per_byte, token_figures
from ms_medqa.evaluation.trees import Score, Tree


class PerplexityTask(Task):
    """Each token of a text is scored once, the first behind the start token (or the end token, of tokenizers that have
    none), in windows of 512 tokens, so that models with more positions are not favoured: the rolling likelihood of
    EleutherAI's lm-evaluation-harness with `max_length=511`."""

    kind: ClassVar[str] = "perplexity"
    generates: ClassVar[bool] = False

    def unfit(self, item: Item) -> str | None:
        return None if text_of(item.record).strip() else "the text is empty"

    def asked(self, item: Item, prompt: Prompt) -> Asked:
        return Asked(windows(prompt.tokenizer, text_of(item.record)))

    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        scores = [whole(one) for _, one in measured]
        sizes = [len(text_of(item.record).encode("utf-8", "surrogatepass")) for item, _ in measured]
        return [*token_figures(scores), bits_per_byte([score.loss for score in scores], sizes)]

    def reference(self, item: Item) -> dict[str, Any]:
        return {"id": item.id}

    def row(self, item: Item, measured: Measured) -> dict[str, Any]:
        score = whole(measured)
        return {"loss": score.loss, "tokens": score.tokens}


def windows(tokenizer: Tokenizer, text: str) -> list[Tree]:
    """The windows of a text, each with a token before those that are scored; the last is as long as the others."""
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids, step = [start, *tokenizer.encode(text)], WIDTH - 1
    trees = []
    for begin in range(1, len(ids), step):
        end = min(begin + step, len(ids))
        first = max(0, end - WIDTH)
        trees.append(Tree(ids[first:end], targets=range(begin - first, end - first)))
    return trees


def whole(measured: Measured) -> Score:
    """The score of a text, from those of its windows."""
    return sum((tree[0] for tree in measured.scores), Score())


def text_of(record: Record) -> str:
    """Plain text as it is; of a question with its answer, whatever stands in it."""
    if not isinstance(record, Example):
        return record.text
    turns = [text for turn in record.history for text in turn]
    parts = [record.system, *turns, record.context, record.question, record.answer]
    return "\n".join(part for part in parts if part)
