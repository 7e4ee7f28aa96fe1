"""`load_model` and `generate`: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa import models
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.many import decode_many
from ms_medqa.generation.sampling import SamplingParams
from ms_medqa.models.decoder import CausalLM


def load_model(
    path: str | Path, adapter: str | Path | None = None, merge: bool = True, dtype: str = "auto"
) -> CausalLM:
    """A language model, ready to answer.

    Args:
        path: a folder in Hugging Face layout, or the name of a shipped model.
        adapter: a folder with a LoRA adapter (`adapter_config.json`, `adapter_model.safetensors`).
        merge: add the adapter to the weights; False keeps it apart, which is slower but can be undone.
        dtype: `auto`, `float32`, `float16` or `bfloat16`.

    Returns:
        An `nn.Cell`: int32 (batch, length) -> float32 logits (batch, length, vocab).

    Raises:
        UserError: no such folder, an unsupported family, or an adapter made for another model.
    """
    model = models.load_model(path, dtype=dtype)
    if adapter is not None:
        apply_adapter(model, adapter, merge, fresh=True)
    return model


def apply_adapter(model: CausalLM, adapter: str | Path, merge: bool = True, fresh: bool = False) -> None:
    """Add a LoRA adapter to a loaded model, in place; `fresh` says that the model has not computed yet."""
    from ms_medqa import peft

    peft.load_adapter(model, adapter_folder(adapter), merge=merge, fresh=fresh)


def adapter_folder(adapter: str | Path) -> Path:
    """The folder of an adapter; UserError where there is none."""
    folder = user_path(adapter)
    if not folder.is_dir():
        raise UserError(f"adapter {adapter}: no such folder", "give a folder that holds adapter_config.json")
    return folder


def generate(
    model: CausalLM,
    input_ids: Any,
    attention_mask: Any = None,
    max_new_tokens: int = 200,
    greedy: bool = False,
    temperature: float = 0.2,
    top_p: float = 0.9,
    top_k: int = 50,
    repetition_penalty: float | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
) -> list[list[int]]:
    """Continue a batch of prompts.

    Args:
        model: from `load_model`.
        input_ids: int (batch, length), an array, a Tensor or nested lists, which may differ in length.
        attention_mask: 1 for tokens and 0 for padding, on either side; None: every id is a token.
        max_new_tokens: most tokens of one answer.
        greedy: take the likeliest token, as a temperature of 0 does.
        temperature, top_p, top_k: see `SamplingParams`.
        repetition_penalty: see `SamplingParams`; None is 1.1 where tokens are drawn and 1, no penalty, where the
            likeliest is taken. (`MedicalQA` and `ms-medqa ask` take it from the config's `generate` section instead,
            also under --greedy.)
        eos_token_id: one or more ids that end an answer; None takes those of the model's config.
        seed: repeats the answers exactly; row i draws from stream (seed, i). None draws anew each time.

    Returns:
        The new tokens of each row, without the end token.

    Raises:
        UserError: shapes that do not fit, a setting out of range, a prompt too long for the model.
    """
    prompts = rows_of(input_ids, attention_mask)
    if greedy:
        temperature = 0.0
    if repetition_penalty is None:
        repetition_penalty = 1.0 if temperature == 0 else 1.1
    params = SamplingParams(temperature, top_p, top_k, repetition_penalty)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens = {max_new_tokens}: must be at least 1")
    ends = model.config.eos_token_ids if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
    engine = Engine.of(model)
    size = max(1, len(prompts))
    answers = decode_many(engine, prompts, params, max_new_tokens, frozenset(ends), batch_size=size, seed=seed)
    return [answer.tokens for answer in answers]


def rows_of(input_ids: Any, attention_mask: Any = None) -> list[list[int]]:
    """The tokens of each row without their padding."""
    ids = [np.asarray(row) for row in _on_host(input_ids)]
    if any(row.ndim != 1 or (row.size and row.dtype.kind not in "iu") for row in ids):
        raise UserError("input_ids must be whole numbers of shape (batch, length)")
    if attention_mask is None:
        return [row.tolist() for row in ids]
    mask = [np.asarray(row) for row in _on_host(attention_mask)]
    if [row.shape for row in mask] != [row.shape for row in ids]:
        raise UserError("attention_mask must have the shape of input_ids")
    return [row[keep.astype(bool)].tolist() for row, keep in zip(ids, mask, strict=True)]


def _on_host(values: Any) -> Any:
    return values.asnumpy() if hasattr(values, "asnumpy") else values
