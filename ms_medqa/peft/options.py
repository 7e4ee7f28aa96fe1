"""`adapter_config.json` of Hugging Face PEFT: what is applied, what changes nothing, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.checkpoint import read_json
from ms_medqa.peft.select import Targets, compiled

CONFIG_FILE = "adapter_config.json"

# Options of PEFT and ms-swift that do not change what a trained adapter computes, whatever they say: names, the course
# of the training, and settings of options that are refused themselves.
_HARMLESS = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_dtype",
        "lora_ga_config",
        "lorap_emb_lr",
        "lorap_lr_ratio",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
        "velora_config",
    )
)
# Options that are read below.
_READ = frozenset(
    (
        "alpha_pattern",
        "exclude_modules",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "modules_to_save",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    )
)
# Every other option, also one that is unknown here, must say nothing.
_NOTHING: tuple[Any, ...] = (None, False, [], {})
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    # Other starts (PiSSA, OLoRA, CorDA, LoftQ, …) change the base weights, which the adapter's files do not tell.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


@dataclass(frozen=True)
class LoraOptions:
    """Ranks and scales of an adapter.

    Attributes:
        r, alpha: of every layer that no pattern names.
        rank_pattern, alpha_pattern: regular expressions on the end of a module's path -> its rank, its alpha.
        use_rslora: the scale is alpha / sqrt(r) (Kalajdzievski 2023) instead of alpha / r.
        modules_to_save: ends of the paths of modules that were trained whole.
        fan_in_fan_out: asked for; no layer here is stored that way.
        targets: which modules have an adapter; None where the options do not tell.
    """

    r: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool = False
    modules_to_save: tuple[str, ...] = ()
    fan_in_fan_out: bool = False
    targets: Targets | None = None

    def rank_of(self, *paths: str) -> int:
        """Rank of a module; several paths are several names of it."""
        key = pattern_key(self.rank_pattern, paths)
        return self.r if key is None else self.rank_pattern[key]

    def alpha_of(self, *paths: str) -> float:
        """Alpha of a module; several paths are several names of it."""
        key = pattern_key(self.alpha_pattern, paths)
        return self.alpha if key is None else self.alpha_pattern[key]


def pattern_key(patterns: Iterable[str], paths: Sequence[str]) -> str | None:
    """The first pattern that a path, or the end of it behind a dot, matches; None if there is none.

    A pattern means the same layers as in PEFT (`get_pattern_key`).
    """
    matched = (key for key in patterns if any(re.match(_at_the_end(key), path) for path in paths))
    return next(matched, None)


def _at_the_end(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def scaling_of(r: int, alpha: float, use_rslora: bool) -> float:
    """What B A is multiplied by."""
    return alpha / (math.sqrt(r) if use_rslora else r)


def read_options(folder: Path) -> LoraOptions:
    """Options of an adapter folder.

    Raises:
        UserError: no such file, an option that is not applied here, or a value that makes no sense.
    """
    where = folder / CONFIG_FILE
    config = read_json(where, "is this an adapter folder?")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{where}: peft_type {config.get('peft_type')!r} is not supported", "supported: LORA")
    for option, value in config.items():
        if option not in _HARMLESS | _READ and value not in _NEUTRAL.get(option, _NOTHING):
            raise UserError(f"{where}: option {option} = {json.dumps(value)} is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not _is_rank(rank) or not _is_number(alpha):
        raise UserError(f"{where}: r = {rank!r} and lora_alpha = {alpha!r} must be numbers, r at least 1")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise UserError(f"{where}: modules_to_save = {json.dumps(saved)} must be a list of names")
    if not isinstance(config.get("use_rslora"), (bool, type(None))):
        raise UserError(f"{where}: use_rslora = {json.dumps(config['use_rslora'])} must be true or false")
    return LoraOptions(
        r=rank,
        alpha=float(alpha),
        rank_pattern=_pattern(config, "rank_pattern", _is_rank, where),
        alpha_pattern=_pattern(config, "alpha_pattern", _is_number, where),
        use_rslora=bool(config.get("use_rslora")),
        modules_to_save=tuple(saved),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        targets=_targets(config, where),
    )


def _targets(config: Mapping[str, Any], where: Path) -> Targets | None:
    found: dict[str, Any] = {}
    for option in ("target_modules", "exclude_modules", "layers_pattern"):
        value = found[option] = config.get(option)
        if not isinstance(value, (str, type(None))) and not _is_list(value, str):
            raise UserError(f"{where}: {option} = {json.dumps(value)} must be a list of names, or one expression")
        if isinstance(value, str) or option == "layers_pattern":
            for text in [value] if isinstance(value, str) else value or ():
                compiled(text, f"{where}: {option} = {text}")
    numbers = config.get("layers_to_transform")
    if type(numbers) not in (int, type(None)) and not _is_list(numbers, int):
        raise UserError(f"{where}: layers_to_transform = {json.dumps(numbers)} must be numbers of layers")
    if not found["target_modules"]:
        return None
    return Targets(found["target_modules"], found["exclude_modules"] or (), numbers, found["layers_pattern"] or None)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _pattern(config: Mapping[str, Any], option: str, fits: Any, where: Path) -> dict[str, Any]:
    pattern = config.get(option) or {}
    if not isinstance(pattern, dict) or not all(map(fits, pattern.values())):
        raise UserError(f"{where}: {option} = {json.dumps(pattern)} must give a number for each layer")
    for key in pattern:
        try:
            re.compile(_at_the_end(key))
        except re.error as error:
            raise UserError(f"{where}: {option}: {key!r} is not a regular expression ({error})") from None
    return pattern


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    # What float32 can hold; NaN is in no range.
    return type(value) in (int, float) and -(2.0**128) < value < 2.0**128
