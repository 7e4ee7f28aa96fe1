"""Decoding with a static key/value cache: one compiled step a shape, caches written in place."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import empty_parameter


class CachedDecoder(nn.Cell):
    """A model with the keys and values of up to `length` positions for `batch` rows.

    Prompts are padded on the right; each row has its own positions, so rows of unequal length lose nothing. Both entry
    points compile once for each shape of their inputs.

    Args:
        model: its weights are used as they are; a later change of them takes effect at once.
        batch: rows decoded together.
        length: positions that a row can hold (prompt and answer).
    """

    def __init__(self, model: CausalLM, batch: int, length: int) -> None:
        super().__init__(auto_prefix=False)
        config = model.config
        self.lm = model
        self.batch = batch
        self.length = length
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        # One row of a cache is one head at one position, so that a write is a plain row scatter.
        shape = (batch * self.kv_heads * length, config.head_dim)
        self.keys = self._caches("key", shape, config.num_hidden_layers)
        self.values = self._caches("value", shape, config.num_hidden_layers)
        self.write = ops.ScatterUpdate()
        starts = np.arange(batch * self.kv_heads, dtype=np.int32).reshape(batch, self.kv_heads) * length
        self.starts = Tensor(starts)
        self.slots = Tensor(np.arange(length, dtype=np.int32)[None])

    def _caches(self, kind: str, shape: tuple[int, ...], layers: int) -> list[Parameter]:
        caches = []
        for layer in range(layers):
            cache = empty_parameter(shape, self.lm.compute_dtype)
            cache.name = f"cache.{kind}.{layer}"
            cache.requires_grad = False
            cache.init_data()
            caches.append(cache)
        return caches

    @ms.jit
    def prefill(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Read the prompts and fill the cache.

        Args:
            input_ids: int32 (batch, L), padded on the right, L <= length.
            lengths: int32 (batch,), tokens in each row, at least 1.

        Returns:
            float32 (batch, vocab): logits after each row's last token.
        """
        width = input_ids.shape[1]
        positions = ops.tile(self.slots[:, :width], (self.batch, 1))
        real = ops.cast(ops.less(positions, ops.expand_dims(lengths, 1)), ms.int32)
        decoder = self.lm.model
        x = decoder.embed_tokens(ops.reshape(input_ids, (-1,)))
        rope = decoder.rope(ops.reshape(positions, (-1,)), lengths.max())
        masks = decoder.mask.of_sequences(real)
        # Padding is written as well: a later token overwrites its slot before any query can see it.
        starts = ops.expand_dims(ops.transpose(self.starts, (1, 0)), 2)
        rows = ops.reshape(starts + ops.reshape(self.slots[:, :width], (1, 1, -1)), (-1,))
        for index, layer in enumerate(decoder.layers):
            attention = layer.self_attn
            query, key, value = attention.project(layer.input_layernorm(x), rope)
            key, value = attention.key_heads(key), attention.key_heads(value)
            self.write(self.keys[index], rows, ops.reshape(key, (-1, key.shape[2])))
            self.write(self.values[index], rows, ops.reshape(value, (-1, value.shape[2])))
            x = x + attention.o_proj(attention.attend(query, key, value, masks[decoder.mask.of_layer[index]]))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last = Tensor(np.arange(self.batch, dtype=np.int32)) * width + lengths - 1
        return self.lm.head(decoder.norm(ops.gather(x, last, 0)))

    @ms.jit
    def step(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """One more token a row.

        Args:
            input_ids: int32 (batch,), the newest token of each row.
            positions: int32 (batch,), its position; below `length`.

        Returns:
            float32 (batch, vocab): logits of the next token.
        """
        decoder = self.lm.model
        x = decoder.embed_tokens(input_ids)
        rope = decoder.rope(positions, positions.max() + 1)
        masks = decoder.mask.of_step(positions, self.slots)
        rows = ops.reshape(self.starts + ops.expand_dims(positions, 1), (-1,))
        for index, layer in enumerate(decoder.layers):
            attention = layer.self_attn
            query, key, value = attention.project(layer.input_layernorm(x), rope)
            shape = (self.batch * self.kv_heads, -1)
            key = self.write(self.keys[index], rows, ops.reshape(key, shape))
            value = self.write(self.values[index], rows, ops.reshape(value, shape))
            shape = (self.batch * self.kv_heads, self.length, -1)
            mask = masks[decoder.mask.of_layer[index]]
            out = attention.attend_step(query, ops.reshape(key, shape), ops.reshape(value, shape), mask)
            x = x + attention.o_proj(out)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.lm.head(decoder.norm(x))
