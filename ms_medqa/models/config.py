"""The shape of a decoder, whatever family it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions reach beyond the length that a model was first trained on.

    Attributes:
        kind: `default` (not at all), `linear` (positions divided by `factor`), `dynamic` (NTK: the base grows with the
            sequence once it is longer than `original_length`), `llama3` (low frequencies divided by `factor`).
        original_length: positions of the first training; used by `dynamic` and `llama3`.
        low_freq_factor, high_freq_factor: `llama3` only, the borders between its three bands.
    """

    kind: Literal["default", "linear", "dynamic", "llama3"] = "default"
    factor: float = 1.0
    original_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder-only transformer with RMS norms and a gated MLP.

    Attributes:
        family: name of the family that the checkpoint belongs to.
        head_dim: width of one attention head; need not be hidden_size / num_attention_heads.
        max_position_embeddings: positions that `config.json` names, as far as plain attention serves them.
        positions: `rope`, or `alibi` (Press et al. 2021): scores fall linearly with distance, nothing is turned.
        windows: for each layer, how many positions back a token sees, itself included; 0 for all. Empty: all layers 0.
        qk_norm: whether queries and keys are normed, head by head, before they are turned.
        normalized_head: whether the rows of the vocabulary matrix are scaled to length 1.
        attention_bias: whether q, k and v have biases.
        output_bias: whether the attention output has one.
        dtype: type of the weights that `config.json` names, float32 where it names none.
        eos_token_ids: tokens that end an answer; may be empty. Ids outside the vocabulary, which some files have, end
            nothing and are left out.
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
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    positions: Literal["rope", "alibi"] = "rope"
    windows: tuple[int, ...] = ()
    qk_norm: bool = False
    normalized_head: bool = False
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
        assert len(self.windows) in (0, self.num_hidden_layers), "a window for each layer"
        ends = tuple(token for token in self.eos_token_ids if 0 <= token < self.vocab_size)
        object.__setattr__(self, "eos_token_ids", ends)

    @property
    def position_limit(self) -> int:
        """Longest sequence: `max_position_embeddings`, stretched where the rope scaling that the config names does so.

        `llama3` is left out: its configs name the stretched length already.
        """
        scaling = self.rope_scaling
        if scaling.kind in ("linear", "dynamic"):
            return int(self.max_position_embeddings * scaling.factor)
        return self.max_position_embeddings

    def window(self, layer: int) -> int:
        """Window of a layer, 0 for none. One that no sequence can fill is none."""
        size = self.windows[layer] if self.windows else 0
        return size if size < self.position_limit else 0
