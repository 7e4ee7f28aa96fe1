"""Every config key, with its type, default and meaning. `docs/config.md` is generated from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ms_medqa.config import lora_values
from ms_medqa.config.data_section import Columns as Columns
from ms_medqa.config.data_section import DataSection as DataSection
from ms_medqa.config.data_section import MixSource as MixSource
from ms_medqa.config.section import Section, with_home
from ms_medqa.config.serve_section import ServeSection as ServeSection

# Texts that can end an answer: each is looked for in every piece of it.
MAX_STOPS = 16


class ModelSection(Section):
    """The base model."""

    path: str = Field("medqa-tiny", description="Model folder in Hugging Face layout, or the name of a shipped model.")
    init: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="`random` starts from fresh weights (a pre-training from scratch; needs only `config.json` and "
        "a tokenizer in the folder).",
    )


class LoraSection(Section):
    """Low-rank adapters (`lora: null` trains all weights)."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: float = Field(32.0, gt=0, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: list[str] | str = Field(
        ["q_proj", "k_proj", "v_proj"],
        description="Names of the layers that get an adapter (the last parts of their paths, as the decoder or the "
        "checkpoint spells them); or one regular expression for whole paths; or `all-linear`, every linear layer but "
        "the head.",
    )
    exclude_modules: list[str] | str | None = Field(
        None, description="Layers to leave out: names, or one regular expression for whole paths."
    )
    layers_to_transform: int | list[int] | None = Field(
        None, description="Numbers of the decoder layers to stay in, from 0; empty: all. Not with a regular expression."
    )
    layers_pattern: str | list[str] | None = Field(
        None, description="Name of the list that these numbers count, such as `layers`; empty: any."
    )
    rank_pattern: dict[str, int] = Field(
        default_factory=dict,
        description="Other ranks: name of a layer, or a regular expression for the end of its path -> rank.",
    )
    alpha_pattern: dict[str, float] = Field(default_factory=dict, description="Other alphas, in the same way.")
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r) instead of alpha / r.")
    fan_in_fan_out: bool = Field(
        False, description="For layers stored (in, out); no layer here is, so `true` is set back with a notice."
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="Modules that are trained whole and saved with the adapter: `embed_tokens`, `lm_head`, norms. "
        "An embedding and a head that share their weights are trained as one.",
    )

    @field_validator("target_modules", "exclude_modules", mode="before")
    @classmethod
    def _check_layers(cls, value: Any, info: ValidationInfo) -> Any:
        nothing = info.field_name == "exclude_modules" and value in (None, [])
        return value if nothing else lora_values.names_or_expression(value)

    @field_validator("layers_to_transform", mode="before")
    @classmethod
    def _check_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return value
        targets = info.data.get("target_modules")
        if isinstance(targets, str) and targets.lower() != "all-linear":
            raise ValueError("not beside a regular expression: write the layers into lora.target_modules")
        return lora_values.layer_numbers(value)

    @field_validator("layers_pattern", mode="before")
    @classmethod
    def _check_list_name(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("layers_to_transform") is None:
            raise ValueError("it means nothing without lora.layers_to_transform")
        return None if value is None else lora_values.name_or_names(value)

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _check_pattern(cls, value: Any, info: ValidationInfo) -> Any:
        return lora_values.pattern(value, whole=info.field_name == "rank_pattern")


class TrainSection(Section):
    """The training run."""

    _home = with_home("resume")

    stage: Literal["sft", "pretrain"] = Field(
        "sft", description="`sft`: loss on answers. `pretrain`: loss on every token of plain text, all weights trained."
    )
    epochs: int = Field(3, ge=1, description="Passes over the training part.")
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps.")
    max_train_samples: int | None = Field(
        None, ge=1, description="Train on the first N records of the training part only; empty: all."
    )
    batch_size: int = Field(4, ge=1, description="Rows a device takes in one micro-batch.")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Micro-batches in one optimizer step.")
    recompute: bool | int = Field(
        False,
        description="Layers that keep only their input for the backward pass and are computed anew there: `true` is "
        "all, a whole number N the first N. Less memory for more time; the update is the same.",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Highest learning rate.")
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls after the rise; `constant`: not at all."
    )
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    warmup_steps: int | None = Field(None, ge=0, description="Steps of the rise; empty: `train.warmup_ratio` of all.")
    min_learning_rate: float = Field(1e-6, ge=0, description="Rate of the last step, where it falls.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled decay, not on norms and biases.")
    no_decay: list[str] = Field(
        default_factory=list,
        description="Weights with one of these in their names are not decayed either, such as `lora_b` or "
        "`embed_tokens`.",
    )
    lora_plus_ratio: float = Field(
        1.0, gt=0, description="LoRA+: rate of an adapter's second matrix, in that of the others; about 16 is usual."
    )
    shard_optimizer: bool = Field(
        False,
        description="Share the optimizer's moments out over the ranks, each of which updates its part (ZeRO stage 1): "
        "8 bytes a trained weight less, divided by the ranks, for one more exchange a step. The update is the same.",
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first moment decay.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second moment decay.")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target that all tokens get evenly.")
    neftune_alpha: float = Field(
        0.0, ge=0, description="NEFTune: size of the noise on the embedded tokens; 5 to 15 is usual, 0 is none."
    )
    loss_scale: float = Field(65536.0, gt=0, description="First dynamic loss scale; unused in float32 and bfloat16.")
    loss_scale_factor: int = Field(2, ge=2, description="The scale is divided or multiplied by this.")
    loss_scale_window: int = Field(1000, ge=1, description="Steps without overflow after which the scale grows.")
    seed: int = Field(42, ge=0, description="Seed of initialisation, order of samples and dropout.")
    logging_steps: int = Field(10, ge=1, description="Steps between two lines of `metrics.jsonl`.")
    eval_steps: int | None = Field(
        None, ge=1, description="Steps between evaluations; empty: at the end of each epoch."
    )
    best_metric: Literal["loss", "perplexity", "accuracy"] = Field(
        "loss", description="Validation metric that chooses the best weights, which become the result."
    )
    best_direction: Literal["auto", "min", "max"] = Field(
        "auto", description="Which value is the best; `auto`: the greatest `accuracy`, the least of the others."
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations in a row that were not the best; empty: never."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; empty: at the end of each epoch."
    )
    keep_checkpoints: int = Field(3, ge=1, description="Checkpoints kept besides the best one.")
    on_save_error: Literal["stop", "continue"] = Field(
        "stop", description="When a checkpoint cannot be written, as on a full disk: the earlier ones stay in any case."
    )
    resume: str | None = Field(
        None, description="`auto`: the newest complete checkpoint of `output_dir`; or a checkpoint folder."
    )

    @field_validator("recompute", mode="before")
    @classmethod
    def _check_layer_count(cls, value: Any) -> Any:
        # A union would tell a fault once for each of its types.
        if not isinstance(value, int) or value < 0:
            raise ValueError("input should be true, false or a number of layers, such as 12")
        return value


class EvalSection(Section):
    """Evaluation."""

    batch_size: int = Field(16, ge=1, description="Rows in one batch.")
    max_new_tokens: int = Field(64, ge=1, description="Longest generated answer.")
    limit: int | None = Field(None, ge=1, description="Evaluate only the first N records of each task.")
    generate: bool = Field(True, description="Have the models answer; `false`: their likelihoods alone.")
    options: Literal["line", "letter", "text"] = Field(
        "line", description="What is scored of an exam question's option: `B. text` as in training, `B`, or its text."
    )
    group_by: str | None = Field(
        None, description="Column by which exam questions are grouped; empty: a subject's column is found by itself."
    )
    language: Literal["en", "zh"] = Field("en", description="Of the report.")


class GenerateSection(Section):
    """Sampling of answers."""

    temperature: float = Field(0.2, ge=0, description="0 is greedy.")
    top_p: float = Field(0.9, gt=0, le=1, description="Smallest set of tokens whose probability reaches this.")
    top_k: int = Field(50, ge=0, description="Only the K likeliest tokens; 0 is all.")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Only tokens at least this many times as likely as the likeliest; 0 is all."
    )
    repetition_penalty: float = Field(1.1, gt=0, description="Above 1 makes repeated tokens less likely.")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="No sequence of so many tokens comes twice in prompt and answer; 0: any may."
    )
    stop: list[str] = Field(
        default_factory=list,
        description="Texts that end an answer, at most 16; the answer ends before the first that comes.",
    )
    num_beams: int = Field(
        1,
        ge=1,
        description="Above 1: beam search with so many beams takes the place of drawing; temperature, top_p, top_k, "
        "min_p and seed then mean nothing.",
    )
    length_penalty: float = Field(
        1.0,
        allow_inf_nan=False,
        description="Beam search compares log-probabilities over length to this power: above 0 favours long answers.",
    )
    early_stopping: bool | Literal["never"] = Field(
        False,
        description="Beam search ends, with `num_beams` answers found: true at once, false when the best beginning is "
        "no better than these, `never` when none of its continuations could be.",
    )
    n: int = Field(
        1,
        ge=1,
        description="Answers to each question, with beam search at most `num_beams`; of a server, requests say it.",
    )
    max_new_tokens: int = Field(200, ge=1, description="Longest answer.")
    batch_size: int = Field(8, ge=1, description="Questions answered together in a batch file.")
    seed: int | None = Field(None, ge=0, description="Repeats an answer exactly; empty: a new draw each time.")
    truncate_context: bool = Field(
        False,
        description="`ask` and `MedicalQA`: where the prompt is too long for the model, the end of the context is cut "
        "off, and they say so; false: such a question is an error.",
    )

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, value: list[str]) -> list[str]:
        if len(value) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} texts, not {len(value)}")
        if "" in value:
            raise ValueError("an empty text would end every answer at once")
        return value

    @field_validator("n")
    @classmethod
    def _check_n(cls, value: int, others: ValidationInfo) -> int:
        beams = others.data.get("num_beams", 1)
        if 1 < beams < value:
            raise ValueError(f"{beams} beams find at most {beams} answers")
        return value


class RuntimeSection(Section):
    """Where and how it runs."""

    _home = with_home("compile_cache")

    device: Literal["auto", "CPU", "GPU", "Ascend"] = Field(
        "auto", description="Device; `auto`: DEVICE_TARGET of the environment, else the fastest that is there."
    )
    device_id: int | None = Field(None, ge=0, description="Card; empty: DEVICE_ID of the environment, else 0.")
    mode: Literal["graph", "pynative"] = Field("graph", description="Execution mode of training.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="Compute type; `auto`: float32 on a CPU, float16 on a GPU or an Ascend. `bfloat16` needs an "
        "Ascend: elsewhere float32 takes its place, with a notice. Training all weights stays in float32.",
    )
    dataset_sink_mode: bool = Field(
        False,
        description="Batches of training go through the device's own queue (Ascend, GPU), which is filled ahead; on a "
        "CPU they come from the host, with a notice. The same batches in the same order.",
    )
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="Arithmetic that one device is sold with, in TFLOPS of the compute type: what MFU is a share of; "
        "empty: no MFU.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Cores of a CPU that a process computes on; empty: all, an even share for each rank.",
    )
    compile_cache: str | None = Field(
        None,
        description="Folder that keeps the compiled graphs of trainings, so that a later run of the same training "
        "starts sooner. All runs may share it, and it may be deleted at any time; empty: none.",
    )


class Config(Section):
    """A whole run."""

    _home = with_home("output_dir")

    model: ModelSection = Field(default_factory=ModelSection)
    data: DataSection = Field(default_factory=DataSection)
    lora: LoraSection | None = Field(default_factory=LoraSection)
    train: TrainSection = Field(default_factory=TrainSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    generate: GenerateSection = Field(default_factory=GenerateSection)
    serve: ServeSection = Field(default_factory=ServeSection)
    runtime: RuntimeSection = Field(default_factory=RuntimeSection)
    output_dir: str = Field("output", description="Folder of the run.")
