"""What transformers, PEFT and torch.optim make of the records in `uneven`: `golden.json` for `uneven.assert_golden`.

    PYTHONPATH=.:tests python tests/training/make_golden.py

Nothing of `ms_medqa` computes here. The prompt, the tokens that count, the order of the records, the start of the
adapter and the learning rate are written out once more. A step takes its records one by one, without padding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import tiny
import tokenizers
import torch
import trainable
import transformers
import uneven

SETTINGS = uneven.TRAINING
STEPS = SETTINGS["epochs"] * -(-uneven.TRAIN // uneven.GLOBAL_BATCH)


def tokens_of(tokenizer: Any, record: dict[str, str]) -> tuple[torch.Tensor, int]:
    """(ids (1, n), how many of them are the question's); the answer and its end token are trained."""
    prompt = f"回答医学问题:{record['question']}\n回答:"
    ids = [*tokenizer.encode(prompt + record["answer"]).ids, tokenizer.token_to_id(tiny.END)]
    asked = tokenizer.encode(prompt).ids
    assert ids[: len(asked)] == asked
    return torch.tensor([ids]), len(asked)


def order(epoch: int) -> np.ndarray:
    """The records of an epoch: those with the smallest draws come first."""
    key = np.array([SETTINGS["seed"], epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(uneven.TRAIN), kind="stable")


def rate(done: int) -> float:
    """Learning rate of step number `done`, from 1: a linear rise, then half a cosine."""
    peak, lowest, warmup = SETTINGS["learning_rate"], SETTINGS["min_learning_rate"], SETTINGS["warmup_steps"]
    if done <= warmup:
        return peak * done / warmup
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * (done - warmup) / (STEPS - warmup))) / 2


def start_model(folder: Path) -> Any:
    """The base with a new adapter: A of layer i uniform by the key (seed, i), B zero."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    lora = uneven.LORA
    options = peft.LoraConfig(
        r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["target_modules"], lora_dropout=0.0
    )
    model = peft.get_peft_model(model, options, autocast_adapter_dtype=False)
    starts = [parameter for name, parameter in model.named_parameters() if "lora_A" in name]
    for index, parameter in enumerate(starts):
        bound = 1 / math.sqrt(parameter.shape[1])
        generator = np.random.Generator(np.random.Philox([SETTINGS["seed"], index]))
        parameter.data = torch.tensor(generator.uniform(-bound, bound, parameter.shape).astype(np.float32)).double()
    return model


def answer_logits(model: Any, ids: torch.Tensor, asked: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the tokens behind the first `asked`, and these tokens."""
    return model(ids).logits[0, asked - 1 : -1], ids[0, asked:]


def loss_sum(model: Any, record: tuple[torch.Tensor, int]) -> torch.Tensor:
    """Summed loss of a record's answer."""
    return torch.nn.functional.cross_entropy(*answer_logits(model, *record), reduction="sum")


def answer_tokens(records: Sequence[tuple[torch.Tensor, int]]) -> int:
    """How many tokens are trained."""
    return sum(ids.shape[1] - asked for ids, asked in records)


@torch.no_grad()
def validate(model: Any, records: Sequence[tuple[torch.Tensor, int]]) -> tuple[float, float]:
    """Mean loss of the answers' tokens, and the share of them that are likeliest."""
    total = right = 0.0
    for record in records:
        logits, labels = answer_logits(model, *record)
        total += loss_sum(model, record).item()
        right += (logits.argmax(-1) == labels).sum().item()
    return total / answer_tokens(records), right / answer_tokens(records)


def compute() -> dict[str, Any]:
    """Figures of each step, of the validation after each epoch, and the adapter at the end."""
    folder = trainable.place() / "model"
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    train, val = (
        [tokens_of(tokenizer, record) for record in uneven.RECORDS if record["split"] == part]
        for part in ("train", "val")
    )
    model = start_model(folder)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.999), eps=1e-8, weight_decay=SETTINGS["weight_decay"])
    steps, evaluations = [], []
    for epoch in range(SETTINGS["epochs"]):
        records = order(epoch)
        for first in range(0, uneven.TRAIN, uneven.GLOBAL_BATCH):
            batch = [train[number] for number in records[first : first + uneven.GLOBAL_BATCH]]
            loss = sum(loss_sum(model, record) for record in batch) / answer_tokens(batch)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, SETTINGS["max_grad_norm"])
            optimizer.param_groups[0]["lr"] = lr = rate(len(steps) + 1)
            optimizer.step()
            steps.append((loss.item(), norm.item(), lr, sum(ids.shape[1] for ids, _ in batch)))
        evaluations.append(validate(model, val))
    names = ("loss", "grad_norm", "learning_rate", "tokens", "validation_loss", "validation_accuracy")
    columns = [*zip(*steps, strict=True), *zip(*evaluations, strict=True)]
    result: dict[str, Any] = {name: list(column) for name, column in zip(names, columns, strict=True)}
    result["adapter"] = {
        name.replace(".default.", "."): parameter.tolist()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return result


def rounded(value: Any) -> Any:
    """Eight digits, more than float32 has."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in rounded(compute()).items()]
    uneven.GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
