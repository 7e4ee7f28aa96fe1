"""The shape of a decoder, whatever family it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder-only transformer with rotary positions, RMS norms and a gated MLP.

    Attributes:
        family: name in the registry (`llama`, `qwen2`).
        head_dim: width of one attention head; need not be hidden_size / num_attention_heads.
        attention_bias: whether q, k and v have biases.
        output_bias: whether the attention output has one.
        dtype: type of the stored weights.
        eos_token_ids: tokens that end an answer; may be empty.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    dtype: str = "float32"
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.num_attention_heads % self.num_key_value_heads == 0, "query heads must share key heads evenly"
        assert self.head_dim % 2 == 0, "rotary embedding turns pairs of numbers"
