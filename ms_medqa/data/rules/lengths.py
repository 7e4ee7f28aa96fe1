"""What happens to records that are too long, and how they are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.prompt_encoding import Encoded
from ms_medqa.data.rules.verdict import Note, Rejected

Fitting = tuple[Example, Encoded, tuple[Note, ...]]


class Lengths:
    """The rules `too_short` and `too_long`, and the length policy.

    Args:
        settings: `max_length`, `length_margin`, `length_policy` and the least lengths.
        prompt: what renders a record.
    """

    def __init__(self, settings: DataSection, prompt: Prompt) -> None:
        self._settings = settings
        self._prompt = prompt

    def fit(self, example: Example, encoded: Encoded, question: int, answer: int) -> Fitting | Rejected:
        """The record as it fits into `max_length`, with its tokens and a note where it was cut; or why it does not.

        Args:
            example: the record.
            encoded: its tokens.
            question: tokens of the question alone.
            answer: tokens of the answer alone.

        Raises:
            UserError: it is too long and the policy is `raise`.
        """
        settings = self._settings
        if question < settings.min_question_tokens:
            return Rejected("too_short", f"question of {question} tokens, at least {settings.min_question_tokens}")
        if answer < settings.min_answer_tokens:
            return Rejected("too_short", f"answer of {answer} tokens, at least {settings.min_answer_tokens}")
        too_long = self._too_long(len(encoded.input_ids), question + answer)
        if too_long is None:
            return example, encoded, ()
        if settings.length_policy == "raise":
            raise UserError(
                f"{example.source or 'input'} record {example.id}: {too_long}",
                "data.length_policy=drop rejects such records, truncate cuts them; or raise data.max_length",
            )
        if settings.length_policy == "drop":
            return Rejected("too_long", too_long)
        return self._cut(example, encoded)

    def _too_long(self, tokens: int, bare: int) -> str | None:
        limit = self._settings.max_length - self._settings.length_margin
        # The margin is for what stands around question and answer; truncation counts it exactly.
        if self._settings.length_policy != "truncate" and bare > limit:
            return f"question and answer of {bare} tokens, at most {limit}"
        if tokens > self._settings.max_length:
            return f"record of {tokens} tokens, at most {self._settings.max_length}"
        return None

    def _cut(self, example: Example, encoded: Encoded) -> Fitting | Rejected:
        details: list[str] = []
        if context := example.context:
            without = replace(example, context=None)
            length = self._longest(context, lambda n: replace(example, context=context[:n].rstrip() or None))
            example = without if length == 0 else replace(example, context=context[:length].rstrip() or None)
            details.append(f"context of {len(context)} characters cut to {len(example.context or '')}")
            encoded = self._prompt.encode(example)
        rounds = len(example.history)
        while example.history and not self._fits(encoded):
            example = replace(example, history=example.history[1:])
            encoded = self._prompt.encode(example)
        if len(example.history) < rounds:
            details.append(f"{rounds - len(example.history)} of {rounds} earlier rounds left out")
        if not self._fits(encoded):
            whole = example.answer
            length = self._longest(whole, lambda n: replace(example, answer=whole[:n].rstrip()), end=False)
            example = replace(example, answer=whole[:length].rstrip())
            encoded = self._prompt.encode(example, end=False)
            left = len(self._prompt.tokenizer.encode(example.answer))
            if not example.answer or left < self._settings.min_answer_tokens:
                rest = len(self._prompt.encode_prompt(example))
                limit = self._settings.max_length
                return Rejected("too_long", f"no room for an answer: {rest} tokens before it, at most {limit} in all")
            details.append(f"answer of {len(whole)} characters cut to {len(example.answer)}, no end token")
        return example, encoded, (Note("cut", "; ".join(details)),)

    def _fits(self, encoded: Encoded) -> bool:
        return len(encoded.input_ids) <= self._settings.max_length

    def _longest(self, text: str, record: Callable[[int], Example], end: bool = True) -> int:
        """How many characters of `text` can stay, so that `record` of that number fits; 0 where none can."""
        # A shorter start of a text has fewer tokens, but for a few at the cut; `low` is only ever what did fit.
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(self._prompt.encode(record(middle), end=end)):
                low = middle
            else:
                high = middle - 1
        return low
