"""[parity] Picks among options are those of EleutherAI's lm-evaluation-harness on the same model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import decoders
import numpy as np
import pytest

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.schema import Config, EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.evaluation.contestants import contestants
from ms_medqa.evaluation.run import run_evaluation
from ms_medqa.evaluation.tasks import parse_specs

pytestmark = [pytest.mark.parity, pytest.mark.slow]

QUESTIONS = 500
# Two float32 computations of one sum of log-probabilities.
CLOSE = 2e-3


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tests run beside each other, where PyTorch's threads wait for one another for longer than they compute."""
    pytest.importorskip("torch").set_num_threads(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights behind the tokenizer of `medqa-tiny`, a tenth of its size: the harness reads 450,000 tokens."""
    folder = tmp_path_factory.mktemp("small")
    shape = {"vocab_size": 8000, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 1024}
    decoders.write(folder, decoders.config_of(**shape))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(resolve_model("medqa-tiny") / name, folder)
    return folder


def test_perplexity_is_the_harness_s_rolling_likelihood(tmp_path: Path) -> None:
    torch, lm_eval = pytest.importorskip("torch"), pytest.importorskip("lm_eval")
    assert lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sentences = [f"第{n}条：高血压患者应当低盐饮食，每天坚持运动，并按医嘱服药。" for n in range(90)]
    texts = ["发热", "Rest and fluids help.", "".join(sentences[:30]), "".join(sentences)]
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    run_evaluation(
        parse_specs(None, [f"perplexity={data}"], []),
        contestants([], "medqa-tiny", False),
        tmp_path / "out",
        Config(runtime={"dtype": "float32"}),
    )
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "answers-perplexity.jsonl").read_text("utf-8").splitlines()
    ]
    # More than one window, and more than two.
    assert [row["tokens"] > 511 for row in rows] == [False, False, True, True]
    assert rows[3]["tokens"] > 3 * 511
    folder = resolve_model("medqa-tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=4, max_length=511)
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    expected = lm.loglikelihood_rolling(asked)
    np.testing.assert_allclose([-row["loss"] for row in rows], expected, rtol=1e-4)


def test_picks_are_those_of_the_harness(
    small: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "transformers", "lm_eval", "datasets"):
        pytest.importorskip(name)
    # Nothing is fetched: the task is made here.
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    exam = shared_data / "medqa_us" / "medqa_us_4opt_test.jsonl"
    few = tmp_path / "exam.jsonl"
    # The shorter ones, for the harness reads each four times.
    lines = sorted(exam.read_text(encoding="utf-8").splitlines(keepends=True), key=len)
    few.write_text("".join(lines[:QUESTIONS]), encoding="utf-8")
    run_evaluation(
        parse_specs(None, [f"choice={few}"], []),
        contestants([], str(small), False),
        tmp_path / "out",
        Config(eval=EvalSection(limit=QUESTIONS, generate=False), runtime={"dtype": "float32"}),
    )
    ours = [json.loads(line) for line in (tmp_path / "out" / "answers-choice.jsonl").read_text("utf-8").splitlines()]
    report = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))["tasks"]["choice"]
    assert len(ours) == report["n"] == QUESTIONS
    assert len({row["pick"] for row in ours}) == 4
    theirs = harness(small, ours, tmp_path)
    figures = theirs["results"]["exam"]
    close = 0
    for row, sample in zip(ours, theirs["samples"]["exam"], strict=True):
        likely = [one[0][0] for one in sample["resps"]]
        np.testing.assert_allclose(row["log_likelihoods"], likely, atol=CLOSE, rtol=1e-4)
        # Where two options are as likely, but for rounding, either pick is right.
        best = np.sort(likely)[-2:]
        close += bool(best[1] - best[0] < CLOSE)
        assert row["pick"] == "ABCD"[int(np.argmax(likely))] or best[1] - best[0] < CLOSE
    assert close <= QUESTIONS // 100
    assert report["accuracy"] == pytest.approx(figures["acc,none"], abs=close / QUESTIONS)
    assert report["accuracy_norm"] == pytest.approx(figures["acc_norm,none"], abs=(close + 1) / QUESTIONS)


def harness(folder: Path, rows: list[dict], place: Path) -> dict:
    """The harness's own run over the same prompts, as a task of its own."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = Prompt.named("medqa", Tokenizer.load(folder))
    docs = place / "docs.jsonl"
    with docs.open("w", encoding="utf-8") as file:
        for row in rows:
            text = prompt.text(Example("x", row["question"], ""), generate=True)
            options = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)]
            doc = {"text": text, "options": options, "gold": "ABCD".index(row["label"])}
            file.write(json.dumps(doc, ensure_ascii=False) + "\n")
    task = ConfigurableTask(
        config={
            "task": "exam",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(docs)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": "options",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=8)
    # Without its own tasks: their 14,000 files take longer to read than 100 questions.
    none = TaskManager(include_defaults=False)
    return simple_evaluate(model=lm, tasks=[task], task_manager=none, log_samples=True, bootstrap_iters=0)
