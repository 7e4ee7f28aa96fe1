"""The question-answering task: its figures against plain re-computations, and what it leaves behind."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny

from ms_medqa.config import Config, UserError
from ms_medqa.config.schema import Columns, DataSection, EvalSection
from ms_medqa.data import manifest
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.records import from_rows
from ms_medqa.evaluation import likelihood, limits
from ms_medqa.evaluation.evaluate import Evaluator, Result, evaluate
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.metrics import rouge_l
from ms_medqa.evaluation.records import prepare, read_examples
from ms_medqa.evaluation.report import table
from ms_medqa.evaluation.run import run_evaluation
from ms_medqa.generation import rows

EXAMPLES = [
    Example("a", "头痛怎么办", "多休息，多喝水。", key="多休息"),
    Example("b", "糖尿病患者可以吃水果吗？", "可以，但要控制量。", context="水果含糖。"),
    Example("c", "还要注意什么", "规律运动。", history=(("高血压怎么办", "低盐饮食。"),), key="运动"),
    Example("d", "What is fever?", "A body temperature above 37.3 degrees."),
    Example("e", "感冒吃什么药", "对症处理。"),
]
SETTINGS = EvalSection(batch_size=2, max_new_tokens=8)


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    """The device must be set up before the first tensor, whichever test comes first."""
    tiny.model()


@functools.cache
def evaluator() -> Evaluator:
    return Evaluator(tiny.model(), tiny.qa().tokenizer, tiny.qa().prompt, EXAMPLES, SETTINGS)


@functools.cache
def result() -> Result:
    return evaluator().run()


def plain_likelihood(examples: list[Example]) -> tuple[float, int, int]:
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


def test_perplexity_and_accuracy_are_those_of_each_answer_read_alone() -> None:
    loss, correct, tokens = plain_likelihood(EXAMPLES)
    metrics = result().metrics
    assert metrics["tokens"] == tokens
    assert metrics["loss"] == pytest.approx(loss / tokens, rel=1e-4)
    assert metrics["perplexity"] == pytest.approx(np.exp(loss / tokens), rel=1e-3)
    assert metrics["token_accuracy"] == pytest.approx(correct / tokens)


def test_batch_size_chunks_and_row_lengths_do_not_move_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for example in [*EXAMPLES, Example("long", "药" * 50, "请遵医嘱。")]:
        encoded = tiny.qa().prompt.encode(example)
        rows.append((example.id, np.array(encoded.input_ids), np.array(encoded.loss_mask)))
    records = from_rows(rows)
    usual = Scorer(tiny.model())(records, batch_size=4)
    monkeypatch.setattr(likelihood, "COMMON_LENGTH", 64)
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 400 * 32)
    counted: list[int] = []
    other = Scorer(tiny.model())(records, batch_size=3, on_tokens=counted.append)
    assert sum(counted) == records.offsets[-1]
    assert (other.tokens, other.correct) == (usual.tokens, usual.correct)
    assert other.loss_sum == pytest.approx(usual.loss_sum, rel=1e-5)


def test_a_forward_pass_takes_as_many_rows_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.model().config
    # Two rows of 64 tokens, and eight of 32.
    monkeypatch.setattr(limits, "MAX_PASS_SCORES", 2 * config.num_hidden_layers * config.num_attention_heads * 64 * 64)
    assert [limits.rows_that_fit(config, width, 16) for width in (256, 64, 32)] == [1, 2, 8]


def test_answers_are_greedy_without_penalty_and_scored() -> None:
    for example, answer in zip(EXAMPLES, result().answers, strict=True):
        expected = tiny.qa().answer(
            example.question,
            example.context,
            history=example.history,
            temperature=0,
            repetition_penalty=1.0,
            max_new_tokens=8,
        )
        assert answer == expected.strip()
    metrics = result().metrics
    scores = [rouge_l(answer, example.answer) for answer, example in zip(result().answers, EXAMPLES, strict=True)]
    assert metrics["rouge_l"] == pytest.approx(np.mean(scores))
    assert metrics["n"] == 5
    assert metrics["n_key"] == 2
    assert metrics["key_fact_rate"] == 0.0
    assert 0 < metrics["answer_tokens"] <= 8


def test_the_key_fact_rate_counts_answers_that_hold_the_key() -> None:
    said = result().answers[0]
    examples = [Example("x", EXAMPLES[0].question, "别的", key=said), EXAMPLES[0], EXAMPLES[3]]
    assert evaluate(tiny.model(), tiny.qa().tokenizer, tiny.qa().prompt, examples, SETTINGS)["key_fact_rate"] == 0.5
    assert "key_fact_rate" not in evaluate(tiny.model(), tiny.qa().tokenizer, tiny.qa().prompt, [EXAMPLES[3]], SETTINGS)


def test_a_second_run_gives_the_same_figures_exactly() -> None:
    again = evaluator().run()
    assert again == result()


def test_records_that_cannot_be_evaluated_are_listed() -> None:
    examples = [
        Example("ok", "头痛怎么办", "休息。"),
        Example("no-answer", "头痛怎么办", " "),
        Example("no-question", "", "休息。"),
        Example("long-question", "问" * 250, "休息。"),
        Example("long-answer", "头痛怎么办", "问" * 250),
    ]
    prepared = prepare(examples, tiny.qa().prompt, positions=256, max_new_tokens=8)
    assert [example.id for example in prepared.examples] == ["ok"]
    assert [skipped.id for skipped in prepared.skipped] == ["no-answer", "no-question", "long-question", "long-answer"]
    assert [skipped.reason for skipped in prepared.skipped[:2]] == ["the answer is empty", "the question is empty"]
    assert all("holds 256" in skipped.reason for skipped in prepared.skipped[2:])
    with pytest.raises(UserError, match=r"none of 4 records.*answer is empty"):
        Evaluator(tiny.model(), tiny.qa().tokenizer, tiny.qa().prompt, examples[1:], SETTINGS)


def test_limit_takes_the_first_records() -> None:
    settings = SETTINGS.model_copy(update={"limit": 2})
    some = Evaluator(tiny.model(), tiny.qa().tokenizer, tiny.qa().prompt, EXAMPLES, settings)
    assert [example.id for example in some.kept] == ["a", "b"]


def test_examples_are_read_from_parts_folders_and_raw_files(tmp_path: Path) -> None:
    lines = [json.dumps(example.to_dict(), ensure_ascii=False) for example in EXAMPLES]
    (tmp_path / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for path in (tmp_path / "test.jsonl", tmp_path):
        examples, skipped = read_examples(path)
        assert skipped == []
        assert [(e.id, e.question, e.answer, e.context, e.history, e.key) for e in examples] == [
            (e.id, e.question, e.answer, e.context, e.history, e.key) for e in EXAMPLES
        ]
    raw = tmp_path / "raw.json"
    raw.write_text(
        '{"instruction": "头痛", "input": "", "output": "休息"}\n{"broken\n{"text": "x"}\n', encoding="utf-8"
    )
    examples, skipped = read_examples(raw)
    assert [(e.id, e.question, e.answer) for e in examples] == [("raw-1", "头痛", "休息")]
    assert [s.id for s in skipped] == ["raw-2", "raw-3"]
    assert all(s.reason.startswith("line ") for s in skipped)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown columns: a, b"):
        read_examples(tmp_path / "other.csv")


def test_raw_files_are_understood_as_convert_understands_them(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    options = {"opa": "休息", "opb": "补铁", "opc": "手术", "opd": "输血"}
    # A 0 far behind tells that options are counted from 0.
    records = [{"question": f"贫血 {i} 怎么办？", **options, "cop": 0 if i == 9 else 1} for i in range(10)]
    raw.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    assert {example.label for example in read_examples(raw)[0][:9]} == {"B"}
    table = tmp_path / "table.csv"
    table.write_text("frage,antwort\n头痛怎么办？,休息 ½ 天\n", encoding="utf-8")
    columns = Columns(question="frage", answer="antwort")
    (example,), _ = read_examples(table, DataSection(columns=columns, nfkc=True))
    assert example.answer == "休息 1⁄2 天"
    # Those names are the raw file's; what was converted from it has its own.
    for name in ("test.jsonl", manifest.FILE_NAME):
        (tmp_path / name).write_text(json.dumps(example.to_dict(), ensure_ascii=False), encoding="utf-8")
    assert read_examples(tmp_path, DataSection(columns=columns, shape="alpaca"))[0][0].question == "头痛怎么办?"


def test_the_base_is_measured_beside_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []
    for module, name in ((likelihood, "_Hidden"), (likelihood, "_Score"), (rows, "CachedDecoder")):
        real = getattr(module, name)

        class Counted(real):  # type: ignore[misc, valid-type]
            def __init__(self, *args: object) -> None:
                made.append(type(self))
                super().__init__(*args)

        monkeypatch.setattr(module, name, Counted)
    adapter = tiny.write_adapter(tmp_path / "adapter")
    data = tmp_path / "set.jsonl"
    lines = [json.dumps(example.to_dict(), ensure_ascii=False) for example in EXAMPLES]
    # What is told of the last record holds half a surrogate pair, which is no UTF-8.
    data.write_text("\n".join([*lines, '{"\\ud83d": 1}']), encoding="utf-8")
    config = Config(eval=SETTINGS)
    columns = run_evaluation(tiny.folder(), adapter, data, tmp_path / "out", config, compare_base=True)
    assert list(columns) == ["base", "tuned"]
    report = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    assert report["tasks"]["qa"] == columns["tuned"]
    assert report["base"]["qa"] == columns["base"]
    # The adapter is merged in place: what was compiled for the base serves the tuned model.
    assert len(made) == 3
    # The base's column is that of the model alone, to the last digit; the adapter's own differs.
    assert columns["base"] == result().metrics | {"skipped": 1}
    assert columns["tuned"]["perplexity"] != columns["base"]["perplexity"]
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text("utf-8").splitlines()]
    assert [line["base_answer"] for line in answers] == result().answers
    assert [line["answer"] for line in answers] != result().answers
    assert [(line["id"], line["reference"], line["key"]) for line in answers] == [
        (example.id, example.answer, example.key) for example in EXAMPLES
    ]
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in skipped] == ["set-6"]


def test_the_prompt_of_the_adapter_is_used_for_both(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    Prompt.named("plain", tiny.qa().tokenizer).save(adapter)
    data = tmp_path / "set.jsonl"
    data.write_text(json.dumps(EXAMPLES[4].to_dict(), ensure_ascii=False), encoding="utf-8")
    columns = run_evaluation(tiny.folder(), adapter, data, tmp_path / "out", Config(eval=SETTINGS), compare_base=True)
    assert json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))["prompt"] == "plain"
    plain = Prompt.named("plain", tiny.qa().tokenizer)
    expected = evaluate(tiny.model(), tiny.qa().tokenizer, plain, EXAMPLES[4:], SETTINGS)
    assert columns["base"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_an_adapter_of_another_model_stops_before_the_base_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny.folder(), other)
    tiny.write_model(other, hidden_size=32)
    data = tmp_path / "set.jsonl"
    data.write_text(json.dumps(EXAMPLES[0].to_dict()), encoding="utf-8")

    def unwanted(*_: object) -> None:
        pytest.fail("the base was measured in vain")

    monkeypatch.setattr(Evaluator, "run", unwanted)
    adapter = tiny.write_adapter(tmp_path / "adapter")
    with pytest.raises(UserError, match="made for another model"):
        run_evaluation(other, adapter, data, tmp_path / "out", Config(eval=SETTINGS), compare_base=True)


def test_the_table_shows_both_columns_and_leaves_out_what_was_not_measured() -> None:
    metrics = {
        "n": 3,
        "perplexity": 12.345,
        "loss": 2.5,
        "token_accuracy": 0.5,
        "rouge_l": 0.25,
        "answer_tokens": 7.0,
        "finished_rate": 1.0,
        "tokens": 30,
        "skipped": 2,
    }
    text = table({"base": metrics, "tuned": metrics | {"perplexity": 2.0}})
    assert "3 questions, 30 answer tokens, 2 records skipped" in text
    line = next(line for line in text.splitlines() if line.startswith("perplexity"))
    assert line.split()[-2:] == ["12.35", "2.00"] or line.split()[-2:] == ["12.34", "2.00"]
    assert "key fact" not in text
    assert "key fact" in table({"model": metrics | {"key_fact_rate": 0.5, "n_key": 2}})
