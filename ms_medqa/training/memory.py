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
from ms_medqa.training.buckets import BUCKET_SIZE
from ms_medqa.training.loss import block_rows
from ms_medqa.training.recompute import recomputed_layers

_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Adapters, gradients, moments and everything else that an update passes through.
_FLOAT32 = 4

# Measured on a CPU, MindSpore 2.10: the process with its libraries, tokenizer and log writers; what compiler and
# runtime keep for a layer, forward, backward and in validation, and for an adapter; where a layer is recomputed, for
# the layer once more, and as much again for its adapters.
_PROCESS = 690e6
_GRAPH_OF_LAYER, _GRAPH_OF_ADAPTER, _GRAPH_OF_RECOMPUTED = 18e6, 2.3e6, 10e6
# Assumed: what CANN, or CUDA, and the communication buffers take of a card.
_CARD = 2e9
# Logits of a block, their softmax, and on a CPU, measured, gaps in its pool: so many times the float32 logits.
_LOGITS_ON_CPU, _LOGITS_ON_CARD = 3.5, 2.0
# Of the largest bucket, while it is updated: both moments, the direction, and on a CPU as much of gaps.
_UPDATE_ON_CPU, _UPDATE_ON_CARD = 4, 3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training run.

    Attributes:
        process: Python, MindSpore and libraries; on a card, what its runtime takes.
        weights: of the model, adapters included.
        optimizer: both moments, and the sums of gradients where several micro-batches make a step.
        gradients: of all that is trained.
        activations: what the layers keep for the backward pass, attention scores left out, and what the layer that is
            being differentiated needs besides.
        scores: attention scores, and the mask.
        logits: of a block of labelled positions, and their gradients.
        update: scaled gradients, the values that are joined, and new moments and values.
        graph: the compiled graphs, on a CPU.
    """

    process: int
    weights: int
    optimizer: int
    gradients: int
    activations: int
    scores: int
    logits: int
    update: int
    graph: int

    @property
    def total(self) -> int:
        """Bytes. When the update begins the backward pass is over: of the two only the larger one counts."""
        return sum(size for _, size in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of what is there at the peak."""
        backward = ("activations", "scores", "logits")
        over = self.update > sum(getattr(self, name) for name in backward)
        for field in fields(self):
            if field.name not in (backward if over else ("update",)):
                yield field.name, getattr(self, field.name)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts() if size >= 50e6)
        return f"{self.total / 1e9:.1f} GB estimated at the peak: {parts}"


def estimate_memory(
    model: CausalLM, config: Config, device: str, dtype: str, labels: int | None, ranks: int = 1
) -> MemoryEstimate:
    """The estimate for a model that has its adapters; its weights need not be there.

    Args:
        model: gives shapes, adapters, and which weights are trained.
        config: gives batch, length, accumulation, recomputation and sharding.
        device: `CPU`, `GPU` or `Ascend`.
        dtype: what the model computes in, and what its frozen weights have.
        labels: positions with a label in a micro-batch, as `BatchPlan.most_labels` counts them; None where the data is
            not known: every position.
        ranks: processes that train together.
    """
    train, length, shape = config.train, config.data.max_length, model.config
    tokens = train.batch_size * length
    trained, total = count_parameters(model)
    largest = max((parameter.size for parameter in trainable_parameters(model)), default=0)
    bucket = max(largest, min(trained, BUCKET_SIZE))
    shares = ranks if train.shard_optimizer else 1
    adapters = [layer.in_features for _, layer in lora_layers(model)]
    size, on_cpu = _SIZES[dtype], device == "CPU"
    recomputed = recomputed_layers(train.recompute, shape.num_hidden_layers)
    kept = shape.num_hidden_layers - recomputed
    # Of the recomputed layers, one is there as a whole at a time.
    whole = kept + min(recomputed, 1)
    of_layer = _kept(shape, size, not adapters) + _of_adapters(adapters, config) / shape.num_hidden_layers
    activations = whole * of_layer + recomputed * shape.hidden_size * size + _working(shape, size)
    # Of a layer, float32 scores after softmax, and a copy in the type of the values. The mask, and four gradients.
    score = _FLOAT32 + (size if size != _FLOAT32 else 0)
    graph = shape.num_hidden_layers * _GRAPH_OF_LAYER + len(adapters) * _GRAPH_OF_ADAPTER
    adapters_again = len(adapters) * recomputed / shape.num_hidden_layers
    graph += recomputed * _GRAPH_OF_RECOMPUTED + adapters_again * _GRAPH_OF_ADAPTER
    # Noise of dropout is drawn once for each width.
    noise = {shape.hidden_size} if train.neftune_alpha else set()
    noise |= set(adapters) if config.lora is not None and config.lora.dropout > 0 else set()
    return MemoryEstimate(
        process=int(_PROCESS if on_cpu else _CARD),
        weights=(total - trained) * size + trained * _FLOAT32,
        optimizer=2 * -(-trained // shares) * _FLOAT32
        + (trained * _FLOAT32 if train.gradient_accumulation_steps > 1 else 0),
        gradients=trained * _FLOAT32,
        activations=int(tokens * (activations + sum(noise) * _FLOAT32)),
        scores=tokens * shape.num_attention_heads * length * (whole * score + 5 * _FLOAT32),
        logits=_logits(model, config, device, size, labels or tokens),
        update=_FLOAT32 * (2 * trained + (_UPDATE_ON_CPU if on_cpu else _UPDATE_ON_CARD) * bucket // shares),
        graph=int(graph) if on_cpu else 0,
    )


def _kept(shape: ModelConfig, size: int, trains_all: bool) -> int:
    """Bytes a token that one layer keeps for the backward pass, scores and adapters left out."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query = shape.num_attention_heads * shape.head_dim
    # The inputs of both norms; queries, and keys and values as often as there are query heads; gate and up.
    kept = 2 * hidden + 3 * query + 2 * inner
    if trains_all:
        # The inputs of all matrices.
        kept += 2 * hidden + query + inner
    return size * kept


def _working(shape: ModelConfig, size: int) -> int:
    """Bytes a token that the layer being differentiated needs besides: measured on a CPU, with the rotary tables."""
    return size * (6 * shape.intermediate_size + 14 * shape.hidden_size)


def _of_adapters(adapters: list[int], config: Config) -> int:
    """Bytes a token that all adapters keep: their input, float32, dropped out, and its mask."""
    assert config.lora is not None or not adapters
    dropped = config.lora is not None and config.lora.dropout > 0
    # Without dropout, layers that read the same rows keep them once: q, k and v, gate and up.
    return sum(adapters) * _FLOAT32 * 2 if dropped else sum(adapters) * _FLOAT32 // 2


def _logits(model: CausalLM, config: Config, device: str, size: int, labels: int) -> int:
    """Bytes of logits, and of the gradients that are there with them."""
    vocabulary, smoothed = model.config.vocab_size, config.train.label_smoothing > 0
    head = model.head_parameter
    if smoothed or head is None:
        # All at a time: in the type of the model where that is not float32; in float32; their gradient; and it, scaled.
        # Where labels are smoothed, the gradients of their own logits and of the mean as well.
        copies = (5 if smoothed else 3) * _FLOAT32 + (size if size != _FLOAT32 else 0)
        return labels * vocabulary * copies
    rows = min(labels, block_rows(vocabulary))
    # The gradient of the logits is an array of its own where it is cast, or the matrix trained. In the model's type
    # there are the logits as they come and their scaled gradient.
    apart = size != _FLOAT32 or head.requires_grad
    times = (_LOGITS_ON_CPU if device == "CPU" else _LOGITS_ON_CARD) + apart
    copies = times * _FLOAT32 + (2 * size if size != _FLOAT32 else 0)
    # The gradient of a trained matrix is a sum over the blocks: it, and what is added.
    matrix = 2 * head.size * _FLOAT32 if head.requires_grad else 0
    return int(rows * vocabulary * copies) + matrix
