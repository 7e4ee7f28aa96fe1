"""Records a second of a whole LoRA run on real data: `ms_medqa.training.train` beside Hugging Face's `Trainer`.

    python benchmarks/train_records.py MODEL CONVERTED [--rows 2] [--length 512] [--rounds 5] [--steps 4] [--threads 2]

MODEL comes from `make_checkpoint.py --tokenizer …`, CONVERTED from `ms-medqa convert … --model MODEL`. Both sides train
the same tokens of the same records, with the same masks, in float32: ms_medqa packs them into `--rows` rows of
`--length` tokens a step; the peer has a batch of as many records as those rows hold on average, padded to the longest
of them, as its users do it (transformers' Trainer, PEFT, DataCollatorForSeq2Seq).

Each side is a process of its own that pauses in a callback at the end of a step while the other one trains. Printed are
medians over all turns, the median of each round's ratio, and its range; and what a checkpoint of ms_medqa takes, in
seconds and as a share of an epoch, after which one is written by default.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, answer, show
from train_sides import ALPHA, DECAY, MAX_NORM, RATE, TARGETS, R

from ms_medqa.data.dataset import build_rows
from ms_medqa.data.manifest import load_split


class Turns:
    """Counts what a side has trained, and waits at the end of a turn for the next one."""

    def __init__(self) -> None:
        self.left, self.records, self.began = 1, 0, time.perf_counter()
        self.first = True

    def step(self, records: int, **more: Any) -> bool:
        """One step is done; False where no turn is left."""
        self.records += records
        self.left -= 1
        if self.left:
            return True
        answer({"seconds": time.perf_counter() - self.began, "records": self.records, **more})
        line = sys.stdin.readline()
        self.left, self.records, self.began = int(line or 0), 0, time.perf_counter()
        return bool(line)


def ours(spec: dict[str, Any]) -> None:
    """`ms-medqa train`, from Python."""
    from ms_medqa.config.schema import Config
    from ms_medqa.training import Callback, train

    turns, saves = Turns(), []

    class Pause(Callback):
        def on_step_end(self, trainer: Any, record: dict[str, Any]) -> None:
            # The second step is the first one that compiles nothing; a checkpoint takes what lies between two calls.
            self.ended = time.perf_counter()
            epoch = trainer.plan.steps_per_epoch
            if not turns.step(record["samples"], steps_per_epoch=epoch, saves=saves):
                trainer.stop("the benchmark is over")
            self.ended = time.perf_counter()

        def on_save(self, trainer: Any, folder: Path) -> None:
            saves.append(time.perf_counter() - self.ended)

    config = Config.model_validate(
        {
            "model": {"path": spec["model"]},
            "data": {"path": spec["data"], "max_length": spec["length"], "packing": True},
            "lora": {"r": R, "alpha": ALPHA, "target_modules": list(TARGETS), "dropout": 0.0},
            "train": {
                "batch_size": spec["rows"],
                "gradient_accumulation_steps": 1,
                "learning_rate": RATE,
                "weight_decay": DECAY,
                "max_grad_norm": MAX_NORM,
                "epochs": 9,
                "eval_steps": 10**6,
                "save_steps": spec["save_steps"],
                "logging_steps": 1,
            },
            "runtime": {"device": "CPU", "dtype": "float32"},
            "output_dir": spec["output"],
        }
    )
    train(config, callbacks=[Pause()])


def peer(spec: dict[str, Any]) -> None:
    """transformers' Trainer with a PEFT model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.set_num_threads(spec["threads"])
    records = load_split(Path(spec["data"]), "train", None, None)
    rows = []
    for number in range(len(records)):
        tokens, mask = records.record(number)
        labels = np.where(mask > 0, tokens, -100)
        rows.append({"input_ids": tokens.tolist(), "labels": labels.tolist(), "attention_mask": [1] * len(tokens)})
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, target_modules=list(TARGETS), lora_dropout=0.0))
    turns = Turns()

    class Pause(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if not turns.step(spec["records"]):
                control.should_training_stop = True

    arguments = TrainingArguments(
        output_dir=spec["output"],
        per_device_train_batch_size=spec["records"],
        learning_rate=RATE,
        weight_decay=DECAY,
        max_grad_norm=MAX_NORM,
        lr_scheduler_type="cosine",
        num_train_epochs=9,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(spec["model"]))
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Pause()]).train()


def main() -> None:
    """Compare, or be one of the sides."""
    if sys.argv[1:2] == ["--side"]:
        spec = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        {"ms_medqa": ours, "peer": peer}[spec["side"]](spec)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    records = load_split(args.data, "train", None, None)
    packed = build_rows(records, args.length, packing=True)
    batch = round(args.rows * len(records) / len(packed))
    tokens = records.offsets[-1] / len(records)
    print(
        f"{len(records)} records of {tokens:.0f} tokens on average, {len(packed)} rows of {args.length}; LoRA r={R}, "
        f"float32, {args.threads} threads\nms_medqa: {args.rows} rows a step, peer: {batch} records a step",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="ms_medqa-records-") as folder:
        sides = {}
        for name in ("ms_medqa", "peer"):
            spec = {
                "side": name,
                "model": str(args.model),
                "data": str(args.data),
                "length": args.length,
                "rows": args.rows,
                "records": batch,
                "threads": args.threads,
                "save_steps": args.steps,
                "output": f"{folder}/{name}",
            }
            sides[name] = Side(Path(__file__), "--side", spec, Path(folder), args.threads)
        turns: list[dict[str, float]] = []
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(args.rounds):
            turn = {}
            for name in list(sides) if number % 2 == 0 else list(reversed(sides)):
                found = sides[name].ask(args.steps)
                turn[name] = found["records"] / found["seconds"]
                speeds[name].append(turn[name])
                if name == "ms_medqa":
                    last = found
            turns.append(turn)
        for side in sides.values():
            side.close()
    own, other = (statistics.median(speeds[name]) for name in ("ms_medqa", "peer"))
    print(f"ms_medqa {own:.2f} records/s, peer {other:.2f} records/s")
    print(f"ratio {show([turn['ms_medqa'] / turn['peer'] for turn in turns])}")
    step = args.rows * len(records) / len(packed) / own
    save, epoch = statistics.median(last["saves"]), last["steps_per_epoch"]
    print(
        f"a checkpoint takes {save:.2f} s ({min(last['saves']):.2f} to {max(last['saves']):.2f}, {len(last['saves'])} "
        f"of them): {100 * save / (step * epoch):.2f} % of an epoch of {epoch} steps of {step:.2f} s"
    )


if __name__ == "__main__":
    main()
