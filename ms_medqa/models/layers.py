"""The parts of a decoder layer. All take flattened rows (batch * length, width): MindSpore's fast kernels are 2-D."""

from __future__ import annotations

import math
from typing import Literal

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.positions import Rotary

# cos and sin of queries, cos and sin of keys.
RopeTables = tuple[Tensor, Tensor, Tensor, Tensor]


def empty_parameter(shape: tuple[int, ...], dtype: ms.Type, fill: Literal["zeros", "ones"] = "zeros") -> Parameter:
    """A parameter whose memory is taken only when it is filled, so that loading never holds the weights twice."""
    if dtype == ms.bfloat16:
        return Parameter(initializer(fill, shape, dtype))
    # `initializer` asks for the state of NumPy's generator each time: a third of the time that a model's Cells took.
    array = getattr(np, fill)(shape, np.float16 if dtype == ms.float16 else np.float32)
    return Parameter(Tensor.from_numpy(array))


class Linear(nn.Cell):
    """y = x @ weight.T + bias, weight (out, in) as in PyTorch: (N, in) -> (N, out)."""

    def __init__(self, in_features: int, out_features: int, bias: bool, dtype: ms.Type) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = empty_parameter((out_features, in_features), dtype)
        self.bias = empty_parameter((out_features,), dtype) if bias else None

    def construct(self, x: Tensor) -> Tensor:
        return backend_ops.linear(x, self.weight, self.bias)


class RMSNorm(nn.Cell):
    """Root-mean-square norm: (N, H) -> (N, H)."""

    def __init__(self, width: int, eps: float, dtype: ms.Type) -> None:
        super().__init__()
        self.eps = eps
        self.weight = empty_parameter((width,), dtype, "ones")
        self.norm = backend_ops.rms_norm_cell()

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight, self.eps)


class Embedding(nn.Cell):
    """Token embedding: int32 (N,) -> (N, H)."""

    def __init__(self, vocab_size: int, width: int, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = empty_parameter((vocab_size, width), dtype)

    def construct(self, input_ids: Tensor) -> Tensor:
        return ops.gather(self.weight, input_ids, 0)


class Attention(nn.Cell):
    """Grouped-query attention (Vaswani et al. 2017, eq. 1; Ainslie et al. 2023)."""

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = 1.0 / math.sqrt(config.head_dim)
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, width, config.attention_bias, dtype)
        self.k_proj = Linear(config.hidden_size, kv_width, config.attention_bias, dtype)
        self.v_proj = Linear(config.hidden_size, kv_width, config.attention_bias, dtype)
        self.o_proj = Linear(width, config.hidden_size, config.output_bias, dtype)
        # Positions come in here, or (ALiBi) through the mask.
        self.rotary = Rotary(config, dtype) if config.positions == "rope" else None
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, dtype) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, dtype) if config.qk_norm else None
        self.query_heads = backend_ops.heads_cell(self.heads)
        self.key_heads = backend_ops.heads_cell(self.kv_heads)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.softmax = backend_ops.softmax_cell()
        group = self.heads // self.kv_heads
        self.repeat = backend_ops.repeat_cell(group) if group > 1 else None

    def project(self, x: Tensor, rope: RopeTables | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, heads * D), keys and values (N, kv_heads * D), positions applied; `rope` is None without any."""
        query, key = self.q_proj(x), self.k_proj(x)
        if self.q_norm is not None:
            query, key = self.by_head(self.q_norm, query), self.by_head(self.k_norm, key)
        if self.rotary is not None:
            q_cos, q_sin, k_cos, k_sin = rope
            query, key = self.rotary(query, q_cos, q_sin), self.rotary(key, k_cos, k_sin)
        return query, key, self.v_proj(x)

    def by_head(self, norm: RMSNorm, x: Tensor) -> Tensor:
        """Norm each head of (N, heads * D) by itself."""
        return ops.reshape(norm(ops.reshape(x, (-1, self.head_dim))), x.shape)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention inside whole sequences.

        Args:
            query: (batch * L, heads * D).
            key, value: (kv_heads, batch * L, D).
            mask: added to the scores, float32 (1 or heads, batch, L, L).

        Returns:
            (batch * L, heads * D).
        """
        batch, length = mask.shape[1], mask.shape[2]
        query = ops.reshape(self.query_heads(query * self.scale), (self.heads * batch, length, self.head_dim))
        scores = self.scores(query, self.for_each_query_head(key, length))
        scores = ops.reshape(scores, (self.heads, batch, length, length))
        weights = ops.cast(self.softmax(ops.cast(scores, ms.float32) + mask), value.dtype)
        weights = ops.reshape(weights, (self.heads * batch, length, length))
        out = self.mix(weights, self.for_each_query_head(value, length))
        return self.query_heads.merge(ops.reshape(out, (self.heads, batch * length, self.head_dim)))

    def for_each_query_head(self, x: Tensor, length: int) -> Tensor:
        """(kv_heads, batch * L, D) -> (heads * batch, L, D): each group of query heads has its keys in common."""
        return ops.reshape(x if self.repeat is None else self.repeat(x), (-1, length, self.head_dim))

    def attend_step(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention of one query a sequence to a cache.

        Args:
            query: (batch, heads * D).
            key, value: (batch * kv_heads, T, D).
            mask: added to the scores, float32 (batch, 1 or kv_heads, group, T).

        Returns:
            (batch, heads * D).
        """
        batch, group, length = query.shape[0], self.heads // self.kv_heads, key.shape[1]
        rows = ops.reshape(query * self.scale, (batch * self.kv_heads, group, self.head_dim))
        scores = ops.reshape(self.scores(rows, key), (batch, self.kv_heads, group, length))
        weights = ops.cast(self.softmax(ops.cast(scores, ms.float32) + mask), value.dtype)
        weights = ops.reshape(weights, (batch * self.kv_heads, group, length))
        return ops.reshape(self.mix(weights, value), query.shape)

    def construct(self, x: Tensor, rope: RopeTables | None, mask: Tensor) -> Tensor:
        query, key, value = self.project(x, rope)
        return self.o_proj(self.attend(query, self.key_heads(key), self.key_heads(value), mask))


class MLP(nn.Cell):
    """Gated feed-forward (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, dtype)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, dtype)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, config.mlp_bias, dtype)
        self.activation = backend_ops.SwiGLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.self_attn = Attention(config, dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.mlp = MLP(config, dtype)

    def construct(self, x: Tensor, rope: RopeTables | None, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))
