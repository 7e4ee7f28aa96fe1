"""Models for dialogues in which tuned and base model are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.generate import adapter_folder, load_model
from ms_medqa.generation.qa import MedicalQA
from ms_medqa.peft.rows import NotBesideError


def open_comparable(
    path: str | Path,
    adapter: str | Path,
    name: str,
    *,
    settings: GenerateSection,
    merge: bool,
    dtype: str,
    note: Callable[[str], object],
) -> tuple[MedicalQA, Callable[[], MedicalQA] | None]:
    """A model with an adapter beside it, so that the base model is there as well.

    Args:
        path: model folder, or the name of a shipped model.
        adapter: its folder.
        name: it gets.
        settings, merge, dtype: see `MedicalQA`; `merge` counts where the adapter cannot lie beside the model.
        note: is told that it cannot.

    Returns:
        The model; and what loads the base, where the adapter lies in the model after all.

    Raises:
        UserError: a folder is missing or holds something else, or they do not belong together.
    """
    # Before the model is loaded, which takes long.
    adapter = adapter_folder(adapter)
    model = load_model(path, dtype=dtype)
    try:
        return MedicalQA(model, adapters={name: adapter}, settings=settings), None
    except NotBesideError:
        note("this adapter changes more than the layers, so it is put into the model; /base will load the base model")
    qa = MedicalQA(model, adapter, settings=settings, merge=merge)

    def load_base() -> MedicalQA:
        note("loading the base model, beside the one with the adapter …")
        return MedicalQA(load_model(path, dtype=dtype), settings=settings, tokenizer=qa.tokenizer, prompt=qa.prompt)

    return qa, load_base
