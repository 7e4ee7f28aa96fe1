"""A file of questions to a file of answers, both JSON Lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ms_medqa.backend.interrupt import check_interrupt
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.files import atomic_write, check_readable, check_writable, json_line
from ms_medqa.config.schema import GenerateSection
from ms_medqa.data.columns import list_names
from ms_medqa.generation.kept import KeptAnswers
from ms_medqa.generation.prepared import Prepared
from ms_medqa.generation.qa import MedicalQA
from ms_medqa.generation.weights import digest


@dataclass(slots=True)
class Request:
    """One record of the input.

    Attributes:
        id: the record's own, or the number of its line.
        question: what is asked; empty where the record is bad.
        prepared: what the model is given, None where the record is bad.
        error: why it cannot be answered.
        extra: keys of its answer's line beside the usual ones.
    """

    id: Any
    question: str = ""
    prepared: Prepared | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_requests(path: Path, qa: MedicalQA, settings: GenerateSection, adapter: str | None = None) -> list[Request]:
    """The records of a file, each checked and turned into a prompt.

    A line is `{"question": …, "context"?: …, "id"?: …, "adapter"?: …}` or a JSON string, the question. Blank lines are
    no records.

    Args:
        path: the file.
        qa: the model.
        settings: how answers will be sampled.
        adapter: for records without a key `adapter`; there, null is the base model.

    Raises:
        UserError: the file is missing or holds no record.
        KeyboardInterrupt: Ctrl-C, where `hold_interrupt` lets it wait.
    """
    check_readable(path)
    requests = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            check_interrupt()
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                requests.append(_read_request(line, number, qa, settings, adapter))
    if not requests:
        raise UserError(f"{path}: holds no question", 'one JSON object a line, such as {"question": "…"}')
    return requests


def answer_file(
    qa: MedicalQA,
    requests: list[Request],
    output: Path,
    settings: GenerateSection,
    on_answer: Callable[[], object] = lambda: None,
    note: Callable[[str], object] = lambda text: None,
) -> tuple[int, int]:
    """Answer the good requests and write one line for each, in the order of the input.

    A line is `{"id", "question", "answer"}` or `{"id", "error"}`, with `adapter` where the record chose one,
    `context_tokens_cut` where its context was cut, and all `answers` where the setting `n` is above 1. With a seed a
    record gets the answer that it would get alone.

    The file appears when it is complete; a run that is stopped before leaves what was there, and keeps its answers in
    `OUTPUT.part` (see `KeptAnswers`), from which the next run goes on.

    Args:
        qa: the model.
        requests: from `read_requests`.
        output: the file.
        settings: how answers are sampled.
        on_answer: called once for each answer that is there.
        note: is told what is kept, and what an earlier run has left.

    Returns:
        (answered, failed).

    Raises:
        UserError: `output` is a folder or a device, or answers of another run or to other questions are kept there.
        RunError: no space is left.
    """
    output = check_writable(output)
    about = {
        "model": digest(qa.model, qa.engine.adapters),
        "config": repr(qa.model.config),
        "settings": settings.model_dump(exclude={"batch_size", "truncate_context"}),
    }
    prepared = {number: one.prepared for number, one in enumerate(requests) if one.prepared is not None}
    with KeptAnswers(output, about) as kept:
        answers = {number: found for number, one in prepared.items() if (found := kept.take(one)) is not None}
        if kept.found and not answers:
            raise kept.strange()
        if answers:
            there = f"{len(answers)} of {len(prepared)}"
            note(f"{kept.path} holds what an earlier run has answered ({there}): going on from there")
        try:
            for _ in answers:
                on_answer()
            left = {number: one for number, one in prepared.items() if number not in answers}
            for number, error in _answer_rest(qa, left, settings, answers, kept, on_answer).items():
                requests[number].error = str(error)
            _write_answers(output, requests, answers, settings)
        except BaseException:
            if answers:
                there = f"{len(answers)} of {len(prepared)}"
                note(f"{kept.path} keeps what has been answered ({there}): the same command goes on")
            raise
        kept.remove()
    return len(answers), len(requests) - len(answers)


def _answer_rest(
    qa: MedicalQA,
    left: dict[int, Prepared],
    settings: GenerateSection,
    answers: dict[int, list[str]],
    kept: KeptAnswers,
    on_answer: Callable[[], object],
) -> dict[int, RunError]:
    """Add the answers that are left to be made; gives back at which of those requests the model has failed."""
    numbers, errors = list(left), dict[int, RunError]()

    def answered(place: int, texts: list[str]) -> None:
        kept.add(left[numbers[place]], texts)
        answers[numbers[place]] = texts
        on_answer()

    def failed(place: int, error: RunError) -> None:
        errors[numbers[place]] = error

    qa.answer_prepared(list(left.values()), settings, on_answers=answered, on_error=failed)
    return errors


def _write_answers(
    output: Path, requests: list[Request], answers: dict[int, list[str]], settings: GenerateSection
) -> None:
    with atomic_write(output) as file:
        for number, request in enumerate(requests):
            if number in answers:
                line = {"id": request.id, "question": request.question, "answer": answers[number][0]}
                more = {"answers": answers[number]} if settings.n > 1 else {}
                file.write(json_line(line | more | request.extra))
            else:
                file.write(json_line({"id": request.id, "error": request.error}))


def _read_request(line: bytes, number: int, qa: MedicalQA, settings: GenerateSection, adapter: str | None) -> Request:
    request = Request(id=number)
    try:
        values = _parse(line, number, request)
        if "adapter" in values:
            adapter = request.extra["adapter"] = values["adapter"]
            if adapter is None and qa.adapter_inside:
                raise UserError(
                    f"line {number}: 'adapter' is null, but an adapter lies in the model's weights",
                    "name it, so that the base model can be chosen: --adapter NAME=DIR",
                )
        request.prepared = qa.prepare(values["question"], values.get("context"), adapter=adapter, settings=settings)
        request.question = values["question"]
        if cut := request.prepared.cut:
            request.extra["context_tokens_cut"] = cut.total - cut.kept
    except UserError as error:
        request.error = str(error)
    return request


def _parse(line: bytes, number: int, request: Request) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"line {number}: not UTF-8 text") from None
    except RecursionError:
        raise UserError(f"line {number}: not valid JSON (nested too deeply)") from None
    except ValueError as error:
        detail = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise UserError(f"line {number}: not valid JSON ({detail})") from None
    if isinstance(value, str):
        return {"question": value}
    if not isinstance(value, dict):
        raise UserError(f"line {number}: must be a JSON object or a string")
    own = value.get("id")
    # Python reads NaN and infinity, which no JSON may hold.
    if isinstance(own, str | int) or (isinstance(own, float) and math.isfinite(own)):
        request.id = own
    if "question" not in value:
        raise UserError(f"line {number}: no key 'question'", f"keys: {list_names(value)}")
    for name in ("question", "context", "adapter"):
        text = value.get(name)
        if not isinstance(text, str) and (name == "question" or text is not None):
            raise UserError(f"line {number}: {name!r} must be a string")
    return value
