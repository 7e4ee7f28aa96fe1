"""From folders to a service: the one place that knows what decodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.schema import Config
from ms_medqa.config.serve_section import ServeSection
from ms_medqa.generation.generate import adapter_folder, load_model
from ms_medqa.generation.rows import cache_length
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.generation.variant import Variant
from ms_medqa.models.cache import position_bytes
from ms_medqa.models.decoder import CausalLM
from ms_medqa.peft.options import read_options
from ms_medqa.peft.rows import load_row_adapters
from ms_medqa.serving.service import ServedModel, Service

# Many rows of a small model cost little more than one; those of a large one take memory that weights need.
_AUTO_ROWS = (32, 16, 8)
_AUTO_BYTES = 2 * 2**30
_MEMORY = re.compile(r"memory|alloc", re.IGNORECASE)


def load_service(path: str, adapters: Mapping[str, str], config: Config) -> Service:
    """A service whose worker has not been started.

    Args:
        path: model folder, or the name of a shipped model.
        adapters: folder of each adapter by its registered name.
        config: of the server.

    Raises:
        UserError: a folder is missing or holds something else, a tokenizer is not the model's, or the config asks for
            beam search.
    """
    beams = config.generate.num_beams
    if beams > 1:
        raise UserError(f"generate.num_beams = {beams}: the server draws its answers", "leave it at 1")
    folder = resolve_model(path)
    name = config.serve.model_name or folder.resolve().name
    # Before the model is loaded, which takes long.
    if name in adapters:
        raise UserError(
            f"--adapter {name}: the model itself has this name", "give the adapter another, or set serve.model_name"
        )
    for adapter in adapters.values():
        read_options(adapter_folder(adapter))
    model = load_model(folder, dtype=config.runtime.dtype)
    served = [_served(name, Variant.of(model, None, [folder]), model)]
    served += [_served(name, Variant.of(model, name, [adapter, folder]), model) for name, adapter in adapters.items()]
    beside = load_row_adapters(model, adapters) if adapters else None
    rows = rows_for(model, config.serve)

    def make() -> Scheduler:
        scheduler = Scheduler(model, rows, beside)
        if config.serve.warm_up:
            with _enough_memory(rows, cache_length(model, _longest(config.serve))):
                scheduler.warm_up(_longest(config.serve))
        return scheduler

    return Service(served, make, config)


@contextmanager
def _enough_memory(rows: int, length: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # MindSpore has no class of its own for it.
        if isinstance(error, RunError) or not (isinstance(error, MemoryError) or _MEMORY.search(str(error))):
            raise
        raise UserError(
            f"serve.warm_up: no memory for caches of up to {rows} rows of {length} tokens",
            "lower serve.max_batch, serve.max_prompt_tokens or serve.max_tokens",
        ) from error


def rows_for(model: CausalLM, settings: ServeSection) -> int:
    """Answers at a time: `serve.max_batch`, or what it does by itself."""
    if settings.max_batch != "auto":
        return settings.max_batch
    rows = _AUTO_BYTES // (cache_length(model, _longest(settings)) * position_bytes(model))
    return next((size for size in _AUTO_ROWS if size <= rows), _AUTO_ROWS[-1])


def _longest(settings: ServeSection) -> int:
    """Tokens of the longest request, prompt and answer; the model's own limit holds as well."""
    return settings.max_prompt_tokens + settings.max_tokens


def _served(name: str, variant: Variant, model: CausalLM) -> ServedModel:
    return ServedModel(name, variant.adapter, variant.prompt, variant.end_ids, model.config.position_limit)
