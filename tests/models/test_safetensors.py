"""Broken files, as the safetensors library judges them; numbers out of a type's range; many files at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from decoders import raw_file

from ms_medqa.config import UserError
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.safetensors_writer import write_safetensors


def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


X = b'"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
GOOD = {
    "one": raw_file({"x": entry([2], [0, 8])}, bytes(8)),
    "none": raw_file({}),
    "scalar": raw_file({"x": entry([], [0, 4])}, bytes(4)),
    "no numbers": raw_file({"x": entry([0], [0, 0]), "y": entry([2], [0, 8]), "z": entry([0, 4], [8, 8])}, bytes(8)),
    "another order": raw_file({"y": entry([2], [8, 16]), "x": entry([2], [0, 8])}, bytes(16)),
    "metadata": raw_file({"__metadata__": {"a": "b"}, "x": entry([2], [0, 8])}, bytes(8)),
    "no metadata": raw_file({"__metadata__": None, "x": entry([2], [0, 8])}, bytes(8)),
    "another field": raw_file({"x": {**entry([2], [0, 8]), "more": 1}}, bytes(8)),
    "a type of eight bits": raw_file({"x": entry([8], [0, 8], "F8_E4M3")}, bytes(8)),
    "spaces": raw_file(b" {" + X + b"}  ", bytes(8)),
}
BAD = {
    "fractions": raw_file({"x": entry([2], [0.0, 8.0])}, bytes(8)),
    "truths": raw_file({"x": entry([0], [False, False])}),
    "negative": raw_file({"x": entry([2], [-8, 0])}, bytes(8)),
    "three offsets": raw_file({"x": entry([2], [0, 8, 9])}, bytes(8)),
    "a true width": raw_file({"x": entry([True], [0, 4])}, bytes(4)),
    "a text": raw_file({"x": entry(["1"], [0, 4])}, bytes(4)),
    "a fraction wide": raw_file({"x": entry([1.0], [0, 4])}, bytes(4)),
    "two negative widths": raw_file({"x": entry([-1, -2], [0, 8])}, bytes(8)),
    "another size": raw_file({"x": entry([3], [0, 8])}, bytes(8)),
    "no memory": raw_file({"x": entry([2**40, 2**40, 0], [0, 0])}),
    "the same bytes": raw_file({"x": entry([2], [0, 8]), "y": entry([2], [0, 8])}, bytes(8)),
    "an overlap": raw_file({"x": entry([2], [0, 8]), "y": entry([2], [4, 12])}, bytes(12)),
    "a gap": raw_file({"x": entry([2], [0, 8]), "y": entry([2], [12, 20])}, bytes(20)),
    "a gap at the start": raw_file({"x": entry([2], [4, 12])}, bytes(12)),
    "bytes behind": raw_file({"x": entry([2], [0, 8])}, bytes(9)),
    "a field twice": raw_file(b'{"x":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "metadata twice": raw_file(b'{"__metadata__":{},"__metadata__":{},' + X + b"}", bytes(8)),
    "numbers as metadata": raw_file({"__metadata__": {"a": 1}, "x": entry([2], [0, 8])}, bytes(8)),
    "a list as metadata": raw_file({"__metadata__": [], "x": entry([2], [0, 8])}, bytes(8)),
    "too deep": raw_file(b'{"x":' + b"[" * 100_000),
    "utf-16": raw_file(("{" + X.decode() + "}").encode("utf-16-le"), bytes(8)),
    "half a character": raw_file(b'{"\\ud800":' + X.partition(b":")[2] + b"}", bytes(8)),
    "a type without a name": raw_file({"x": entry([2], [0, 8], ["F32"])}, bytes(8)),
}


def by_library(path: Path) -> set[str]:
    with safetensors.safe_open(path, "np") as file:
        return set(file.keys())


@pytest.mark.parametrize("name", GOOD)
def test_what_the_library_opens(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD[name])
    assert set(SafetensorsFile(path).keys()) == by_library(path)


@pytest.mark.parametrize("name", BAD)
def test_what_the_library_refuses(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD[name])
    with pytest.raises(UserError, match=r"x\.safetensors: .*copy it again") as error:
        SafetensorsFile(path)
    assert "\n" not in str(error.value)
    with pytest.raises(safetensors.SafetensorError):
        by_library(path)


def test_a_tensor_twice(tmp_path: Path) -> None:
    # The library takes the last one; no writer makes such a file.
    (tmp_path / "x.safetensors").write_bytes(raw_file(b"{" + X + b"," + X + b"}", bytes(8)))
    with pytest.raises(UserError, match="'x' stands there twice"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_more_axes_than_an_array_has(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw_file({"x": entry([1] * 70, [0, 4])}, bytes(4)))
    with pytest.raises(UserError, match="too many axes"):
        SafetensorsFile(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "text", ["version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "<!DOCTYPE html>\n<html>404</html>"]
)
def test_what_a_failed_download_leaves(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text(text)
    with pytest.raises(UserError, match=re.escape(f"begins with {text[:8].encode()!r}: a Git LFS pointer or an error")):
        SafetensorsFile(tmp_path / "x.safetensors")


class TestRange:
    """A number that the wanted type cannot hold is said, and not made infinite."""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(("dtype", "bits"), [("F32", "<f4"), ("F64", "<f8"), ("BF16", None)])
    @pytest.mark.parametrize("value", [65520.0, -70000.0])
    def test_float16(self, dtype: str, bits: str | None, value: float, tmp_path: Path) -> None:
        numbers = np.full(5, 0.5)
        numbers[3] = value
        encoded = numbers.astype(bits) if bits else (numbers.astype("<f4").view(np.uint32) >> 16).astype("<u2")
        header = {"x": entry([5], [0, encoded.nbytes], dtype)}
        path = tmp_path / "x.safetensors"
        path.write_bytes(raw_file(header) + encoded.tobytes())
        if bits is None and value == 65520.0:
            # Cut to bfloat16 it is 65280, which fits.
            SafetensorsFile(path).read_into("x", np.empty(5, np.float16))
            return
        with pytest.raises(UserError, match=r"x holds [67]\S*e\+04, which float16 cannot hold: load it as bfloat16"):
            SafetensorsFile(path).read_into("x", np.empty(5, np.float16))

    def test_the_largest_that_fits_and_infinity_itself(self, tmp_path: Path) -> None:
        numbers, out = np.array([65504.0, -65519.0, np.inf, 1e-9], "<f4"), np.empty(4, np.float16)
        (tmp_path / "x.safetensors").write_bytes(raw_file({"x": entry([4], [0, 16])}) + numbers.tobytes())
        SafetensorsFile(tmp_path / "x.safetensors").read_into("x", out)
        assert out.tolist() == [65504.0, -65504.0, np.inf, 0.0]

    def test_float32(self, tmp_path: Path) -> None:
        numbers = np.array([1.0, 1e300], "<f8")
        (tmp_path / "x.safetensors").write_bytes(raw_file({"x": entry([2], [0, 16], "F64")}) + numbers.tobytes())
        with pytest.raises(UserError, match=r"x holds 1e\+300, which float32 cannot hold"):
            SafetensorsFile(tmp_path / "x.safetensors").read_into("x", np.empty(2, np.float32))


@pytest.mark.parametrize("hard", [1024, 100])
def test_more_files_than_may_be_open(hard: int, tmp_path: Path) -> None:
    for number in range(150):
        with (tmp_path / f"{number:03d}.safetensors").open("wb") as file:
            write_safetensors(file, {"x": ("float32", (1,))}, [("x", np.float32([number]))])
    code = f"""
import resource
from pathlib import Path
from ms_medqa.config import UserError
from ms_medqa.models.safetensors import SafetensorsFile
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))
try:
    files = [SafetensorsFile(path) for path in sorted(Path({str(tmp_path)!r}).iterdir())]
    print(sum(file.read("x")[0] for file in files))
except UserError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if hard == 1024:
        assert found == f"{sum(range(150)):.1f}\n"
    else:
        assert "Too many open files: raise the limit with ulimit -n" in found
