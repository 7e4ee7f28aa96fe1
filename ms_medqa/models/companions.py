"""The files that go with a model's weights: config, generation config, tokenizer, prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.tokenizer import TOKENIZER_FILES
from ms_medqa.models.checkpoint import read_json
from ms_medqa.models.families import REGISTRY

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "qwen.tiktoken", "vocab.json")
# chat_template.json and vocab.txt: what other tools read, though nothing here does.
_TOKENIZER_FILES = (*TOKENIZER_FILES, "chat_template.json", "vocab.txt")


@dataclass
class Companions:
    """Small files to write beside the weights.

    Attributes:
        source: the folder of the base.
        files: name -> content.
        code: names of the `.py` files of the base that transformers needs beside these; the user must copy them.
    """

    source: Path
    files: dict[str, bytes] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)

    @property
    def has_tokenizer(self) -> bool:
        """Whether a vocabulary is among the files."""
        return any(name in self.files for name in _VOCABULARIES)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.files.values()))

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def companions(
    base: Path,
    adapter: Path | None = None,
    family: str | None = None,
    changes: Mapping[str, Any] | None = None,
    config_file: str = "config.json",
) -> Companions:
    """What goes with the weights of a model folder.

    Code is never copied. Where transformers knows the family, `auto_map` is taken out of `config.json`, for it would
    send transformers to code that is not there; for the others, and for a tokenizer of its own, it stays where the
    base's folder has the code, which the user can then copy.

    Args:
        base: the model folder.
        adapter: its tokenizer and its prompt go before the base's.
        family: the base's, None for one that is not known here.
        changes: keys to set in the config.
        config_file: its name.

    Raises:
        UserError: there is no such config, or a file is not JSON.
    """
    result = Companions(base)
    own_code = family is None or REGISTRY[family].remote_code
    result.files[config_file] = _config(base / config_file, dict(changes or {}), own_code, result)
    if (base / "generation_config.json").is_file():
        result.files["generation_config.json"] = (base / "generation_config.json").read_bytes()
    folders = [folder for folder in (adapter, base) if folder is not None]
    _add_tokenizer(folders, result)
    prompt = next((folder / PROMPT_FILE for folder in folders if (folder / PROMPT_FILE).is_file()), None)
    if prompt is not None:
        result.files[PROMPT_FILE] = prompt.read_bytes()
    return result


def tokenizer_folder(folders: Iterable[Path]) -> Path | None:
    """The first folder that has a vocabulary."""
    return next((folder for folder in folders if any((folder / name).is_file() for name in _VOCABULARIES)), None)


def _config(path: Path, changes: dict[str, Any], own_code: bool, result: Companions) -> bytes:
    raw = read_json(path, "is this a model folder?")
    new = {**raw, **changes}
    if "auto_map" in raw and not (own_code and _has_code(raw, result)):
        del new["auto_map"]
    return path.read_bytes() if new == raw else _encode(new)


def _add_tokenizer(folders: list[Path], result: Companions) -> None:
    source = tokenizer_folder(folders)
    if source is None:
        return
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            result.files[name] = (source / name).read_bytes()
    # transformers' slow tokenizers read the first vocabulary, which an adapter's folder may leave out.
    for name in ("tokenizer.model", "qwen.tiktoken"):
        if name not in result.files and (result.source / name).is_file():
            result.files[name] = (result.source / name).read_bytes()
    settings = read_json(source / "tokenizer_config.json") if "tokenizer_config.json" in result.files else {}
    if "auto_map" in settings and not _has_code(settings, result):
        result.files["tokenizer_config.json"] = _encode({k: v for k, v in settings.items() if k != "auto_map"})


def _has_code(settings: Mapping[str, Any], result: Companions) -> bool:
    """Whether the base's folder has the modules that `auto_map` names; then all its code is noted in the result."""
    entries = settings["auto_map"].values() if isinstance(settings["auto_map"], dict) else [settings["auto_map"]]
    classes = [name for entry in entries for name in (entry if isinstance(entry, list) else [entry])]
    for name in classes:
        # `owner/repository--module.Class` names code that lies elsewhere.
        if isinstance(name, str) and not (result.source / f"{name.partition('.')[0]}.py").is_file():
            return False
    # The modules that auto_map names import others.
    result.code = sorted(path.name for path in result.source.glob("*.py"))
    return True


def _encode(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
