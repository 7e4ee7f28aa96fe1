"""Beam search: the likeliest beginnings of an answer are followed side by side, and none is drawn by chance.

Order and meaning are those of Hugging Face's `generate` with `num_beams` and without `do_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.generation.params import SamplingParams
from ms_medqa.generation.processors import History, likeliest, weigh
from ms_medqa.generation.request import Finish
from ms_medqa.generation.sampling import check_finite

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class BeamParams:
    """How beams are followed.

    A complete answer's score is log P(answer) / length^length_penalty, the length in tokens with the end token.

    Attributes:
        num_beams: beginnings that are followed, and most answers that are found.
        length_penalty: above 0 favours long answers, below 0 short ones; 0 compares probabilities.
        early_stopping: when the search ends, once there are `num_beams` answers. True: at once. False: when the best
            beginning, were it complete, would be no better than the worst answer. `never`: only when no continuation
            of it could be, as far as `length_penalty` tells.

    Raises:
        UserError: `num_beams` is below 1.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise UserError(f"num_beams = {self.num_beams}: must be at least 1", "1 follows the likeliest token alone")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A complete answer.

    Attributes:
        tokens: new token ids, without the end token.
        score: see `BeamParams`.
        finish: `stop` where it ended by itself, `length` where `max_new_tokens` cut it off.
    """

    tokens: tuple[int, ...]
    score: float
    finish: Finish


@dataclass(frozen=True, slots=True)
class _Beam:
    tokens: tuple[int, ...]
    logprob: float
    history: History
    text: Text | None


class Text(Protocol):
    """What a beginning says, such as `AnswerText`."""

    stopped: bool

    def push(self, token_id: int) -> object:
        """Take one token."""

    def fork(self) -> Text:
        """Another one that goes on by itself."""


class Beams:
    """The search for the answers to one prompt.

    Args:
        prompt: token ids; they count as seen.
        params: of these repetition penalty and n-gram ban hold, on the logarithms of probabilities.
        beams: how beams are followed.
        max_new_tokens: most tokens of an answer.
        end_ids: tokens that end it.
        text: has taken no token yet; the one with which it is `stopped` is an answer's last. None: no text ends one.

    Attributes:
        answers: found so far, best first, at most `num_beams`.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        beams: BeamParams,
        max_new_tokens: int,
        end_ids: frozenset[int],
        text: Text | None = None,
    ) -> None:
        self.params = params
        self.beams = beams
        self.max_new_tokens = max_new_tokens
        self.end_ids = end_ids
        self.answers: list[Hypothesis] = []
        self._running = [_Beam((), 0.0, History(prompt, params.no_repeat_ngram_size), text)]
        self._improvable = True

    @property
    def newest(self) -> list[int]:
        """The last token of each beginning, best first."""
        return [beam.tokens[-1] for beam in self._running]

    @property
    def done(self) -> bool:
        """Whether the search is over."""
        full = self.beams.early_stopping is True and len(self.answers) == self.beams.num_beams
        return full or not self._running or not self._improvable

    def choose(self, logits: np.ndarray) -> list[int]:
        """Go on by one token.

        Args:
            logits: float32 (beginnings, V), in the order of `newest`; (1, V) for the prompt alone.
                Not for a search that is `done`.

        Returns:
            For each beginning that is followed now, which of the earlier ones it continues.

        Raises:
            RunError: the logits are not finite.
        """
        count = self.beams.num_beams
        before, self._running, parents = self._running, [], []
        for place, (score, parent, token) in enumerate(self._candidates(before, logits)):
            # Candidates beyond the first are there to go on with, in the place of those that are complete.
            if place >= count <= len(self._running):
                break
            tokens, text = (*before[parent].tokens, token), before[parent].text
            if text is not None:
                text = text.fork()
                text.push(token)
            finish = self._finish(tokens, text)
            if finish is None and len(self._running) < count:
                history = before[parent].history.fork()
                history.add(token)
                self._running.append(_Beam(tokens, score, history, text))
                parents.append(parent)
            if finish is not None and place < count:
                answer = tokens[:-1] if token in self.end_ids else tokens
                self.answers.append(Hypothesis(answer, score / len(tokens) ** self.beams.length_penalty, finish))
        self.answers = sorted(self.answers, key=lambda answer: -answer.score)[:count]
        self._improvable = self._improvable and self._can_improve()
        return parents

    def _candidates(self, before: Sequence[_Beam], logits: np.ndarray) -> list[tuple[float, int, int]]:
        """(log-probability, beginning, token) of the likeliest continuations, likeliest first."""
        rows = [self._log_probabilities(beam, row) for beam, row in zip(before, logits, strict=True)]
        scores = np.concatenate(rows)
        # So many that `num_beams` are left whichever end tokens are among them.
        wanted = max(2, 1 + len(self.end_ids)) * self.beams.num_beams
        places = likeliest(scores, wanted)
        places = places[np.argsort(-scores[places], kind="stable")][:wanted]
        size = logits.shape[1]
        return [(float(scores[p]), int(p // size), int(p % size)) for p in places if scores[p] > -np.inf]

    def _log_probabilities(self, beam: _Beam, logits: np.ndarray) -> np.ndarray:
        """float32 (V,): of the beginning with each token behind it."""
        logits = np.asarray(logits, dtype=np.float32)
        check_finite(logits)
        scores = logits - logits.max() - np.log(weigh(logits).sum(dtype=np.float64)).astype(np.float32)
        beam.history.penalise(scores, self.params.repetition_penalty)
        beam.history.forbid(scores)
        return scores + np.float32(beam.logprob)

    def _finish(self, tokens: tuple[int, ...], text: Text | None) -> Finish | None:
        if tokens[-1] in self.end_ids or (text is not None and text.stopped):
            return "stop"
        return "length" if len(tokens) == self.max_new_tokens else None

    def _can_improve(self) -> bool:
        if len(self.answers) < self.beams.num_beams or not self._running:
            return True
        best, penalty = self._running[0], self.beams.length_penalty
        longest = self.beams.early_stopping == "never" and penalty > 0
        length = self.max_new_tokens if longest else len(best.tokens)
        return best.logprob / length**penalty > self.answers[-1].score
