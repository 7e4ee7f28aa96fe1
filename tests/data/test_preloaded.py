"""A tokenizer that is loaded once for all worker processes, by the server that they are forked from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ms_medqa.config.assets import ASSETS

PROGRAM = """
import gc, os, shutil, sys
from pathlib import Path
from ms_medqa.data.preloaded import load_tokenizer, start_server
from ms_medqa.data.processes import fresh_processes

def is_shared(folder):
    return load_tokenizer(folder) is load_tokenizer(folder)

def encode(folder):
    return load_tokenizer(folder).encode("高血压怎么治疗？")

if __name__ == "__main__":
    served, other = map(Path, sys.argv[1:])
    start_server(served)
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    with fresh_processes(2, gc.collect) as pool:
        print([pool.submit(is_shared, folder).result() for folder in (served, other)])
        alone = encode(other)
        print([pool.submit(encode, folder).result() == alone for folder in (served, other)])
        # Another tokenizer in the same place.
        shutil.copyfile(other / "tokenizer.json", served / "tokenizer.json")
        print([pool.submit(is_shared, served).result(), pool.submit(encode, served).result() == alone])
"""

BROKEN = """
import gc, sys
from pathlib import Path
from ms_medqa.config.errors import UserError
from ms_medqa.data.preloaded import load_tokenizer, start_server
from ms_medqa.data.processes import fresh_processes

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    start_server(folder)
    with fresh_processes(2, gc.collect) as pool:
        error = pool.submit(load_tokenizer, folder).exception()
        print(isinstance(error, UserError), error.message.startswith(f"{folder / 'tokenizer.json'}: not a tokenizer"))
"""

DYING = """
import gc
from multiprocessing import forkserver
from ms_medqa.config.errors import RunError
from ms_medqa.data.processes import fresh_processes

if __name__ == "__main__":
    forkserver.set_forkserver_preload(["dying"])
    try:
        with fresh_processes(2, gc.collect):
            print("started")
    except RunError as error:
        print(error)
"""


def run(folder: Path, program: str, *arguments: Path) -> str:
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    command = [sys.executable, str(path), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def served(tmp_path: Path, tiny_tokenizer_folder: Path) -> Path:
    return shutil.copytree(tiny_tokenizer_folder, tmp_path / "served")


def test_workers_share_the_tokenizer_that_the_server_has_loaded(tmp_path: Path, served: Path) -> None:
    said = run(tmp_path, PROGRAM, served, ASSETS / "medqa-tiny")
    # Another folder's, and one whose files have changed since, they load themselves.
    assert said.splitlines() == ["[True, False]", "[False, True]", "[False, True]"]


def test_a_broken_tokenizer_is_the_error_of_whoever_asks_for_it(tmp_path: Path, served: Path) -> None:
    (served / "tokenizer.json").write_text('{"model": ', encoding="utf-8")
    assert run(tmp_path, BROKEN, served) == "True True\n"


def test_a_server_that_dies_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text("import os\nos._exit(1)\n", encoding="utf-8")
    assert run(tmp_path, DYING) == "no process can be started; perhaps memory ran out\n"
