"""What a run gives: an adapter folder, or a model folder where all weights were trained."""

from __future__ import annotations

import shutil
from pathlib import Path

from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.models.checkpoint import read_json
from ms_medqa.models.dialogue_files import dialogue_files
from ms_medqa.models.families import read_config
from ms_medqa.models.saving import write_weights
from ms_medqa.peft import lora_layers, save_adapter
from ms_medqa.training.build import Run


def save_result(run: Run, output: Path) -> Path:
    """Write `adapter/` or `model/` into the run's folder, with tokenizer and prompt, for other programs too.

    The adapter's `base.json` says on which weights it was trained.

    Returns:
        The folder.
    """
    if lora_layers(run.model):
        folder = output / "adapter"
        save_adapter(run.model, folder, run.config.model.path, run.base)
    else:
        folder = output / "model"
        save_model(run, folder)
    run.tokenizer.save(folder)
    run.prompt.save(folder)
    assert run.model.folder is not None
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    for name, content in dialogue_files(run.prompt, run.model.folder, settings).items():
        with atomic_write(folder / name, "wb") as file:
            file.write(content)
    return folder


def save_model(run: Run, folder: Path) -> None:
    """Write a model folder in Hugging Face layout, weights in the type that its config.json names."""
    folder.mkdir(parents=True, exist_ok=True)
    source = run.model.folder
    assert source is not None
    if (source / "generation_config.json").exists():
        shutil.copyfile(source / "generation_config.json", folder / "generation_config.json")
    config = read_json(source / "config.json")
    if read_config(config, str(source)).tie_word_embeddings and not run.model.config.tie_word_embeddings:
        # The files held a head of their own, and so will these.
        config["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)
    write_weights(run.model, folder / "model.safetensors")
