"""From folders to a service: the one place that knows which core decodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ms_medqa.config.schema import Config
from ms_medqa.generation.generate import load_model
from ms_medqa.generation.qa import find_prompt, find_tokenizer
from ms_medqa.models.decoder import CausalLM
from ms_medqa.serving.core import Core
from ms_medqa.serving.service import ServedModel, Service


def make_core(model: CausalLM, path: str, adapters: Mapping[str, str], config: Config) -> Core:
    """The core; called on the thread that will own it.

    Args:
        model: the base model.
        path: where it was loaded from.
        adapters: folder of each adapter by its registered name.
        config: `serve.max_batch` is the number of its rows.
    """
    from ms_medqa.serving.engine_core import EngineCore

    models: dict[str | None, CausalLM] = {None: model}
    models |= {name: load_model(path, folder, dtype=config.runtime.dtype) for name, folder in adapters.items()}
    return EngineCore(models, config.serve.max_batch)


def load_service(path: str, adapters: Mapping[str, str], config: Config) -> Service:
    """A service whose worker has not been started.

    Args:
        path: model folder, or the name of a shipped model.
        adapters: folder of each adapter by its registered name.
        config: of the server.

    Raises:
        UserError: a folder is missing or holds something else, or a tokenizer is not the model's.
    """
    model = load_model(path, dtype=config.runtime.dtype)
    folder = Path(path) if model.folder is None else model.folder
    served = [_served(config.serve.model_name or folder.resolve().name, None, model, folder, None)]
    served += [_served(name, name, model, folder, Path(adapter).expanduser()) for name, adapter in adapters.items()]
    return Service(served, lambda: make_core(model, path, adapters, config), config)


def _served(name: str, adapter: str | None, model: CausalLM, folder: Path, adapter_folder: Path | None) -> ServedModel:
    folders = [each for each in (adapter_folder, folder) if each is not None]
    tokenizer = find_tokenizer(model, folders)
    prompt = find_prompt(tokenizer, folders)
    return ServedModel(name, adapter, prompt, frozenset(prompt.stop_token_ids) | frozenset(model.config.eos_token_ids))
