"""Questions with known answers: how likely the model finds those, and what it answers itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.figures import Figure, mean_figure, share_figure
from ms_medqa.evaluation.items import Item
from ms_medqa.evaluation.key_facts import has_key_fact
from ms_medqa.evaluation.task import Asked, Measured, Task
from ms_medqa.evaluation.text_metrics import bleu_figure, char_f1, exact_match, rouge, rouge_signature, token_f1
from ms_medqa.evaluation.token_figures import token_figures
from ms_medqa.evaluation.trees import Tree


class QATask(Task):
    """Perplexity and next-token accuracy are over the trained tokens of the known answers, end tokens included; all
    other figures are over the model's own greedy answers."""

    kind: ClassVar[str] = "qa"
    score_is: ClassVar[str] = "token_f1"

    def unfit(self, item: Item) -> str | None:
        record = item.record
        if not isinstance(record, Example):
            return "plain text has no question"
        if not record.question.strip() or not record.answer.strip():
            return f"the {'question' if not record.question.strip() else 'answer'} is empty"
        return None

    def asked(self, item: Item, prompt: Prompt) -> Asked:
        assert isinstance(item.record, Example)
        encoded = prompt.encode(item.record)
        targets = [place for place, trained in enumerate(encoded.loss_mask) if trained and place]
        start = prompt.encode_prompt(item.record) if self.settings.generate else None
        return Asked([Tree(encoded.input_ids, targets=targets)], start)

    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        found = token_figures([one.scores[0][0] for _, one in measured])
        pairs = [(item.record, one) for item, one in measured if one.answer is not None]
        if len(pairs) < len(measured):
            return found
        answers = [one.answer or "" for _, one in pairs]
        references = [record.answer for record, _ in pairs if isinstance(record, Example)]
        both = list(zip(answers, references, strict=True))
        rouges = [rouge(answer, reference) for answer, reference in both]
        bleu, self.signatures["bleu_4"] = bleu_figure(answers, references)
        self.signatures["rouge"] = rouge_signature(references)
        keys = [record.key if isinstance(record, Example) else None for record, _ in pairs]
        facts = [has_key_fact(answer, key) if key else None for answer, key in zip(answers, keys, strict=True)]
        found += [
            bleu,
            mean_figure("rouge_1", [one.rouge_1 for one in rouges]),
            mean_figure("rouge_2", [one.rouge_2 for one in rouges]),
            mean_figure("rouge_l", [one.rouge_l for one in rouges]),
            share_figure("exact_match", [exact_match(*each) for each in both]),
            mean_figure("char_f1", [char_f1(*each) for each in both]),
            mean_figure("token_f1", [token_f1(*each) for each in both]),
        ]
        if any(fact is not None for fact in facts):
            found.append(share_figure("key_fact_rate", facts))
        return [
            *found,
            mean_figure("answer_tokens", [one.answer_tokens for _, one in pairs]),
            share_figure("finished_rate", [one.finished for _, one in pairs]),
            mean_figure("repeated_4grams", [one.repeated for _, one in pairs]),
            share_figure("empty_rate", [not answer.strip() for answer in answers]),
        ]

    def reference(self, item: Item) -> dict[str, Any]:
        record = item.record
        assert isinstance(record, Example)
        return super().reference(item) | {"key": record.key}

    def score(self, item: Item, measured: Measured) -> float | None:
        assert isinstance(item.record, Example)
        return None if measured.answer is None else token_f1(measured.answer, item.record.answer)
