"""Which files of a folder hold PyTorch's pickled weights. Nothing is read of them here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.models.checkpoint import indexed_files, pickled_files, read_json

ADAPTER_FILE = "adapter_model.bin"
_INDEX = "pytorch_model.bin.index.json"
_META_NAME = "tok_embeddings.weight"


def find_files(folder: Path) -> list[Path]:
    """The files with weights, in their order.

    Raises:
        UserError: there are none, one is missing, or they are in a layout of their own.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a model")
    if (folder / ADAPTER_FILE).is_file() and (folder / "adapter_config.json").is_file():
        return [folder / ADAPTER_FILE]
    if (folder / _INDEX).is_file():
        return indexed_files(folder / _INDEX)
    patterns = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth")
    found = next(filter(None, (pickled_files(folder, pattern) for pattern in patterns)), [])
    if not found:
        more = "it has safetensors, which are read as they are" if any(folder.glob("*.safetensors")) else "none found"
        raise UserError(f"{folder}: no *.bin, *.pt or *.pth with weights", more)
    if any(re.fullmatch(r"consolidated\.\d+\.pth", path.name) for path in found):
        raise _meta_error(folder)
    return found


def check_names(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError where the tensors are not those of the index, or not those of a Hugging Face model."""
    if _META_NAME in names:
        raise _meta_error(folder)
    index = folder / _INDEX
    missing = sorted(read_json(index)["weight_map"].keys() - names) if index.is_file() else []
    if missing:
        raise UserError(f"{folder}: no file holds {missing[0]}, which {_INDEX} names", "copy or download it anew")


def _meta_error(folder: Path) -> UserError:
    return UserError(
        f"{folder}: these are LLaMA weights as Meta publishes them, with names and shards of their own",
        "convert them with transformers (convert_llama_weights_to_hf.py), or download the Hugging Face version",
    )
