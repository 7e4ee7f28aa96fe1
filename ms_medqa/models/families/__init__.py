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


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The decoder's shape from a parsed `config.json`.

    Raises:
        UserError: the family is not supported (those that are get listed), or a key is missing.
    """
    names = raw.get("architectures") or []
    name = names[0] if names else None
    if name not in REGISTRY:
        found = repr(name) if name else "no `architectures`"
        raise UserError(f"{where}: {found} is not a supported model family", f"supported: {', '.join(REGISTRY)}")
    try:
        config = REGISTRY[name](raw)
    except KeyError as error:
        raise UserError(f"{where}: key {error.args[0]!r} is missing") from None
    eos = raw.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return replace(
        config, eos_token_ids=tuple(int(i) for i in ids), dtype=raw.get("dtype") or raw.get("torch_dtype") or "float32"
    )
