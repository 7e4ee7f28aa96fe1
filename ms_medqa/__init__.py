"""ms_medqa: medical question answering on MindSpore, from raw records to a tuned model that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MedicalQA", "__version__", "generate", "load_model"]

if TYPE_CHECKING:
    from ms_medqa.generation import MedicalQA, generate, load_model

# MindSpore takes seconds to import, so the public names are looked up only when they are used.
_PUBLIC = {"MedicalQA": "generation", "generate": "generation", "load_model": "generation"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        from ms_medqa.backend.device import quiet_environment

        quiet_environment()
        return getattr(import_module(f"ms_medqa.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
