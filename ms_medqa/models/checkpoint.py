"""The files of a model folder in Hugging Face layout: which they are, and whether they fit its config."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families import read_config, read_end_tokens
from ms_medqa.models.naming import Naming, is_buffer, naming_of_config
from ms_medqa.models.safetensors import SafetensorsFile

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth")
# What a trainer leaves beside a model.
_NO_MODEL = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")
# Codes of safetensors.
_FLOATS = ("F32", "F16", "BF16", "F64")
# Numbers of two tensors that are compared in one go.
_COMPARED = 2**20


def load_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder, with the end tokens that `generation_config.json` adds.

    A chat model often ends its answers with more tokens than `config.json` names, and only the other file tells.
    """
    path, generation = folder / "config.json", folder / "generation_config.json"
    config = read_config(read_json(path, "is this a model folder in Hugging Face layout?"), str(path))
    if not generation.is_file():
        return config
    more = read_end_tokens(read_json(generation), str(generation))
    return replace(config, eos_token_ids=tuple(dict.fromkeys((*config.eos_token_ids, *more))))


def read_json(path: Path, hint: str | None = None) -> dict[str, Any]:
    """A JSON object from a file that a user gave."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a JSON object", hint)
    return raw


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model, and what they hold.

    Attributes:
        config: as the weights have it: a head that differs from the embedding is a head of its own.
        files: tensor name -> the file that holds it.
        untied: a line that says so where `config.json` ties the two, else None.
    """

    folder: Path
    config: ModelConfig
    naming: Naming
    files: dict[str, SafetensorsFile]
    untied: str | None = None


def open_checkpoint(folder: Path, config: ModelConfig | None = None) -> Checkpoint:
    """The weights of a folder, once it is clear that they are those of its config. No model is built.

    Args:
        config: of the folder, where it is known already.

    Raises:
        UserError: they do not fit.
    """
    config = load_config(folder) if config is None else config
    files = weight_files(folder)
    # Before millions of names are made.
    if config.num_hidden_layers > len(files):
        text = f"config.json names {config.num_hidden_layers} layers, the files hold {len(files)} tensors in all"
        raise UserError(f"{folder}: the weights do not fit config.json: {text}")
    naming, untied = naming_of_config(config), None
    if config.tie_word_embeddings and _has_own_head(naming, files):
        config = replace(config, tie_word_embeddings=False)
        naming = naming_of_config(config)
        name = naming.places[EMBEDDING].name
        untied = f"{folder}: {HEAD} differs from {name}, so it is used, though config.json says tie_word_embeddings"
    check_weights(naming, files, folder)
    return Checkpoint(folder, config, naming, files, untied)


def _has_own_head(naming: Naming, files: dict[str, SafetensorsFile]) -> bool:
    """Whether the files of a tied model carry another head than the embedding; transformers 5 does not tie it then."""
    embedding = naming.places[EMBEDDING].name
    if HEAD not in files or embedding not in files or files[embedding].shape(embedding) != naming.shape(embedding):
        return False
    head, other = files[HEAD], files[embedding]
    if head.shape(HEAD) != other.shape(embedding):
        return True
    if head.same_bytes(HEAD, other, embedding):
        return False
    rows, width = naming.shape(embedding)
    step = max(1, _COMPARED // width)
    one, two = (np.empty((min(step, rows), width), np.float32) for _ in range(2))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        head.read_into(HEAD, one[:count], start)
        other.read_into(embedding, two[:count], start)
        if not np.array_equal(one[:count], two[:count]):
            return True
    return False


def check_weights(naming: Naming, files: dict[str, SafetensorsFile], folder: Path) -> None:
    """Compare what a checkpoint holds with what a model needs.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or no floating-point numbers; all of them are
            counted, the first ten named.
    """
    faults = [f"missing {name}" for name in naming.contents if name not in files]
    strange = [name for name in files if name not in naming.contents]
    faults += [f"unexpected {name}" for name in strange if not _is_computed(name, naming, files)]
    for name in [name for name in naming.contents if name in files]:
        shape, code = files[name].shape(name), files[name].dtype(name)
        if shape != naming.shape(name):
            faults.append(f"{name} has shape {shape}, expected {naming.shape(name)}")
        elif code not in _FLOATS:
            faults.append(f"{name} has type {code}, expected {', '.join(_FLOATS)}")
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise UserError(f"{folder}: the weights do not fit config.json: {'; '.join(faults[:10])}{more}")


def _is_computed(name: str, naming: Naming, files: dict[str, SafetensorsFile]) -> bool:
    """Tensors that some files carry though they follow from others: buffers, the copy of a tied head."""
    return (name == HEAD and HEAD not in naming.shapes) or is_buffer(name, len(files[name].shape(name)))


def has_weights(folder: Path) -> bool:
    """Whether a folder has files of weights, of whatever kind; `weight_files` tells what is wrong with them."""
    safe = any(path for pattern in ("*.safetensors", "*.safetensors.index.json") for path in folder.glob(pattern))
    return safe or any(pickled_files(folder, pattern) for pattern in _PICKLES)


def pickled_files(folder: Path, pattern: str) -> list[Path]:
    """Files of this pattern that may hold a model's weights as PyTorch pickles them."""
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not _NO_MODEL.fullmatch(path.name))


def indexed_files(index: Path) -> list[Path]:
    """The files that an index names.

    Raises:
        UserError: it names none, one that is no file of its folder, or one that is not there.
    """
    shards = read_json(index).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{index}: `weight_map` must give the file of each tensor", "copy or download it again")
    names = sorted(set(names))
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise UserError(f"{index}: `weight_map` names {name!r}, which is no file of this folder")
    # It is also False for a name that no file can have.
    missing = [name for name in names if not os.path.isfile(index.parent / name)]
    if missing:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        text = f"{missing[0]}{more} missing, which {index.name} names"
        raise UserError(f"{index.parent}: {text}", "copy or download it again")
    return [index.parent / name for name in names]


def weight_files(folder: Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> the file that holds it.

    As in transformers, `model.safetensors` alone is the model where it exists, else the files of the index; other files
    beside them (an older copy, an adapter) are not part of it.
    """
    index = folder / _INDEX
    whole = folder / "model.safetensors"
    if whole.exists():
        paths = [whole]
    elif index.exists():
        paths = indexed_files(index)
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickles = sorted(path.name for pattern in _PICKLES for path in pickled_files(folder, pattern))
        if not pickles:
            raise UserError(f"{folder}: weights must be *.safetensors", "none found")
        raise UserError(
            f"{folder}: weights must be *.safetensors, and pickles such as {pickles[0]} are never read here",
            f"`ms-medqa import-bin {folder} --output DIR` turns them into safetensors",
        )
    where: dict[str, SafetensorsFile] = {}
    for file in map(SafetensorsFile, paths):
        for key in file.keys():  # noqa: SIM118
            if key in where:
                raise UserError(f"{folder}: both {where[key].path.name} and {file.path.name} hold {key}", "remove one")
            where[key] = file
    return where
