"""What an evaluation that was stopped, or that several processes share, leaves behind and goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from evaluations import EXAM, FILES, SETTINGS, evaluate, lines, values, write

from ms_medqa.backend.distributed import World
from ms_medqa.config import Config, RunError, UserError
from ms_medqa.config.kept_lines import KeptLines
from ms_medqa.config.schema import EvalSection
from ms_medqa.evaluation import run as run_module
from ms_medqa.evaluation.contestants import contestants
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.run import run_evaluation
from ms_medqa.evaluation.tasks import parse_specs
from ms_medqa.evaluation.unfinished import FOLDER, Unfinished

pytestmark = pytest.mark.usefixtures("device")


class _Killed(BaseException):
    """As SIGKILL: nothing is tidied up."""


def test_a_killed_run_goes_on_and_comes_to_the_same(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((qa / "out" / "report.json").read_text(encoding="utf-8"))
    scored: list[int] = []
    real_score, real_add = Scorer.score, KeptLines.add_line

    def counted(self: Scorer, trees: Sequence[Any]) -> Any:
        scored.append(len(trees))
        return real_score(self, trees)

    def dies_after(count: int) -> Callable[..., None]:
        left = iter(range(count))

        def add(self: KeptLines, value: Mapping[str, Any]) -> None:
            if next(left, None) is None:
                raise _Killed
            real_add(self, value)

        return add

    monkeypatch.setattr(Scorer, "score", counted)
    # In the middle of the likelihoods, then in the middle of the answers.
    for count, left in ((3, 5), (4, 2)):
        monkeypatch.setattr(KeptLines, "add_line", dies_after(count))
        with pytest.raises(_Killed):
            evaluate(tmp_path, data=qa / "set.jsonl")
        assert scored[-1] == left
        [part] = (tmp_path / FOLDER).iterdir()
        with part.open("ab") as file:
            file.write(b'{"item": 4, "answ')
    monkeypatch.setattr(KeptLines, "add_line", real_add)
    report = evaluate(tmp_path, data=qa / "set.jsonl")
    assert sum(scored[2:]) == 0
    assert "going on from there" in capsys.readouterr().out
    assert values(report) == pytest.approx(values(whole), rel=1e-6)
    assert lines(tmp_path / "answers.jsonl") == lines(qa / "out" / "answers.jsonl")
    assert not (tmp_path / FOLDER).exists()


def test_what_another_run_has_left_is_not_taken(qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise RunError("no space")

    monkeypatch.setattr("ms_medqa.evaluation.run.write_outputs", dies)
    with pytest.raises(RunError):
        evaluate(tmp_path, data=qa / "set.jsonl")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"unfinished.*other settings"):
        evaluate(tmp_path, data=qa / "set.jsonl", settings=SETTINGS.model_copy(update={"max_new_tokens": 9}))
    # More of the same is no other run, and nothing is asked again.
    monkeypatch.setattr(Scorer, "score", lambda self, trees: iter(()) if not trees else pytest.fail("scored again"))
    less = evaluate(tmp_path, data=qa / "set.jsonl", settings=SETTINGS.model_copy(update={"limit": 3}))
    assert less["tasks"][0]["n"] == 3


def test_what_is_read_in_another_way_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "set.jsonl", [{"zh": "头痛怎么办？", "en": "What helps?", "answer": "休息。"}])

    def settings(column: str) -> Config:
        return Config(eval=SETTINGS, data={"columns": {"question": column}})

    def dies(*_: object) -> None:
        raise RunError("no space")

    specs, models = parse_specs(str(data), [], []), contestants([("model", str(tiny.folder()))], "", False)
    monkeypatch.setattr("ms_medqa.evaluation.run.write_outputs", dies)
    with pytest.raises(RunError):
        run_evaluation(specs, models, tmp_path / "out", settings("zh"))
    monkeypatch.undo()
    with pytest.raises(UserError, match="other questions"):
        run_evaluation(specs, models, tmp_path / "out", settings("en"))


def test_names_of_models_need_not_be_names_of_files(qa: Path, tmp_path: Path) -> None:
    for name, seed in (("x", 1), ("y", 2)):
        tiny.write_adapter(tmp_path / name, seed=seed)
    named = [("adapter", f"甲={tmp_path / 'x'}"), ("adapter", f"乙={tmp_path / 'y'}")]
    report = evaluate(tmp_path / "out", named, data=qa / "set.jsonl", settings=SETTINGS.model_copy(update={"limit": 2}))
    assert [one["name"] for one in report["models"]] == ["甲", "乙"]
    assert values(report, "甲") != values(report, "乙")


def test_answers_of_earlier_tasks_do_not_stay_beside_a_new_report(qa: Path, tmp_path: Path) -> None:
    exam = write(tmp_path / "exam.jsonl", EXAM[:1])
    evaluate(tmp_path / "out", tasks=[f"choice={exam}"], settings=EvalSection(generate=False))
    (tmp_path / "out" / "answers-mine.jsonl").write_text("precious")
    evaluate(tmp_path / "out", data=qa / "set.jsonl")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == FILES | {"answers-mine.jsonl"}


def test_two_processes_share_the_items_and_come_to_the_same(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((qa / "out" / "report.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(run_module, "check_same_start", lambda parts, world: None)
    # One after the other: the second process does not wait for the first to end.
    monkeypatch.setattr(Unfinished, "finish", lambda self: self._world.is_main)
    assert evaluate(tmp_path, data=qa / "set.jsonl", world=World(1, 2)) == {}
    assert len(list((tmp_path / FOLDER).glob("qa.*.rank-1.jsonl"))) == 1
    report = evaluate(tmp_path, data=qa / "set.jsonl", world=World(0, 2))
    assert report["ranks"] == 2
    assert values(report) == pytest.approx(values(whole), rel=1e-5)
    assert lines(tmp_path / "answers.jsonl") == lines(qa / "out" / "answers.jsonl")
    # Neither had anything from an earlier run, and nothing is left.
    assert "going on from there" not in capsys.readouterr().out
    assert not (tmp_path / FOLDER).exists()


def test_results_that_another_process_has_not_left_are_no_wrong_answers(
    qa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "check_same_start", lambda parts, world: None)
    monkeypatch.setattr(Unfinished, "finish", lambda self: True)
    with pytest.raises(RunError, match="2 of 5 results of model on qa are missing"):
        evaluate(tmp_path, data=qa / "set.jsonl", world=World(0, 2))
    # A run with another number of processes goes on from what is there.
    assert values(evaluate(tmp_path, data=qa / "set.jsonl"))


def test_the_first_process_waits_for_the_others_and_they_for_it(tmp_path: Path) -> None:
    from threading import Thread

    first, second = Unfinished(tmp_path, World(0, 2)), Unfinished(tmp_path, World(1, 2))
    ended: list[bool] = []
    waiting = Thread(target=lambda: ended.append(second.finish()))
    waiting.start()
    assert first.finish()
    assert not ended
    first.release()
    waiting.join(timeout=10)
    assert ended == [False]
    assert not (tmp_path / FOLDER).exists()


def test_only_what_this_evaluation_has_made_is_removed(qa: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    (folder / "choice.0123456789ab.rank-0.jsonl").write_text("of another evaluation")
    evaluate(tmp_path, data=qa / "set.jsonl")
    assert {path.name for path in folder.iterdir()} == {"mine.txt", "choice.0123456789ab.rank-0.jsonl"}
