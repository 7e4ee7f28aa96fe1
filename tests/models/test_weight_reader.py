"""Arrays filled from files larger than a piece, in every type, and what happens when a file or a number does not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ms_medqa.config import UserError
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.safetensors_writer import encode, write_safetensors
from ms_medqa.models.weight_reader import WeightReader

# 3 x 4 MB in float32 and some more, in rows that do not divide a piece.
SHAPE = (1037, 3077)


def written(path: Path, dtype: str, **tensors: np.ndarray) -> SafetensorsFile:
    with path.open("wb") as file:
        shapes = {name: (dtype, value.shape) for name, value in tensors.items()}
        write_safetensors(file, shapes, [(name, encode(value, dtype)) for name, value in tensors.items()])
    return SafetensorsFile(path)


def numbers(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("to", ["float32", "float16"])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_all_numbers_arrive_in_the_wanted_type(stored: str, to: str, tmp_path: Path) -> None:
    tensors = {"a": numbers(1), "b": numbers(2, (5,)), "c": numbers(3)}
    file = written(tmp_path / "x.safetensors", stored, **tensors)
    out = {name: np.empty(value.shape, to) for name, value in tensors.items()}
    with WeightReader() as reader:
        for name in ("c", "a", "b"):
            reader.fill(file, name, out[name])
        reader.wait()
    for name, value in out.items():
        # `read` takes another way: the memory map, in one go.
        np.testing.assert_array_equal(value, file.read(name).astype(to))


# float32 is what is stored: it is copied, and float16 converted.
@pytest.mark.parametrize("to", ["float32", "float16"])
@pytest.mark.parametrize("started", [False, True])
def test_more_than_is_in_memory_at_once_and_many_small_tensors_between(started: bool, to: str, tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray] = {}
    for number in range(10):
        tensors[f"{number}.large"] = numbers(number)
        tensors |= {f"{number}.{small}": numbers(small, (7 * small + 1,)) for small in range(20)}
    file = written(tmp_path / "x.safetensors", "float32", **tensors)
    out = {name: np.empty(tensors[name].shape, to) for name in sorted(tensors, key=file.offset)}
    with WeightReader() as reader:
        # Twice, for a reader may be used again.
        for _ in range(2):
            for name, value in out.items():
                value.fill(np.nan)
                reader.fill(file, name, value)
            if started:
                reader.start()
            reader.wait()
            for name, value in out.items():
                np.testing.assert_array_equal(value, tensors[name].astype(to))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("to", [["float32"] * 3, ["float16"] * 3, ["float32", "float16", "float32"]])
def test_rows_of_a_tensor_and_several_files(to: list[str], started: bool, tmp_path: Path) -> None:
    files = [written(tmp_path / f"{number}.safetensors", "float32", x=numbers(number)) for number in range(3)]
    out = [np.empty((700, SHAPE[1]), dtype) for dtype in to]
    with WeightReader() as reader:
        for start, (file, rows) in enumerate(zip(files, out, strict=True)):
            reader.fill(file, "x", rows, start)
        if started:
            reader.start()
        reader.wait()
    for number, rows in enumerate(out):
        whole = safetensors.numpy.load_file(tmp_path / f"{number}.safetensors")["x"]
        np.testing.assert_array_equal(rows, whole[number : number + 700].astype(rows.dtype))


def test_a_number_that_does_not_fit_is_said_and_ends_all(tmp_path: Path) -> None:
    value = numbers(1)
    value[-1, -1] = 1e30
    file = written(tmp_path / "x.safetensors", "bfloat16", x=value)
    with WeightReader() as reader:
        for _ in range(4):
            reader.fill(file, "x", np.empty(SHAPE, np.float16))
        with pytest.raises(UserError, match=r"x holds 1e\+30, which float16 cannot hold"):
            reader.wait()


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("to", ["float32", "float16"])
@pytest.mark.parametrize("fault", ["shorter", "gone"])
def test_a_file_that_changes_while_it_is_read(fault: str, to: str, started: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    file = written(path, "float32", x=numbers(1))
    if fault == "gone":
        path.unlink()
    else:
        with path.open("r+b") as opened:
            opened.truncate(6 * 2**20)
    match = "No such file" if fault == "gone" else "became shorter while it was read: copy it again"
    with WeightReader() as reader:
        reader.fill(file, "x", np.empty(SHAPE, to))
        if started:
            reader.start()
        with pytest.raises(UserError, match=match):
            reader.wait()
