"""One side of `benchmarks/generate.py` in a process of its own: it answers when it is told to, and waits in between.

    python benchmarks/generate_sides.py --side SPEC.json      (started by generate.py)

It writes a line of JSON when it has loaded the model, and one for each line that it reads: prompts and a number of new
tokens, or a request to sum.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from sides import answer

# Prompts and number of new tokens -> (seconds to the first token, new tokens of each prompt).
Answers = Callable[[list[list[int]], int], tuple[float, list[list[int]]]]


def ours(spec: dict[str, Any]) -> tuple[float, Answers]:
    """When loading began, and ms_medqa's answers."""
    from ms_medqa.backend.device import setup

    setup("CPU", mode="pynative")
    from ms_medqa import load_model
    from ms_medqa.generation import SamplingParams
    from ms_medqa.generation.engine import Engine
    from ms_medqa.generation.many import decode_requests
    from ms_medqa.generation.request import Request

    began = time.perf_counter()
    engine = Engine.of(load_model(spec["model"], spec["adapter"], dtype="float32"))
    params = SamplingParams(temperature=0, repetition_penalty=1.0)

    def run(prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        started, first = time.perf_counter(), []

        def told(index: int, token: int) -> bool:
            if not first:
                first.append(time.perf_counter() - started)
            return False

        requests = [Request(prompt, params, new) for prompt in prompts]
        made = decode_requests(engine, requests, batch_size=len(prompts), stopped=told)
        return first[0], [one.tokens for one in made]

    return began, run


def peer(spec: dict[str, Any]) -> tuple[float, Answers]:
    """When loading began, and the answers of transformers and PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(spec["threads"])
    began = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    model = PeftModel.from_pretrained(model, spec["adapter"]).merge_and_unload().eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    def run(prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        started, first = time.perf_counter(), []

        def told(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            if not first:
                first.append(time.perf_counter() - started)
            return torch.zeros(len(ids), dtype=torch.bool)

        with torch.inference_mode():
            made = model.generate(
                ids, attention_mask=mask, max_new_tokens=new, do_sample=False, stopping_criteria=[told]
            )
        return first[0], made[:, width:].tolist()

    return began, run


def make_adapter(spec: dict[str, Any]) -> None:
    """An adapter with random weights, as PEFT writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, init_lora_weights=False))
    model.save_pretrained(spec["adapter"])


@lru_cache(maxsize=1)
def numbers() -> Any:
    """1 GB of float32, once: in fresh memory each time, they would take the place of files in memory."""
    import torch

    return torch.ones(250_000_000)


def bandwidth() -> float:
    """Bytes/s of a sum over 1 GB, the best of three."""
    numbers()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        numbers().sum()
        seconds.append(time.perf_counter() - began)
    return 1e9 / min(seconds)


def main() -> None:
    started = time.perf_counter()
    kind, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    if kind == "--make":
        make_adapter(spec)
        answer({})
        return
    from ms_medqa.backend.device import peak_memory

    began, run = {"ms_medqa": ours, "peer": peer}[spec["side"]](spec)
    loaded = time.perf_counter()
    answer({"loading": loaded - began, "process": loaded - started})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("sum"):
            answer({"bandwidth": bandwidth()})
            continue
        began = time.perf_counter()
        first, tokens = run(asked["prompts"], asked["new"])
        seconds = time.perf_counter() - began
        answer({"seconds": seconds, "first": first, "tokens": tokens, "peak": peak_memory("CPU")})


if __name__ == "__main__":
    main()
