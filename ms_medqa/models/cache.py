"""Decoding with a static key/value cache: rows of one shape, each with a sequence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_medqa.backend.kept_graphs import kept_jit
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import empty_parameter
from ms_medqa.models.prompt_reader import PromptReader


def position_bytes(model: CausalLM) -> int:
    """Bytes of the keys and values of one position of a row."""
    config = model.config
    size = 4 if model.compute_dtype == ms.float32 else 2
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a prompt that follow those that a row holds, or the newest of an answer.

    Attributes:
        tokens: ids, at least 1.
        row: from 0.
        start: tokens that the row holds.
        length: tokens of the whole prompt; 0 for an answer.
    """

    tokens: Sequence[int]
    row: int
    start: int
    length: int


class CachedDecoder(nn.Cell):
    """A model with the keys and values of up to `length` positions in each of `batch` rows.

    Rows are independent: each is read (`read`) when its prompt comes, and `step` adds one token to all. What a row held
    before is overwritten before it can be seen.

    With the kernel, one graph makes a step (`tokens`). Without it there are three: the embedding, the layers, the head.
    In one graph, MindSpore copies a vocabulary matrix that serves as both ends before each of its uses, since the graph
    also writes to the caches: 52 of 125 ms. (Of what the kernel writes it knows nothing.)

    Args:
        reader: of the model; decoders of other sizes may have the same.
        batch: rows decoded together.
        length: positions that a row can hold (prompt and answer).
    """

    def __init__(self, reader: PromptReader, batch: int, length: int) -> None:
        super().__init__(auto_prefix=False)
        config = reader.lm.config
        self.reader = reader
        self.lm = reader.lm
        self.batch = batch
        self.length = length
        self.kv_heads = config.num_key_value_heads
        # One row of a cache is one head at one position, so that a write is a plain row scatter.
        shape = (batch * self.kv_heads * length, config.head_dim)
        self.keys = ParameterTuple(self._caches("key", shape, config.num_hidden_layers))
        self.values = ParameterTuple(self._caches("value", shape, config.num_hidden_layers))
        self.write = ops.ScatterUpdate()
        # Tokens of prompts that `feed` takes beside one for each row; 0 where steps are made of operators.
        self.few, self.feed_widths = reader.few(batch), reader.feed_widths(batch)
        self.graph_key = f"{reader.graph_key} {batch} {length}"
        starts = np.arange(batch * self.kv_heads, dtype=np.int32).reshape(batch, self.kv_heads) * length
        self.starts = Tensor(starts)
        self.heads = Tensor(np.arange(self.kv_heads, dtype=np.int32)[None])
        self.slots = Tensor(np.arange(length, dtype=np.int32)[None])
        self.no_lengths = Tensor(np.zeros((batch, 1), np.int32))
        self.all_rows = Tensor(np.arange(batch, dtype=np.int32))
        self.weights = ParameterTuple([parameter for own in reader.weights for parameter in own])
        ends = np.cumsum([0, *map(len, reader.weights)]).tolist()
        self.places = tuple(pairwise(ends))

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
            float32 (M, vocab): first the logits after the last token of the piece; the rest means nothing.
        """
        assert 0 < len(tokens) <= width <= self.length - start
        if len(tokens) <= self.few:
            return self.feed([Piece(tokens, row, start, length)])
        ids = np.zeros(width, np.int32)
        ids[: len(tokens)] = tokens
        x, found = self._piece(ids, row, start, length, choice)
        logits = self.reader.head(x, Tensor(np.array([len(tokens) - 1], np.int32)))
        # Padding is written as well: a later token overwrites its slot before any query can see it.
        self._write(found, self._places(np.full(width, row), np.arange(start, start + width)))
        return logits

    def states(self, tokens: Sequence[int], start: int, width: int, length: int) -> Tensor:
        """`read` into the first row, for the states of all tokens: (width, H), what `PromptReader.score` takes."""
        assert 0 < len(tokens) <= width <= self.length - start
        ids = np.zeros(width, np.int32)
        ids[: len(tokens)] = tokens
        x, found = self._piece(ids, 0, start, length, ())
        self._write(found, self._places(np.zeros(width, np.int32), np.arange(start, start + width)))
        return x

    def _piece(
        self,
        ids: np.ndarray,
        row: int,
        start: int,
        length: int,
        choice: Sequence[Tensor],
        which: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Padded tokens of one prompt through the layers, see `PromptReader.layers`."""
        width = len(ids)
        if start == 0:
            slots, lengths = np.arange(width, dtype=np.int32), np.full((width, 1), length, np.int32)
            around = self.reader.begin(*map(Tensor, (ids, slots, np.zeros(width, np.int32), lengths)))
            return self.reader.layers(around, choice, which=which)
        one = [Tensor(np.array(value, np.int32)) for value in ([start], [[length]], [row])]
        around = self.reader.go_on(Tensor(ids), self.slots, *one[:2])
        caches = list(zip(self.keys, self.values, strict=True))
        return self.reader.layers(around, choice, caches, one[2], which)

    def compile_read(self, width: int, later: bool, choice: Sequence[Tensor] = ()) -> None:
        """Compile what `read` takes for pieces of a width, the first of their prompts or later ones; reads nothing."""
        x, _ = self._piece(np.zeros(width, np.int32), 0, int(later), width + 1, choice, self.reader.of_each_make)
        self.reader.head(x, Tensor(np.zeros(1, np.int32)))

    def feed(self, pieces: Sequence[Piece]) -> Tensor:
        """Feed tokens to some rows by the kernel: pieces of prompts, and the newest tokens of answers.

        Args:
            pieces: at least 1, each of another row, with at most `few` tokens more than there are rows.

        Returns:
            float32 (batch, vocab): logits after the last token of each piece, in their order; the rest means nothing.
        """
        counts = [len(piece.tokens) for piece in pieces]
        used = sum(counts)
        assert min(counts) > 0
        assert len({piece.row for piece in pieces}) == len(pieces)
        assert used <= self.feed_widths[-1]
        width = next(width for width in self.feed_widths if width >= used)
        ids, rows, positions = np.zeros(width, np.int32), np.full(width, -1, np.int32), np.zeros(width, np.int32)
        lengths, last = np.zeros((width, 1), np.int32), np.zeros(self.batch, np.int32)
        ids[:used] = np.concatenate([piece.tokens for piece in pieces])
        rows[:used] = np.repeat([piece.row for piece in pieces], counts)
        positions[:used] = np.concatenate([piece.start + np.arange(len(piece.tokens)) for piece in pieces])
        lengths[:used, 0] = np.repeat([piece.length for piece in pieces], counts)
        last[: len(pieces)] = np.cumsum(counts) - 1
        assert positions.max() < self.length
        return self.tokens(*map(Tensor, (ids, rows, positions, lengths, last)))

    def compile_feed(self, width: int) -> None:
        """Compile what `feed` takes for one of `feed_widths`; reads nothing."""
        nothing = (np.zeros(width), np.full(width, -1), np.zeros(width), np.zeros((width, 1)), np.zeros(self.batch))
        self.tokens(*(Tensor(value.astype(np.int32)) for value in nothing))

    @kept_jit
    def tokens(self, input_ids: Tensor, rows: Tensor, positions: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
        """Few tokens through the model by the kernel, keys and values written on the way.

        Args:
            input_ids: int32 (N,).
            rows: int32 (N,), of the cache; below 0 for those behind the last token.
            positions: int32 (N,).
            lengths: int32 (N, 1), of the prompt that a token is part of; 0 for one of an answer.
            last: int32 (M,), the tokens whose logits are wanted.

        Returns:
            float32 (M, vocab).
        """
        x = self.lm.model.embed_tokens(input_ids)
        masks = self.lm.model.mask.of_step(positions, self.slots)
        heads = ops.expand_dims(rows, 1) * self.kv_heads + self.heads
        slots = ops.reshape(heads * self.length + ops.expand_dims(positions, 1), (-1,))
        rope = self.reader.rope(positions, ops.maximum(lengths, ops.expand_dims(positions, 1) + 1))
        x = self.reader.kernel(x, slots, masks, rope, self.keys, self.values, self.weights)
        return self.reader.logits(x, last)

    def compile_together(self, width: int) -> None:
        """Compile what `read_together` takes for a width beside what `read` takes for first pieces."""
        states = Tensor(np.zeros((width, self.lm.config.hidden_size), np.float32), self.lm.compute_dtype)
        self.reader.head(self.reader.pick(states, self.all_rows), self.all_rows)

    def read_together(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[int], width: int, choice: Sequence[Tensor] = ()
    ) -> Tensor:
        """Read whole prompts, one behind the other in a single piece, each into a row of its own.

        A layer takes as long for 128 tokens as for 64 where its matrices are small, and each of its operators once.

        Args:
            prompts: ids; none is empty, and each is shorter than a row.
            rows: one for each prompt.
            width: tokens that the compiled graph takes, at least those of all prompts.
            choice: with adapters, one Tensor: float32 (width, adapters), see `RowAdapters.choice`.

        Returns:
            float32 (batch, vocab): logits after each prompt's last token, in their order; the rest means nothing.
        """
        counts = [len(prompt) for prompt in prompts]
        used = sum(counts)
        assert 0 < min(counts) <= max(counts) < self.length
        assert used <= width
        assert len(rows) == len(prompts) <= self.batch
        ids, segments = np.zeros(width, np.int32), np.full(width, len(prompts), np.int32)
        lengths, row = np.ones((width, 1), np.int32), np.full(width, rows[-1])
        # No answer comes as far as a row's last slot, so that padding may be written there.
        slots, positions = np.full(width, self.length - 1), np.zeros(width, np.int32)
        ids[:used] = np.concatenate(prompts)
        segments[:used] = np.repeat(np.arange(len(prompts)), counts)
        lengths[:used, 0] = np.repeat(counts, counts)
        row[:used] = np.repeat(rows, counts)
        positions[:used] = slots[:used] = np.concatenate([np.arange(count) for count in counts])
        around = self.reader.begin(*map(Tensor, (ids, positions, segments, lengths)))
        x, found = self.reader.layers(around, choice)
        last = np.zeros(self.batch, np.int32)
        last[: len(prompts)] = np.cumsum(counts) - 1
        # Apart, so that the head is the graph that a step has as well.
        logits = self.reader.head(self.reader.pick(x, Tensor(last)), self.all_rows)
        self._write(found, self._places(row, slots))
        return logits

    def _places(self, rows: np.ndarray, slots: np.ndarray) -> Tensor:
        """Where keys and values of W tokens go, (W,) and (W,) -> int32 (kv_heads * W,)."""
        heads = np.arange(self.kv_heads)[:, None]
        return Tensor(((rows * self.kv_heads + heads) * self.length + slots).reshape(-1).astype(np.int32))

    def _write(self, found: Sequence[tuple[Tensor, Tensor]], places: Tensor) -> None:
        """Write keys and values; behind all graphs, for an operator by itself right behind one waits for 36 ms."""
        for index, (key, value) in enumerate(found):
            self.write(self.keys[index], places, key)
            self.write(self.values[index], places, value)

    def step(self, input_ids: Tensor, positions: Tensor, choice: Sequence[Tensor] = ()) -> Tensor:
        """One more token a row.

        Args:
            input_ids: int32 (batch,), the newest token of each row.
            positions: int32 (batch,), its position; below `length`.
            choice: with adapters, one Tensor: float32 (batch, adapters), see `RowAdapters.choice`.

        Returns:
            float32 (batch, vocab): logits of the next token.
        """
        if self.few:
            # The kernel would take it for one of the next row.
            assert positions.asnumpy().max() < self.length
            return self.tokens(input_ids, self.all_rows, positions, self.no_lengths, self.all_rows)
        x = self.layers(self.reader.embed(input_ids), positions, *choice)
        return self.reader.head(x, self.all_rows)

    @kept_jit
    def layers(self, x: Tensor, positions: Tensor, *choice: Tensor) -> Tensor:
        """One token a row through all layers by operators, keys and values written: (batch, H), int32 (batch,)."""
        decoder = self.lm.model
        rope = self.reader.rope(positions, ops.expand_dims(positions, 1) + 1)
        masks = decoder.mask.of_step(positions, self.slots)
        slots = ops.reshape(self.starts + ops.expand_dims(positions, 1), (-1,))
        before = (*rope, *choice)
        for index, make in enumerate(self.reader.make_of):
            layer = self.reader.makes[make]
            # A slice: weights that are put together one by one make compiling a third longer.
            weights = self.weights[self.places[index][0] : self.places[index][1]]
            mask = masks[decoder.mask.of_layer[index]]
            x = layer.step(x, slots, mask, self.keys[index], self.values[index], before, weights)
        return x

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

    @property
    def positions(self) -> int:
        """Of all rows: what its memory goes by."""
        return self.batch * self.length

    def clear_rows(self, rows: Sequence[int]) -> None:
        """Write zeros over all that some rows hold."""
        slots = np.arange(self.length)
        for row in rows:
            places = self._places(np.full(self.length, row), slots)
            for cache in (*self.keys, *self.values):
                self.write(cache, places, ops.zeros((self.kv_heads * self.length, cache.shape[1]), cache.dtype))

    def copy_row(self, source: int, target: int) -> None:
        """Let a row hold what another one holds."""
        slots = np.arange(self.length)
        there, here = (self._places(np.full(self.length, row), slots) for row in (source, target))
        for cache in (*self.keys, *self.values):
            self.write(cache, here, ops.gather(Tensor(cache), there, 0))
