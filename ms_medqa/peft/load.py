"""Apply an adapter from disk to a model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import is_main_rank
from ms_medqa.config.errors import UserError
from ms_medqa.models.checkpoint import EMBEDDING, HEAD, open_checkpoint
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Linear
from ms_medqa.models.loading import assign, forget_file, naming_of, normalize_rows
from ms_medqa.models.naming import Naming
from ms_medqa.peft.adapter import Adapter, read_adapter
from ms_medqa.peft.base import check_base
from ms_medqa.peft.delta import Change, changes, replacements, unties
from ms_medqa.peft.inject import LayerPlan, change, check_plain, lora_layers, put_adapters
from ms_medqa.peft.whole import mark_whole


def check_adapter(model: str | Path, folder: str | Path) -> None:
    """Raise UserError where an adapter or a model folder is broken, or the adapter of another model; none is built."""
    checkpoint = open_checkpoint(resolve_model(model))
    _fit(read_adapter(folder), checkpoint.config, checkpoint.naming, checkpoint.folder)


def load_adapter(model: CausalLM, folder: str | Path, merge: bool = True, fresh: bool = False) -> Adapter:
    """Apply an adapter to a model in place.

    Args:
        model: a base model.
        folder: the adapter.
        merge: fold it into the weights (the Cells stay, so nothing compiles anew); otherwise keep it apart. Modules
            that it holds whole take the place of the base's either way.
        fresh: the model has not computed yet, so that its weights may get other memory: faster.

    Raises:
        UserError: the adapter was made for another model, or the model has one already; nothing has been changed then.
    """
    adapter, naming, found = read_for(model, folder)
    tell_notes(adapter)
    if model.lm_head is None and HEAD in naming.shapes:
        _untie(model)
    whole = replacements(adapter, naming)
    _change_weights(model, naming, found if merge else whole, fresh)
    if merge:
        # Nothing else tells that these are no base weights any more, and a second adapter would add to the first.
        model.__dict__["_merged_adapter"] = adapter.folder
    else:
        _put_apart(model, naming, adapter)
        parts = [part for name in whole for part in naming.contents[name]]
        mark_whole(model, list(dict.fromkeys(part.rpartition(".")[0] for part in parts)))
    return adapter


def tell_notes(adapter: Adapter) -> None:
    """Print what a user should know about an adapter that is going to be used."""
    for note in adapter.notes if is_main_rank() else ():
        print(f"note: {note}", file=sys.stderr)


def read_for(model: CausalLM, folder: str | Path) -> tuple[Adapter, Naming, dict[str, Change]]:
    """An adapter that fits, the names of the tensors with it in (a head may come), and what it does to them."""
    adapter = read_adapter(folder)
    check_plain(model)
    return adapter, *_fit(adapter, model.config, naming_of(model), model.folder)


def _fit(adapter: Adapter, config: ModelConfig, naming: Naming, model: Path | None) -> tuple[Naming, dict[str, Change]]:
    """Of an adapter that fits the model of a folder, the names of the tensors, and what it does to them."""
    if unties(adapter, naming):
        naming = Naming(config, {**naming.shapes, HEAD: naming.shapes[EMBEDDING]})
    found = changes(adapter, naming)
    if config.normalized_head and "lm_head" in adapter.layers:
        raise UserError(f"adapter {adapter.folder}: the head of this model is normalized, it takes no adapter")
    check_base(adapter.folder, model, config)
    return naming, found


def _change_weights(model: CausalLM, naming: Naming, found: dict[str, Change], fresh: bool) -> None:
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    for name, what in found.items():
        for part in naming.contents[name]:
            place = naming.places[part]
            change(parameters[part], what if place.whole else what.rows(place.start, place.stop), fresh)
            if fresh:
                forget_file(model, part)
    if model.config.normalized_head and HEAD in found:
        normalize_rows(parameters[HEAD])


def _put_apart(model: CausalLM, naming: Naming, adapter: Adapter) -> None:
    """Adapters beside the weights; those of a fused layer share A and take their rows of B."""
    pairs, plans = {}, []
    for module, pair in adapter.layers.items():
        parts = naming.contents[f"{module}.weight"]
        fused = module if len(parts) > 1 else None
        for part in parts:
            path, place = part.removesuffix(".weight"), naming.places[part]
            pairs[path] = replace(pair, b=pair.b[place.start : place.stop])
            plans.append(LayerPlan(path, pair.r, pair.alpha, pair.use_rslora, fused))
    put_adapters(model, plans)
    for path, layer in lora_layers(model):
        assign(layer.lora_a, pairs[path].a)
        assign(layer.lora_b, pairs[path].b)
    model.renew()


def _untie(model: CausalLM) -> None:
    """Give the head a copy of the embedding's weights."""
    embedding = model.model.embed_tokens.weight
    head = Linear(*reversed(embedding.shape), False, embedding.dtype)
    assign(head.weight, embedding.float().asnumpy())
    model.lm_head = head
    model.config = replace(model.config, tie_word_embeddings=False)
    model.renew()
