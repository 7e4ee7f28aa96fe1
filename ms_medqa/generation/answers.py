"""Answers to prepared questions: drawn token by token, or searched with beams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from ms_medqa.config.errors import RunError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.beams import BeamParams, Hypothesis
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.many import Generated, decode_requests
from ms_medqa.generation.params import SamplingParams
from ms_medqa.generation.prepared import Prepared
from ms_medqa.generation.request import Finish, Request
from ms_medqa.generation.sampling import draw_seed
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.generation.search import search_many
from ms_medqa.generation.stops import AnswerText
from ms_medqa.generation.variant import Variant

Tokens = Generator[tuple[int | None, Finish | None], None, None]
"""Tokens of an answer (None where an end token came), and with the last one why it is that."""


def sampling_params(settings: GenerateSection) -> SamplingParams:
    """The part of the config's `generate` section that chooses tokens."""
    return SamplingParams(
        settings.temperature,
        settings.top_p,
        settings.top_k,
        settings.repetition_penalty,
        settings.min_p,
        settings.no_repeat_ngram_size,
    )


def beam_params(settings: GenerateSection) -> BeamParams | None:
    """The part that follows beams; None where tokens are drawn."""
    if settings.num_beams == 1:
        return None
    return BeamParams(settings.num_beams, settings.length_penalty, settings.early_stopping)


def one_answer(
    engine: Engine, prepared: Prepared, settings: GenerateSection, scheduler: Scheduler | None = None
) -> Tokens:
    """The tokens of one answer, as they are made; of a search they come at its end.

    Args:
        engine: of the model.
        prepared: the question.
        settings: how to answer.
        scheduler: one of the engine's that may remember earlier prompts; by default one that does not.
    """
    if beam_params(settings) is not None:
        [[best, *_]] = _hypotheses(engine, [prepared], settings)
        yield from ((token, None) for token in best.tokens[:-1])
        newest = best.tokens[-1] if best.tokens else None
        yield newest, best.finish
        return
    request = _requests(prepared, settings, draw_seed(), 0)[0]
    with closing(engine.stream(request, scheduler)) as outputs:
        for output in outputs:
            yield output.choice.token if output.choice else None, output.finish


def all_answers(
    engine: Engine,
    prepared: Sequence[Prepared],
    settings: GenerateSection,
    on_answers: Callable[[int, list[str]], object] = lambda index, answers: None,
    on_error: Callable[[int, RunError], object] | None = None,
) -> list[list[str]]:
    """`settings.n` texts for each question (a search may find fewer), the best first where they were searched.

    With a seed the first is what the question gets alone, whatever stands beside it.

    Args:
        engine: of the model.
        prepared: questions, which may be of different adapters.
        settings: how to answer.
        on_answers: told the number of each question that is done, and its texts.
        on_error: told the number of each question at which the model failed, once or more, and why; it gets no texts.
            None: that is raised.
    """
    if beam_params(settings) is not None:
        return _search(engine, prepared, settings, on_answers, on_error)
    drawn, size = draw_seed(), settings.n
    requests = [
        request for number, one in enumerate(prepared) for request in _requests(one, settings, drawn, number * size)
    ]
    texts = [AnswerText(one.variant.tokenizer, settings.stop) for one in prepared for _ in range(size)]
    pieces: list[list[str]] = [[] for _ in requests]
    answers: list[list[str]] = [[] for _ in prepared]
    left = [size] * len(prepared)
    failed: set[int] = set()

    def stopped(index: int, token: int) -> bool:
        pieces[index].append(texts[index].push(token))
        return texts[index].stopped

    def ended(index: int, _: Generated) -> None:
        question = index // size
        left[question] -= 1
        if not left[question] and question not in failed:
            own = range(question * size, (question + 1) * size)
            answers[question] = ["".join(pieces[index]) + texts[index].flush() for index in own]
            on_answers(question, answers[question])

    def fail(index: int, error: RunError) -> None:
        if on_error is None:
            raise error
        failed.add(index // size)
        on_error(index // size, error)

    decode_requests(engine, requests, batch_size=settings.batch_size, stopped=stopped, on_answer=ended, on_error=fail)
    return answers


def _requests(prepared: Prepared, settings: GenerateSection, drawn: int, stream: int) -> list[Request]:
    """One request for each of `n` answers."""
    # With a seed every question draws from streams 0 on, as if it were asked alone. Without one nothing can be
    # repeated, and each of a batch has draws of its own.
    variant, seeded = prepared.variant, settings.seed is not None
    return [
        Request(
            prepared.prompt,
            sampling_params(settings),
            settings.max_new_tokens,
            variant.end_ids,
            settings.seed if seeded else drawn,
            number if seeded else stream + number,
            variant.adapter,
        )
        for number in range(settings.n)
    ]


def _search(
    engine: Engine,
    prepared: Sequence[Prepared],
    settings: GenerateSection,
    on_answers: Callable[[int, list[str]], object],
    on_error: Callable[[int, RunError], object] | None,
) -> list[list[str]]:
    texts: list[list[str]] = [[] for _ in prepared]

    def found(index: int, answers: Sequence[Hypothesis]) -> None:
        variant = prepared[index].variant
        texts[index] = [_text(variant, answer.tokens, settings) for answer in answers[: settings.n]]
        on_answers(index, texts[index])

    _hypotheses(engine, prepared, settings, found, on_error)
    return texts


def _hypotheses(
    engine: Engine,
    prepared: Sequence[Prepared],
    settings: GenerateSection,
    on_found: Callable[[int, list[Hypothesis]], object] = lambda index, answers: None,
    on_error: Callable[[int, RunError], object] | None = None,
) -> list[list[Hypothesis]]:
    beams = beam_params(settings)
    assert beams is not None
    # A search is one adapter's and ends with its tokens.
    of_variant: dict[str | None, list[int]] = defaultdict(list)
    for index, one in enumerate(prepared):
        of_variant[one.variant.adapter].append(index)
    found: dict[int, list[Hypothesis]] = {}
    for adapter, indices in of_variant.items():
        variant = prepared[indices[0]].variant
        answers = search_many(
            engine,
            [prepared[index].prompt for index in indices],
            sampling_params(settings),
            beams,
            settings.max_new_tokens,
            variant.end_ids,
            batch_size=settings.batch_size,
            adapter=adapter,
            text=AnswerText(variant.tokenizer, settings.stop) if settings.stop else None,
            on_found=lambda place, answers, indices=indices: on_found(indices[place], answers),
            on_error=on_error and (lambda place, error, indices=indices: on_error(indices[place], error)),
        )
        found.update(zip(indices, answers, strict=True))
    return [found[index] for index in range(len(prepared))]


def _text(variant: Variant, tokens: Sequence[int], settings: GenerateSection) -> str:
    text = AnswerText(variant.tokenizer, settings.stop)
    return "".join([*map(text.push, tokens), text.flush()])
