"""A decoder layer whose weights are arguments: one compiled graph reads a prompt through all layers of a model.

Steps of one token, where no kernel of our own makes them (`step_kernel.py`), go through the same parts.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.backend.kept_graphs import kept_jit
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters, SideWeights

_LINEAR = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


class CachedLayer(nn.Cell):
    """What the layers of one make have in common, without their weights.

    A `ms.jit` graph is compiled for each set of Parameters, but once for all Tensors of equal shapes. So a layer's
    weights come as arguments, in the order that `weights_of` gives them. With 24 layers, reading a prompt for the first
    time takes 1 s instead of 5, and memory for one layer's results instead of for those of 24.

    Args:
        model: its attention is used, but for the weights.
        index: of one layer of the make.
        adapters: of which each row takes one, if any.
    """

    def __init__(self, model: CausalLM, index: int, adapters: RowAdapters | None = None) -> None:
        super().__init__(auto_prefix=False)
        config, layer = model.config, model.model.layers[index]
        self.attention = model.model.layers[0].self_attn
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.heads, self.kv_heads, self.head_dim = self.attention.heads, self.attention.kv_heads, config.head_dim
        self.eps = config.rms_norm_eps
        self.norm = layer.input_layernorm.norm
        self.activation = layer.mlp.activation
        self.matmul = ops.MatMul()
        self.write = ops.ScatterUpdate()
        self.product = backend_ops.ForwardLinear()
        self.off_caller = backend_ops.OffCaller()
        self.qk_norm = config.qk_norm
        self.rotary = self.attention.rotary is not None
        # What comes before the weights: rotary tables, and which adapter each row takes.
        self.before = (4 if self.rotary else 0) + (adapters is not None)
        places, count = [], 4 if config.qk_norm else 2
        for linear, side in _linears(model, index, adapters):
            bias, lora = linear.bias is not None, hasattr(linear, "lora_a")
            places.append((count, bias, lora, float(getattr(linear, "scaling", 0.0)), side is not None))
            count += 1 + bias + 2 * lora + 3 * (side is not None)
        self.places = tuple(places)

    @staticmethod
    def weights_of(model: CausalLM, index: int, adapters: RowAdapters | None = None) -> list[Parameter]:
        """A layer's weights in the order of the arguments."""
        layer = model.model.layers[index]
        attention = layer.self_attn
        weights = [layer.input_layernorm.weight, layer.post_attention_layernorm.weight]
        if attention.q_norm is not None:
            weights += [attention.q_norm.weight, attention.k_norm.weight]
        for linear, side in _linears(model, index, adapters):
            weights.append(linear.weight)
            if linear.bias is not None:
                weights.append(linear.bias)
            if hasattr(linear, "lora_a"):
                weights += [linear.lora_a, linear.lora_b]
            if side is not None:
                weights += [side.a, side.b, side.columns]
        return weights

    def linear(self, which: int, x: Tensor, before: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
        """One of the layer's products: (N, in) -> (N, out)."""
        place, bias, lora, scaling, side = self.places[which]
        out = self.product(x, weights[place], weights[place + 1] if bias else None)
        place = place + 1 + bias
        if lora:
            inner = backend_ops.linear(ops.cast(x, ms.float32), weights[place], None)
            out = out + ops.cast(backend_ops.linear(inner, weights[place + 1], None) * scaling, out.dtype)
        if side:
            inner = backend_ops.linear(ops.cast(x, ms.float32), weights[place], None)
            inner = inner * self.matmul(before[-1], weights[place + 2])
            out = out + ops.cast(backend_ops.linear(inner, weights[place + 1], None), out.dtype)
        return out

    def project(
        self, x: Tensor, before: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, heads * D), keys and values (N, kv_heads * D) of hidden states (N, H), positions applied."""
        x = self.norm(x, weights[0], self.eps)
        query, key = self.linear(0, x, before, weights), self.linear(1, x, before, weights)
        if self.qk_norm:
            query, key = self.by_head(query, weights[2]), self.by_head(key, weights[3])
        if self.rotary:
            query = self.attention.rotary(query, before[0], before[1])
            key = self.attention.rotary(key, before[2], before[3])
        return query, key, self.linear(2, x, before, weights)

    def by_head(self, x: Tensor, weight: Tensor) -> Tensor:
        """Norm each head of (N, heads * D) by itself."""
        return ops.reshape(self.norm(ops.reshape(x, (-1, self.head_dim)), weight, self.eps), x.shape)

    def finish(self, x: Tensor, out: Tensor, before: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
        """The layer's output (N, H), from its input and what attention has found."""
        x = x + self.linear(3, out, before, weights)
        inner = self.norm(x, weights[1], self.eps)
        gate, up = self.linear(4, inner, before, weights), self.linear(5, inner, before, weights)
        return x + self.linear(6, self.activation(gate, up), before, weights)

    def step(
        self,
        x: Tensor,
        slots: Tensor,
        mask: Tensor,
        keys: Parameter,
        values: Parameter,
        before: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
    ) -> Tensor:
        """One more token a row, its keys and values written on the way.

        Args:
            x: (N, H).
            slots: int32 (N * kv_heads,), where keys and values go.
            mask: added to the scores, float32 (N, 1 or kv_heads, 1 or group, T).
            keys, values: the layer's caches (N * kv_heads * T, D).
            before, weights: as for `begin`.

        Returns:
            The layer's output (N, H).
        """
        query, key, value = self.project(x, before, weights)
        key = self.write(keys, slots, ops.reshape(key, (-1, self.head_dim)))
        value = self.write(values, slots, ops.reshape(value, (-1, self.head_dim)))
        shape = (x.shape[0] * self.kv_heads, -1, self.head_dim)
        out = self.attention.attend_step(query, ops.reshape(key, shape), ops.reshape(value, shape), mask)
        return self.finish(x, out, before, weights)

    def work(self, rows: int, weights: tuple[Tensor, ...]) -> float:
        """Multiplications of so many rows with the layer's weights."""
        return float(rows) * sum([weight.size for weight in weights])

    @kept_jit
    def begin(self, x: Tensor, mask: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read the start of a prompt.

        Args:
            x: (W, H).
            mask: float32 (1 or heads, 1, W, W).
            others: rotary tables and the choice of adapters, where there are such, and the weights.

        Returns:
            The layer's output (W, H), and keys and values (kv_heads * W, D).
        """
        before, weights = others[: self.before], others[self.before :]
        query, key, value = self.project(x, before, weights)
        key, value = self.attention.key_heads(key), self.attention.key_heads(value)
        x = self.finish(x, self.attention.attend(query, key, value, mask), before, weights)
        x = self.off_caller(x, self.work(x.shape[0], weights))
        return x, ops.reshape(key, (-1, self.head_dim)), ops.reshape(value, (-1, self.head_dim))

    @kept_jit
    def go_on(
        self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor, row: Tensor, *others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read on, behind what the cache holds of a row.

        Args:
            x: (W, H).
            mask: float32 (kv_heads, group, W, T + W), or with 1 for the first two.
            keys, values: the layer's caches (rows * kv_heads * T, D).
            row: int32 (1,).
            others: rotary tables and the choice of adapters, where there are such, and the weights.

        Returns:
            As for `begin`.
        """
        before, weights = others[: self.before], others[self.before :]
        query, key, value = self.project(x, before, weights)
        key, value = self.attention.key_heads(key), self.attention.key_heads(value)
        width, length = x.shape[0], mask.shape[3] - x.shape[0]
        seen_keys = ops.concat((self.of_row(keys, row, length), key), 1)
        seen_values = ops.concat((self.of_row(values, row, length), value), 1)
        rows = self.attention.query_heads(query * self.attention.scale)
        scores = self.attention.scores(ops.reshape(rows, (self.kv_heads, -1, self.head_dim)), seen_keys)
        scores = ops.cast(ops.reshape(scores, (self.kv_heads, self.group, width, length + width)), ms.float32)
        shares = ops.cast(self.attention.softmax(scores + mask), value.dtype)
        out = self.attention.mix(ops.reshape(shares, (self.kv_heads, -1, length + width)), seen_values)
        out = self.attention.query_heads.merge(ops.reshape(out, (self.heads, width, self.head_dim)))
        x = self.off_caller(self.finish(x, out, before, weights), self.work(width, weights))
        return x, ops.reshape(key, (-1, self.head_dim)), ops.reshape(value, (-1, self.head_dim))

    def of_row(self, cache: Tensor, row: Tensor, length: int) -> Tensor:
        """(rows * kv_heads * T, D) -> (kv_heads, T, D)."""
        blocks = ops.reshape(cache, (-1, self.kv_heads * length * self.head_dim))
        return ops.reshape(ops.gather(blocks, row, 0), (self.kv_heads, length, self.head_dim))


def _linears(model: CausalLM, index: int, adapters: RowAdapters | None) -> list[tuple[nn.Cell, SideWeights | None]]:
    """A layer's linear cells, whether adapted or not, each with what adapters of rows add to it."""
    layer = model.model.layers[index]
    found = []
    for path in _LINEAR:
        part, _, name = path.partition(".")
        side = adapters.layers.get(f"model.layers.{index}.{path}") if adapters is not None else None
        found.append((getattr(getattr(layer, part), name), side))
    return found
