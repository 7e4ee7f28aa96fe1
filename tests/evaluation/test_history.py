"""Evaluations of the past side by side: what is found, what may be compared, and what stands out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Config
from ms_medqa.config.side_by_side import cells_of
from ms_medqa.evaluation.history import history, history_table

SHA = "1a2b3c4d" + "0" * 56
Figures = dict[str, tuple[float, float, float]]


def figures(values: Figures) -> dict[str, Any]:
    return {name: {"value": value, "low": low, "high": high, "n": 300} for name, (value, low, high) in values.items()}


def report(
    created: str = "2026-11-30T23:50:00Z",
    models: dict[str, Figures] | None = None,
    *,
    task: str = "qa",
    kind: str = "qa",
    path: str = "data/test.jsonl",
    sha256: str = SHA,
    n: int = 300,
    digests: dict[str, str] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A report as an evaluation writes it; all models but `base` are adapters."""
    models = {"base": {"perplexity": (9.0, 8.5, 9.5)}} if models is None else models
    config = Config().model_dump(mode="json")
    config["eval"] |= settings
    return {
        "format": 1,
        "created": created,
        "models": [
            {
                "name": name,
                "model": "medqa-tiny",
                "adapter": None if name == "base" else f"{name}/adapter",
                "base": None if name == "base" else "base",
                "prompt": "medqa",
                "digest": (digests or {}).get(name, name),
            }
            for name in models
        ],
        "seed": 0,
        "config": config,
        "tasks": [
            {
                "name": task,
                "kind": kind,
                "data": {"path": path, "sha256": sha256},
                "read": n + 10,
                "n": n,
                "figures": {name: figures(values) for name, values in models.items()},
            }
        ],
    }


def write(folder: Path, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    (folder / "report.json").write_text(text, encoding="utf-8")
    return folder


def blocks(folder: Path) -> list[list[str]]:
    """The lines of each block, the legend left out."""
    *found, legend = history_table(history(folder)).split("\n\n")
    assert "95 %" in legend
    return [block.splitlines() for block in found]


class TestFinding:
    def test_runs_stand_by_time_wherever_they_lie(self, tmp_path: Path) -> None:
        write(tmp_path / "b", report("2026-11-29T08:00:00Z"))
        write(tmp_path / "a" / "deep" / "er", report("2026-11-30T07:00:00+08:00"))
        write(tmp_path, report("2026-11-30T00:00:00"))
        write(tmp_path / ".b.partial", report())
        runs = history(tmp_path)
        assert [run.folder for run in runs] == ["b", "a/deep/er", "."]
        [block] = blocks(tmp_path)
        assert [line.split("  ")[0] for line in block[2:]] == [
            *("2026-11-29 08:00", "2026-11-29 23:00", "2026-11-30 00:00")
        ]

    def test_other_reports_are_passed_by_and_broken_ones_are_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(tmp_path / "good", report())
        write(tmp_path / "data", {"read": 5, "kept": {"train": 4}, "files": []})
        write(tmp_path / "list", [1, 2])
        broken = {
            "half": json.dumps(report())[:-40],
            "empty": "",
            "later": report() | {"format": 2},
            "no time": report() | {"created": "yesterday"},
            "no figures": report() | {"tasks": [{"name": "qa"}]},
            "no tasks": report() | {"tasks": 3},
            "text": json.dumps(report()).replace("8.5", '"x"'),
            "deep": "[" * 100_000,
        }
        for name, value in broken.items():
            write(tmp_path / name, value)
        (tmp_path / "folder" / "report.json").mkdir(parents=True)
        assert [run.folder for run in history(tmp_path)] == ["good"]
        printed = capsys.readouterr()
        assert printed.out == ""
        notes = printed.err.splitlines()
        assert len(notes) == len(broken)
        for name in broken:
            assert sum(f"{tmp_path / name / 'report.json'} is left out: " in note for note in notes) == 1
        assert "format 2, this release reads 1" in printed.err

    def test_links_in_a_circle_and_endless_folders_end(self, tmp_path: Path) -> None:
        write(tmp_path / "runs" / "one", report())
        (tmp_path / "runs" / "circle").symlink_to(tmp_path / "runs", target_is_directory=True)
        write(tmp_path / "runs" / Path(*"abcdefgh"), report())
        write(tmp_path / "runs" / Path(*"abcdefghi"), report())
        assert sorted(run.folder for run in history(tmp_path / "runs")) == ["a/b/c/d/e/f/g/h", "one"]
        # The folder that is named may be a link.
        (tmp_path / "link").symlink_to(tmp_path / "runs" / "one", target_is_directory=True)
        assert [run.folder for run in history(tmp_path / "link")] == ["."]

    def test_where_there_is_nothing_it_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no report of an evaluation in it: make one with `ms-medqa eval"):
            history(tmp_path)
        with pytest.raises(UserError, match=r"nowhere: no such folder: name the folder"):
            history(tmp_path / "nowhere")
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(UserError, match=r"a file, not a folder"):
            history(tmp_path / "file")


class TestBlocks:
    def test_one_line_for_each_run_and_model(self, tmp_path: Path) -> None:
        rouge = (0.3, 0.28, 0.32)
        first = {"base": {"perplexity": (9.0, 8.5, 9.5), "rouge_l": rouge, "bleu_4": (1.0, 0.5, 2.0)}}
        write(tmp_path / "first", report("2026-11-28T10:00:00Z", first))
        second = {
            "base": {"perplexity": (9.0, 8.5, 9.5), "rouge_l": rouge},
            "tuned": {"perplexity": (7.0, 6.5, 7.5), "rouge_l": (0.31, 0.29, 0.33), "key_fact_rate": (0.5, 0.4, 0.6)},
        }
        write(tmp_path / "second", report("2026-11-29T10:00:00Z", second))
        [[title, *lines]] = blocks(tmp_path)
        assert title == "qa: data/test.jsonl, n = 300, sha256 1a2b3c4d"
        assert [" ".join(line.split()) for line in lines] == [
            "date (UTC) run model n perplexity ROUGE-L answers with the key fact",
            "2026-11-28 10:00 first medqa-tiny 300 9.00 [8.50, 9.50] 30.0% [28.0%, 32.0%] –",
            "2026-11-29 10:00 second medqa-tiny 300 9.00 [8.50, 9.50] 30.0% [28.0%, 32.0%] –",
            "2026-11-29 10:00 second medqa-tiny + tuned/adapter 300 7.00 [6.50, 7.50]* 31.0% [29.0%, 33.0%] "
            "50.0% [40.0%, 60.0%]",
        ]

    @pytest.mark.parametrize(
        ("other", "title"),
        [
            ({"sha256": "f" * 64}, "qa: data/test.jsonl, n = 300, sha256 ffffffff"),
            ({"n": 299}, "qa: data/test.jsonl, n = 299, sha256 1a2b3c4d"),
            ({"max_new_tokens": 128}, "qa: data/test.jsonl, n = 300, sha256 1a2b3c4d, max_new_tokens=128"),
            ({"limit": 300}, "qa: data/test.jsonl, n = 300, sha256 1a2b3c4d, limit=300"),
            ({"task": "other"}, "other (qa): data/test.jsonl, n = 300, sha256 1a2b3c4d"),
        ],
    )
    def test_what_cannot_be_compared_never_shares_one(self, tmp_path: Path, other: dict[str, Any], title: str) -> None:
        write(tmp_path / "a", report("2026-11-28T10:00:00Z"))
        write(tmp_path / "b", report("2026-11-29T10:00:00Z", **other))
        found = blocks(tmp_path)
        assert [len(block) for block in found] == [3, 3]
        assert found[1][0] == title

    def test_data_that_is_not_known_is_like_no_other(self, tmp_path: Path) -> None:
        for name in "ab":
            value = report()
            value["tasks"][0].pop("data")
            write(tmp_path / name, value)
        assert [block[0] for block in blocks(tmp_path)] == ["qa: ?, n = 300, sha256 ?"] * 2

    def test_what_changes_no_figure_does_not_part_them(self, tmp_path: Path) -> None:
        write(tmp_path / "a", report("2026-11-28T10:00:00Z", batch_size=1, language="zh"))
        write(tmp_path / "b", report("2026-11-29T10:00:00Z", path="moved/test.jsonl"))
        [block] = blocks(tmp_path)
        assert len(block) == 4
        assert block[0].startswith("qa: moved/test.jsonl, ")

    @pytest.mark.parametrize(
        ("kind", "shown"),
        [
            ("choice", "accuracy (likelihood)  accuracy (likelihood, by length)  accuracy (written letter)"),
            ("classify", "accuracy (likelihood)  macro F1 (likelihood)"),
            ("perplexity", "perplexity  bits per byte"),
        ],
    )
    def test_each_kind_has_its_main_figures(self, tmp_path: Path, kind: str, shown: str) -> None:
        names = ["accuracy", "accuracy_norm", "macro_f1", "letter_accuracy", "perplexity", "bits_per_byte"]
        values = dict.fromkeys(names, (0.5, 0.4, 0.6))
        write(tmp_path, report(models={"base": values}, task=kind, kind=kind))
        [block] = blocks(tmp_path)
        titles = block[1].partition("  n  ")[2]
        assert "  ".join(part.strip() for part in titles.split("  ") if part.strip()) == shown


class TestTheBest:
    def stars(self, folder: Path, models: dict[str, Figures], **more: Any) -> list[str]:
        """Adapters with a star, by name."""
        write(folder / "run", report(models=models, **more))
        [block] = blocks(folder)
        return [name for name in models for line in block if f" {name}/adapter " in line and "]*" in line]

    def test_it_must_be_clear_of_the_next_best(self, tmp_path: Path) -> None:
        clear = {"a": (5.0, 4.5, 5.5), "b": (7.0, 6.0, 8.0), "c": (9.0, 8.5, 9.5)}
        assert self.stars(tmp_path, {name: {"perplexity": value} for name, value in clear.items()}) == ["a"]
        doubtful = clear | {"b": (6.0, 5.4, 8.0)}
        assert self.stars(tmp_path, {name: {"perplexity": value} for name, value in doubtful.items()}) == []
        touching = clear | {"b": (6.0, 5.5, 8.0)}
        assert self.stars(tmp_path, {name: {"perplexity": value} for name, value in touching.items()}) == []

    def test_it_must_be_clear_of_all_others_not_of_the_next_alone(self, tmp_path: Path) -> None:
        # The third is measured so roughly that it may be the best.
        rough = {"a": (5.0, 4.5, 5.5), "b": (7.0, 6.0, 8.0), "c": (9.0, 5.2, 20.0)}
        assert self.stars(tmp_path, {name: {"perplexity": value} for name, value in rough.items()}) == []
        assert self.stars(tmp_path, {name: {"perplexity": rough[name]} for name in "ab"}) == ["a"]

    def test_one_without_an_interval_is_a_rival_and_never_the_best(self, tmp_path: Path) -> None:
        models: dict[str, Any] = {"a": {"perplexity": (5.0, 4.5, 5.5)}, "b": {"perplexity": (5.2, None, None)}}
        assert self.stars(tmp_path, models) == []
        models["b"] = {"perplexity": (6.0, None, None)}
        assert self.stars(tmp_path, models) == ["a"]
        models["b"] = {"perplexity": (4.0, None, None)}
        assert self.stars(tmp_path, models) == []

    def test_of_most_figures_more_is_better(self, tmp_path: Path) -> None:
        models = {name: {"rouge_l": (x, x - 0.01, x + 0.01)} for name, x in (("a", 0.2), ("b", 0.5), ("c", 0.4))}
        assert self.stars(tmp_path, models) == ["b"]

    def test_one_alone_is_not_the_best_of_any(self, tmp_path: Path) -> None:
        assert self.stars(tmp_path, {"a": {"perplexity": (5.0, 4.5, 5.5)}}) == []
        # Nor is one beside others of which the figure is not known.
        models: dict[str, Any] = {"a": {"perplexity": (5.0, 4.5, 5.5)}, "b": {"perplexity": (None, None, None)}}
        assert self.stars(tmp_path, models) == []

    def test_the_same_model_measured_twice_is_no_rival_of_itself(self, tmp_path: Path) -> None:
        models: dict[str, Figures] = {
            "a": {"perplexity": (5.0, 4.5, 5.5)},
            "b": {"perplexity": (5.0, 4.5, 5.5)},
            "c": {"perplexity": (7.0, 6.0, 8.0)},
        }
        assert self.stars(tmp_path, models) == []
        assert self.stars(tmp_path, models, digests={"a": "same", "b": "same"}) == ["a", "b"]


def test_columns_line_up_whatever_the_width_of_names(tmp_path: Path) -> None:
    models: dict[str, Figures] = {"底座": {"perplexity": (9.0, 8.5, 9.5)}, "b": {"perplexity": (19.25, 8.5, 9.5)}}
    write(tmp_path / "第一次评估", report("2026-11-28T10:00:00Z", models))
    write(tmp_path / "x", report("2026-11-29T10:00:00Z", models))
    [[_, *lines]] = blocks(tmp_path)
    ends = {cells_of(line[: line.index("[")]) for line in lines[1:]}
    assert len(ends) == 1
    assert len({cells_of(line.rstrip("*")) for line in lines[1:]}) == 1


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    value = report(models={"a\x1b[2J\nb": {"perplexity": (5.0, 4.5, 5.5)}}, path="\x1b[31mred\n\njsonl")
    write(tmp_path, value)
    table = history_table(history(tmp_path))
    assert "\x1b" not in table
    assert len(table.splitlines()) == 5


def test_a_name_that_is_too_long_keeps_its_end(tmp_path: Path) -> None:
    write(tmp_path, report(models={"很长的名字" * 30 + "7": {"perplexity": (5.0, 4.5, 5.5)}}))
    [block] = blocks(tmp_path)
    assert "字7/adapter" in block[2]
    assert max(map(cells_of, block)) < 160


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_report_that_may_not_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", report())
    (write(tmp_path / "b", report()) / "report.json").chmod(0)
    assert [run.folder for run in history(tmp_path)] == ["a"]
    assert "Permission denied" in capsys.readouterr().err
