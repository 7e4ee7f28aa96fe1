"""Decoding with a static key/value cache: rows of one shape, each with a sequence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.cached_layer import CachedLayer
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import empty_parameter
from ms_medqa.models.row_adapters import RowAdapters

# A slot that holds nothing stands behind every query.
_FAR = 2**24


class CachedDecoder(nn.Cell):
    """A model with the keys and values of up to `length` positions in each of `batch` rows.

    Rows are independent: each is read (`read`) when its prompt comes, and `step` adds one token to all. What a row held
    before is overwritten before it can be seen.

    Three graphs make a step: the embedding, the layers, the head. In one graph, MindSpore copies a vocabulary matrix
    that serves as both ends before each of its uses, since the graph also writes to the caches: 52 of 125 ms.

    Args:
        model: its weights are used as they are; a later change of them takes effect at once.
        batch: rows decoded together.
        length: positions that a row can hold (prompt and answer).
        adapters: of which each row takes one, if any.
    """

    def __init__(self, model: CausalLM, batch: int, length: int, adapters: RowAdapters | None = None) -> None:
        super().__init__(auto_prefix=False)
        config, layers = model.config, range(model.config.num_hidden_layers)
        self.lm = model
        self.batch = batch
        self.length = length
        self.kv_heads = config.num_key_value_heads
        # One row of a cache is one head at one position, so that a write is a plain row scatter.
        shape = (batch * self.kv_heads * length, config.head_dim)
        self.keys = ParameterTuple(self._caches("key", shape, config.num_hidden_layers))
        self.values = ParameterTuple(self._caches("value", shape, config.num_hidden_layers))
        self.write = ops.ScatterUpdate()
        starts = np.arange(batch * self.kv_heads, dtype=np.int32).reshape(batch, self.kv_heads) * length
        self.starts = Tensor(starts)
        self.slots = Tensor(np.arange(length, dtype=np.int32)[None])
        self.all_rows = Tensor(np.arange(batch, dtype=np.int32))
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.copy_masks = backend_ops.costly_broadcast()
        self.masks = len(model.model.mask.windows)
        weights = [CachedLayer.weights_of(model, index, adapters) for index in layers]
        self.weights = ParameterTuple([parameter for own in weights for parameter in own])
        ends = np.cumsum([0, *map(len, weights)]).tolist()
        self.places = tuple(pairwise(ends))
        # The same memory as plain Tensors, for the graphs that are compiled once for all layers.
        self.arguments = [[Tensor(parameter) for parameter in own] for own in weights]
        # Layers of one make share a graph; they differ where only some have an adapter.
        cells = [CachedLayer(model, index, adapters) for index in layers]
        makes = {cell.places: cell for cell in reversed(cells)}
        self.makes = nn.CellList(list(makes.values()), auto_prefix=False)
        self.make_of = tuple(list(makes).index(cell.places) for cell in cells)

    def _caches(self, kind: str, shape: tuple[int, ...], layers: int) -> list[Parameter]:
        caches = []
        for layer in range(layers):
            cache = empty_parameter(shape, self.lm.compute_dtype)
            cache.name = f"cache.{kind}.{layer}"
            cache.requires_grad = False
            cache.init_data()
            caches.append(cache)
        return caches

    def read(
        self, tokens: Sequence[int], row: int, start: int, width: int, length: int, choice: Sequence[Tensor] = ()
    ) -> Tensor:
        """Read a piece of a prompt into a row, behind the `start` tokens that the row holds.

        Args:
            tokens: ids, at least 1.
            row: from 0.
            start: 0 for the first piece.
            width: tokens that the compiled graph takes, at least `len(tokens)`; with `start` no more than the cache
                holds.
            length: tokens of the whole prompt.
            choice: with adapters, one Tensor: float32 (width, adapters), see `RowAdapters.choice`.

        Returns:
            float32 (1, vocab): logits after the last token of the piece.
        """
        assert 0 < len(tokens) <= width <= self.length - start
        ids = np.zeros(width, np.int32)
        ids[: len(tokens)] = tokens
        whole = Tensor(np.array([[length]], np.int32))
        if start == 0:
            x, *around = self.begin(Tensor(ids), whole)
        else:
            x, *around = self.go_on(Tensor(ids), Tensor(np.array([start], np.int32)), whole)
        masks, before = around[: self.masks], (*around[self.masks :], *choice)
        # Padding is written as well: a later token overwrites its slot before any query can see it.
        places = (np.arange(self.kv_heads)[:, None] + row * self.kv_heads) * self.length + start + np.arange(width)
        places, which = Tensor(places.reshape(-1).astype(np.int32)), Tensor(np.array([row], np.int32))
        found = []
        for index, make in enumerate(self.make_of):
            layer, mask = self.makes[make], masks[self.lm.model.mask.of_layer[index]]
            if start == 0:
                x, key, value = layer.begin(x, mask, *before, *self.arguments[index])
            else:
                # As plain Tensors they are one more argument; as Parameters they would be compiled in.
                caches = Tensor(self.keys[index]), Tensor(self.values[index])
                x, key, value = layer.go_on(x, mask, *caches, which, *before, *self.arguments[index])
            found += [(self.keys[index], key), (self.values[index], value)]
        logits = self.head(x, Tensor(np.array([len(tokens) - 1], np.int32)))
        # Not layer by layer: an operator that runs by itself right behind a graph waits for 36 ms.
        for cache, new in found:
            self.write(cache, places, new)
        return logits

    def step(self, input_ids: Tensor, positions: Tensor, choice: Sequence[Tensor] = ()) -> Tensor:
        """One more token a row.

        Args:
            input_ids: int32 (batch,), the newest token of each row.
            positions: int32 (batch,), its position; below `length`.
            choice: with adapters, one Tensor: float32 (batch, adapters), see `RowAdapters.choice`.

        Returns:
            float32 (batch, vocab): logits of the next token.
        """
        return self.head(self.layers(self.embed(input_ids), positions, *choice), self.all_rows)

    @ms.jit
    def embed(self, input_ids: Tensor) -> Tensor:
        """int32 (N,) -> (N, H)."""
        return self.lm.model.embed_tokens(input_ids)

    @ms.jit
    def head(self, x: Tensor, rows: Tensor) -> Tensor:
        """Logits of some rows: (N, H), int32 (M,) -> float32 (M, vocab)."""
        return self.lm.head(self.lm.model.norm(ops.gather(x, rows, 0)))

    @ms.jit
    def begin(self, input_ids: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """What the layers need for the first W tokens of a prompt of `length` (1, 1): states, masks, rotary tables."""
        width = input_ids.shape[0]
        decoder = self.lm.model
        positions = self.slots[0, :width]
        masks = decoder.mask.of_sequences(ops.ones((1, width), ms.int32))
        return (decoder.embed_tokens(input_ids), *masks, *self.rope(positions, length))

    @ms.jit
    def go_on(self, input_ids: Tensor, start: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """The same for W tokens behind `start` (1,) others; a query sees what the cache holds, then its own piece."""
        width = input_ids.shape[0]
        decoder = self.lm.model
        positions = self.slots[0, :width] + start
        seen = ops.select(ops.less(self.slots, start), self.slots, ops.full_like(self.slots, _FAR))
        masks = decoder.mask.of_step(positions, ops.concat((seen, ops.expand_dims(positions, 0)), 1))
        turned = ()
        for mask in masks:
            mask = ops.transpose(mask, (1, 2, 0, 3))
            if self.copy_masks and mask.shape[0] == 1:
                mask = ops.tile(mask, (self.kv_heads, self.group, 1, 1))
            turned = (*turned, mask)
        return (decoder.embed_tokens(input_ids), *turned, *self.rope(positions, length))

    @ms.jit
    def layers(self, x: Tensor, positions: Tensor, *choice: Tensor) -> Tensor:
        """One token a row through all layers, keys and values written on the way: (batch, H), int32 (batch,)."""
        decoder = self.lm.model
        before = (*self.rope(positions, ops.expand_dims(positions, 1) + 1), *choice)
        masks = decoder.mask.of_step(positions, self.slots)
        rows = ops.reshape(self.starts + ops.expand_dims(positions, 1), (-1,))
        for index, make in enumerate(self.make_of):
            layer = self.makes[make]
            # A slice: weights that are put together one by one make compiling a third longer.
            weights = self.weights[self.places[index][0] : self.places[index][1]]
            query, key, value = layer.project(x, before, weights)
            shape = (self.batch * self.kv_heads, -1)
            key = self.write(self.keys[index], rows, ops.reshape(key, shape))
            value = self.write(self.values[index], rows, ops.reshape(value, shape))
            shape = (self.batch * self.kv_heads, self.length, -1)
            mask = masks[decoder.mask.of_layer[index]]
            out = layer.attention.attend_step(query, ops.reshape(key, shape), ops.reshape(value, shape), mask)
            x = layer.finish(x, out, before, weights)
        return x

    def rope(self, positions: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """Rotary tables, none where the model has no rotary positions."""
        tables = self.lm.model.rope(positions, length)
        return () if tables is None else tables

    def take_over(self, other: CachedDecoder, rows: Sequence[int]) -> None:
        """Make the first rows those of another decoder, whose cache may be shorter or longer; the rest is unchanged.

        Args:
            other: of the same model.
            rows: which of its rows, at most as many as this one has.
        """
        shared = min(self.length, other.length)
        which = Tensor(np.array(rows, np.int32))
        for mine, its in zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True):
            blocks = ops.gather(ops.reshape(Tensor(its), (other.batch, self.kv_heads, other.length, -1)), which, 0)
            target = ops.reshape(Tensor(mine), (self.batch, self.kv_heads, self.length, -1)).copy()
            target[: len(rows), :, :shared] = blocks[:, :, :shared]
            ops.assign(mine, ops.reshape(target, mine.shape))

    def copy_row(self, source: int, target: int) -> None:
        """Let a row hold what another one holds."""
        size = self.kv_heads * self.length
        places = Tensor(np.arange(size, dtype=np.int32) + target * size)
        for cache in (*self.keys, *self.values):
            self.write(cache, places, ops.reshape(Tensor(cache), (self.batch, size, -1))[source])
