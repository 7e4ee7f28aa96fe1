"""What a run is going to be: for its first lines, and for `--dry-run`, which reads no weights."""

from __future__ import annotations

from dataclasses import dataclass

from ms_medqa.backend import distributed
from ms_medqa.backend.device import Device, resolve_dtype, setup_runtime
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.schema import Config, LoraSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer, has_tokenizer
from ms_medqa.models import CausalLM, ModelConfig
from ms_medqa.models.checkpoint import has_weights, load_config, open_checkpoint
from ms_medqa.peft import count_parameters
from ms_medqa.training.build import (
    Run,
    TrainingData,
    add_adapter,
    check_positions,
    load_data,
    steps_of,
    weight_dtype,
)
from ms_medqa.training.memory import MemoryEstimate, estimate_memory


@dataclass(frozen=True)
class Plan:
    """A run before its first step.

    Attributes:
        parameters: (trainable, total).
        data, total_steps: None where `data.path` is not set.
        memory: estimate of the peak.
        memory_on_card: the same for an Ascend card, in a plan that is made on a CPU.
        missing: what the run will need and has not got yet.
    """

    config: Config
    device: Device
    ranks: int
    model: ModelConfig
    dtype: str
    parameters: tuple[int, int]
    data: TrainingData | None
    total_steps: int | None
    memory: MemoryEstimate
    memory_on_card: MemoryEstimate | None = None
    missing: tuple[str, ...] = ()


def plan_of(run: Run) -> Plan:
    """The plan of a run that has been built."""
    return Plan(
        run.config,
        run.device,
        run.world.size,
        run.model.config,
        run.dtype,
        count_parameters(run.model),
        run.data,
        run.total_steps,
        _memory(run.model, run.config, run.device.name, run.dtype, run.data, run.world.size),
    )


def plan_run(config: Config) -> Plan:
    """Check a config against its model folder and its data. No weights are read, and none need be there.

    Raises:
        UserError: config, data and model do not fit together.
    """
    folder = resolve_model(config.model.path)
    shape = load_config(folder)
    missing = []
    device = setup_runtime(config.runtime)
    world = distributed.start()
    dtype = weight_dtype(config, device)
    if config.model.init == "pretrained":
        if has_weights(folder):
            shape = open_checkpoint(folder, shape).config
        else:
            missing.append(f"weights: {folder} has none")
    # Its weights take memory only when they are filled.
    model = CausalLM(shape, dtype, folder)
    check_positions(model, config, folder)
    data = steps = None
    if not has_tokenizer(folder):
        missing.append(f"tokenizer: {folder} has none")
    elif config.data.path is not None:
        tokenizer = Tokenizer.load(folder)
        data = load_data(config, tokenizer, Prompt.named(config.data.prompt, tokenizer), world)
        steps = steps_of(config, data)
    if config.data.path is None:
        missing.append("data: data.path is not set, so the number of steps is not known")
    add_adapter(model, config)
    counts = count_parameters(model)
    memory, on_card = _memory(model, config, device.name, dtype, data, world.size), None
    if device.name == "CPU":
        card = Device("Ascend", resolve_dtype(config.runtime.dtype, "Ascend")[0])
        on_card = _memory(model, config, card.name, weight_dtype(config, card), data, world.size)
    return Plan(config, device, world.size, shape, dtype, counts, data, steps, memory, on_card, tuple(missing))


def _memory(
    model: CausalLM, config: Config, device: str, dtype: str, data: TrainingData | None, ranks: int
) -> MemoryEstimate:
    labels = None if data is None else data.train_plan.most_labels(config.train.epochs)
    return estimate_memory(model, config, device, dtype, labels, ranks)


def describe(plan: Plan) -> str:
    """The plan as a few aligned lines."""
    config, model = plan.config, plan.model
    trainable, total = plan.parameters
    kind = _adapter_line(config.lora) if config.lora and trainable < total else "all weights"
    ranks = f" x {plan.ranks} ranks" if plan.ranks > 1 else ""
    heads = f"{model.num_attention_heads} heads of {model.head_dim} on {model.num_key_value_heads} key heads"
    shape = f"{model.num_hidden_layers} layers of {model.hidden_size} and {model.intermediate_size}"
    lines = [
        ("model", f"{config.model.path}, {model.family}, {plan.dtype} on {plan.device.name}{ranks}"),
        ("shape", f"{shape}, {heads}, vocabulary {model.vocab_size:,}"),
        ("parameters", f"{trainable:,} trainable of {total:,} ({100 * trainable / total:.2f} %): {kind}"),
        *_data_lines(plan, ranks),
        ("memory", str(plan.memory)),
        *([("on a card", f"{plan.memory_on_card} (never measured)")] if plan.memory_on_card else []),
        ("output", config.output_dir),
    ]
    if plan.device.notice:
        lines.append(("note", plan.device.notice))
    lines += [("missing", text) for text in plan.missing]
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _data_lines(plan: Plan, ranks: str) -> list[tuple[str, str]]:
    train, data = plan.config.train, plan.data
    batch = f"{train.batch_size} a device x {train.gradient_accumulation_steps} accumulated{ranks}"
    if data is None:
        rows = train.batch_size * train.gradient_accumulation_steps * plan.ranks
        return [("batch", f"{rows} rows of {plan.config.data.max_length} tokens ({batch})")]
    rows = data.train
    share = rows.token_counts.sum() / (len(rows) * rows.max_length)
    train_records, val_records = data.records
    epoch = data.train_plan.steps_per_epoch
    return [
        ("data", f"{train_records:,} training and {val_records:,} validation records from {plan.config.data.path}"),
        ("rows", f"{len(rows):,} of {rows.max_length} tokens, {100 * share:.1f} % full"),
        ("steps", f"{plan.total_steps:,} of {data.train_plan.global_batch} rows ({batch}), {epoch:,} an epoch"),
    ]


def _adapter_line(lora: LoraSection) -> str:
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    whole = f", whole: {', '.join(lora.modules_to_save)}" if lora.modules_to_save else ""
    return f"LoRA r={lora.r} alpha={lora.alpha:g} on {targets}{whole}"
