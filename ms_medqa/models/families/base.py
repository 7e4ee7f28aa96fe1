"""What a family is, and the reading of `config.json` that families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.rope import rope_fields
from ms_medqa.models.families.values import flag, only, positive, whole

# Far above any dense model that was released: beyond them a file is wrong, and building its model would only take time
# and memory to fail.
_LIMITS = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2048,
    "head_dim": 1024,
}


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
        remote_code: transformers and vLLM know the family only through the code that came with the checkpoint.
    """

    name: str
    architectures: tuple[str, ...]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    renamed: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remote_code: bool = False


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
    fields = {
        "vocab_size": whole(raw, "vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": whole(raw, "intermediate_size"),
        "num_hidden_layers": whole(raw, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": positions,
        "rms_norm_eps": positive(raw, "rms_norm_eps", 1e-6),
        "tie_word_embeddings": flag(raw, "tie_word_embeddings"),
        "initializer_range": positive(raw, "initializer_range", 0.02),
        **rope_fields(raw, positions),
    }
    for key, largest in _LIMITS.items():
        if fields[key] > largest:
            raise UserError(f"{key} = {fields[key]} is above {largest}, the most that is supported")
    return fields


def windows(raw: Mapping[str, Any], first_full: int = 0) -> tuple[int, ...]:
    """The window of each layer, from `sliding_window` and, where there are any, `layer_types`.

    Args:
        first_full: layers from the bottom that see everything, where `layer_types` does not tell.
    """
    size = None if raw.get("sliding_window") is None else whole(raw, "sliding_window")
    layers = whole(raw, "num_hidden_layers")
    kinds = raw.get("layer_types")
    if kinds is None:
        return () if size is None else tuple(0 if layer < first_full else size for layer in range(layers))
    known = {"full_attention": 0, "sliding_attention": size}
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in [*known] for kind in kinds):
        raise UserError(f"layer_types must name one of {', '.join(known)} for each of the {layers} layers")
    if size is None:
        if "sliding_attention" in kinds:
            raise UserError("layer_types names sliding_attention, but sliding_window or use_sliding_window is off")
        return ()
    return tuple(size if kind == "sliding_attention" else 0 for kind in kinds)


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    only(raw, "hidden_act", ("silu", "swish"))
    if raw.get("quantization_config"):
        raise UserError("quantization_config: quantized weights are not supported", "use the float checkpoint")
