"""What models said on a task, brought together: the items that all were measured on, and the records that none was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ms_medqa.evaluation.items import Item, Skipped
from ms_medqa.evaluation.task import Measured, Task

Pairs = list[tuple[Item, Measured]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one task.

    Attributes:
        task: what was measured.
        pairs: of each model the same items, in their order.
        skipped: records that are in no figure, with the reason.
    """

    task: Task
    pairs: dict[str, Pairs]
    skipped: list[Skipped]

    @property
    def items(self) -> list[Item]:
        """That all models were measured on."""
        return [item for item, _ in next(iter(self.pairs.values()))]


def outcome_of(task: Task, results: Mapping[str, Mapping[int, Measured]]) -> Outcome:
    """Bring together what models said.

    Args:
        task: whose items.
        results: of each model, number of an item -> what came of it, of all items.
    """
    pairs: dict[str, Pairs] = {name: [] for name in results}
    skipped = list(task.skipped)
    for number, item in enumerate(task.items):
        errors = [(name, measured[number].error) for name, measured in results.items() if measured[number].error]
        if errors:
            skipped.append(Skipped(item.id, "; ".join(f"{name}: {error}" for name, error in errors)))
            continue
        for name, measured in results.items():
            pairs[name].append((item, measured[number]))
    return Outcome(task, pairs, skipped)
