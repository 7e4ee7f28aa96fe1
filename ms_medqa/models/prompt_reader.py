"""The graphs around a key/value cache that do not know its size, and so serve caches of all sizes."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.backend.graphs import structure
from ms_medqa.backend.kept_graphs import kept_jit
from ms_medqa.models.cached_layer import CachedLayer
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters
from ms_medqa.models.step_kernel import StepKernel

# A slot that holds nothing stands behind every query.
_FAR = 2**24


class PromptReader(nn.Cell):
    """Reads prompts: embedding, layers and head, each compiled once for each number of tokens.

    Args:
        model: its weights are used as they are; a later change of them takes effect at once.
        adapters: of which each token's row takes one, if any.

    Attributes:
        kernel: reads few tokens by itself, where there is one.
    """

    def __init__(self, model: CausalLM, adapters: RowAdapters | None = None) -> None:
        super().__init__(auto_prefix=False)
        config, layers = model.config, range(model.config.num_hidden_layers)
        self.lm = model
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.copy_masks = backend_ops.costly_broadcast()
        self.masks = len(model.model.mask.windows)
        self.product = backend_ops.ForwardLinear()
        self.off_caller = backend_ops.OffCaller()
        self.best = ops.ArgMaxWithValue(axis=1)
        # Neither adapter nor bias: a product is all there is.
        self.plain_head = model.head_parameter is not None
        # Parameters of each layer, in the order in which its graphs take them.
        self.weights = tuple(tuple(CachedLayer.weights_of(model, index, adapters)) for index in layers)
        # The same memory as plain Tensors, for the graphs that are compiled once for all layers.
        self.arguments = [[Tensor(parameter) for parameter in own] for own in self.weights]
        # Layers of one make share a graph; they differ where only some have an adapter.
        cells = [CachedLayer(model, index, adapters) for index in layers]
        makes = {cell.places: cell for cell in reversed(cells)}
        self.makes = nn.CellList(list(makes.values()), auto_prefix=False)
        self.make_of = tuple(list(makes).index(cell.places) for cell in cells)
        self.kernel = StepKernel(self)
        self.graph_key = self._graph_key()
        for number, cell in enumerate(makes.values()):
            cell.graph_key = f"{self.graph_key} {number}"
        # One layer of each make: all graphs that there are.
        self.of_each_make = tuple(map(self.make_of.index, range(len(self.makes))))

    def few(self, rows: int) -> int:
        """Tokens of prompts that the kernel reads at once beside so many rows; 0 where it is not used."""
        return self.kernel.most_tokens if rows <= self.kernel.most_tokens else 0

    def feed_widths(self, rows: int) -> list[int]:
        """Tokens that the graphs of `CachedDecoder.feed` take, ascending: one for each row, and some of prompts."""
        few = self.few(rows)
        # A graph for each size of cache keeps 5 to 6 MB, and one for 32 tokens beside that for 128 gains nothing.
        return [rows, rows + few] if few else []

    def _graph_key(self) -> str:
        """What decides the graphs of all readers and caches, see `kept_jit`; each layer is of a make."""
        decoder = self.lm.model
        cells = (*self.makes, decoder.mask, decoder.norm, decoder.embed_tokens, self.lm.lm_head)
        parts = [structure(cell, across_processes=True) for cell in (*cells, self.kernel) if cell is not None]
        weights = [(weight.name, weight.shape, str(weight.dtype)) for own in self.weights for weight in own]
        return f"{self.lm.config} {self.lm.compute_dtype} {self.lm.normalize_head} {self.make_of} {weights} {parts}"

    def layers(
        self,
        around: Sequence[Tensor],
        choice: Sequence[Tensor],
        caches: Sequence[tuple[Parameter, Parameter]] = (),
        row: Tensor | None = None,
        which: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """W tokens through the layers.

        Args:
            around: of `begin` or `go_on`.
            choice: with adapters, one Tensor: float32 (W, adapters), see `RowAdapters.choice`.
            caches: with `go_on`, keys and values of each layer (rows * kv_heads * T, D).
            row: with `go_on`, int32 (1,): whose tokens the W follow.
            which: of the layers; None for all.

        Returns:
            What the last of them makes of the tokens, (W, H); and keys and values of each, (kv_heads * W, D).
        """
        x, *around = around
        masks, before = around[: self.masks], (*around[self.masks :], *choice)
        found = []
        for index in range(len(self.make_of)) if which is None else which:
            layer, mask = self.makes[self.make_of[index]], masks[self.lm.model.mask.of_layer[index]]
            if row is None:
                x, key, value = layer.begin(x, mask, *before, *self.arguments[index])
            else:
                # As plain Tensors they are one more argument; as Parameters they would be compiled in.
                keys, values = map(Tensor, caches[index])
                x, key, value = layer.go_on(x, mask, keys, values, row, *before, *self.arguments[index])
            found.append((key, value))
        return x, found

    @kept_jit
    def embed(self, input_ids: Tensor) -> Tensor:
        """int32 (N,) -> (N, H)."""
        return self.lm.model.embed_tokens(input_ids)

    @kept_jit
    def head(self, x: Tensor, rows: Tensor) -> Tensor:
        """Logits of some rows: (N, H), int32 (M,) -> float32 (M, vocab)."""
        return self.logits(x, rows)

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """The same, for a graph that does more."""
        x = self.lm.model.norm(ops.gather(x, rows, 0))
        if self.plain_head:
            logits = ops.cast(self.product(x, self.lm.head_matrix(x.dtype), None), ms.float32)
        else:
            logits = self.lm.head(x)
        return self.off_caller(logits, float(logits.size * x.shape[1]))

    @kept_jit
    def pick(self, x: Tensor, rows: Tensor) -> Tensor:
        """Some rows: (N, H), int32 (M,) -> (M, H)."""
        return ops.gather(x, rows, 0)

    @kept_jit
    def begin(self, input_ids: Tensor, positions: Tensor, prompts: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """What the layers need for W tokens that start prompts: states, masks, rotary tables.

        Args:
            input_ids, positions: int32 (W,).
            prompts: int32 (W,), a number for each prompt; tokens see those of their own.
            lengths: int32 (W, 1), of the prompt that a token is part of.
        """
        decoder = self.lm.model
        masks = decoder.mask.of_sequences(ops.expand_dims(prompts, 0))
        return (decoder.embed_tokens(input_ids), *masks, *self.rope(positions, lengths))

    @kept_jit
    def begin_trees(
        self, input_ids: Tensor, positions: Tensor, trees: Tensor, branches: Tensor, lengths: Tensor
    ) -> tuple[Tensor, ...]:
        """What the layers need for W tokens of trees, see `AttentionMask.of_trees`: states, masks, rotary tables.

        Args:
            input_ids, positions, trees, branches: int32 (W,).
            lengths: int32 (W, 1), of the text that a token is part of.
        """
        decoder = self.lm.model
        masks = decoder.mask.of_trees(trees, branches, positions)
        return (decoder.embed_tokens(input_ids), *masks, *self.rope(positions, lengths))

    @kept_jit
    def score(self, x: Tensor, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """How likely tokens are: what the layers have made of W tokens, which of those predict, and what comes.

        Args:
            x: (W, H).
            places, labels: int32 (K,).

        Returns:
            float32 (K,) log-probabilities in nats of the labels, and int32 (K,) the likeliest tokens.
        """
        log_probabilities = ops.log_softmax(self.logits(x, places), -1)
        likeliest, _ = self.best(log_probabilities)
        chosen = ops.gather_d(log_probabilities, 1, ops.expand_dims(labels, 1))
        return ops.reshape(chosen, (-1,)), ops.cast(likeliest, ms.int32)

    @kept_jit
    def go_on(self, input_ids: Tensor, slots: Tensor, start: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """The same for W tokens that follow others of their prompt; a query sees what the cache holds, then its piece.

        Args:
            input_ids: int32 (W,).
            slots: int32 (1, T), the numbers of the cache's slots.
            start: int32 (1,), how many tokens they follow.
            length: int32 (1, 1), of the prompt.
        """
        width = input_ids.shape[0]
        decoder = self.lm.model
        positions = slots[0, :width] + start
        seen = ops.select(ops.less(slots, start), slots, ops.full_like(slots, _FAR))
        masks = decoder.mask.of_step(positions, ops.concat((seen, ops.expand_dims(positions, 0)), 1))
        turned = ()
        for mask in masks:
            mask = ops.transpose(mask, (1, 2, 0, 3))
            if self.copy_masks and mask.shape[0] == 1:
                mask = ops.tile(mask, (self.kv_heads, self.group, 1, 1))
            turned = (*turned, mask)
        return (decoder.embed_tokens(input_ids), *turned, *self.rope(positions, length))

    def rope(self, positions: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """Rotary tables, none where the model has no rotary positions."""
        tables = self.lm.model.rope(positions, length)
        return () if tables is None else tables
