"""The parts of a decoder layer. All take flattened rows (batch * length, width): MindSpore's fast kernels are 2-D."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.config import ModelConfig

# Added to float32 scores alone. Far below any score, also those in the tens of thousands that large key biases make, so
# that none of it is left; yet finite, because masks are made by multiplying it with 0 and 1.
MASKED = -1e30


def empty_parameter(shape: tuple[int, ...], dtype: ms.Type, fill: str = "zeros") -> Parameter:
    """A parameter whose memory is taken only when it is filled, so that loading never holds the weights twice."""
    return Parameter(initializer(fill, shape, dtype))


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
        self.norm = backend_ops.rms_norm_fused if backend_ops.on_ascend() else backend_ops.rms_norm_portable

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight, self.eps)


class Embedding(nn.Cell):
    """Token embedding: int32 (N,) -> (N, H)."""

    def __init__(self, vocab_size: int, width: int, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = empty_parameter((vocab_size, width), dtype)

    def construct(self, input_ids: Tensor) -> Tensor:
        return ops.gather(self.weight, input_ids, 0)


class Rotary(nn.Cell):
    """Angles of the rotary position embedding (Su et al. 2021, eq. 34, in the half-split layout of LLaMA).

    Half rotation is a product with a signed permutation matrix: exact, as fast on a CPU as slicing and concatenating,
    and its gradient is the same product.
    """

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        half = config.head_dim // 2
        frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
        self.frequencies = Tensor(np.concatenate([frequencies, frequencies])[None].astype(np.float32))
        turn = np.zeros((config.head_dim, config.head_dim), np.float32)
        turn[np.arange(half) + half, np.arange(half)] = -1.0
        turn[np.arange(half), np.arange(half) + half] = 1.0
        self.turn = Tensor(turn, dtype)
        self.matmul = ops.MatMul()
        self.dtype = dtype
        self.head_dim = config.head_dim

    def tables(self, position_ids: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each (N, heads * head_dim), for int32 positions (N,)."""
        angles = ops.reshape(ops.cast(position_ids, ms.float32), (-1, 1)) * self.frequencies
        # One copy a head: a product of equal shapes is nearly twice as fast on a CPU as a broadcast one.
        cos = ops.tile(ops.cast(ops.cos(angles), self.dtype), (1, heads))
        sin = ops.tile(ops.cast(ops.sin(angles), self.dtype), (1, heads))
        return cos, sin

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn (N, heads * head_dim) by its positions."""
        turned = ops.reshape(self.matmul(ops.reshape(x, (-1, self.head_dim)), self.turn), x.shape)
        return x * cos + turned * sin


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
        self.rotary = Rotary(config, dtype)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, heads * D), keys and values (N, kv_heads * D), positions applied."""
        q_cos, q_sin, k_cos, k_sin = rope
        query = self.rotary(self.q_proj(x), q_cos, q_sin)
        key = self.rotary(self.k_proj(x), k_cos, k_sin)
        return query, key, self.v_proj(x)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rows: int) -> Tensor:
        """Attention over keys (batch * kv_heads, T, D) for `rows` queries a sequence.

        Args:
            query: (batch * rows, heads * D).
            key, value: (batch * kv_heads, T, D).
            mask: added to the scores, float32, broadcastable to (batch, kv_heads, group * rows, T).

        Returns:
            (batch * rows, heads * D).
        """
        group = self.heads // self.kv_heads
        batch = query.shape[0] // rows
        length = key.shape[1]
        query = ops.reshape(query * self.scale, (batch, rows, self.kv_heads, group, self.head_dim))
        query = ops.reshape(ops.transpose(query, (0, 2, 3, 1, 4)), (batch * self.kv_heads, group * rows, self.head_dim))
        scores = ops.reshape(self.scores(query, key), (batch, self.kv_heads, group * rows, length))
        weights = ops.softmax(ops.cast(scores, ms.float32) + mask, -1)
        weights = ops.reshape(ops.cast(weights, value.dtype), (batch * self.kv_heads, group * rows, length))
        out = ops.reshape(self.mix(weights, value), (batch, self.kv_heads, group, rows, self.head_dim))
        return ops.reshape(ops.transpose(out, (0, 3, 1, 2, 4)), (batch * rows, self.heads * self.head_dim))

    def split_heads(self, x: Tensor, batch: int) -> Tensor:
        """(batch * L, kv_heads * D) -> (batch * kv_heads, L, D)."""
        x = ops.transpose(ops.reshape(x, (batch, -1, self.kv_heads, self.head_dim)), (0, 2, 1, 3))
        return ops.reshape(x, (batch * self.kv_heads, -1, self.head_dim))

    def construct(self, x: Tensor, rope: tuple[Tensor, Tensor, Tensor, Tensor], mask: Tensor) -> Tensor:
        query, key, value = self.project(x, rope)
        batch = mask.shape[0]
        rows = x.shape[0] // batch
        out = self.attend(query, self.split_heads(key, batch), self.split_heads(value, batch), mask, rows)
        return self.o_proj(out)


class MLP(nn.Cell):
    """Gated feed-forward (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, dtype)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, dtype)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, config.mlp_bias, dtype)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_proj(ops.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.self_attn = Attention(config, dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.mlp = MLP(config, dtype)

    def construct(self, x: Tensor, rope: tuple[Tensor, Tensor, Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))
