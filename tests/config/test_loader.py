"""Reading configs: precedence, and errors that help."""

from __future__ import annotations

import pytest

from ms_medqa.config import Config, UserError, dump_config, load_config, split_overrides


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_override_wins_over_file_wins_over_default(write):
    path = write("train:\n  epochs: 7\n  batch_size: 2\n")
    config = load_config(path, ["train.epochs=9"])
    assert config.train.epochs == 9
    assert config.train.batch_size == 2
    assert config.train.seed == Config().train.seed


def test_a_dumped_config_reads_back_the_same(write):
    config = load_config(None, ["lora=null", "train.learning_rate=1e-4", "data.split=[0.9, 0.05, 0.05]"])
    assert config.lora is None
    assert config.train.learning_rate == 1e-4
    assert load_config(write(dump_config(config))) == config


def test_an_override_below_a_null_section_brings_it_to_life(write):
    config = load_config(write("lora: null\n"), ["lora.r=8"])
    assert config.lora is not None
    assert config.lora.r == 8


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        ("train:\n  learning_rte: 1\n", [], ["learning_rte", "'train.learning_rate'"]),
        ("data:\n  learning_rate: 1\n", [], ["data.learning_rate", "'train.learning_rate'"]),
        ("train:\n  epochs: many\n", [], ["train.epochs", "'many'", "integer"]),
        ("train:\n  epochs: 0\n", [], ["train.epochs", "0", "1"]),
        ("train:\n  learning_rate: .nan\n", [], ["train.learning_rate", "finite"]),
        ("runtime:\n  device: NPU\n", [], ["runtime.device", "'NPU'", "Ascend"]),
        ("data:\n  split: [0.5, 0.1, 0.1]\n", [], ["split", "sum is 1"]),
        ("train: [1\n", [], ["line", "not valid YAML"]),
        ("- 1\n", [], ["mapping of sections"]),
        ("", ["train.epoch=1"], ["train.epoch", "'train.epochs'"]),
        ("", ["epochs"], ["key=value"]),
    ],
)
def test_an_error_is_one_line_that_names_file_key_and_way_out(write, text, overrides, parts):
    with pytest.raises(UserError) as info:
        load_config(write(text), overrides)
    message = str(info.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_yaml_cannot_build_python_objects(write):
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(write("output_dir: !!python/object/apply:os.getcwd []\n"))


def test_an_existing_path_with_an_equals_sign_is_no_override(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.json").write_text("[]")
    overrides, others = split_overrides(["a=b.json", "train.epochs=1", "dir/c=d.json", "records.json"])
    assert overrides == ["train.epochs=1"]
    assert others == ["a=b.json", "dir/c=d.json", "records.json"]
