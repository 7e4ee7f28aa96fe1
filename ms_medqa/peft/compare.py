"""Whether an exported model computes what the base and its adapter compute, apart from each other."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from ms_medqa.backend.device import resolve_dtype
from ms_medqa.config.errors import UserError
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.companions import tokenizer_folder
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.export import CHECKPOINT_FILE, Weights
from ms_medqa.models.loading import assign, load_model
from ms_medqa.peft.inject import merge
from ms_medqa.peft.load import load_adapter

TEXTS = (
    "高血压患者应当少吃盐，规律监测血压，并按医嘱服药；如有不适，请及时就医。",
    "Drink enough water and rest when you have a fever, and see a doctor if it does not go away.",
)
_LENGTH = 48
# Half the step between neighbours at 1: what rounding to each type can do there.
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_FACTOR = 3.0
# What float32 arithmetic itself leaves open, as a share of the largest logit.
_ARITHMETIC = 2.0**-18
# Rows that are moved in one go: beside a large tensor, its errors would be several more.
_ROWS = 1024


@dataclass(frozen=True)
class Comparison:
    """Logits of the unmerged and of the exported model on the same tokens.

    Attributes:
        difference: largest absolute difference.
        largest: largest absolute logit.
        bound: what rounding explains.
        tokens: number of tokens.
        dtype: the coarsest type that weights were rounded to, None where none was.
    """

    difference: float
    largest: float
    bound: float
    tokens: int
    dtype: str | None

    @property
    def ok(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= self.bound

    def lines(self) -> list[str]:
        """For people."""
        found = f"largest difference {self.difference:.3g}, largest logit {self.largest:.3g}"
        lines = [f"check: logits of {self.tokens} tokens, merged and unmerged: {found}"]
        if self.dtype is None:
            reason = f"no weight was rounded, so only arithmetic can differ, by up to {self.bound:.3g}"
        else:
            reason = (
                f"rounding to {self.dtype} explains up to {self.bound:.3g}: {_FACTOR:g} times what random rounding "
                "errors on the same weights do to this model's logits"
            )
        return [*lines, reason, *([] if self.ok else ["the difference is larger than that: do not use this export"])]


def token_ids(config: ModelConfig, folders: list[Path]) -> np.ndarray:
    """int32 (2, length): two sentences, or random tokens for a model without a tokenizer.

    Args:
        config: of the model.
        folders: where a tokenizer may be; the first one that is found counts.

    Raises:
        UserError: the tokenizer is broken, or not the model's.
    """
    length = min(_LENGTH, config.position_limit)
    folder = tokenizer_folder(folders)
    if folder is None:
        return np.random.default_rng(0).integers(0, config.vocab_size, (2, length)).astype(np.int32)
    rows = [Tokenizer.load(folder).encode(text) for text in TEXTS]
    length = min(length, *map(len, rows))
    ids = np.array([row[:length] for row in rows], np.int32)
    if ids.max() >= config.vocab_size:
        text = f"{folder}: its tokenizer gives the id {ids.max()}, the model's vocabulary has {config.vocab_size}"
        raise UserError(text, "use the model's own tokenizer")
    return ids


def compare(base: Path, adapter: Path | None, exported: Path, weights: Weights, ids: np.ndarray) -> Comparison:
    """Run both models, one after the other, on the same tokens.

    The bound is measured on the model itself, for how far an error on a weight goes depends on it: the adapter is
    merged in memory, each weight of a tensor that the export rounded is moved at random by up to half the step between
    neighbours in its type, and the largest change of a logit is taken times three.

    Args:
        base, adapter: what was exported.
        exported: the folder it was written to.
        weights: what was written there.
        ids: from `token_ids`.
    """
    model = load_model(base)
    if adapter is not None:
        load_adapter(model, adapter, merge=False)
    expected = _logits(model, ids)
    merge(model)
    _shake(model, weights)
    allowed = float(np.abs(_logits(model, ids) - expected).max())
    del model
    gc.collect()
    found = _logits(_load(exported), ids)
    largest = float(np.abs(expected).max())
    rounded = {weights.stored[name].dtype for name in weights.stored if not weights.is_copied(name)}
    coarsest = max(rounded, key=ROUNDING.__getitem__, default=None)
    bound = _FACTOR * allowed + _ARITHMETIC * largest
    return Comparison(float(np.abs(found - expected).max()), largest, bound, ids.size, coarsest)


def _load(folder: Path) -> CausalLM:
    if not (folder / CHECKPOINT_FILE).exists():
        return load_model(folder)
    dtype, _ = resolve_dtype("auto", ms.get_context("device_target"))
    model = CausalLM(load_config(folder), dtype, folder)
    missing, _ = ms.load_param_into_net(model, ms.load_checkpoint(str(folder / CHECKPOINT_FILE)))
    assert not missing, missing
    model.set_train(False)
    return model


def _logits(model: CausalLM, ids: np.ndarray) -> np.ndarray:
    return model(ms.Tensor(ids)).asnumpy()


def _shake(model: CausalLM, weights: Weights) -> None:
    """Random rounding errors on every weight that the export rounded."""
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    generator = np.random.default_rng(0)
    for name, stored in weights.stored.items():
        if weights.is_copied(name):
            continue
        size = ROUNDING[stored.dtype]
        for part in weights.naming.contents[name]:
            value = np.array(parameters[part].float().asnumpy())
            for start in range(0, len(value), _ROWS):
                rows = value[start : start + _ROWS]
                error = size * (2 * generator.random(rows.shape, np.float32) - 1)
                # frexp gives 2**e above the value: the steps are those of 2**(e - 1). Zero is never rounded.
                rows += np.where(rows == 0, 0, np.ldexp(error, np.frexp(rows)[1] - 1))
            assign(parameters[part], value)
