"""Rotary positions in `config.json`: their base, and how they are scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import RopeScaling
from ms_medqa.models.families.values import LARGEST, only, positive, whole

_ORIGINAL = "original_max_position_embeddings"
_KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
}
_COMMON = ("rope_type", "type", "rope_theta")
# Below 1 the frequencies grow with theta's inverse, out of float32 in the end; above, theta itself leaves it.
_SMALLEST_THETA, _LARGEST_THETA = 1.0, 1e30


def rope_fields(raw: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` of a `ModelConfig`.

    Args:
        raw: the parsed file, as transformers 4 or 5 writes it.
        positions: its `max_position_embeddings`.

    Raises:
        UserError: a value makes no sense, or a key would change the result and is not supported.
    """
    only(raw, "partial_rotary_factor", (1.0, None))
    name, rope = _section(raw)
    kind = _kind(name, rope)
    _refuse_other_keys(name, rope, kind, positions)
    theta = positive(rope, "rope_theta", None) or positive(raw, "rope_theta", 10000.0)
    if not _SMALLEST_THETA <= theta <= _LARGEST_THETA:
        raise UserError(f"rope_theta = {theta} must be a number from {_SMALLEST_THETA:g} to {_LARGEST_THETA:g}")
    return {"rope_theta": theta, "rope_scaling": _scaling(raw, rope, kind, positions)}


def _section(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """`rope_scaling` of transformers 4 or `rope_parameters` of transformers 5, without its nulls.

    As in transformers, the first counts where a file has both.
    """
    for name in ("rope_scaling", "rope_parameters"):
        rope = raw.get(name)
        if rope is not None and not isinstance(rope, Mapping):
            raise UserError(f"{name}: rope scaling {rope!r} must be an object")
        if rope:
            return name, {key: value for key, value in rope.items() if value is not None}
    return "rope_scaling", {}


def _kind(name: str, rope: Mapping[str, Any]) -> str:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("type", kind) != kind:
        raise UserError(f"{name}: rope_type = {kind!r} and type = {rope['type']!r} must be the same")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise UserError(f"rope scaling {kind!r} is not supported", f"supported: {', '.join(_KEYS)}")
    return kind


def _refuse_other_keys(name: str, rope: Mapping[str, Any], kind: str, positions: int) -> None:
    """Refuse a key that says something else than what is computed without it."""
    neutral = {"factor": 1.0, "attention_factor": 1.0, "partial_rotary_factor": 1.0, _ORIGINAL: positions}
    known = (*_COMMON, *_KEYS[kind])
    others = [key for key in rope if key not in known and not (key in neutral and rope[key] == neutral[key])]
    if others:
        raise UserError(
            f"{name}: {', '.join(others)} not supported for rope_type {kind!r}",
            f"it has {', '.join(known)}; other types: {', '.join(other for other in _KEYS if other != kind)}",
        )


def _scaling(raw: Mapping[str, Any], rope: Mapping[str, Any], kind: str, positions: int) -> RopeScaling:
    if kind == "default":
        return RopeScaling()
    factor = positive(rope, "factor", None)
    if factor is None or factor < 1:
        raise UserError(f"rope scaling {kind!r} needs a factor of at least 1, not {rope.get('factor')!r}")
    if positions * factor > LARGEST:
        raise UserError(f"max_position_embeddings = {positions} times factor = {factor} is above {LARGEST}")
    if kind != "llama3":
        return RopeScaling(kind, factor, positions)
    low, high = positive(rope, "low_freq_factor", None), positive(rope, "high_freq_factor", None)
    if low is None or high is None or not low < high:
        raise UserError(f"rope scaling 'llama3' needs low_freq_factor below high_freq_factor, not {low} and {high}")
    # The file's own key goes before the one in the section, as in transformers 5.
    original = whole(raw, _ORIGINAL, whole(rope, _ORIGINAL, positions))
    return RopeScaling(kind, factor, original, low, high)
