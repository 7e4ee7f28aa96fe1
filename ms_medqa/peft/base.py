"""`base.json` in an adapter's folder: which base weights it was trained on."""

from __future__ import annotations

from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import write_json
from ms_medqa.models.checkpoint import read_json
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.fingerprint import base_fingerprint

BASE_FILE = "base.json"


def write_base(folder: Path, fingerprint: str | None, name: str) -> None:
    """Note the base of an adapter; without a fingerprint an earlier note goes."""
    if fingerprint is None:
        (folder / BASE_FILE).unlink(missing_ok=True)
    else:
        write_json(folder / BASE_FILE, {"fingerprint": fingerprint, "model": name})


def check_base(folder: Path, model: Path | None, config: ModelConfig | None = None) -> None:
    """Compare the base of an adapter with a model folder; an adapter that names none, as PEFT's, fits any.

    Args:
        folder: the adapter's.
        model: the model's, None for one that was made in memory.
        config: the model's shape, where that is known already.

    Raises:
        UserError: the model has other weights.
    """
    path = folder / BASE_FILE
    if model is None or not path.exists():
        return
    base = read_json(path)
    wanted = base.get("fingerprint")
    if not isinstance(wanted, str):
        raise UserError(f"{path}: fingerprint = {wanted!r} must be a text", "copy the adapter's folder again")
    found = base_fingerprint(model, config)
    if found != wanted:
        raise UserError(
            f"adapter {folder} was trained on {base.get('model')} (weights {wanted[:12]}), but {model} holds other "
            f"weights ({found[:12]})",
            "load the base that the adapter was trained on",
        )
