"""The question-answering task: how likely the model finds the known answers, and what it answers itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.metrics import has_key_fact, mean, perplexity, rouge_l
from ms_medqa.evaluation.records import Skipped, prepare
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.many import decode_many
from ms_medqa.generation.sampling import SamplingParams
from ms_medqa.models.decoder import CausalLM

Metrics = dict[str, float | int]

# The likeliest answer: the figures of two runs can only differ where the models do.
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0)


@dataclass(frozen=True, slots=True)
class Result:
    """What one model came to.

    Attributes:
        metrics: name -> figure; see `Evaluator.run`.
        answers: the model's own answer to each kept example.
    """

    metrics: Metrics
    answers: list[str]


class Evaluator:
    """Measures a model on one set of examples; run it again after the model's weights have changed.

    Args:
        model: its weights are read at each run.
        tokenizer, prompt: those the model was trained with.
        examples: questions with known answers.
        settings: the config's `eval` section.
        unread: records that were no examples; they are counted among the skipped.

    Attributes:
        kept: the examples that are measured, in their order.
        skipped: those that cannot be, with the reason.

    Raises:
        UserError: nothing is left to measure.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        prompt: Prompt,
        examples: Sequence[Example],
        settings: EvalSection | None = None,
        unread: Sequence[Skipped] = (),
    ) -> None:
        self.settings = settings or EvalSection()
        self._model = model
        self._tokenizer = tokenizer
        prepared = prepare(
            examples[: self.settings.limit],
            prompt,
            model.config.position_limit,
            self.settings.max_new_tokens,
        )
        if not prepared.examples:
            reason = f" ({prepared.skipped[0].reason})" if prepared.skipped else ""
            raise UserError(f"none of {len(prepared.skipped)} records can be evaluated{reason}")
        self.kept = prepared.examples
        self.skipped = [*unread, *prepared.skipped]
        self._prompts = prepared.prompts
        self._records = prepared.records
        self._end_ids = frozenset(prompt.stop_token_ids) | frozenset(model.config.eos_token_ids)
        self._scorer = Scorer(model)

    def run(self, name: str = "model") -> Result:
        """Measure the model as it is now.

        `perplexity`, `loss` (mean negative log-likelihood in nats) and `token_accuracy` are over the `tokens` trained
        tokens of the known answers, their end tokens included. `rouge_l` (F1), `answer_tokens` (mean length),
        `finished_rate` (answers that ended by themselves) and `key_fact_rate` (over the `n_key` examples that name a
        key fact; left out where none does) are over the model's own greedy answers to the `n` examples.

        Args:
            name: stands beside the progress bars.
        """
        with progress(total=int(self._records.offsets[-1]), desc=f"{name}: likelihood", unit="token") as bar:
            likelihood = self._scorer(self._records, self.settings.batch_size, bar.update)
        with progress(total=len(self.kept), desc=f"{name}: answers", unit="answer") as bar:
            generated = decode_many(
                Engine.of(self._model),
                self._prompts,
                GREEDY,
                self.settings.max_new_tokens,
                self._end_ids,
                batch_size=self.settings.batch_size,
                seed=0,
                on_answer=bar.update,
            )
        answers = [self._tokenizer.decode(answer.tokens).strip() for answer in generated]
        pairs = list(zip(answers, self.kept, strict=True))
        scores = [
            rouge_l(answer, example.answer)
            for answer, example in progress(pairs, desc=f"{name}: ROUGE-L", unit="answer")
        ]
        found = [has_key_fact(answer, example.key) for answer, example in pairs if example.key]
        metrics: Metrics = {
            "n": len(answers),
            "perplexity": perplexity(likelihood.loss_sum, likelihood.tokens),
            "loss": likelihood.loss_sum / likelihood.tokens,
            "token_accuracy": likelihood.correct / likelihood.tokens,
            "rouge_l": mean(scores),
        }
        if found:
            metrics |= {"key_fact_rate": mean(found), "n_key": len(found)}
        return Result(
            metrics
            | {
                "answer_tokens": mean([len(answer.tokens) for answer in generated]),
                "finished_rate": mean([answer.finished for answer in generated]),
                "tokens": likelihood.tokens,
                "skipped": len(self.skipped),
            },
            answers,
        )


def evaluate(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompt: Prompt,
    examples: Sequence[Example],
    settings: EvalSection | None = None,
) -> Metrics:
    """The metrics of a model on examples; see `Evaluator`."""
    return Evaluator(model, tokenizer, prompt, examples, settings).run().metrics
