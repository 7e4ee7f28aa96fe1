"""Run the whole path on the shipped sample: convert, train, eval (base against tuned), ask. About four minutes."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config import UserError, load_config, split_overrides
from ms_medqa.config.assets import DEMO_CONFIG, LORA_CONFIG, MEDQA_MINI
from ms_medqa.config.console import say
from ms_medqa.config.files import user_path, write_json

MODEL = "medqa-tiny"
CONTEXT = "神经系统检查中，垂腕是桡神经损伤的典型表现。"
# Close to the training: a model of this size cannot read an unfamiliar question together with a context.
QUESTION = "患者出现垂腕，受损的是什么神经？"
SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--output", metavar="DIR", default="output/demo", help="folder of the demo (default: %(default)s)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys of the training run")


def run(args: argparse.Namespace) -> int:
    """Call the commands one after the other, as a user would, and sum up."""
    overrides, others = split_overrides(args.overrides)
    if others:
        raise UserError(f"unexpected argument {others[0]!r}", "overrides have the form key=value")
    load_config(DEMO_CONFIG, overrides)  # a wrong key shows now, and not after the first step
    began = time.perf_counter()
    output = user_path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    config, data, result = output / "demo.yaml", output / "data", output / "run"
    shutil.copyfile(DEMO_CONFIG, config)
    adapter = result / "adapter"
    steps: list[tuple[str, list[str]]] = [
        (
            "1. convert: records to MindRecord",
            ["convert", str(MEDQA_MINI), "--output", str(data), "--config", str(config)],
        ),
        (
            "2. train: LoRA on the training part",
            ["train", str(config), f"data.path={data}", f"output_dir={result}", *overrides],
        ),
        (
            "3. eval: base against tuned on the test part",
            [
                *("eval", "--model", MODEL, "--adapter", str(adapter), "--data", str(data / "test.jsonl")),
                *("--output", str(output / "eval"), "--compare-base", "--config", str(config)),
            ],
        ),
        ("4. ask, with a context", _ask(adapter, "--context", CONTEXT, QUESTION)),
        ("5. ask, without a context", _ask(adapter, _first_question())),
        (
            "6. ask, a batch",
            _ask(adapter, "--input", str(_batch_file(output)), "--output", str(output / "answers.jsonl")),
        ),
    ]
    for title, arguments in steps:
        say(f"\n== {title}\n$ {_command(arguments)}")
        status = _main()(arguments)
        if status != 0:
            return status
    _show_batch(output)
    _summary(output, time.perf_counter() - began, [arguments for _, arguments in steps])
    return 0


def _main() -> Callable[[Sequence[str]], int]:
    # The table of commands names this module, so it can only be looked up when it is used.
    from ms_medqa.cli.main import main

    return main


def _ask(adapter: Path, *rest: str) -> list[str]:
    return ["ask", "--model", MODEL, "--adapter", str(adapter), "--greedy", "--max-new-tokens", "60", *rest]


def _test_questions() -> list[str]:
    records = (json.loads(line) for line in MEDQA_MINI.read_text(encoding="utf-8").splitlines())
    return [record["question"] for record in records if record.get("split") == "test"]


def _first_question() -> str:
    return _test_questions()[0]


def _batch_file(output: Path) -> Path:
    questions = _test_questions()
    path = output / "questions.jsonl"
    chosen = questions[1 :: max(1, len(questions) // 4)][:4]
    lines = [json.dumps({"id": f"q{i}", "question": text}, ensure_ascii=False) for i, text in enumerate(chosen, 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _show_batch(output: Path) -> None:
    for line in (output / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        say(f"{record['id']}  {record.get('question', '')}\n    {record.get('answer', record.get('error'))}")


def _summary(output: Path, seconds: float, commands: list[list[str]]) -> None:
    report = json.loads((output / "eval" / "eval.json").read_text(encoding="utf-8"))
    base, tuned = report["base"]["qa"], report["tasks"]["qa"]
    rows = [
        ("perplexity of the answers", "perplexity", "{:.2f}"),
        ("answers with the key fact", "key_fact_rate", "{:.1%}"),
        ("next-token accuracy", "token_accuracy", "{:.1%}"),
        ("ROUGE-L", "rouge_l", "{:.3f}"),
    ]
    say(f"\n== Summary: {tuned['n']} test questions, none of them in the training part\n")
    say(f"{'':<28}{'base':>10}{'tuned':>10}")
    for title, key, form in rows:
        say(f"{title:<28}{form.format(base[key]):>10}{form.format(tuned[key]):>10}")
    say("")
    for record in _examples(output / "eval" / "answers.jsonl"):
        say(f"question  {record['question']}")
        say(f"  base    {_one_line(record['base_answer'])}")
        say(f"  tuned   {_one_line(record['answer'])}\n")
    say("The same on your own records (JSON, JSON Lines or CSV with question, answer and, if any, context):")
    for text in _own_commands(output):
        say(f"  {text}")
    say(f"\nAll files are in {output}. Demonstration model: nothing it says is medical advice.")
    keys = ("perplexity", "key_fact_rate")
    summary: dict[str, Any] = {
        "base": {key: base[key] for key in keys},
        "tuned": {key: tuned[key] for key in keys},
        "seconds": round(seconds, 1),
        "commands": [_command(arguments) for arguments in commands],
    }
    write_json(output / "summary.json", summary)
    say(f"Done in {seconds:.0f} s.")


def _examples(answers: Path) -> list[dict[str, Any]]:
    """Three records with a key fact, spread over the file: chosen by place, not by how good the answer is."""
    records = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    keyed = [record for record in records if record.get("key")]
    return keyed[:: max(1, len(keyed) // SHOWN)][:SHOWN]


def _own_commands(output: Path) -> list[str]:
    model = f"--model {MODEL} --adapter RUN/adapter"
    config = _place(LORA_CONFIG if LORA_CONFIG.exists() else output / "demo.yaml")
    activate = Path(sys.executable).with_name("activate")
    return [
        # After run/quickstart.sh the command is in .venv and not on PATH.
        *([f"source {_place(activate)}"] if shutil.which("ms-medqa") is None and activate.exists() else []),
        f"ms-medqa convert RECORDS --output DATA --config {config}",
        f"ms-medqa train {config} data.path=DATA output_dir=RUN",
        f"ms-medqa eval {model} --data DATA/test.jsonl --output RUN/eval --compare-base",
        f"ms-medqa ask {model} 'QUESTION'",
    ]


def _place(path: Path) -> str:
    """A path as one types it here."""
    return shlex.quote(os.path.relpath(path))


def _command(arguments: Sequence[str]) -> str:
    return "ms-medqa " + shlex.join(arguments)


def _one_line(text: str) -> str:
    return " ".join(text.split())
