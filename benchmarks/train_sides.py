"""One side of `benchmarks/train.py` in a process of its own: it trains when it is told to, and waits in between.

    python benchmarks/train_sides.py --side SPEC.json      (started by train.py)

It writes a line of JSON when it is ready, and one for each line that it reads, which is a number of steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sides import answer

from ms_medqa.backend.device import peak_memory
from ms_medqa.models.config import ModelConfig

R, ALPHA, TARGETS, RATE, DECAY, MAX_NORM = 16, 32, ("q_proj", "k_proj", "v_proj"), 1e-4, 0.01, 1.0


@dataclass(frozen=True)
class Spec:
    """What a side has to do.

    Attributes:
        side: `ms_medqa`, `peer`, or `matmul`: the matrix products of ms_medqa's step and nothing else.
        model: folder with weights.
        batches: a file of NumPy arrays, `input_ids`, `segment_ids`, `labels`, each int32 (batches, B, L); `labels[t]`
            is `input_ids[t + 1]` where that is trained, else -100.
        threads: of this process.
    """

    side: str
    model: str
    batches: str
    threads: int


def ours(spec: Spec, batches: dict[str, np.ndarray]) -> Callable[[int], float]:
    """A step of ms_medqa: batch number -> loss."""
    from ms_medqa.backend.device import setup

    setup("CPU")
    import mindspore as ms
    from mindspore import Tensor

    from ms_medqa.backend.compile_cache import CompileCache
    from ms_medqa.data.dataset import model_inputs
    from ms_medqa.models import load_model
    from ms_medqa.peft import inject_lora, trainable_parameters
    from ms_medqa.training.loss import TokenLoss
    from ms_medqa.training.optimizer import AdamW
    from ms_medqa.training.schedule import Schedule
    from ms_medqa.training.step import TrainStep

    model = load_model(Path(spec.model), "float32")
    inject_lora(model, R, ALPHA, TARGETS)
    optimizer = AdamW(trainable_parameters(model), weight_decay=DECAY)
    step = TrainStep(TokenLoss(model), optimizer, Schedule("constant", RATE, RATE, 0, 1), max_grad_norm=MAX_NORM)
    step.set_train(True)
    labels = int((batches["labels"] >= 0).sum((1, 2)).max())
    graphs = CompileCache(None, {}, 0)

    def run(number: int) -> float:
        batch = {name: values[number] for name, values in batches.items()}
        batch["position_ids"] = np.maximum(np.cumsum(batch["segment_ids"], 1, np.int32) - 1, 0)
        count = Tensor(float((batch["labels"] >= 0).sum()), ms.float32)
        inputs = (*map(Tensor, model_inputs(batch, labels)), count, Tensor(True))
        graphs.compile("training step", step, inputs)
        return float(step(*inputs)[0].asnumpy())

    return run


def peer(spec: Spec, batches: dict[str, np.ndarray]) -> Callable[[int], float]:
    """A step of transformers and PEFT, as their Trainer takes it: batch number -> loss."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(spec.threads)
    model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32)
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, target_modules=list(TARGETS), lora_dropout=0.0))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)

    def run(number: int) -> float:
        ids = torch.from_numpy(batches["input_ids"][number]).long()
        # transformers shifts labels itself.
        labels = torch.full_like(ids, -100)
        labels[:, 1:] = torch.from_numpy(batches["labels"][number][:, :-1]).long()
        mask = torch.from_numpy(batches["segment_ids"][number]).long()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return run


def matmul(spec: Spec, batches: dict[str, np.ndarray]) -> Callable[[int], float]:
    """The products with frozen weights that ms_medqa's step consists of, forward and back to the input."""
    from ms_medqa.backend.device import setup

    setup("CPU")
    import mindspore as ms
    from mindspore import Tensor, nn, ops

    from ms_medqa.models import load_model

    model = load_model(Path(spec.model), "float32")
    tokens = batches["input_ids"][0].size
    labels = int((batches["labels"] >= 0).sum((1, 2)).max())
    config = model.config
    weights = [p for p in model.get_parameters() if p.ndim == 2 and "embed_tokens" not in p.name]
    head = model.model.embed_tokens.weight if config.tie_word_embeddings else model.lm_head.weight
    weights = [weight for weight in weights if weight is not head]

    class Products(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weights = ms.ParameterTuple([*weights, head])
            self.forward = ops.MatMul(transpose_b=True)
            self.backward = ops.MatMul()

        def construct(self, inputs, outer):  # type: ignore[no-untyped-def]
            kept = ()
            for index, weight in enumerate(self.weights):
                y = self.forward(inputs[index], weight)
                # One number of each, so that no product is left out.
                kept = (*kept, ops.slice(y, (0, 0), (1, 1)))
                kept = (*kept, ops.slice(self.backward(outer[index], weight), (0, 0), (1, 1)))
            return kept

    rng = np.random.default_rng(0)
    made: dict[tuple[int, int], Tensor] = {}

    def rows(count: int, width: int) -> Tensor:
        if (count, width) not in made:
            made[count, width] = Tensor(rng.standard_normal((count, width)).astype(np.float32))
        return made[count, width]

    counts = [*[tokens] * len(weights), labels]
    shapes = [(count, weight.shape) for count, weight in zip(counts, [*weights, head], strict=True)]
    inputs = tuple(rows(count, shape[1]) for count, shape in shapes)
    outer = tuple(rows(count, shape[0]) for count, shape in shapes)
    products = Products()

    def run(number: int) -> float:
        return float(products(inputs, outer)[-1].asnumpy().item())

    return run


def operations(model: ModelConfig, tokens: int, labels: int, adapters: bool = True) -> int:
    """Floating-point operations of a step: 4 a token for a frozen weight, 6 for an adapter's, the head's at labels."""
    hidden, inner = model.hidden_size, model.intermediate_size
    width, kv_width = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
    layer = 2 * hidden * width + 2 * hidden * kv_width + 3 * hidden * inner
    head = model.vocab_size * hidden
    trained = R * (3 * hidden + width + 2 * kv_width) if adapters else 0
    return 4 * head * labels + model.num_hidden_layers * tokens * (4 * layer + 6 * trained)


def main() -> None:
    spec = Spec(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    batches = dict(np.load(spec.batches))
    began = time.perf_counter()
    run = {"ms_medqa": ours, "peer": peer, "matmul": matmul}[spec.side](spec, batches)
    loaded = time.perf_counter()
    loss = run(0)
    answer({"load": loaded - began, "first_step": time.perf_counter() - loaded, "loss": loss})
    number = 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            number = (number + 1) % len(batches["labels"])
            began = time.perf_counter()
            loss = run(number)
            seconds.append(time.perf_counter() - began)
        answer({"seconds": seconds, "loss": loss, "peak": peak_memory("CPU")})


if __name__ == "__main__":
    main()
