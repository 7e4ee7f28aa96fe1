"""Files that come with the package, and models that are named instead of located."""

from __future__ import annotations

from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
MEDQA_MINI = ASSETS / "medqa-mini" / "records.jsonl"
DEMO_CONFIG = ASSETS / "demo.yaml"
# Beside the package in a checkout; a wheel does not hold it.
LORA_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "lora_medqa_tiny.yaml"
SHIPPED_MODELS = ("medqa-tiny",)


def resolve_model(path: str | Path) -> Path:
    """The folder of a model given by path or by the name of a shipped model; a folder of that name goes first.

    Raises:
        UserError: there is no such folder.
    """
    folder = user_path(path)
    if not folder.exists() and str(path) in SHIPPED_MODELS:
        return ASSETS / str(path)
    if not folder.is_dir():
        names = ", ".join(SHIPPED_MODELS)
        raise UserError(f"model {path}: no such folder", f"give a folder in Hugging Face layout or one of: {names}")
    return folder
