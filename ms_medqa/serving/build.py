"""From folders to a service: the one place that knows what decodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Config
from ms_medqa.config.serve_section import ServeSection
from ms_medqa.generation.generate import load_model
from ms_medqa.generation.rows import cache_length
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.generation.variant import Variant
from ms_medqa.models.cache import position_bytes
from ms_medqa.models.decoder import CausalLM
from ms_medqa.peft.rows import load_row_adapters
from ms_medqa.serving.service import ServedModel, Service

# Many rows of a small model cost little more than one; those of a large one take memory that weights need.
_AUTO_ROWS = (32, 16, 8)
_AUTO_BYTES = 2 * 2**30


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
    model = load_model(path, dtype=config.runtime.dtype)
    folder = Path(path) if model.folder is None else model.folder
    served = [_served(config.serve.model_name or folder.resolve().name, Variant.of(model, None, [folder]), model)]
    served += [_served(name, Variant.of(model, name, [adapter, folder]), model) for name, adapter in adapters.items()]
    beside = load_row_adapters(model, adapters) if adapters else None
    rows = rows_for(model, config.serve)

    def make() -> Scheduler:
        scheduler = Scheduler(model, rows, beside)
        if config.serve.warm_up:
            scheduler.warm_up(_longest(config.serve))
        return scheduler

    return Service(served, make, config)


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
