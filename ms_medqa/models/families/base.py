"""What a family is, and the reading of `config.json` that families share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig, RopeScaling

# What an int32 holds: positions, ids and widths of a layer are such numbers.
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Family:
    """A model family: how its `config.json` and its weight names map to the decoder.

    Names are paths of modules, `{}` stands for a layer's number. A module that no entry names has the same path here
    and there, as in LLaMA's checkpoints.

    Attributes:
        name: short name.
        architectures: values of `architectures[0]` in `config.json`.
        read_config: gives the decoder's shape; it may raise KeyError for a key that is missing.
        renamed: the decoder's module -> the checkpoint's.
        fused: the checkpoint's module -> the decoder's modules whose rows it stacks, in this order.
    """

    name: str
    architectures: tuple[str, ...]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    renamed: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def common_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that LLaMA and its descendants spell the same, in the files of transformers 4 and 5.

    Raises:
        KeyError: a key is missing.
        UserError: a value makes no sense, or an option is not supported.
    """
    _refuse_unsupported(raw)
    heads = whole(raw, "num_attention_heads")
    kv_heads = whole(raw, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(f"num_key_value_heads = {kv_heads} does not divide num_attention_heads = {heads}")
    hidden = whole(raw, "hidden_size")
    if raw.get("head_dim") is None and hidden % heads:
        raise UserError(
            f"num_attention_heads = {heads} does not divide hidden_size = {hidden}, and no head_dim is given"
        )
    head_dim = whole(raw, "head_dim", hidden // heads)
    if head_dim % 2:
        raise UserError(f"head_dim = {head_dim} must be even, rotary embedding turns pairs of numbers")
    positions = whole(raw, "max_position_embeddings")
    rope = _rope(raw)
    return {
        "vocab_size": whole(raw, "vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": whole(raw, "intermediate_size"),
        "num_hidden_layers": whole(raw, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": positions,
        "rms_norm_eps": positive(raw, "rms_norm_eps", 1e-6),
        "rope_theta": positive(rope, "rope_theta", None) or positive(raw, "rope_theta", 10000.0),
        "rope_scaling": _scaling(rope, positions),
        "tie_word_embeddings": flag(raw, "tie_word_embeddings"),
        "initializer_range": positive(raw, "initializer_range", 0.02),
    }


def windows(raw: Mapping[str, Any], first_full: int = 0) -> tuple[int, ...]:
    """The window of each layer, from `sliding_window` and, where there are any, `layer_types`.

    Args:
        first_full: layers from the bottom that see everything, where `layer_types` does not tell.
    """
    size = raw.get("sliding_window")
    if size is None:
        return ()
    size = whole(raw, "sliding_window")
    layers = whole(raw, "num_hidden_layers")
    kinds = raw.get("layer_types")
    if kinds is None:
        return tuple(0 if layer < first_full else size for layer in range(layers))
    known = {"full_attention": 0, "sliding_attention": size}
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in [*known] for kind in kinds):
        raise UserError(f"layer_types must name one of {', '.join(known)} for each of the {layers} layers")
    return tuple(known[kind] for kind in kinds)


def whole(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number from 1 on; absent or null gives the default, and without one a KeyError."""
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if key not in raw:
        raise KeyError(key)
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise UserError(f"{key} = {value!r} must be a whole number from 1 to {_LARGEST}")
    return value


def flag(raw: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """true or false; absent or null gives the default."""
    value = raw.get(key)
    if value is None:
        return default
    if type(value) is not bool:
        raise UserError(f"{key} = {value!r} must be true or false")
    return value


def positive(raw: Mapping[str, Any], key: str, default: Any) -> Any:
    """A number above 0; absent or null gives the default."""
    value = raw.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise UserError(f"{key} = {value!r} must be a number above 0")
    return float(value)


def only(raw: Mapping[str, Any], key: str, supported: Sequence[Any]) -> None:
    """Refuse an option that would change what the model computes; the first supported value is its default."""
    if raw.get(key, supported[0]) not in supported:
        names = ", ".join(map(repr, supported))
        raise UserError(f"{key} = {raw[key]!r} is not supported", f"supported: {names}")


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    only(raw, "hidden_act", ("silu",))
    only(raw, "partial_rotary_factor", (1.0, None))
    if raw.get("quantization_config"):
        raise UserError("quantization_config: quantized weights are not supported", "use the float checkpoint")


def _rope(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rope_scaling` of transformers 4, or `rope_parameters` of transformers 5; the first where a file has both."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"rope scaling {rope!r} must be an object")
    only(rope, "partial_rotary_factor", (1.0, None))
    return rope


def _scaling(rope: Mapping[str, Any], positions: int) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return RopeScaling()
    if kind not in ("linear", "dynamic", "llama3"):
        raise UserError(f"rope scaling {kind!r} is not supported", "supported: default, linear, dynamic, llama3")
    factor = positive(rope, "factor", None)
    if factor is None or factor < 1:
        raise UserError(f"rope scaling {kind!r} needs a factor of at least 1, not {rope.get('factor')!r}")
    if kind != "llama3":
        return RopeScaling(kind, factor, positions)
    low, high = positive(rope, "low_freq_factor", None), positive(rope, "high_freq_factor", None)
    if low is None or high is None or not low < high:
        raise UserError(f"rope scaling 'llama3' needs low_freq_factor below high_freq_factor, not {low} and {high}")
    original = rope.get("original_max_position_embeddings") and whole(rope, "original_max_position_embeddings")
    return RopeScaling(kind, factor, original or positions, low, high)
