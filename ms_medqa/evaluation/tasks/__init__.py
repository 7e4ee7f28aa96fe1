"""The kinds of task, and how one is named on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ms_medqa.config.errors import UserError
from ms_medqa.evaluation.task import Spec, Task
from ms_medqa.evaluation.tasks.choice import ChoiceTask
from ms_medqa.evaluation.tasks.classify import ClassifyTask
from ms_medqa.evaluation.tasks.perplexity import PerplexityTask
from ms_medqa.evaluation.tasks.qa import QATask

KINDS: dict[str, type[Task]] = {task.kind: task for task in (QATask, ChoiceTask, ClassifyTask, PerplexityTask)}

_NAME = re.compile(r"[\w.-]{1,64}")


def parse_spec(text: str, general: bool = False) -> Spec:
    """`KIND=FILE` or `NAME:KIND=FILE`.

    Raises:
        UserError: it is neither, or the kind is unknown.
    """
    head, equals, path = text.partition("=")
    name, _, kind = head.rpartition(":")
    if not equals or not path:
        raise UserError(f"task {text!r}", "give KIND=FILE or NAME:KIND=FILE, such as choice=exam.jsonl")
    if kind not in KINDS:
        raise UserError(f"task {text!r}: unknown kind {kind!r}", f"one of {', '.join(KINDS)}")
    name = name or (f"general-{kind}" if general else kind)
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise UserError(f"task {text!r}: {name!r} is no name", "use letters, digits, `-`, `_` and `.`")
    return Spec(name, kind, path, general)


def parse_specs(data: str | None, tasks: Sequence[str], general: Sequence[str]) -> list[Spec]:
    """All tasks of a command line, each with a name of its own.

    Args:
        data: of the task `qa`, where it is named by itself.
        tasks, general: as for `parse_spec`.

    Raises:
        UserError: there is none, or two have one name.
    """
    specs = [Spec("qa", "qa", data)] if data is not None else []
    specs += [*map(parse_spec, tasks), *(parse_spec(text, general=True) for text in general)]
    if not specs:
        raise UserError("nothing to measure", "give --data FILE, or tasks: --task choice=FILE")
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two tasks are called {name!r}", "name them apart: --task NAME:KIND=FILE")
    return specs
