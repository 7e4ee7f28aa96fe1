"""Models that come with the package."""

from __future__ import annotations

from pathlib import Path

from ms_medqa.config.assets import ASSETS
from ms_medqa.config.errors import UserError

SHIPPED = ("medqa-tiny",)


def resolve_model(path: str | Path) -> Path:
    """The folder of a model given by path or by the name of a shipped model; a folder of that name goes first.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.exists() and str(path) in SHIPPED:
        return ASSETS / str(path)
    if not folder.is_dir():
        raise UserError(
            f"model {path}: no such folder", f"give a folder in Hugging Face layout or one of: {', '.join(SHIPPED)}"
        )
    return folder
