"""Model families, one file each. To add one, see `docs/models.md`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families import baichuan, llama, mistral, qwen, qwen2, qwen3
from ms_medqa.models.families.base import Family

REGISTRY: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY for module in (llama, mistral, qwen, qwen2, qwen3, baichuan)
}
ARCHITECTURES: dict[str, Family] = {name: family for family in REGISTRY.values() for name in family.architectures}

_STORED_TYPES = ("float32", "float16", "bfloat16")


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The decoder's shape from a parsed `config.json`.

    Raises:
        UserError: the family or an option is not supported (those that are get listed), or a key is missing.
    """
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    if not isinstance(name, str) or name not in ARCHITECTURES:
        found = repr(name) if name else "no `architectures`"
        raise UserError(f"{where}: {found} is not a supported model family", f"supported: {', '.join(ARCHITECTURES)}")
    try:
        config = ARCHITECTURES[name].read_config(raw)
    except KeyError as error:
        raise UserError(f"{where}: key {error.args[0]!r} is missing") from None
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None
    return replace(config, eos_token_ids=read_end_tokens(raw, where), dtype=_stored_type(raw, where))


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


def _stored_type(raw: Mapping[str, Any], where: str) -> str:
    for key in ("dtype", "torch_dtype"):
        name = raw.get(key)
        if name is None:
            continue
        if not isinstance(name, str):
            raise UserError(f"{where}: {key} = {name!r} must be the name of a type", ", ".join(_STORED_TYPES))
        name = name.removeprefix("torch.")
        return name if name in _STORED_TYPES else "float32"
    return "float32"
