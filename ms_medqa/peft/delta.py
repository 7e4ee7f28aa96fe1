"""What an adapter does to each tensor of a checkpoint: the one place that adds an adapter to weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.checkpoint import EMBEDDING, HEAD
from ms_medqa.models.naming import Naming
from ms_medqa.peft.adapter import Adapter, SavedTensor

# Rows that are added in one go: beside a large tensor, its whole update would be a second one.
_ROWS = 1024


class Change(ABC):
    """What becomes of one tensor."""

    @abstractmethod
    def apply(self, weight: np.ndarray) -> np.ndarray:
        """The tensor with the adapter in it: a new float32 array of its shape, `weight` stays as it is."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Change:
        """The same for a part of the tensor's rows alone."""


@dataclass(frozen=True)
class LowRank(Change):
    """W + scaling * B A (Hu et al. 2021, eq. 3), added in float32 whatever type W has.

    Attributes:
        a: float32 (r, in).
        b: float32 (out, r).
    """

    a: np.ndarray
    b: np.ndarray
    scaling: float

    def apply(self, weight: np.ndarray) -> np.ndarray:
        out = np.array(weight, np.float32)
        for start in range(0, len(out), _ROWS):
            out[start : start + _ROWS] += (self.b[start : start + _ROWS] @ self.a) * np.float32(self.scaling)
        return out

    def rows(self, start: int, stop: int) -> LowRank:
        return LowRank(self.a, self.b[start:stop], self.scaling)


@dataclass(frozen=True)
class Replacement(Change):
    """The tensor that the adapter's file holds takes the place of the base's."""

    saved: SavedTensor
    start: int = 0
    stop: int | None = None

    def apply(self, weight: np.ndarray) -> np.ndarray:
        return self.saved.read(self.start, self.stop)

    def rows(self, start: int, stop: int) -> Replacement:
        return Replacement(self.saved, self.start + start, self.start + stop)


@dataclass(frozen=True)
class Both(Change):
    """One change after the other."""

    first: Change
    second: Change

    def apply(self, weight: np.ndarray) -> np.ndarray:
        return self.second.apply(self.first.apply(weight))

    def rows(self, start: int, stop: int) -> Both:
        return Both(self.first.rows(start, stop), self.second.rows(start, stop))


def changes(adapter: Adapter, naming: Naming) -> dict[str, Change]:
    """Checkpoint tensor -> what the adapter does to it; tensors that it leaves as they are do not appear.

    Args:
        adapter: from `read_adapter`.
        naming: of the base model.

    Raises:
        UserError: the adapter was made for a model of other shapes, or it takes apart what the model ties.
    """
    faults = list(_faults(adapter, naming))
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise UserError(f"adapter {adapter.folder} was made for another model", f"{faults[0]}{more}")
    if unties(adapter, naming):
        raise UserError(
            f"adapter {adapter.folder} gives the embedding and the head weights of their own, the model ties them",
            "use a copy of the model with `lm_head.weight` and tie_word_embeddings = false",
        )
    _check_complete(adapter, naming)
    found: dict[str, Change] = dict(replacements(adapter, naming))
    for path, pair in adapter.layers.items():
        name, update = f"{path}.weight", LowRank(pair.a, pair.b, pair.scaling)
        found[name] = Both(found[name], update) if name in found else update
    return found


def replacements(adapter: Adapter, naming: Naming) -> dict[str, Replacement]:
    """The part of `changes` that stays the same where updates are kept apart from the weights."""
    saved = dict(adapter.saved)
    if HEAD not in naming.shapes and HEAD in saved:
        # Under tied weights the head's copy is the embedding once more.
        saved.setdefault(naming.places[EMBEDDING].name, saved.pop(HEAD))
    return {name: Replacement(tensor) for name, tensor in saved.items()}


def unties(adapter: Adapter, naming: Naming) -> bool:
    """Whether embedding and head, tied in the model, differ once the adapter is in.

    PEFT trains a copy of each module that `modules_to_save` names. Without `ensure_weight_tying`, the other one of the
    two keeps the base's weights or has a copy of its own. An adapter on the head leaves the embedding alone.
    """
    if HEAD not in naming.shapes and HEAD.rpartition(".")[0] in adapter.layers:
        return True
    both = [name for name in (naming.places[EMBEDDING].name, HEAD) if name in adapter.saved]
    if HEAD in naming.shapes or not both:
        return False
    if len(both) == 1:
        return any(modules_at(both, entry) for entry in adapter.modules_to_save)
    one, other = (adapter.saved[name] for name in both)
    if one.shape != other.shape:
        return True
    parts = range(0, one.shape[0], _ROWS)
    return not all(np.array_equal(one.read(s, s + _ROWS), other.read(s, s + _ROWS)) for s in parts)


def _faults(adapter: Adapter, naming: Naming) -> Iterator[str]:
    for path, pair in adapter.layers.items():
        name = f"{path}.weight"
        shape = (pair.b.shape[0], pair.a.shape[1])
        if name not in naming.contents:
            yield f"{path} is not in the model"
        elif name == naming.places[EMBEDDING].name:
            yield f"{path} is an embedding, which takes no such update"
        elif naming.shape(name) != shape:
            yield f"{path} is {shape}, the model's is {naming.shape(name)}"
    for name, tensor in adapter.saved.items():
        # A tied head has the shape of the embedding.
        own = naming.places[EMBEDDING].name if name == HEAD and HEAD not in naming.shapes else name
        if own not in naming.contents:
            yield f"{name} is not in the model"
        elif naming.shape(own) != tensor.shape:
            yield f"{name} has shape {tensor.shape}, the model's has {naming.shape(own)}"
    for entry in adapter.modules_to_save:
        # PEFT takes every module whose path ends in the entry, and passes over an entry that no module has.
        if modules_at(naming.contents, entry) and not modules_at(adapter.saved, entry):
            yield f"modules_to_save names {entry}, and {adapter.folder} holds no such tensor"


def _check_complete(adapter: Adapter, naming: Naming) -> None:
    """Raise UserError where the tensors are not those of the modules that the options name."""
    if adapter.targets is None:
        return
    embedding = naming.places[EMBEDDING].name
    matrices = [name for name in naming.contents if len(naming.shape(name)) == 2 and name != embedding]
    whole = {name for entry in adapter.modules_to_save for name in modules_at(matrices, entry)}
    modules = {name.rpartition(".")[0] for name in matrices if name not in whole}
    wanted = {path for path in modules if adapter.targets.take([path])}
    lost, unexpected = sorted(wanted - adapter.layers.keys()), sorted(modules & adapter.layers.keys() - wanted)
    if lost or unexpected:
        first, fault = (lost, "holds no tensors of") if lost else (unexpected, "holds tensors of")
        more = f" and {len(first) - 1} more" if len(first) > 1 else ""
        because = "which its options name" if lost else "which its options do not name"
        raise UserError(f"adapter {adapter.folder} {fault} {first[0]}{more}, {because}", "copy it again")


def modules_at(tensors: Iterable[str], ending: str) -> list[str]:
    """Those of a checkpoint's tensors whose module's path has this end, as PEFT finds `modules_to_save`."""
    return [name for name in tensors if name.rpartition(".")[0].endswith(ending)]
