"""A decoder-only language model as MindSpore Cells, with the attribute names of Hugging Face checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend.graphs import share_graphs
from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.layers import DecoderLayer, Embedding, Linear, RMSNorm, RopeTables
from ms_medqa.models.mask import AttentionMask


class Decoder(nn.Cell):
    """Embedding, layers and last norm: token ids to hidden states.

    Attributes:
        noise: what the training puts on the embedded tokens (N, H), None for nothing.
    """

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, dtype)
        self.layers = nn.CellList([DecoderLayer(config, dtype) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.mask = AttentionMask(config)
        self.noise: nn.Cell | None = None

    def rope(self, position_ids: Tensor, length: Tensor) -> RopeTables | None:
        """Rotary tables of queries and keys for flat positions (N,), computed once for all layers.

        `length` is the number of tokens of the longest sequence, an int32 scalar.
        """
        rotary = self.layers[0].self_attn.rotary
        if rotary is None:
            return None
        q_cos, q_sin = rotary.tables(position_ids, self.heads, length)
        if self.group == 1:
            return q_cos, q_sin, q_cos, q_sin
        k_cos, k_sin = rotary.tables(position_ids, self.kv_heads, length)
        return q_cos, q_sin, k_cos, k_sin

    def embed(self, input_ids: Tensor) -> Tensor:
        """int32 (batch, L) -> (batch * L, H): what the first layer takes."""
        x = self.embed_tokens(ops.reshape(input_ids, (-1,)))
        return x if self.noise is None else self.noise(x)

    def surroundings(self, position_ids: Tensor, segment_ids: Tensor) -> tuple[RopeTables | None, tuple[Tensor, ...]]:
        """What all layers have in common, from int32 (batch, L) each: rotary tables, and masks by size of window."""
        rope = self.rope(ops.reshape(position_ids, (-1,)), position_ids.max() + 1)
        return rope, self.mask.of_sequences(segment_ids)

    def through(self, x: Tensor, rope: RopeTables | None, masks: tuple[Tensor, ...], first: int = 0) -> Tensor:
        """From the input of layer `first` to the last hidden states, (batch * L, H) both."""
        for index in range(first, len(self.layers)):
            x = self.layers[index](x, rope, masks[self.mask.of_layer[index]])
        return self.norm(x)

    def construct(self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """int32 (batch, L) each -> hidden states (batch * L, H)."""
        x = self.embed(input_ids)
        rope, masks = self.surroundings(position_ids, segment_ids)
        return self.through(x, rope, masks)


class CausalLM(nn.Cell):
    """A language model: `model(input_ids, attention_mask=None)` -> logits.

    Attributes:
        config: its shape.
        folder: where it was loaded from, None for one made in memory.
        normalize_head: whether the head's rows must be scaled to length 1 when it is used. Set it before the first run.
    """

    def __init__(self, config: ModelConfig, dtype: str = "float32", folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.folder = folder
        ms_dtype = getattr(ms, dtype)
        self.compute_dtype = ms_dtype
        self.model = Decoder(config, ms_dtype)
        if config.tie_word_embeddings:
            self.lm_head = None
        else:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, False, ms_dtype)
        # Loading normalizes a head once and for all; one that is trained is normalized wherever it is used.
        self.normalize_head = config.normalized_head
        self.to_vocabulary = ops.MatMul(transpose_b=True)
        self.renew()

    def renew(self) -> None:
        """Make the names of parameters and the compiled graphs those of the model as it is now: after any change."""
        # A cell that took another's place carries only the local names of its parameters until the tree is named anew.
        self.update_parameters_name()
        share_graphs(self.model.layers)
        # A graph that was compiled before the change would go on running without it.
        self.compile_cache.clear()

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, H) -> float32 logits (N, vocab)."""
        if self.lm_head is None or self.normalize_head:
            return ops.cast(self.to_vocabulary(hidden, self.head_matrix(hidden.dtype)), ms.float32)
        return ops.cast(self.lm_head(hidden), ms.float32)

    def head_matrix(self, dtype: ms.Type) -> Tensor:
        """(vocab, H) in this type: what a head without adapter multiplies hidden states with."""
        if self.lm_head is None:
            return ops.cast(self.model.embed_tokens.weight, dtype)
        if not self.normalize_head:
            return ops.cast(self.lm_head.weight, dtype)
        # In float16 the 1e-12 would be zero, which the operator refuses.
        rows = ops.L2Normalize(1, 1e-12)(ops.cast(self.lm_head.weight, ms.float32))
        return ops.cast(rows, dtype)

    @property
    def head_parameter(self) -> Parameter | None:
        """The weights behind `head_matrix`; None where the head has an adapter, or a bias."""
        if self.lm_head is None:
            return self.model.embed_tokens.weight
        return self.lm_head.weight if isinstance(self.lm_head, Linear) and self.lm_head.bias is None else None

    def hidden(self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """int32 (batch, L) each -> hidden states (batch * L, H). Segment 0 is padding."""
        return self.model(input_ids, position_ids, segment_ids)

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """`construct`, once it is clear that the model has these tokens, and positions for the longest row.

        Args:
            input_ids: whole numbers (batch, L): a Tensor, a NumPy array or nested lists.
            attention_mask: as large; whatever is not 0 marks a token. None: every id is a token.

        Raises:
            UserError: the model has not, there is no token, or the two are no such numbers.
        """
        ids = _on_host("input_ids", input_ids)
        if ids.ndim != 2 or 0 in ids.shape:
            raise UserError(f"input_ids must be (batch, length), both at least 1, not {ids.shape}")
        if ids.dtype.kind not in "iu":
            raise UserError(f"input_ids must be whole numbers, not {ids.dtype}")
        for token in (int(ids.min()), int(ids.max())):
            if not 0 <= token < self.config.vocab_size:
                raise UserError(
                    f"input_ids has {token}, but the model's vocabulary has {self.config.vocab_size} tokens"
                )
        longest, limit = ids.shape[1], self.config.position_limit
        mask = None
        if attention_mask is not None:
            given = _on_host("attention_mask", attention_mask)
            if given.shape != ids.shape:
                raise UserError(f"attention_mask must have the shape of input_ids, {ids.shape}, not {given.shape}")
            if given.dtype.kind not in "biuf":
                raise UserError(f"attention_mask must be numbers, not {given.dtype}")
            # As segments, which masks are from here on, two different numbers would not see each other.
            mask = (given != 0).astype(np.int32)
            if longest > limit:
                longest = int(mask.sum(1).max())
        if longest > limit:
            raise UserError(f"a row has {longest} tokens, but the model holds {limit} positions", "shorten it")
        # One type, for another would compile the model once more.
        return super().__call__(Tensor(ids.astype(np.int32)), None if mask is None else Tensor(mask))

    def construct(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits of each position.

        Args:
            input_ids: int32 (batch, L).
            attention_mask: int32 (batch, L), 1 for tokens and 0 for padding on either side; None: no padding.

        Returns:
            float32 (batch, L, vocab). Rows of padding positions hold no meaning.
        """
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        # Positions count real tokens, so that padding on the left does not move a prompt.
        position_ids = ops.cast(ops.maximum(ops.cumsum(ops.cast(attention_mask, ms.float32), 1) - 1.0, 0.0), ms.int32)
        hidden = self.hidden(input_ids, position_ids, attention_mask)
        return ops.reshape(self.head(hidden), (input_ids.shape[0], input_ids.shape[1], -1))


def _on_host(name: str, values: Any) -> np.ndarray:
    try:
        return values.asnumpy() if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:
        raise UserError(f"{name}: the rows differ in length", "fill them up and mask what is not text") from None
