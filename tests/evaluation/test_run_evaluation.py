"""A whole evaluation: its figures against plain re-computations, and the records of which it has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import tiny
from evaluations import EXAM, EXAMPLES, FILES, SETTINGS, evaluate, lines, values, write

from ms_medqa.config import UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.items import Item
from ms_medqa.evaluation.measure import Measurer
from ms_medqa.evaluation.task import Asked
from ms_medqa.evaluation.tasks.perplexity import PerplexityTask
from ms_medqa.evaluation.text_metrics import rouge

pytestmark = pytest.mark.usefixtures("device")


def plain_likelihood(examples: Sequence[Example]) -> tuple[float, int, int]:
    """Each example alone, unpadded, token by token."""
    loss, correct, tokens = 0.0, 0, 0
    for example in examples:
        encoded = tiny.qa().prompt.encode(example)
        logits = tiny.model()(ms.Tensor([encoded.input_ids], ms.int32)).asnumpy()[0].astype(np.float64)
        for t in range(1, len(encoded.input_ids)):
            if encoded.loss_mask[t]:
                row, target = logits[t - 1], encoded.input_ids[t]
                loss -= row[target] - row.max() - np.log(np.exp(row - row.max()).sum())
                correct += int(row.argmax() == target)
                tokens += 1
    return loss, correct, tokens


def test_perplexity_and_accuracy_are_those_of_each_answer_read_alone(qa: Path) -> None:
    loss, correct, tokens = plain_likelihood(EXAMPLES)
    found = json.loads((qa / "out" / "eval.json").read_text(encoding="utf-8"))["tasks"]["qa"]
    assert found["perplexity"] == pytest.approx(np.exp(loss / tokens), rel=1e-3)
    assert found["token_accuracy"] == pytest.approx(correct / tokens)
    assert (found["n"], found["skipped"], found["n_key_fact_rate"]) == (5, 0, 2)


def test_answers_are_greedy_without_penalty_and_scored(qa: Path) -> None:
    rows = lines(qa / "out" / "answers.jsonl")
    for example, row in zip(EXAMPLES, rows, strict=True):
        expected = tiny.qa().answer(
            example.question,
            example.context,
            history=example.history,
            temperature=0,
            repetition_penalty=1.0,
            max_new_tokens=8,
        )
        assert row["answer"] == expected.encode("utf-8", "replace").decode().strip()
        assert (row["id"], row["reference"], row["key"]) == (example.id, example.answer, example.key)
    found = json.loads((qa / "out" / "eval.json").read_text(encoding="utf-8"))["tasks"]["qa"]
    each = [rouge(row["answer"], row["reference"]).rouge_l for row in rows]
    assert found["rouge_l"] == pytest.approx(np.mean(each))
    assert found["key_fact_rate"] == 0.0
    assert 0 < found["answer_tokens"] <= 8
    assert {path.name for path in (qa / "out").iterdir()} == FILES


def test_another_batch_size_gives_the_same_figures(qa: Path, tmp_path: Path) -> None:
    other = evaluate(tmp_path, data=qa / "set.jsonl", settings=SETTINGS.model_copy(update={"batch_size": 5}))
    report = json.loads((qa / "out" / "report.json").read_text(encoding="utf-8"))
    assert values(other) == pytest.approx(values(report), rel=1e-5)


def test_an_adapter_is_measured_beside_its_base(qa: Path, tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    exam = write(tmp_path / "exam.jsonl", EXAM)
    named = [("model", str(tiny.folder())), ("adapter", str(adapter))]
    report = evaluate(
        tmp_path / "out", named, data=qa / "set.jsonl", tasks=[f"choice={exam}"], general=[f"qa={exam}"], base=True
    )
    assert [one["name"] for one in report["models"]] == ["base", "tuned"]
    alone = json.loads((qa / "out" / "report.json").read_text(encoding="utf-8"))
    # The base's column is that of the model alone; the adapter's own differs.
    assert values(report, "base") == pytest.approx(values(alone), rel=1e-6)
    assert values(report, "tuned")["perplexity"] != values(report, "base")["perplexity"]
    difference = report["tasks"][0]["differences"]["tuned"]
    assert difference["base"] == "base"
    for name, one in difference["figures"].items():
        own, base = values(report, "tuned")[name], values(report, "base")[name]
        assert one["value"] == pytest.approx(own - base, abs=1e-9)
        # Where all resamples are equal, there is no interval.
        assert one["low"] is None or one["low"] <= one["value"] <= one["high"]
    choice = report["tasks"][1]
    assert set(choice["groups"]) == {"内科", "外科"}
    for group in choice["groups"].values():
        own, base = (group["figures"][name]["accuracy"] for name in ("tuned", "base"))
        made = group["differences"]["tuned"]
        assert made["figures"]["accuracy"]["value"] == pytest.approx(own["value"] - base["value"])
        gained = made["mcnemar"]["accuracy"]["only_tuned"] - made["mcnemar"]["accuracy"]["only_base"]
        assert gained == pytest.approx(own["n"] * (own["value"] - base["value"]))
    assert set(choice["differences"]["tuned"]["mcnemar"]) >= {"accuracy", "letter_accuracy"}
    assert [task["general"] for task in report["tasks"]] == [False, False, True]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == FILES | {"answers-choice.jsonl", "answers-general-qa.jsonl"}
    rows = lines(tmp_path / "out" / "answers.jsonl")
    assert [row["base_answer"] for row in rows] == [row["answer"] for row in lines(qa / "out" / "answers.jsonl")]
    assert [row["answer"] for row in rows] != [row["base_answer"] for row in rows]
    summary = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    assert set(summary["tasks"]) == set(summary["base"]) == {"qa", "choice", "general-qa"}


def test_picks_are_the_likeliest_options_read_one_by_one(tmp_path: Path) -> None:
    exam = write(tmp_path / "exam.jsonl", EXAM)
    evaluate(tmp_path / "out", tasks=[f"choice={exam}"], settings=EvalSection(generate=False))
    prompt = tiny.qa().prompt
    for row in lines(tmp_path / "out" / "answers-choice.jsonl"):
        start = prompt.encode_prompt(Example("x", row["question"], ""))
        for letter, text, found in zip("ABC", row["choices"], row["log_likelihoods"], strict=True):
            ids = [*start, *prompt.tokenizer.encode(f"{letter}. {text}")]
            logits = tiny.model()(ms.Tensor([ids], ms.int32)).asnumpy()[0].astype(np.float64)
            logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
            expected = sum(logits[t - 1, ids[t]] for t in range(len(start), len(ids)))
            assert found == pytest.approx(expected, abs=1e-3)
        assert row["pick"] == "ABC"[int(np.argmax(row["log_likelihoods"]))]
        assert "letters" not in row


def test_several_adapters_and_models_in_one_report(qa: Path, tmp_path: Path) -> None:
    for name, seed in (("x", 1), ("y", 2)):
        tiny.write_adapter(tmp_path / name, seed=seed)
    named = [("adapter", str(tmp_path / "x")), ("adapter", f"why={tmp_path / 'y'}")]
    report = evaluate(tmp_path / "out", named, data=qa / "set.jsonl", base=True)
    assert [one["name"] for one in report["models"]] == ["base", "x", "why"]
    alone = evaluate(tmp_path / "y-alone", [("adapter", str(tmp_path / "y"))], data=qa / "set.jsonl")
    # The second adapter is on the base's weights, not on the first one's.
    assert values(report, "why") == pytest.approx(values(alone, "tuned"), rel=1e-5)
    assert set(lines(tmp_path / "out" / "answers.jsonl")[0]["models"]) == {"base", "x", "why"}
    summary = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    assert set(summary["models"]) == {"base", "x", "why"}


def test_the_limit_counts_records_whether_they_can_be_used_or_not(tmp_path: Path) -> None:
    good = {"question": "头痛怎么办", "answer": "休息。"}
    data = write(tmp_path / "set.jsonl", [good, {"question": "", "answer": "x"}, good, good])
    with data.open("a", encoding="utf-8") as file:
        file.write('\n{"broken')
    task = evaluate(tmp_path / "out", data=data, settings=SETTINGS.model_copy(update={"limit": 3}))["tasks"][0]
    assert (task["read"], task["n"], task["skipped"]["count"]) == (5, 2, 1)


def test_what_is_no_character_does_not_cost_the_report(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps(EXAM[0] | {"subject": "\ud83d"}), encoding="utf-8")
    task = evaluate(tmp_path / "out", tasks=[f"choice={exam}"], settings=EvalSection(generate=False))["tasks"][0]
    assert task["n"] == 1
    assert set(task["groups"]) == {"?"}


def test_training_data_that_is_not_there_is_told_before_anything_is_measured(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measurer, "run", lambda *_: pytest.fail("measured in vain"))
    with pytest.raises(UserError, match="typo"):
        evaluate(tmp_path, data=qa / "set.jsonl", train_data=str(tmp_path / "typo"))


def test_items_of_the_training_data_are_counted_for_models_as_well_as_adapters(qa: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.folder(), run / "model")
    train = write(
        tmp_path / "train.jsonl", [EXAMPLES[0].to_dict(), {"question": "别的问题是什么？", "answer": "没有。"}]
    )
    (run / "config.yaml").write_text("data: {path: nowhere}", encoding="utf-8")
    task = evaluate(tmp_path / "a", [("model", str(run / "model"))], data=qa / "set.jsonl")["tasks"][0]
    assert task["overlap"]["checked"] is False
    task = evaluate(tmp_path / "b", [("model", str(run / "model"))], data=qa / "set.jsonl", train_data=str(train))[
        "tasks"
    ][0]
    assert (task["overlap"]["items"], task["overlap"]["ids"]) == (1, ["a"])
    assert task["overlap"]["models"] == {"model": True}
    assert "question: 1" in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")


def test_records_that_cannot_be_measured_are_counted_and_listed(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"id": "ok", "question": "头痛怎么办", "answer": "休息。"},
        {"id": "no-question", "question": "", "answer": "休息。"},
        {"id": "long-question", "question": "问" * 250, "answer": "休息。"},
        {"id": "long-answer", "question": "头痛怎么办", "answer": "问" * 250},
    ]
    data = write(tmp_path / "set.jsonl", records)
    with data.open("a", encoding="utf-8") as file:
        file.write('\n{"broken')
    task = evaluate(tmp_path / "out", data=data)["tasks"][0]
    assert (task["read"], task["n"], task["skipped"]["count"]) == (5, 1, 4)
    skipped = lines(tmp_path / "out" / "skipped.jsonl")
    assert {one["id"] for one in skipped} == {"no-question", "long-question", "long-answer", "set-5"}
    assert sum("the model holds 256" in one["reason"] for one in skipped) == 2
    assert sum(task["skipped"]["reasons"].values()) == 4
    # The two that are too long are one kind of fault.
    assert 2 in task["skipped"]["reasons"].values()
    with pytest.raises(UserError, match="none of"):
        evaluate(tmp_path / "out", tasks=[f"choice={data}"])


def test_items_at_which_one_model_fails_are_skipped_for_all(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Measurer.run

    def fails(self: Measurer, task: Any, mine: Any, left: Any, keep: Callable[[Any], None], name: str) -> None:
        def keep_some(line: dict[str, Any]) -> None:
            keep({"item": 1, "error": "not finite"} if name.startswith("tuned") and line["item"] == 1 else line)

        real(self, task, mine, left, keep_some, name)

    monkeypatch.setattr(Measurer, "run", fails)
    adapter = tiny.write_adapter(tmp_path / "adapter")
    task = evaluate(tmp_path / "out", [("adapter", str(adapter))], data=qa / "set.jsonl", base=True)["tasks"][0]
    assert (task["n"], task["skipped"]["reasons"]) == (4, {"tuned: not finite": 1})
    assert [task["figures"][name]["perplexity"]["n"] for name in ("base", "tuned")] == [4, 4]
    assert "b" not in [row["id"] for row in lines(tmp_path / "out" / "answers.jsonl")]


def test_the_prompt_of_the_adapter_is_used_for_both(qa: Path, tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    Prompt.named("plain", tiny.qa().tokenizer).save(adapter)
    report = evaluate(tmp_path / "out", [("adapter", str(adapter))], data=qa / "set.jsonl", base=True)
    assert [one["prompt"] for one in report["models"]] == ["plain", "plain"]
    alone = json.loads((qa / "out" / "report.json").read_text(encoding="utf-8"))
    assert values(report, "base")["perplexity"] != pytest.approx(values(alone)["perplexity"])


def test_an_adapter_of_another_model_stops_before_the_base_is_measured(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny.folder(), other)
    tiny.write_model(other, hidden_size=32)

    def unwanted(*_: object) -> None:
        pytest.fail("the base was measured in vain")

    monkeypatch.setattr(Measurer, "run", unwanted)
    adapter = tiny.write_adapter(tmp_path / "adapter")
    with pytest.raises(UserError, match="made for another model"):
        evaluate(tmp_path / "out", [("model", str(other)), ("adapter", str(adapter))], data=qa / "set.jsonl", base=True)
    # Nor those of other models before it.
    named = [("model", f"small={tiny.folder()}"), ("model", f"other={other}"), ("adapter", f"tuned={adapter}")]
    with pytest.raises(UserError, match="made for another model"):
        evaluate(tmp_path / "out", named, data=qa / "set.jsonl")
    (other / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="other"):
        evaluate(tmp_path / "out", named[:2], data=qa / "set.jsonl")


def test_a_text_without_tokens_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tokenizer makes of characters that it takes away."""
    asked = PerplexityTask.asked

    def without_tokens(self: PerplexityTask, item: Item, prompt: Prompt) -> Asked:
        return Asked([]) if item.id == "gone" else asked(self, item, prompt)

    monkeypatch.setattr(PerplexityTask, "asked", without_tokens)
    texts = [{"id": "gone", "text": "…"}, {"id": "kept", "text": "多休息，多喝水。"}]
    data = write(tmp_path / "texts.jsonl", texts)
    report = evaluate(tmp_path / "out", tasks=[f"perplexity={data}"])
    [task] = report["tasks"]
    assert (task["read"], task["n"]) == (2, 1)
    assert task["skipped"]["items"] == [{"id": "gone", "reason": "model: the text has no tokens"}]
