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


def test_the_home_folder_that_a_shell_has_left_in_a_value(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    names = ["output_dir", "data.path", "runtime.compile_cache", "train.resume"]
    config = load_config(None, [f"{name}=~/x" for name in names])
    assert [config.output_dir, config.data.path, config.runtime.compile_cache, config.train.resume] == [
        "/home/someone/x"
    ] * 4
    assert load_config(None, ["data.path=./x"]).data.path == "./x"


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
        ("data:\n  split: [0.5, 0.1, 0.1]\n", [], ["data.split = [0.5, 0.1, 0.1]: three shares", "sum is 1"]),
        ("data:\n  split: [0.8, 0.2]\n", [], ["data.split = [0.8, 0.2]: three shares"]),
        ("data:\n  split: 0.8\n", [], ["data.split = 0.8: three shares"]),
        ("", ["data.split=[1.5, -0.5, 0]"], ["data.split = [1.5, -0.5, 0]: three shares of at least 0"]),
        ("train:\n  epochs: true\n", [], ["train.epochs = True", "not be true or false"]),
        ("train:\n  max_steps: yes\n", [], ["train.max_steps = True", "not be true or false"]),
        ("", ["train.recompute=all"], ["train.recompute = 'all': input should be true, false or a number of layers"]),
        ("", ["train.recompute=-1"], ["train.recompute = -1: input should be true, false or a number of layers"]),
        ("generate:\n  stop: ['.', '']\n", [], ["generate.stop = ['.', '']", "an empty text"]),
        (f"generate:\n  stop: {['.'] * 17}\n", [], ["generate.stop", "at most 16 texts, not 17"]),
        ("", ["generate.stop=END"], ["generate.stop = 'END'", "list"]),
        ("", ["generate.min_p=1.5"], ["generate.min_p = 1.5", "1"]),
        ("", ["generate.no_repeat_ngram_size=-1"], ["generate.no_repeat_ngram_size = -1", "0"]),
        ("train:\n", [], ["train = None", "a section of keys", "leave it out"]),
        ("train: 5\n", ["train.epochs=1"], ["train = 5", "a section of keys"]),
        ("output_dir: 2024-13-45\n", [], ["run.yaml", "month", "quotes"]),
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


@pytest.mark.parametrize(("text", "value"), [("true", True), ("no", False), ("0", 0), ("1", 1), ("12", 12)])
def test_a_key_that_takes_a_flag_or_a_number_tells_them_apart(text, value):
    found = load_config(None, [f"train.recompute={text}"]).train.recompute
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["2024-11-22", "2024-13-45", "12", "no", "[x", "{a: b}"])
def test_an_override_of_a_text_is_taken_as_typed(text):
    config = load_config(None, [f"output_dir={text}", f"data.columns.id={text}"])
    assert config.output_dir == config.data.columns.id == text


def test_null_empties_an_optional_text_and_quotes_are_yaml(write):
    path = write("data:\n  path: somewhere\n")
    assert load_config(path, ["data.path=null"]).data.path is None
    assert load_config(path, ["data.path="]).data.path is None
    assert load_config(path, ['data.path="null"']).data.path == "null"


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
