"""Every shipped config is valid and plans a run on the model it is for, from that model's `config.json` alone."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.cli.main import COMMANDS, Parser, main
from ms_medqa.config import load_config
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.families import read_config
from ms_medqa.training.build import add_adapter
from ms_medqa.training.memory import estimate_memory

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMMON: dict[str, Any] = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "initializer_range": 0.02}
# What the released files say, and the number of parameters of the released weights.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "lora_qwen2.5_0.5b.yaml": (
        {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "use_sliding_window": False,
            "sliding_window": 32768,
            "max_window_layers": 24,
            "tie_word_embeddings": True,
        },
        494_032_768,
    ),
    "lora_qwen2.5_7b_instruct.yaml": (
        {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "use_sliding_window": False,
            "tie_word_embeddings": False,
        },
        7_615_616_512,
    ),
    "lora_llama_13b.yaml": (
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "vocab_size": 39424,
            "max_position_embeddings": 2048,
        },
        13_091_886_080,
    ),
    # Version 1.5, which the config names.
    "lora_deepseek_coder_7b.yaml": (
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 30,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 102400,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
        },
        6_910_365_696,
    ),
    "lora_deepseek_coder_7b.yaml for 6.7B": (
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32256,
            "max_position_embeddings": 16384,
            "rope_theta": 100000,
            "rope_scaling": {"type": "linear", "factor": 4.0},
        },
        6_740_512_768,
    ),
    "lora_qwen_7b.yaml": (
        {
            "architectures": ["QWenLMHeadModel"],
            "hidden_size": 4096,
            "intermediate_size": 22016,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "kv_channels": 128,
            "layer_norm_epsilon": 1e-6,
            "rotary_emb_base": 10000,
            "rotary_pct": 1.0,
            "no_bias": True,
            "seq_length": 8192,
            "max_position_embeddings": 32768,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
            "vocab_size": 151936,
        },
        7_721_324_544,
    ),
    "lora_baichuan2_13b.yaml": (
        {
            "architectures": ["BaichuanForCausalLM"],
            "hidden_size": 5120,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "model_max_length": 4096,
            "vocab_size": 125696,
        },
        13_896_668_160,
    ),
}


TINY = ("lora_medqa_tiny.yaml", "pretrain_medqa_tiny.yaml")
SHIPPED = sorted(path.name for path in CONFIGS.glob("*.yaml"))


def head_of(name: str) -> str:
    """The comment that a config begins with, continued lines joined."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), (CONFIGS / name).read_text("utf-8").splitlines())
    return "\n".join(line[1:] for line in lines).replace("\\\n", " ")


def planned_gigabytes(name: str, device: str, dtype: str) -> float:
    """The estimate for a config's run with every position labelled, as where no data is known."""
    config = load_config(CONFIGS / name, [])
    model = CausalLM(read_config(COMMON | MODELS[name][0], name))
    add_adapter(model, config)
    return estimate_memory(model, config, device, dtype, None).total / 1e9


def test_every_config_is_here() -> None:
    assert sorted({name.split()[0] for name in MODELS} | set(TINY)) == SHIPPED


@pytest.mark.parametrize("name", MODELS)
def test_it_plans_a_run_without_weights(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape, parameters = MODELS[name]
    (tmp_path / "config.json").write_text(json.dumps(COMMON | shape), encoding="utf-8")
    path = str(CONFIGS / name.split()[0])
    assert main(["train", path, "--dry-run", f"model.path={tmp_path}", "runtime.device=CPU"]) == 0
    text = capsys.readouterr().out
    trainable, total = (
        int(number.replace(",", "")) for number in re.search(r"([\d,]+) trainable of ([\d,]+)", text).groups()
    )
    assert total - trainable == parameters
    # Rank 16 on every linear layer of the decoder: between a thousandth and a fiftieth of it.
    assert 0.001 < trainable / parameters < 0.02
    assert f"{shape['num_hidden_layers']} layers of {shape['hidden_size']}" in text
    assert re.search(r"^memory +[\d.]+ GB estimated", text, re.MULTILINE)
    # Whoever plans on a laptop wants to know what a card will need.
    assert re.search(r"^on a card +[\d.]+ GB estimated .*never measured", text, re.MULTILINE)
    for word in ("weights", "tokenizer", "data.path"):
        assert re.search(rf"^missing .*{word}", text, re.MULTILINE)


@pytest.mark.parametrize("name", TINY)
def test_it_plans_a_run_of_the_shipped_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(CONFIGS / name), "--dry-run", "model.path=medqa-tiny", "runtime.device=CPU"]) == 0
    planned = float(re.search(r"^memory +([\d.]+) GB estimated", capsys.readouterr().out, re.MULTILINE)[1])
    written = float(re.search(r"about ([\d.]+) GB of memory", head_of(name))[1])
    assert abs(written - planned) < 0.15


@pytest.mark.parametrize("name", SHIPPED)
def test_the_commands_of_its_head_are_commands(name: str) -> None:
    commands = [shlex.split(line) for line in head_of(name).splitlines() if re.match(r" +(ms-medqa|bash) ", line)]
    assert commands
    config = load_config(CONFIGS / name, [])
    for program, command, *arguments in commands:
        if program == "bash":
            assert (CONFIGS.parent / command).is_file(), command
        else:
            parser = Parser(prog=program)
            importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
            # What is unknown ends it.
            args = parser.parse(arguments)
            adapter = f"{config.output_dir}/adapter"
            assert getattr(args, "adapter", None) in (None, adapter, [adapter])
            assert command == "convert" or getattr(args, "model", None) in (None, config.model.path)
        if command in ("convert", "train") or program == "bash":
            named = [word for word in arguments if word.startswith("configs/")]
            assert named in ([f"configs/{name}"], []), arguments


@pytest.mark.parametrize("name", [name for name in MODELS if " " not in name])
def test_its_head_leads_from_records_to_answers(name: str) -> None:
    head = head_of(name)
    for command in ("convert", "train", "eval", "ask", "merge"):
        assert re.search(rf"^ +ms-medqa {command} ", head, re.MULTILINE), command
    assert f"run_distribute_train.sh 8 configs/{name}" in head
    written = re.search(r"^ Memory: about (\d+) GB a card \(estimated, not measured on an NPU\)", head, re.MULTILINE)
    assert abs(int(written[1]) - planned_gigabytes(name, "Ascend", "bfloat16")) < 1
    on_cpu = re.search(r"; (\d+) GB on a CPU", head)
    assert on_cpu is None or abs(int(on_cpu[1]) - planned_gigabytes(name, "CPU", "float32")) < 1
