"""Asks one model all items of a task, and keeps what it says as it comes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tqdm import tqdm

from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.task import Asked, Measured, Task
from ms_medqa.evaluation.text_metrics import repeated_ngrams
from ms_medqa.evaluation.trees import Score
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.many import Generated, decode_requests
from ms_medqa.generation.request import Request
from ms_medqa.generation.sampling import SamplingParams
from ms_medqa.models.decoder import CausalLM

# The likeliest answer: the figures of two runs can only differ where the models do.
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
# Items whose tokens are in memory at a time.
BLOCK = 1024

# An object for the file of one model's results; `item` is the number of the item in its task.
Line = dict[str, Any]
Keep = Callable[[Line], None]


class Measurer:
    """Measures one model, whose weights must not change meanwhile.

    Args:
        model: what is measured.
        prompt: how it is asked.
        settings: the config's `eval` section.
        scorer: of the model; None: one of its own.
    """

    def __init__(self, model: CausalLM, prompt: Prompt, settings: EvalSection, scorer: Scorer | None = None) -> None:
        self._model, self._prompt, self._settings = model, prompt, settings
        self._end_ids = frozenset(prompt.stop_token_ids) | frozenset(model.config.eos_token_ids)
        self._scorer = Scorer(model) if scorer is None else scorer

    def run(self, task: Task, mine: Sequence[int], left: Iterable[Line], keep: Keep, name: str) -> None:
        """Measure the items of `mine` that are not measured yet.

        Args:
            task: whose items.
            mine: their numbers.
            left: lines that an earlier run has kept.
            keep: takes each new line.
            name: stands beside the progress bar.
        """
        done = read_lines(left)
        generates = task.generates and self._settings.generate
        wanted = [number for number in mine if not _is_done(done.get(number, Measured()), generates)]
        with progress(total=len(mine), initial=len(mine) - len(wanted), desc=name, unit="item") as bar:
            for start in range(0, len(wanted), BLOCK):
                self._block(task, wanted[start : start + BLOCK], done, keep, bar)

    def _block(
        self,
        task: Task,
        numbers: Sequence[int],
        done: dict[int, Measured],
        keep: Keep,
        bar: tqdm[Any],
    ) -> None:
        asked: dict[int, Asked] = {}
        for number in numbers:
            try:
                asked[number] = self._asked(task, number)
            except UserError as error:
                keep({"item": number, "error": str(error)})
                bar.update()
        there = {number: done.get(number, Measured()) for number in numbers}
        failed = self._likelihoods({n: one for n, one in asked.items() if one.trees and not there[n].scores}, keep)
        bar.update(len(failed))
        prompts = {
            n: one.prompt for n, one in asked.items() if one.prompt and there[n].answer is None and n not in failed
        }
        bar.update(len(asked) - len(failed) - len(prompts))
        self._answers(prompts, keep, bar)

    def _asked(self, task: Task, number: int) -> Asked:
        asked = task.asked(task.items[number], self._prompt)
        holds = self._model.config.position_limit
        need = max([tree.longest for tree in asked.trees], default=0)
        if asked.prompt is not None:
            need = max(need, len(asked.prompt) + self._settings.max_new_tokens)
        if need > holds:
            raise UserError(f"needs {need} positions, the model holds {holds}")
        if not asked.trees and asked.prompt is None:
            raise UserError("the text has no tokens")
        if not all(map(len, (branch for tree in asked.trees for branch in tree.branches))):
            raise UserError("an option has no tokens")
        return asked

    def _likelihoods(self, asked: dict[int, Asked], keep: Keep) -> set[int]:
        """Score the trees of some items, and give back those at which the model has failed."""
        trees = [(number, place) for number, one in asked.items() for place in range(len(one.trees))]
        found: dict[int, dict[int, list[Score]]] = defaultdict(dict)
        failed = set[int]()
        for index, scores in self._scorer.score([asked[number].trees[place] for number, place in trees]):
            number, place = trees[index]
            found[number][place] = scores
            if len(found[number]) < len(asked[number].trees):
                continue
            whole = [found[number][place] for place in range(len(asked[number].trees))]
            if all(math.isfinite(score.loss) for tree in whole for score in tree):
                numbers = [[[score.loss, score.correct, score.tokens] for score in tree] for tree in whole]
                keep({"item": number, "scores": numbers})
            else:
                keep({"item": number, "error": "the model's likelihood is not a finite number"})
                failed.add(number)
            del found[number]
        return failed

    def _answers(self, prompts: dict[int, Any], keep: Keep, bar: tqdm[Any]) -> None:
        numbers, errors = list(prompts), dict[int, RunError]()
        new = self._settings.max_new_tokens

        def answered(index: int, answer: Generated) -> None:
            number = numbers[index]
            if index in errors:
                keep({"item": number, "error": str(errors[index])})
            else:
                keep({"item": number, **self._line(answer)})
            bar.update()

        requests = [Request(prompts[number], GREEDY, new, self._end_ids, 0, number) for number in numbers]
        decode_requests(
            Engine.of(self._model),
            requests,
            batch_size=self._settings.batch_size,
            on_answer=answered,
            on_error=errors.__setitem__,
        )

    def _line(self, answer: Generated) -> Line:
        # An answer is written as UTF-8.
        text = self._prompt.tokenizer.decode(answer.tokens).encode("utf-8", "replace").decode("utf-8").strip()
        return {
            "answer": text,
            "answer_tokens": len(answer.tokens),
            "finished": answer.finished,
            "repeated": repeated_ngrams(answer.tokens, 4),
        }


def _is_done(one: Measured, generates: bool) -> bool:
    # An answer comes behind the likelihood.
    return one.error is not None or (one.answer is not None if generates else bool(one.scores))


def read_lines(lines: Iterable[Line]) -> dict[int, Measured]:
    """What lines tell of each item.

    Raises:
        ValueError, KeyError, TypeError: a line is none of those that `Measurer` keeps.
    """
    found: dict[int, Measured] = {}
    for line in lines:
        one = found.setdefault(int(line["item"]), Measured())
        if "error" in line:
            one.error = str(line["error"])
        elif "scores" in line:
            one.scores = [[Score(*numbers) for numbers in tree] for tree in line["scores"]]
        else:
            one.answer, one.answer_tokens = str(line["answer"]), int(line["answer_tokens"])
            one.finished, one.repeated = bool(line["finished"]), line["repeated"]
    return found
