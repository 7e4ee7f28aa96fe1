"""What other programs read to talk to a model as it was trained: its prompt as a chat template, its end tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms_medqa.data.jinja_prompt import jinja_prompt
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer_settings import settings_template
from ms_medqa.models.checkpoint import load_config, read_json

_GENERATION = "generation_config.json"
# What transformers takes from config.json where there is no generation config.
_TOKEN_KEYS = ("bos_token_id", "pad_token_id")


def dialogue_files(prompt: Prompt, base: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, bytes]:
    """Files to write beside a model or an adapter, over those of the same names.

    They are made from `prompt.json` for transformers and vLLM; ms_medqa itself goes on reading that.

    Args:
        prompt: of the model or adapter.
        base: the model's folder.
        tokenizer_config: content of the `tokenizer_config.json` that will lie beside these files.

    Returns:
        Name -> content of `chat_template.jinja`, of `generation_config.json` with every token that ends an answer, and,
        where it does not hold the tokenizer's own template, of `tokenizer_config.json` with it.
    """
    files = {"chat_template.jinja": jinja_prompt(prompt).encode("utf-8")}
    ends = dict.fromkeys((*prompt.stop_token_ids, *load_config(base).eos_token_ids))
    files[_GENERATION] = _encode({**_generation(base), "eos_token_id": list(ends)})
    own = prompt.tokenizer.chat_template
    if own != settings_template(tokenizer_config):
        files["tokenizer_config.json"] = _encode({**tokenizer_config, "chat_template": own})
    return files


def _generation(base: Path) -> dict[str, Any]:
    if (base / _GENERATION).is_file():
        return read_json(base / _GENERATION)
    return {key: value for key, value in read_json(base / "config.json").items() if key in _TOKEN_KEYS}


def _encode(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
