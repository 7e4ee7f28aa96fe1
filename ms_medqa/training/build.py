"""From a config to the parts of a run: device, model, data, step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from ms_medqa.backend import distributed
from ms_medqa.backend.device import Device, setup_runtime
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Config
from ms_medqa.data import manifest
from ms_medqa.data.dataset import BatchPlan, Rows, build_rows
from ms_medqa.data.manifest import load_split
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.models import CausalLM, load_model, resolve_model
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.models.loading import assign
from ms_medqa.peft import DropoutKeys, add_embedding_noise, inject_lora, trainable_parameters
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.optimizer import AdamW
from ms_medqa.training.recompute import recomputed_layers
from ms_medqa.training.schedule import Schedule
from ms_medqa.training.step import TrainStep


@dataclass
class TrainingData:
    """Rows and their order, for training and, where there is any, validation.

    Attributes:
        fingerprint: SHA-256 of the training part's tokens.
        folder: the converted folder that they are from, as a whole path.
        texts: SHA-256 of the training part's JSON Lines; None where the folder does not tell.
    """

    train: Rows
    train_plan: BatchPlan
    val: Rows | None
    val_plan: BatchPlan | None
    fingerprint: str
    folder: Path
    texts: str | None

    @property
    def records(self) -> tuple[int, int]:
        """(training, validation) records."""
        return len(self.train.records), len(self.val.records) if self.val else 0


@dataclass
class Run:
    """Everything a training loop needs.

    Attributes:
        draws: keys of dropout and noise, which are renewed before each micro-batch.
        base: fingerprint of the weights that training starts from, None where they are drawn anew.
    """

    config: Config
    device: Device
    world: distributed.World
    model: CausalLM
    tokenizer: Tokenizer
    prompt: Prompt
    data: TrainingData
    draws: tuple[DropoutKeys, ...]
    total_steps: int
    base: str | None = None

    @property
    def dtype(self) -> str:
        """What the model computes in."""
        return weight_dtype(self.config, self.device)


def build_run(config: Config) -> Run:
    """Set up the device, load model and data, inject the adapter.

    Raises:
        UserError: config, data and model do not fit together.
    """
    folder = resolve_model(config.model.path)
    if config.data.path is None:
        raise UserError("data.path is not set", "give the folder that `ms-medqa convert` wrote: data.path=DIR")
    tokenizer = Tokenizer.load(folder)
    prompt = Prompt.named(config.data.prompt, tokenizer)
    device = setup_runtime(config.runtime)
    world = distributed.start()
    data = load_data(config, tokenizer, prompt, world)
    seed = config.train.seed
    ms.set_seed(seed)
    model = load_model(folder, weight_dtype(config, device), config.model.init, seed)
    check_positions(model, config, folder)
    base = None if config.model.init == "random" else base_fingerprint(folder, model.config)
    draws = [keys] if (keys := add_adapter(model, config)) is not None else []
    if alpha := config.train.neftune_alpha:
        draws.append(add_embedding_noise(model, alpha, config.data.max_length))
    return Run(config, device, world, model, tokenizer, prompt, data, tuple(draws), steps_of(config, data), base)


def add_adapter(model: CausalLM, config: Config) -> DropoutKeys | None:
    """Make trainable what the config wants trained: an adapter, or everything."""
    lora = config.lora
    if lora is None or config.train.stage == "pretrain":
        # Loading normalizes such a head once and for all; one that is trained is normalized at each step.
        model.normalize_head = model.config.normalized_head
        return None
    if lora.fan_in_fan_out:
        say("note: lora.fan_in_fan_out is for layers stored (in, out); here it is false")
    return inject_lora(model, seed=config.train.seed, **lora.model_dump(exclude={"fan_in_fan_out"}))


def steps_of(config: Config, data: TrainingData) -> int:
    """Optimizer steps of the whole run."""
    steps = data.train_plan.steps_per_epoch * config.train.epochs
    return min(steps, config.train.max_steps or steps)


def build_step(run: Run) -> TrainStep:
    """The compiled training step of a run."""
    train = run.config.train
    optimizer = AdamW(
        trainable_parameters(run.model),
        train.beta1,
        train.beta2,
        train.epsilon,
        train.weight_decay,
        train.no_decay,
        train.lora_plus_ratio,
        run.world if train.shard_optimizer else None,
    )
    warmup = round(run.total_steps * train.warmup_ratio) if train.warmup_steps is None else train.warmup_steps
    schedule = Schedule(
        train.lr_schedule, train.learning_rate, train.min_learning_rate, min(warmup, run.total_steps), run.total_steps
    )
    # Only float16 gradients underflow; a fixed scale of one leaves the others as they are.
    scale: nn.Cell | Tensor = Tensor(1.0, ms.float32)
    if run.dtype == "float16":
        scale = nn.DynamicLossScaleUpdateCell(train.loss_scale, train.loss_scale_factor, train.loss_scale_window)
    step = TrainStep(
        TokenLoss(run.model, train.label_smoothing),
        optimizer,
        schedule,
        train.gradient_accumulation_steps,
        train.max_grad_norm,
        scale,
        recomputed_layers(train.recompute, run.model.config.num_hidden_layers),
    )
    step.set_train(True)
    return step


def restore(run: Run, weights: dict) -> None:
    """Put trained weights back into the model."""
    for parameter in trainable_parameters(run.model):
        assign(parameter, weights[parameter.name])


def weight_dtype(config: Config, device: Device) -> str:
    """The type that the base weights get."""
    # Training all weights keeps them in float32: updates are smaller than the steps between float16 numbers.
    trains_all = config.lora is None or config.train.stage == "pretrain"
    return "float32" if trains_all else device.dtype


def load_data(config: Config, tokenizer: Tokenizer, prompt: Prompt, world: distributed.World) -> TrainingData:
    """Rows and their order, checked against tokenizer and prompt."""
    assert config.data.path is not None
    path = Path(config.data.path)
    description = manifest.check(path, tokenizer, prompt, files=[])
    kind, stage = description["kind"], config.train.stage
    if (kind == "text") != (stage == "pretrain"):
        wanted = "pretrain" if kind == "text" else "sft"
        raise UserError(f"data {path} holds {kind} records, train.stage is {stage!r}", f"set train.stage={wanted}")
    length, packing = config.data.max_length, config.data.packing
    train_records = load_split(path, "train", tokenizer, prompt)
    val_records = load_split(path, "val", tokenizer, prompt)
    if len(train_records) == 0:
        raise UserError(f"data {path}: the training part is empty")
    if config.train.max_train_samples is not None:
        train_records = train_records.slice(0, config.train.max_train_samples)
    train = build_rows(train_records, length, packing, split_records=kind == "text")
    batch, accumulation, seed = (
        config.train.batch_size,
        config.train.gradient_accumulation_steps,
        config.train.seed,
    )
    plan = BatchPlan(train, batch, accumulation, world.size, seed)
    val = val_plan = None
    if len(val_records):
        val = build_rows(val_records, length, packing, split_records=kind == "text")
        val_plan = BatchPlan(val, batch, 1, world.size, seed, shuffle=False)
    digest = _digest_of(description)
    texts = description["files"].get("train.jsonl", {}).get("sha256")
    return TrainingData(train, plan, val, val_plan, digest, path.resolve(), texts)


def _digest_of(description: Mapping[str, Any]) -> str:
    """sha256 (hex) of the training part's file; of several, that of all theirs."""
    digests = [description["files"][name]["sha256"] for name in description["shards"]["train"]]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def check_positions(model: CausalLM, config: Config, folder: Path) -> None:
    """Raise UserError where rows are longer than the model reaches."""
    limit = model.config.position_limit
    if config.data.max_length > limit:
        raise UserError(
            f"data.max_length = {config.data.max_length}: {folder.name} has {limit} positions",
            f"set data.max_length to at most {limit} and convert with it",
        )
