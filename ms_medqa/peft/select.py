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


def select(model: CausalLM, naming: Naming, targets: Targets) -> tuple[list[str], list[str]]:
    """(layers that get an adapter, modules that are trained whole), as paths in the model's order.

    Raises:
        UserError: a name or a pattern that fits nothing (what exists is listed), or nothing is left.
    """
    whole = _whole_modules(model, naming, targets.modules_to_save)
    layers = {path: _names(path, naming) for path, cell in model.cells_and_names() if type(cell) is Linear}
    chosen = _matching(layers, targets.target_modules, "target_modules")
    left_out = _matching(layers, targets.exclude_modules, "exclude_modules") if targets.exclude_modules else set()
    numbers = _numbers(targets.layers_to_transform, model.config.num_hidden_layers)
    whole_paths = set() if isinstance(targets.target_modules, str) else set(targets.target_modules)
    left = [
        path
        for path, names in layers.items()
        if path in chosen
        and path not in left_out
        and path not in whole
        and (not numbers or whole_paths & {*names} or _layer_number(names, targets.layers_pattern) in numbers)
    ]
    if not left:
        options = "exclude_modules, layers_to_transform, layers_pattern and modules_to_save"
        raise UserError(f"lora.target_modules = {_shown(targets.target_modules)}: {options} leave none of its layers")
    if HEAD_PATH in left and model.config.normalized_head:
        raise UserError("lora.target_modules: the head of this model is normalized, it takes no adapter")
    return left, whole


def _names(path: str, naming: Naming) -> tuple[str, ...]:
    return tuple(dict.fromkeys((path, naming.module(path))))


def _matching(layers: dict[str, tuple[str, ...]], wanted: Sequence[str] | str, key: str) -> set[str]:
    known = ", ".join(sorted({name.rsplit(".", 1)[-1] for names in layers.values() for name in names}))
    if isinstance(wanted, str):
        if wanted.lower() == ALL_LINEAR and key == "target_modules":
            return set(layers) - {HEAD_PATH}
        expression = _compiled(wanted, key)
        found = {path for path, names in layers.items() if any(map(expression.fullmatch, names))}
        if not found:
            hint = f"a regular expression matches a whole path, such as {next(iter(layers))}; layers here: {known}"
            raise UserError(f"lora.{key} = {wanted!r} matches no layer", hint)
        return found
    found = {entry: {path for path, names in layers.items() if _is_named(entry, names)} for entry in wanted}
    wrong = sorted(entry for entry, paths in found.items() if not paths)
    if wrong:
        raise UserError(f"lora.{key}: no layer named {', '.join(wrong)}", f"layers here: {known}")
    return set().union(*found.values())


def _is_named(entry: str, names: Iterable[str]) -> bool:
    return any(name == entry or name.endswith(f".{entry}") for name in names)


def _compiled(text: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"lora.{key} = {text!r}: not a regular expression ({error})") from None


def _numbers(wanted: Sequence[int] | int | None, count: int) -> set[int]:
    numbers = {wanted} if isinstance(wanted, int) else set(wanted or ())
    wrong = sorted(number for number in numbers if not 0 <= number < count)
    if wrong:
        names = ", ".join(map(str, wrong))
        raise UserError(f"lora.layers_to_transform: no layer {names}", f"the model has layers 0 to {count - 1}")
    return numbers


def _layer_number(names: Iterable[str], lists: Sequence[str] | str | None) -> int | None:
    """The first number in a path, behind the name of a list."""
    patterns = [lists] if isinstance(lists, str) else lists or ["[^.]*"]
    for pattern in patterns:
        expression = _compiled(rf"(?:.*?\.)??{pattern}\.(?P<number>\d+)\.", "layers_pattern")
        match = next(filter(None, map(expression.match, names)), None)
        if match is not None:
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
