"""PyTorch's pickled weights to safetensors: the one place that reads a pickle, through PyTorch's own restricted loader.

That loader builds tensors and plain containers and refuses everything else, so no code of the file is run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.models.bin_files import ADAPTER_FILE, check_names, find_files
from ms_medqa.models.checkpoint import HEAD, read_json
from ms_medqa.models.companions import Companions, companions
from ms_medqa.models.families import ARCHITECTURES
from ms_medqa.models.naming import is_buffer
from ms_medqa.models.output import check_output, whole_folder, written
from ms_medqa.models.shards import STORAGE, Stored, parse_size, plan_shards, write_shards

# Before this version, a file could get past `weights_only` (CVE-2025-32434, CVE-2026-24747).
_FIRST_SAFE_TORCH = (2, 10)
# As they lie in the file: the loader reads what no export makes.
_TYPES = (*STORAGE, "float64")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
# Containers around the weights. A pickle may hold itself, and would never end.
_MOST_WRAPPERS = 4
_SLACK = 2**20


@dataclass(frozen=True)
class Imported:
    """What was written: `tensors` in `files` safetensors files of `size` bytes; `left_out` follow from others."""

    folder: Path
    tensors: int
    left_out: list[str]
    size: int
    files: int
    seconds: float
    companions: Companions


def import_bin(folder: str | Path, output: str | Path, max_shard_size: str = "5GB") -> Imported:
    """Write the weights of a folder's `*.bin`, `*.pt` or `*.pth` files to a new folder, as safetensors.

    Types stay, tied weights are written once, and config and tokenizer are copied. One file is open at a time.

    Args:
        folder: of a model, or of an adapter with `adapter_model.bin`.
        output: a folder that is new, empty or an earlier import; an earlier import is replaced.
        max_shard_size: largest weights file.

    Raises:
        UserError: PyTorch is missing or too old, a file holds more than weights, or names of no Hugging Face model.
        RunError: no space is left; nothing has been written then.
    """
    began = time.monotonic()
    source = user_path(folder)
    max_size, target = parse_size(max_shard_size), check_output(Path(output), [source])
    files = find_files(source)
    adapter = files[0].name == ADAPTER_FILE
    pickles = _Pickles(files)
    texts = companions(source, family=_family(source), config_file="adapter_config.json" if adapter else "config.json")
    check_names(source, pickles.stored)
    stored, left_out = _select(pickles, {} if adapter else read_json(source / "config.json"))
    plan = plan_shards(stored, 2**62 if adapter else max_size, "adapter_model" if adapter else "model")
    with (
        whole_folder(target, plan.total_size + texts.size + _SLACK, {"format": "import", "base": source.name}) as new,
        progress(total=len(stored), desc="write", unit="tensor") as bar,
    ):

        def read(names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
            for name in names:
                yield name, pickles.bytes_of(name)
                bar.update(1)

        write_shards(new, plan, read)
        texts.write(new)
    seconds = time.monotonic() - began
    return Imported(target, len(stored), left_out, plan.total_size, len(plan.files), seconds, texts)


def summary(result: Imported) -> list[str]:
    """Lines for people: what was written, and what is left to do."""
    amount = written(result.size, result.files)
    lines = [f"{result.tensors} tensors; {amount}, {result.seconds:.0f} s: {result.folder}"]
    if result.left_out:
        lines.append(f"left out, as it follows from other tensors: {', '.join(result.left_out[:3])}")
    if result.companions.code:
        lines.append(
            f"not copied: code ({', '.join(result.companions.code)}); other tools may need it, ms-medqa does not"
        )
    return lines


class _Pickles:
    """The tensors of several files, by name; one file is open at a time.

    Attributes:
        stored: name -> type and shape.
        same: name -> an earlier name of the very same numbers.
    """

    def __init__(self, files: list[Path]) -> None:
        self._torch = _import_torch()
        self._open: tuple[Path, dict[str, Any]] | None = None
        self._where: dict[str, Path] = {}
        self.stored: dict[str, Stored] = {}
        self.same: dict[str, str] = {}
        for path in files:
            seen: dict[Any, str] = {}
            for name, tensor in self._tensors(path).items():
                if name in self._where:
                    raise UserError(f"both {self._where[name].name} and {path.name} hold {name}", "remove one")
                self._where[name] = path
                self.stored[name] = Stored(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
                place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
                if tensor.numel():
                    self.same |= {name: seen[place]} if place in seen else {}
                    seen.setdefault(place, name)

    def bytes_of(self, name: str) -> np.ndarray:
        """The numbers of a tensor, as bytes in the order of its rows."""
        tensor = self._tensors(self._where[name])[name]
        return tensor.contiguous().reshape(-1).view(self._torch.uint8).numpy()

    def _tensors(self, path: Path) -> dict[str, Any]:
        if self._open is None or self._open[0] != path:
            self._open = None
            self._open = (path, self._checked(path, self._load(path)))
        return self._open[1]

    def _load(self, path: Path) -> Any:
        with path.open("rb") as file:
            start = file.read(4)
        is_archive = start == b"PK\x03\x04"
        if not is_archive and start[:1] != b"\x80":
            hint = "a Git LFS pointer or an error page, perhaps: download it anew"
            raise UserError(f"{path}: not a file of PyTorch, it begins with {start!r}", hint)
        try:
            # Files from before PyTorch 1.6 are no archives and cannot be mapped.
            return self._torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        except MemoryError:
            raise
        except Exception as error:  # the loader raises errors of many kinds for a broken file
            if "Weights only load failed" in str(error) or type(error).__name__ == "UnpicklingError":
                raise UserError(
                    f"{path}: holds more than weights; PyTorch's loader for plain weights refused it and ran nothing",
                    "save the model's state_dict alone, where you trust the file",
                ) from None
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: not readable by PyTorch ({reason})", "copy it again") from None

    def _checked(self, path: Path, content: Any) -> dict[str, Any]:
        for _ in range(_MOST_WRAPPERS):
            if isinstance(content, Mapping):
                wrapped = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
                content = next(wrapped, content)
        if not isinstance(content, Mapping) or not content:
            raise UserError(f"{path}: holds no dictionary of tensors", "save the model's state_dict")
        for name, value in content.items():
            if not isinstance(name, str):
                raise UserError(f"{path}: {name!r} is no name of a tensor", "save the model's state_dict")
            if not self._torch.is_tensor(value):
                raise UserError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor", "save weights alone")
            if value.layout != self._torch.strided or value.is_quantized or value.device.type != "cpu":
                raise UserError(f"{path}: {name} is no plain tensor ({value.layout})", "save dense float weights")
        if all(name.startswith("module.") for name in content):
            # A model that was wrapped for data parallelism.
            content = {name.removeprefix("module."): value for name, value in content.items()}
        return {name: value.detach() for name, value in content.items()}


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UserError("reading *.bin needs PyTorch", 'pip install "ms_medqa[import-bin]"') from None
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _FIRST_SAFE_TORCH:
        raise UserError(
            f"PyTorch {torch.__version__} is here, and before 2.10 a file could get past its loader for plain weights",
            'pip install "ms_medqa[import-bin]", in an environment of its own where this one must stay',
        )
    return torch


def _select(pickles: _Pickles, config: Mapping[str, Any]) -> tuple[dict[str, Stored], list[str]]:
    """Tensors to write, and those that follow from others."""
    left_out = [name for name, tensor in pickles.stored.items() if is_buffer(name, len(tensor.shape))]
    # Under an untied config a head that happens to share memory is one more tensor: without it nothing would fit.
    if config.get("tie_word_embeddings", False) and HEAD in pickles.same:
        left_out.append(HEAD)
    stored = {name: tensor for name, tensor in pickles.stored.items() if name not in left_out}
    for name, tensor in stored.items():
        if tensor.dtype not in _TYPES:
            raise UserError(f"{name} has type {tensor.dtype}", f"supported: {', '.join(_TYPES)}")
    return stored, left_out


def _family(folder: Path) -> str | None:
    path = folder / "config.json"
    names = read_json(path).get("architectures") if path.is_file() else None
    found = ARCHITECTURES.get(str(names[0])) if isinstance(names, list) and names else None
    return found.name if found else None
