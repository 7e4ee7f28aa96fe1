"""Model families: how each one's `config.json` and weight names map to the decoder. One file a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families import llama, qwen2

# `architectures[0]` of config.json -> the function that reads the rest.
REGISTRY: dict[str, Callable[[Mapping[str, Any]], ModelConfig]] = {
    "LlamaForCausalLM": llama.read_config,
    "Qwen2ForCausalLM": qwen2.read_config,
}

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_MAY_BE_NULL = ("head_dim", "num_key_value_heads")
_POSITIVE = ("rms_norm_eps", "rope_theta", "initializer_range")
_STORED_TYPES = ("float32", "float16", "bfloat16")


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The decoder's shape from a parsed `config.json`.

    Raises:
        UserError: the family is not supported (those that are get listed), or a key is missing.
    """
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    if not isinstance(name, str) or name not in REGISTRY:
        found = repr(name) if name else "no `architectures`"
        raise UserError(f"{where}: {found} is not a supported model family", f"supported: {', '.join(REGISTRY)}")
    _check_numbers(raw, where)
    try:
        config = REGISTRY[name](raw)
    except KeyError as error:
        raise UserError(f"{where}: key {error.args[0]!r} is missing") from None
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None
    dtype = raw.get("dtype") or raw.get("torch_dtype")
    return replace(
        config, eos_token_ids=read_end_tokens(raw, where), dtype=dtype if dtype in _STORED_TYPES else "float32"
    )


def read_end_tokens(raw: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """`eos_token_id` of a parsed `config.json` or `generation_config.json`: a number, a list of them or null.

    Raises:
        UserError: it is something else.
    """
    eos = raw.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if any(type(i) is not int for i in ids):
        raise UserError(f"{where}: eos_token_id = {eos!r} must be a token id or a list of them")
    return tuple(ids)


def _check_numbers(raw: Mapping[str, Any], where: str) -> None:
    for key in _SIZES:
        value = raw.get(key)
        if key not in raw or (value is None and key in _MAY_BE_NULL):
            continue
        if type(value) is not int or value < 1:
            raise UserError(f"{where}: {key} = {value!r} must be a whole number of at least 1")
    for key in _POSITIVE:
        value = raw.get(key)
        if value is not None and (type(value) not in (int, float) or not value > 0):
            raise UserError(f"{where}: {key} = {value!r} must be a number above 0")
    heads, kv_heads = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        raise UserError(f"{where}: num_key_value_heads = {kv_heads} does not divide num_attention_heads = {heads}")
    head_dim = raw.get("head_dim") or raw.get("hidden_size", 0) // (heads or 1)
    if head_dim % 2:
        raise UserError(f"{where}: head_dim = {head_dim} must be even, rotary embedding turns pairs of numbers")
