"""What vLLM and vllm-ascend read of an exported model and of an adapter, as transformers shows it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors
from exports import QKV, write_adapter

from ms_medqa.config.assets import resolve_model
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import PATTERNS, Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation import MedicalQA, load_model
from ms_medqa.peft import inject_lora
from ms_medqa.peft.export import export
from ms_medqa.training.result import save_result

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("pynative_mode")]

BASE = resolve_model("medqa-tiny")
QUESTION = "高血压患者的饮食注意事项有哪些？"
HISTORY = (("你好", "您好，请说。"), ("头痛怎么办？", " 多久了？\n"))
DIALOGUES = {
    "question": Example("1", QUESTION, ""),
    "context": Example("2", QUESTION, "", context="低盐低脂。"),
    "system": Example("3", "What is a fever?", "", system="你是医生。"),
    "history": Example("4", "  两天了。\n", "", history=HISTORY),
    "all": Example("5", QUESTION, "", context="低盐\n低脂。", system="你是医生。", history=HISTORY),
    "template code": Example("6", "{{ 7 * 7 }} {% if %} {question} \"'\\n", "", context="{context}"),
}


@dataclass
class Folder:
    """A folder as its readers see it."""

    path: Path

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text("utf-8"))

    @property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...], str]]:
        """Name -> (type, shape, file)."""
        found = {}
        for path in self.path.glob("*.safetensors"):
            with safetensors.safe_open(path, "pt") as file:
                assert file.metadata() == {"format": "pt"}
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_tensor(name)
                    found[name] = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), path.name)
        return found


def of_prompt(name: str, folder: Path, base: Path = BASE) -> Prompt:
    """The prompt, saved into an adapter's folder."""
    write_adapter(folder, json.loads((base / "config.json").read_text("utf-8")), QKV, scale=0.02)
    prompt = Prompt.named(name, Tokenizer.load(base))
    prompt.save(folder)
    return prompt


def messages(example: Example) -> list[dict[str, str]]:
    """As a client of `/v1/chat/completions` sends them."""
    turns = [("system", example.system)] if example.system else []
    for question, answer in example.history:
        turns += [("user", question), ("assistant", answer)]
    return [{"role": role, "content": text} for role, text in [*turns, ("user", example.question)]]


def rendered(folder: Path, example: Example) -> list[int]:
    """The ids that vLLM makes of the messages; a context comes in `chat_template_kwargs`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    context = {"context": example.context} if example.context else {}
    return tokenizer.apply_chat_template(messages(example), add_generation_prompt=True, return_dict=False, **context)


@pytest.fixture(scope="module", params=PATTERNS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prompt, Path]:
    """A prompt, and the model merged with an adapter of that prompt, in several files."""
    folder = tmp_path_factory.mktemp(request.param)
    prompt = of_prompt(request.param, folder / "adapter")
    export(BASE, folder / "adapter", folder / "out", max_shard_size="4MB")
    return prompt, folder / "out"


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_messages_become_the_prompt(exported: tuple[Prompt, Path], dialogue: str) -> None:
    prompt, folder = exported
    assert rendered(folder, DIALOGUES[dialogue]) == prompt.encode_prompt(DIALOGUES[dialogue])


# What is read -> whether the folder has it, given the ids at which the prompt's answers end.
MODEL: dict[str, Callable[[Folder, tuple[int, ...]], bool]] = {
    "architectures: the model's class": lambda folder, ends: (
        folder.json("config.json")["architectures"] == ["Qwen2ForCausalLM"]
    ),
    "auto_map: no code is asked for": lambda folder, ends: "auto_map" not in folder.json("config.json"),
    "torch_dtype: the type of the tensors": lambda folder, ends: (
        {kind for kind, _, _ in folder.tensors.values()} == {folder.json("config.json")["torch_dtype"]}
    ),
    "vocab_size: rows of the embedding": lambda folder, ends: (
        folder.tensors["model.embed_tokens.weight"][1][0] == folder.json("config.json")["vocab_size"]
    ),
    "tie_word_embeddings: whether there is no lm_head.weight": lambda folder, ends: (
        ("lm_head.weight" not in folder.tensors) == folder.json("config.json")["tie_word_embeddings"]
    ),
    "shapes, rope, positions: as in the base": lambda folder, ends: (
        folder.json("config.json") == Folder(BASE).json("config.json")
    ),
    "model.safetensors.index.json: the file of each tensor": lambda folder, ends: (
        folder.json("model.safetensors.index.json")["weight_map"]
        == {name: file for name, (_, _, file) in folder.tensors.items()}
    ),
    "generation_config.json: every token that ends an answer": lambda folder, ends: (
        set(transformers.GenerationConfig.from_pretrained(folder.path).eos_token_id) == set(ends)
    ),
    "tokenizer: eos_token is one of them": lambda folder, ends: (
        transformers.AutoTokenizer.from_pretrained(folder.path).eos_token_id in ends
    ),
}


@pytest.mark.parametrize("read", MODEL)
def test_the_exported_folder_has_what_is_read(exported: tuple[Prompt, Path], read: str) -> None:
    prompt, folder = exported
    assert MODEL[read](Folder(folder), prompt.stop_token_ids)


def test_the_exported_folder_stays_ours(exported: tuple[Prompt, Path], tmp_path: Path) -> None:
    """The template for others changes neither our tokenizer nor the prompt, however often it is exported."""
    prompt, folder = exported
    export(folder, None, tmp_path / "again")
    for out in (folder, tmp_path / "again"):
        tokenizer = Tokenizer.load(out)
        assert tokenizer.fingerprint == prompt.tokenizer.fingerprint
        assert Prompt.load(out, tokenizer).to_dict() == prompt.to_dict()
    for name in ("chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_answers_and_their_end_are_ours(tmp_path: Path) -> None:
    of_prompt("medqa", tmp_path / "adapter")
    export(BASE, tmp_path / "adapter", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    prompt = torch.tensor([rendered(tmp_path / "out", DIALOGUES["question"])])
    with torch.no_grad():
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False)[0]
    answer = ids[prompt.shape[1] :].tolist()
    assert 8 < len(answer) < 64, "it ends by itself"
    found = MedicalQA(tmp_path / "out")
    assert found.answer(QUESTION, temperature=0, repetition_penalty=1, max_new_tokens=64) == found.tokenizer.decode(
        answer
    )


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("own_file", [False, True])
def test_other_tokenizers(tmp_path: Path, name: str, own_file: bool) -> None:
    """A start token before every text, a template that strips and adds, in the settings or in a file of its own."""
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    settings = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    template = (
        "{{ bos_token }}{% if messages[0].role != 'system' %}<|im_start|>system\nA doctor.<|im_end|>\n{% endif %}\n"
        "{% for message in messages %}\n<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
        "{% endfor %}\n{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings |= {"bos_token": "<|im_start|>", "add_bos_token": True, "tokenizer_class": "LlamaTokenizerFast"}
    settings.pop("chat_template")
    if own_file:
        (base / "chat_template.jinja").write_text(template, "utf-8")
    else:
        settings["chat_template"] = template
    (base / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    prompt = of_prompt(name, tmp_path / "adapter", base)
    assert name == "chat" or prompt.encode_prompt(DIALOGUES["question"])[0] == prompt.tokenizer.bos_token_id
    export(base, tmp_path / "adapter", tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").fingerprint == prompt.tokenizer.fingerprint
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    for example in DIALOGUES.values():
        context = {"context": example.context} if example.context else {}
        text = tokenizer.apply_chat_template(messages(example), tokenize=False, add_generation_prompt=True, **context)
        assert text == prompt.text(example, generate=True)


@pytest.mark.parametrize(
    "roles", [["user", "user"], ["assistant", "user"], ["user", "system", "user"], ["user", "assistant", "tool"]]
)
def test_dialogues_that_the_prompt_does_not_know_are_refused(tmp_path: Path, roles: list[str]) -> None:
    of_prompt("medqa", tmp_path / "adapter")
    export(BASE, tmp_path / "adapter", tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with pytest.raises(Exception, match="then user and assistant in turn"):
        tokenizer.apply_chat_template([{"role": role, "content": "a"} for role in roles])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As training writes it."""
    model = load_model(BASE)
    inject_lora(model, r=8, alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"])
    tokenizer = Tokenizer.load(BASE)
    config = SimpleNamespace(model=SimpleNamespace(path=str(BASE)))
    run: Any = SimpleNamespace(
        model=model, config=config, base=None, tokenizer=tokenizer, prompt=Prompt.named("chat", tokenizer)
    )
    return save_result(run, tmp_path_factory.mktemp("run"))


# What is read -> whether the adapter has it. vLLM refuses what is not so, and scales patterns wrongly without a word.
ADAPTER: dict[str, Callable[[Folder], bool]] = {
    "r: at most --max-lora-rank": lambda folder: folder.json("adapter_config.json")["r"] == 8,
    "lora_alpha, use_rslora: one scale for all modules": lambda folder: (
        not folder.json("adapter_config.json").get("rank_pattern")
        and not folder.json("adapter_config.json").get("alpha_pattern")
        and math.isclose(folder.json("adapter_config.json")["lora_alpha"], 16)
    ),
    "modules_to_save: none": lambda folder: not folder.json("adapter_config.json").get("modules_to_save"),
    "bias: none": lambda folder: folder.json("adapter_config.json")["bias"] == "none",
    "use_dora: not": lambda folder: not folder.json("adapter_config.json").get("use_dora"),
    "target_modules: names of the model's own layers": lambda folder: (
        set(folder.json("adapter_config.json")["target_modules"])
        <= {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    ),
    "adapter_model.safetensors: A and B of these layers alone": lambda folder: (
        {name.split(".")[-3] for name in folder.tensors} == set(folder.json("adapter_config.json")["target_modules"])
        and all(name.startswith("base_model.model.model.layers.") for name in folder.tensors)
        and all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in folder.tensors)
    ),
    "--chat-template FILE": lambda folder: (
        rendered(folder.path, DIALOGUES["all"])
        == (Prompt.load(folder.path, Tokenizer.load(folder.path)).encode_prompt(DIALOGUES["all"]))
    ),
    "--generation-config DIR": lambda folder: (
        set(transformers.GenerationConfig.from_pretrained(folder.path).eos_token_id) == {0, 2}
    ),
}


@pytest.mark.parametrize("read", ADAPTER)
def test_the_adapter_has_what_is_read(adapter: Path, read: str) -> None:
    assert ADAPTER[read](Folder(adapter))
