"""Where each of the decoder's weights lies in a checkpoint of its family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families import REGISTRY
from ms_medqa.models.families.base import Family
from ms_medqa.models.shapes import parameter_shapes

_BUFFERS = ("inv_freq", "position_ids", "masked_bias")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Place:
    """Rows `start` to `stop` of a checkpoint's tensor or module, which has `rows` of them."""

    name: str
    start: int
    stop: int
    rows: int

    @property
    def whole(self) -> bool:
        """Whether it is all of it."""
        return self.stop - self.start == self.rows


class Naming:
    """The decoder's parameters in a checkpoint, and back.

    Args:
        config: of the decoder.
        shapes: of its parameters, by name, in its order.
    """

    def __init__(self, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.family: Family = REGISTRY[config.family]
        self.shapes = dict(shapes)
        self._fused = {part: (theirs, parts) for theirs, parts in self.family.fused.items() for part in parts}
        self.places = {name: self._place(name) for name in self.shapes}
        self.contents: dict[str, list[str]] = {}
        for name, place in self.places.items():
            self.contents.setdefault(place.name, []).append(name)
        for parts in self.contents.values():
            parts.sort(key=lambda name: self.places[name].start)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a checkpoint's tensor."""
        name = self.contents[tensor][0]
        return (self.places[name].rows, *self.shapes[name][1:])

    def module(self, path: str) -> str:
        """The checkpoint's path of one of the decoder's modules; several share that of a fused one."""
        template, number = _template(path)
        theirs, _ = self._fused.get(template, (self.family.renamed.get(template, template), ()))
        return theirs.format(number)

    def modules(self, path: str) -> list[str]:
        """The decoder's modules behind a module of the checkpoint, in the order of their rows; none for another's."""
        return [name.removesuffix(".weight") for name in self.contents.get(f"{path}.weight", ())]

    def _place(self, name: str) -> Place:
        path, _, leaf = name.rpartition(".")
        template, number = _template(path)
        rows = self.shapes[name][0]
        tensor = f"{self.module(path)}.{leaf}"
        if template not in self._fused:
            return Place(tensor, 0, rows, rows)
        parts = [part.format(number) for part in self._fused[template][1]]
        sizes = [self.shapes[f"{part}.{leaf}"][0] for part in parts]
        start = sum(sizes[: parts.index(path)])
        return Place(tensor, start, start + rows, sum(sizes))


def naming_of_config(config: ModelConfig) -> Naming:
    """Where the weights of a plain model of this shape lie in its family's checkpoints; the model need not exist."""
    return Naming(config, parameter_shapes(config))


def is_buffer(name: str, axes: int) -> bool:
    """Whether a tensor is one that code computes, though old files carry it: rotary frequencies, positions, masks."""
    path, _, leaf = name.rpartition(".")
    if leaf == "bias":
        # A causal mask of (1, 1, length, length); the bias of a layer has one axis.
        return axes == 4 and path.endswith(("attn", "attention"))
    return leaf in _BUFFERS


def _template(path: str) -> tuple[str, str]:
    """A module's path with `{}` for the layer's number, and the number."""
    match = _NUMBER.search(path)
    if match is None:
        return path, ""
    return f"{path[: match.start()]}{{}}{path[match.end() :]}", match[0]
