"""Answer any number of prompts, so many at a time: an answer that ends makes room for the next prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ms_medqa.backend.interrupt import check_interrupt
from ms_medqa.config.errors import RunError
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.request import Request, Running
from ms_medqa.generation.sampling import SamplingParams, draw_seed


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Attributes:
        tokens: new token ids, without the end token.
        finished: it ended by itself; False where `max_new_tokens` cut it off.
    """

    tokens: list[int]
    finished: bool


def decode_many(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    max_new_tokens: int,
    end_ids: frozenset[int],
    *,
    batch_size: int,
    seed: int | None = None,
    on_answer: Callable[[], object] = lambda: None,
) -> list[Generated]:
    """Answer all prompts; an answer's draws do not depend on how they are batched.

    Args:
        batch_size: prompts at a time.
        seed: prompt i draws from stream (seed, i).
        on_answer: called once for each answer that has ended, for a progress bar.

    Raises:
        UserError: a prompt cannot be answered; says which.
        RunError: the model gave logits that are not finite.
    """
    seed = draw_seed() if seed is None else seed
    requests = [Request(prompt, params, max_new_tokens, end_ids, seed, stream) for stream, prompt in enumerate(prompts)]
    return decode_requests(engine, requests, batch_size=batch_size, on_answer=lambda index, answer: on_answer())


def decode_requests(
    engine: Engine,
    requests: Sequence[Request],
    *,
    batch_size: int,
    stopped: Callable[[int, int], bool] = lambda index, token: False,
    on_answer: Callable[[int, Generated], object] = lambda index, answer: None,
    on_error: Callable[[int, RunError], object] | None = None,
) -> list[Generated]:
    """`decode_many` of requests that may differ in more than their prompts, such as their adapters.

    Args:
        batch_size: requests at a time.
        stopped: told the number of a request and its newest token; ends that answer by returning True.
        on_answer: told the number of each request that is done, and its answer.
        on_error: told the number of each at which the model failed, and why, before `on_answer`; None: that is raised.
    """
    if not requests:
        return []
    engine.check_all([request.prompt for request in requests], [request.max_new_tokens for request in requests])
    lengths = [len(request.prompt) + request.max_new_tokens for request in requests]
    # Longest first: the largest cache is made at once and then serves all, and the time left is not underestimated.
    waiting = sorted(range(len(requests)), key=lengths.__getitem__)
    running: dict[Running, int] = {}
    answers: dict[int, Generated] = {}
    with engine.scheduler(min(batch_size, len(requests))) as scheduler:
        scheduler.reserve(scheduler.max_rows, lengths[waiting[-1]])
        while waiting or running:
            check_interrupt()
            while waiting and scheduler.free:
                index = waiting.pop()
                running[scheduler.add(requests[index])] = index
            for output in scheduler.step():
                index = running[output.running]
                if output.error is not None:
                    if on_error is None:
                        raise output.error
                    on_error(index, output.error)
                ended = output.choice is not None and stopped(index, output.choice.token)
                if ended or output.finish or output.error:
                    scheduler.remove(output.running)
                    del running[output.running]
                    answers[index] = Generated(output.running.tokens, ended or output.finish == "stop")
                    on_answer(index, answers[index])
    return [answers[index] for index in range(len(requests))]
