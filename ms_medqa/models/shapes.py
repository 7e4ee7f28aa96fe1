"""The parameters of a decoder with their shapes, from its config alone: nothing is built."""

from __future__ import annotations

from collections.abc import Iterator

from ms_medqa.models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of each parameter that `CausalLM(config)` has, in its order."""
    shapes: Shapes = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for layer in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer(config)}
    shapes["model.norm.weight"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


def _layer(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
    width, kv_width = config.num_attention_heads * dim, config.num_key_value_heads * dim
    yield "input_layernorm.weight", (hidden,)
    yield from _linear("self_attn.q_proj", width, hidden, config.attention_bias)
    yield from _linear("self_attn.k_proj", kv_width, hidden, config.attention_bias)
    yield from _linear("self_attn.v_proj", kv_width, hidden, config.attention_bias)
    yield from _linear("self_attn.o_proj", hidden, width, config.output_bias)
    if config.qk_norm:
        yield "self_attn.q_norm.weight", (dim,)
        yield "self_attn.k_norm.weight", (dim,)
    yield "post_attention_layernorm.weight", (hidden,)
    yield from _linear("mlp.gate_proj", inner, hidden, config.mlp_bias)
    yield from _linear("mlp.up_proj", inner, hidden, config.mlp_bias)
    yield from _linear("mlp.down_proj", hidden, inner, config.mlp_bias)


def _linear(path: str, rows: int, width: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{path}.weight", (rows, width)
    if bias:
        yield f"{path}.bias", (rows,)
