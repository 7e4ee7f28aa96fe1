"""Which modules of a model get an adapter, and which are trained whole. The rules are those of PEFT."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ms_medqa.config.errors import UserError
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Embedding, Linear, RMSNorm
from ms_medqa.models.naming import Naming

ALL_LINEAR = "all-linear"
HEAD_PATH, EMBEDDING_PATH = "lm_head", "model.embed_tokens"


@dataclass(frozen=True)
class Targets:
    """Names of modules, under the decoder's names or those of the checkpoint.

    Attributes:
        target_modules: paths, or ends of paths behind a dot; or one regular expression for a whole path; or
            `all-linear`, every linear layer but the head.
        exclude_modules: layers to leave out, named in the same ways.
        layers_to_transform: numbers of the decoder layers to stay in; None for all. A layer that `target_modules` gives
            with its whole path, as `lm_head`, is taken all the same.
        layers_pattern: name of the list that these numbers count, such as `layers`; None for any.
        modules_to_save: ends of the paths of modules that are trained whole.
    """

    target_modules: Sequence[str] | str
    exclude_modules: Sequence[str] | str = ()
    layers_to_transform: Sequence[int] | int | None = None
    layers_pattern: Sequence[str] | str | None = None
    modules_to_save: Sequence[str] = ()

    @property
    def numbers(self) -> set[int]:
        """`layers_to_transform` as a set, empty for all layers."""
        wanted = self.layers_to_transform
        return {wanted} if isinstance(wanted, int) else set(wanted or ())

    def take(self, names: Sequence[str]) -> bool:
        """Whether a linear layer gets an adapter.

        Args:
            names: its path, under each of its names.
        """
        if not _fits(names, self.target_modules) or (self.exclude_modules and _fits(names, self.exclude_modules)):
            return False
        named_whole = not isinstance(self.target_modules, str) and any(name in self.target_modules for name in names)
        return not self.numbers or named_whole or _layer_number(names, self.layers_pattern) in self.numbers


def select(model: CausalLM, naming: Naming, targets: Targets) -> tuple[list[str], list[str]]:
    """(layers that get an adapter, modules that are trained whole), as paths in the model's order.

    Raises:
        UserError: a name or a pattern that fits nothing (what exists is listed), or nothing is left.
    """
    whole = _whole_modules(model, naming, targets.modules_to_save)
    layers = {path: _names(path, naming) for path, cell in model.cells_and_names() if type(cell) is Linear}
    _check_names(layers, targets.target_modules, "target_modules")
    _check_names(layers, targets.exclude_modules, "exclude_modules")
    _check_numbers(targets.numbers, model.config.num_hidden_layers)
    left = [path for path, names in layers.items() if path not in whole and targets.take(names)]
    if not left:
        options = "exclude_modules, layers_to_transform, layers_pattern and modules_to_save"
        raise UserError(f"lora.target_modules = {_shown(targets.target_modules)}: {options} leave none of its layers")
    if HEAD_PATH in left and model.config.normalized_head:
        raise UserError("lora.target_modules: the head of this model is normalized, it takes no adapter")
    return left, whole


def _names(path: str, naming: Naming) -> tuple[str, ...]:
    return tuple(dict.fromkeys((path, naming.module(path))))


def _check_names(layers: dict[str, tuple[str, ...]], wanted: Sequence[str] | str, key: str) -> None:
    """Raise UserError where a name or an expression fits no layer."""
    known = ", ".join(sorted({name.rsplit(".", 1)[-1] for names in layers.values() for name in names}))
    if isinstance(wanted, str):
        compiled(wanted, f"lora.{key} = {wanted}")
        if wanted and not any(_fits(names, wanted) for names in layers.values()):
            hint = f"a regular expression matches a whole path, such as {next(iter(layers))}; layers here: {known}"
            raise UserError(f"lora.{key} = {wanted!r} matches no layer", hint)
        return
    wrong = sorted(entry for entry in wanted if not any(_fits(names, [entry]) for names in layers.values()))
    if wrong:
        raise UserError(f"lora.{key}: no layer named {', '.join(wrong)}", f"layers here: {known}")


def _fits(names: Sequence[str], wanted: Sequence[str] | str) -> bool:
    """Whether a layer, under any of its names, is among those that `target_modules` or `exclude_modules` name."""
    if isinstance(wanted, str):
        if wanted.lower() == ALL_LINEAR:
            return HEAD_PATH not in names
        return any(map(compiled(wanted).fullmatch, names))
    return any(name == entry or name.endswith(f".{entry}") for name in names for entry in wanted)


def compiled(text: str, shown: str | None = None) -> re.Pattern[str]:
    """A user's regular expression.

    Args:
        text: the expression.
        shown: how an error names it, by default as it is.

    Raises:
        UserError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{shown or text}: not a regular expression ({error})") from None


def _check_numbers(numbers: set[int], count: int) -> None:
    wrong = sorted(number for number in numbers if not 0 <= number < count)
    if wrong:
        names = ", ".join(map(str, wrong))
        raise UserError(f"lora.layers_to_transform: no layer {names}", f"the model has layers 0 to {count - 1}")


def _layer_number(names: Iterable[str], lists: Sequence[str] | str | None) -> int | None:
    """The first number in a path, behind the name of a list."""
    patterns = [lists] if isinstance(lists, str) else lists or ["[^.]*"]
    for pattern in patterns:
        expression = compiled(rf"(?:.*?\.)??{pattern}\.(?P<number>\d+)\.", f"lora.layers_pattern = {pattern}")
        match = next(filter(None, map(expression.match, names)), None)
        # An alternative of the user's may match without the number.
        if match is not None and match["number"] is not None:
            return int(match["number"])
    return None


def _whole_modules(model: CausalLM, naming: Naming, wanted: Sequence[str]) -> list[str]:
    cells = {path: cell for path, cell in model.cells_and_names() if isinstance(cell, (Embedding, RMSNorm))}
    names = {path: _names(path, naming) for path in cells}
    if model.lm_head is None:
        # Tied weights are one parameter: under either name it is trained as both, PEFT's `ensure_weight_tying`.
        names[EMBEDDING_PATH] += (HEAD_PATH,)
    else:
        names[HEAD_PATH] = (HEAD_PATH,)
    found = {entry: {path for path in names if any(n.endswith(entry) for n in names[path])} for entry in wanted}
    wrong = sorted(entry for entry, paths in found.items() if not paths or not entry)
    if wrong:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for path in names for name in names[path]}))
        raise UserError(f"lora.modules_to_save: no module named {', '.join(wrong)}", f"it may name {known}")
    chosen = set().union(*found.values())
    return [path for path in names if path in chosen]


def _shown(names: Sequence[str] | str) -> str:
    return names if isinstance(names, str) else f"[{', '.join(names)}]"
