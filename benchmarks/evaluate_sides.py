"""One side of `benchmarks/evaluate.py` in a process of its own: it measures when it is told to, and waits in between.

python benchmarks/evaluate_sides.py --side SPEC.json      (started by evaluate.py)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sides import answer

from ms_medqa.config.schema import EvalSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.evaluation.items import read_items
from ms_medqa.evaluation.task import Spec
from ms_medqa.evaluation.tasks.choice import ChoiceTask

NEW = 128
BATCH = 16
# Case -> its results for the first few items, or all, the same of both sides.
Cases = dict[str, Callable[[int | None], list[Any]]]


def exam(spec: dict[str, Any]) -> tuple[ChoiceTask, Prompt]:
    """The questions, and how they are asked."""
    settings = EvalSection(limit=spec["questions"], generate=False, batch_size=BATCH)
    task = ChoiceTask(Spec("choice", "choice", spec["data"]), read_items(spec["data"]), settings)
    return task, Prompt.named("medqa", Tokenizer.load(spec["model"]))


def prompts(spec: dict[str, Any], vocabulary: int) -> tuple[list[list[int]], list[int]]:
    """Prompts of random tokens, and the tokens that end an answer."""
    rng = np.random.default_rng(0)
    ends = rng.choice(vocabulary, vocabulary // 40, replace=False).tolist()
    lengths = rng.integers(24, 161, spec["answers"])
    return [rng.integers(0, vocabulary, length).tolist() for length in lengths], ends


def ours(spec: dict[str, Any]) -> Cases:
    """What `ms-medqa eval` does for each model and task, without its files."""
    from ms_medqa.backend.device import setup

    setup("CPU", mode="pynative")
    from ms_medqa import load_model
    from ms_medqa.evaluation.measure import GREEDY, Measurer, read_lines
    from ms_medqa.generation.engine import Engine
    from ms_medqa.generation.many import decode_many

    model = load_model(spec["model"], dtype="float32")
    task, prompt = exam(spec)
    measurer = Measurer(model, prompt, task.settings)
    given, ends = prompts(spec, model.config.vocab_size)

    def choice(few: int | None) -> list[Any]:
        lines: list[dict[str, Any]] = []
        items = task.items[:few]
        measurer.run(task, range(len(items)), [], lines.append, "choice")
        found = read_lines(lines)
        return [task.row(item, found[number])["pick"] for number, item in enumerate(items)]

    def qa(few: int | None) -> list[Any]:
        made = decode_many(Engine.of(model), given[:few], GREEDY, NEW, frozenset(ends), batch_size=BATCH, seed=0)
        return [one.tokens for one in made]

    return {"choice": choice, "qa": qa}


def peer(spec: dict[str, Any]) -> Cases:
    """The harness, and a loop over batches of transformers."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(spec["threads"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=spec["peer_batch"])
    task, prompt = exam(spec)
    asked = [task.asked(item, prompt).trees[0] for item in task.items]
    given, ends = prompts(spec, model.config.vocab_size)

    def choice(few: int | None) -> list[Any]:
        requests = [
            ((str(number), str(option)), list(tree.trunk), list(branch))
            for number, tree in enumerate(asked[:few])
            for option, branch in enumerate(tree.branches)
        ]
        likely = iter(harness._loglikelihood_tokens(requests, disable_tqdm=True))
        picks = [int(np.argmax([next(likely)[0] for _ in tree.branches])) for tree in asked[:few]]
        return ["ABCDEFGH"[pick] for pick in picks]

    def qa(few: int | None) -> list[Any]:
        found: list[Any] = []
        wanted = given[:few]
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            width = max(map(len, some))
            ids, mask = (torch.zeros((len(some), width), dtype=torch.long) for _ in range(2))
            for row, one in enumerate(some):
                ids[row, width - len(one) :] = torch.tensor(one)
                mask[row, width - len(one) :] = 1
            with torch.inference_mode():
                made = model.generate(
                    ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=ends, pad_token_id=0
                )
            for row in made[:, width:].tolist():
                end = next((place for place, token in enumerate(row) if token in stops), len(row))
                found.append(row[:end])
        return found

    stops = set(ends)
    return {"choice": choice, "qa": qa}


def main() -> None:
    spec = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    from ms_medqa.backend.device import peak_memory

    cases = {"ms_medqa": ours, "peer": peer}[spec["side"]](spec)
    answer({})
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        results = cases[asked["case"]](asked["few"])
        seconds = time.perf_counter() - began
        answer({"seconds": seconds, "results": results, "peak": peak_memory("CPU")})


if __name__ == "__main__":
    main()
