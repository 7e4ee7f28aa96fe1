"""Give back a model: the base with an adapter merged into it, as a folder that other tools load."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.models.checkpoint import EMBEDDING, HEAD, Checkpoint, load_config, open_checkpoint, read_json
from ms_medqa.models.companions import Companions, companions, tokenizer_folder
from ms_medqa.models.dialogue_files import dialogue_files
from ms_medqa.models.export import Weights, write_checkpoint, write_hf
from ms_medqa.models.naming import Naming
from ms_medqa.models.output import check_output, whole_folder
from ms_medqa.models.shards import STORAGE, parse_size, plan_shards
from ms_medqa.peft.adapter import Adapter, read_adapter
from ms_medqa.peft.base import check_base
from ms_medqa.peft.compare import Comparison, compare, token_ids
from ms_medqa.peft.delta import changes, unties

FORMATS = ("hf", "ckpt")
DTYPES = ("auto", *STORAGE)
# Headers, the index and what a file system adds.
_SLACK = 2**20


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        copied: tensors that are byte for byte the base's.
        changed: tensors that the adapter changed.
        left_out: tensors of the base that follow from others.
        size: bytes of the weights.
        files: number of files they are in.
        companions: the small files beside the weights, and the code that is not among them.
        notes: what a user should know about the base and the adapter.
        comparison: of the logits, None where it was not asked for.
    """

    folder: Path
    family: str
    format: str
    total: int
    copied: int
    changed: int
    left_out: list[str]
    size: int
    files: int
    seconds: float
    companions: Companions
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None


def export(
    model: str | Path,
    adapter: str | Path | None,
    output: str | Path,
    *,
    format: str = "hf",
    max_shard_size: str = "5GB",
    dtype: str = "auto",
    check: bool = False,
) -> Exported:
    """Write a base model, with an adapter merged into it, to a new folder.

    Tensors go from file to file, one at a time; those that the adapter leaves alone keep their bytes. The folder is
    whole or absent, and the base is only read.

    Args:
        model: folder in Hugging Face layout, or the name of a shipped model.
        adapter: folder of a PEFT adapter, None for the base alone.
        output: a folder that is new, empty or an earlier export; an earlier export is replaced.
        format: `hf` (what transformers, vLLM and mindnlp load), or `ckpt` (a MindSpore checkpoint with the decoder's
            parameter names, for `load_param_into_net`).
        max_shard_size: largest file of format `hf`.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`, the base's.
        check: load both models afterwards, one at a time, and compare their logits.

    Raises:
        UserError: the adapter was made for other shapes or other weights, or `output` must not be written.
        RunError: no space is left; nothing has been written then.
    """
    _check_choice("format", format, FORMATS)
    _check_choice("dtype", dtype, DTYPES)
    began = time.monotonic()
    max_size, base = parse_size(max_shard_size), resolve_model(model)
    folder = None if adapter is None else user_path(adapter)
    target = check_output(Path(output), [base] if folder is None else [base, folder])
    declared = load_config(base)
    checkpoint = open_checkpoint(base, declared)
    config = checkpoint.config
    merged = None if folder is None else read_adapter(folder)
    weights = _weights(checkpoint, merged, dtype)
    ids = token_ids(config, [path for path in (folder, base) if path is not None]) if check else None
    texts = companions(base, folder, config.family, _config_changes(base, declared.tie_word_embeddings, weights, dtype))
    texts.files |= _dialogue_files(base, folder, texts)
    plan = plan_shards(weights.stored, max_size)
    needed = plan.total_size + texts.size + _SLACK
    if format == "ckpt":
        needed += max(stored.size for stored in weights.stored.values())
    record = {"format": format, "dtype": dtype, "base": base.name, "adapter": folder and folder.name}
    with whole_folder(target, needed, record) as temporary:
        if format == "hf":
            write_hf(temporary, weights, plan)
        else:
            write_checkpoint(temporary, weights)
        texts.write(temporary)
    return Exported(
        folder=target,
        family=config.family,
        format=format,
        total=len(weights.stored),
        copied=sum(map(weights.is_copied, weights.stored)),
        changed=len(weights.changes),
        left_out=weights.left_out,
        size=plan.total_size,
        files=len(plan.files) if format == "hf" else 1,
        seconds=time.monotonic() - began,
        companions=texts,
        notes=(*([checkpoint.untied] if checkpoint.untied else []), *(merged.notes if merged is not None else ())),
        comparison=None if ids is None else compare(base, folder, target, weights, ids),
    )


def _dialogue_files(base: Path, adapter: Path | None, texts: Companions) -> dict[str, bytes]:
    folders = [folder for folder in (adapter, base) if folder is not None]
    source = tokenizer_folder(folders)
    owner = next((folder for folder in folders if (folder / PROMPT_FILE).is_file()), None)
    if source is None or owner is None:
        return {}
    settings = json.loads(texts.files.get("tokenizer_config.json", b"{}"))
    return dialogue_files(Prompt.load(owner, Tokenizer.load(source)), base, settings)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{name} = {value!r} is not known", f"one of: {', '.join(choices)}")


def _weights(checkpoint: Checkpoint, adapter: Adapter | None, dtype: str) -> Weights:
    base, config, naming = checkpoint.folder, checkpoint.config, checkpoint.naming
    if adapter is None:
        return Weights(checkpoint, naming, {}, dtype)
    if unties(adapter, naming):
        naming = Naming(config, {**naming.shapes, HEAD: naming.shapes[EMBEDDING]})
    found = changes(adapter, naming)
    if config.normalized_head and "lm_head" in adapter.layers:
        raise UserError(f"adapter {adapter.folder}: the head of this model is normalized, it takes no adapter")
    check_base(adapter.folder, base, config)
    return Weights(checkpoint, naming, found, dtype)


def _config_changes(base: Path, tied: bool, weights: Weights, dtype: str) -> dict[str, Any]:
    raw = read_json(base / "config.json")
    found: dict[str, Any] = {}
    if tied and HEAD in weights.stored:
        found["tie_word_embeddings"] = False
    # transformers 5 writes `dtype`, everybody reads `torch_dtype`; without either, vLLM takes the model for float32.
    keys = [key for key in ("torch_dtype", "dtype") if raw.get(key)]
    if dtype != "auto" or not keys:
        sizes: Counter[str] = Counter()
        for stored in weights.stored.values():
            sizes[stored.dtype] += stored.size
        found |= dict.fromkeys(keys or ["torch_dtype"], sizes.most_common(1)[0][0])
    return found
