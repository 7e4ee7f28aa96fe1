"""How much memory a training run will take at its peak, told from its shapes before anything is allocated.

The terms are those of `docs/performance.md`, where the estimate stands beside what was measured on a CPU. For an NPU it
is an estimate and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from ms_medqa.config.schema import Config
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.peft import count_parameters, lora_layers, trainable_parameters

_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Adapters, gradients, moments and everything else that an update passes through.
_FLOAT32 = 4

# Measured on a CPU, MindSpore 2.10: the process with its libraries, tokenizer and log writers; what compiler and the
# runtime keep for a layer (about 120 kernels forward and backward) and an adapter (about 80, its update included).
_PROCESS = 690e6
_GRAPH_OF_LAYER, _GRAPH_OF_ADAPTER = 20e6, 8e6
# Assumed: what CANN, or CUDA, and the communication buffers take of a card.
_CARD = 2e9
# A transposition on a CPU keeps the place of each number.
_PLACE = 8


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training run.

    Attributes:
        process: Python, MindSpore and libraries; on a card, what its runtime takes.
        weights: of the model, adapters included.
        optimizer: both moments, and the sums of gradients where several micro-batches make a step.
        activations: what the layers keep for the backward pass, attention scores left out.
        scores: attention scores, and the mask.
        logits: of the labelled positions, and their gradients.
        gradients: and the copies that an update makes of them.
        tables: places of transposed numbers, and noise of dropout, on a CPU.
        graph: the compiled graphs, on a CPU.
    """

    process: int
    weights: int
    optimizer: int
    activations: int
    scores: int
    logits: int
    gradients: int
    tables: int
    graph: int

    @property
    def total(self) -> int:
        """Bytes. When the update begins the backward pass is over: of the two only the larger one counts."""
        return sum(size for _, size in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of what is there at the peak."""
        backward = ("activations", "scores", "logits")
        over = self.gradients > sum(getattr(self, name) for name in backward)
        for field in fields(self):
            if field.name not in (backward if over else ("gradients",)):
                yield field.name, getattr(self, field.name)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts() if size >= 50e6)
        return f"{self.total / 1e9:.1f} GB estimated at the peak: {parts}"


def estimate_memory(model: CausalLM, config: Config, device: str, dtype: str, labels: int | None) -> MemoryEstimate:
    """The estimate for a model that has its adapters; its weights need not be there.

    Args:
        model: gives shapes, adapters, and which weights are trained.
        config: gives batch, length and accumulation.
        device: `CPU`, `GPU` or `Ascend`.
        dtype: what the model computes in, and what its frozen weights have.
        labels: positions with a label in a micro-batch, as `BatchPlan.most_labels` counts them; None where the data is
            not known: every position.
    """
    train, length, shape = config.train, config.data.max_length, model.config
    tokens = train.batch_size * length
    trained, total = count_parameters(model)
    largest = max((parameter.size for parameter in trainable_parameters(model)), default=0)
    adapters = [layer.in_features for _, layer in lora_layers(model)]
    size, on_cpu = _SIZES[dtype], device == "CPU"
    layers, kernels = shape.num_hidden_layers, shape.num_attention_heads * length
    # Where labels are smoothed, the gradients of their own logits and of the mean as well.
    smoothed = 2 * _FLOAT32 if train.label_smoothing else 0
    # float32 scores after softmax, and a copy in the type of the values; the mask is there once.
    scores = layers * (_FLOAT32 + (size if size != _FLOAT32 else 0)) + _FLOAT32
    tables = graph = 0
    if on_cpu:
        # Noise on the embedded tokens has a table as wide as dropout on the adapters of the hidden state.
        noisy = [shape.hidden_size] if train.neftune_alpha else []
        tables = _tables(shape, [*adapters, *noisy], tokens)
        graph = layers * _GRAPH_OF_LAYER + len(adapters) * _GRAPH_OF_ADAPTER
    return MemoryEstimate(
        process=int(_PROCESS if on_cpu else _CARD),
        weights=(total - trained) * size + trained * _FLOAT32,
        optimizer=trained * _FLOAT32 * (3 if train.gradient_accumulation_steps > 1 else 2),
        activations=tokens * (layers * _kept(shape, device, size, not adapters) + _of_adapters(adapters, config)),
        scores=tokens * kernels * scores,
        # In the type of the model where that is not float32; in float32; their gradient; and it, scaled.
        logits=(labels or tokens) * shape.vocab_size * (3 * _FLOAT32 + smoothed + (size if size != _FLOAT32 else 0)),
        # As they are, unscaled and clipped; and for the parameter that is being updated its new moments and weights.
        # The pool of a CPU has gaps into which nothing of its size fits: they were as large as two more of it.
        gradients=_FLOAT32 * (3 * trained + (5 if on_cpu else 3) * largest),
        tables=int(tables),
        graph=int(graph),
    )


def _kept(shape: ModelConfig, device: str, size: int, trains_all: bool) -> int:
    """Bytes a token that one layer keeps for the backward pass, scores and adapters left out."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query, value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    # Both norms: their input; without a fused kernel also a float32 copy, scaled; and on a CPU, where nothing is
    # broadcast, scales and weights laid out.
    norms = {"Ascend": 2 * size, "GPU": 2 * (size + _FLOAT32), "CPU": 8 * _FLOAT32}[device] * hidden
    # Queries, keys, values and the result of attention; gate, its activation, and up.
    kept = norms + size * (2 * query + 2 * value + 3 * inner)
    if trains_all:
        # The inputs of all matrices.
        kept += size * (2 * hidden + inner)
    return kept


def _of_adapters(adapters: list[int], config: Config) -> int:
    """Bytes a token that all adapters keep: their input, float32, dropped out, and its mask."""
    assert config.lora is not None or not adapters
    dropped = config.lora is not None and config.lora.dropout > 0
    # Without dropout, layers that read the same rows keep them once: q, k and v, gate and up.
    return sum(adapters) * _FLOAT32 * 2 if dropped else sum(adapters) * _FLOAT32 // 2


def _tables(shape: ModelConfig, adapters: list[int], tokens: int) -> int:
    """Bytes of the tables that kernels on a CPU keep as long as their graph."""
    query, value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    # Queries, keys, values and the result are transposed forward and backward, and forward once more in validation.
    places = 3 * shape.num_hidden_layers * (2 * query + 2 * value) * _PLACE
    # One table of noise for each width.
    return tokens * (places + sum(set(adapters)) * _FLOAT32)
