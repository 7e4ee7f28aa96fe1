"""Peak memory and time of `load_model` against its two bounds. Every figure comes from a process of its own.

    python benchmarks/load.py MODEL_DIR… [--rounds 5] [--dtype float32] [--state cold warm]

- Memory: peak ≤ bytes of the loaded model x 1.15 + 400 MB. The peak is the largest resident set of the whole process
  (VmHWM): Python, MindSpore and the project with all its libraries are in it, and are shown as `before`.
- Time: ≤ 1.5 x reading the files once. Reading once is measured in two ways: `read` is `readinto` of one 4 MB buffer
  that is used over and over, `keep` the same into fresh memory as large as the files, as whoever wants the bytes must.
  `fill` writes zeros to fresh memory as large as the loaded model, in two threads as the loader does: what the system
  takes to hand it out, and no loader can be faster than that.
- `cold`: the files' pages are dropped from the page cache first (posix_fadvise), so the disk is read; `warm`: they were
  all read a moment ago.

Right before each measurement another process writes to as much memory as the measurement takes, and ends. A virtual
machine gives what its processes leave back to its host, and gets it again page by page: 17 GB took 37 s to write to,
3.4 s when that was done again at once, and 15 s after a pause of 5 s. `read` needs no fresh memory but for the page
cache, `load` needs three times as much, so without this the ratio is one of the host's load (`--as-is` leaves it out).

Rounds alternate between all cases; medians are printed, with the range of each round's own ratio. Make folders with
`benchmarks/make_checkpoint.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ms_medqa.backend.device import peak_memory
from ms_medqa.models.safetensors import SafetensorsFile

_BUFFER = 4 * 2**20


def evict(files: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(files: list[Path]) -> float:
    """Seconds to read files from start to end into one buffer."""
    buffer = bytearray(_BUFFER)
    began = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began


def peak() -> int:
    """Largest resident set of this process so far, in bytes."""
    return peak_memory("CPU")


def keep(files: list[Path]) -> float:
    """Seconds to read files into fresh memory of their size."""
    began = time.perf_counter()
    for path in files:
        np.fromfile(path, np.uint8)
    return time.perf_counter() - began


def stored_itemsize(file: Path) -> int:
    """Bytes of a number in a file."""
    stored = SafetensorsFile(file)
    return {"F32": 4, "F16": 2, "BF16": 2}[stored.dtype(next(stored.keys()))]


def fill(size: int) -> float:
    """Seconds to write so many bytes to fresh memory."""
    began = time.perf_counter()
    memory = np.empty(size, np.uint8)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda half: half.fill(0), np.array_split(memory, 2)))
    return time.perf_counter() - began


def claim(size: int) -> None:
    """Have the system at hand so much memory that no process uses."""
    code = f"import numpy; numpy.empty({size}, 'u1').fill(1)"
    subprocess.run([sys.executable, "-c", code], check=True)


def measure_here(what: str, folder: Path, dtype: str, state: str, claimed: bool) -> dict[str, float]:
    """One of `read`, `keep`, `fill`, `load` in this process."""
    from ms_medqa.backend.device import setup
    from ms_medqa.models import load_model

    setup("CPU", mode="graph")
    files = sorted(folder.glob("*.safetensors"))
    before = peak()
    held = sum(file.stat().st_size for file in files)
    loaded_size = held * np.dtype(dtype).itemsize // stored_itemsize(files[0])
    (evict if state == "cold" else read_once)(files)
    if claimed:
        # The page cache, the model, and as much again for what the system keeps free.
        claim(2 * (held + loaded_size))
    if what == "fill":
        return {"fill": fill(loaded_size)}
    if what != "load":
        return {what: (keep if what == "keep" else read_once)(files)}
    began = time.perf_counter()
    model = load_model(folder, dtype)
    loaded = time.perf_counter()
    most = peak()
    size = sum(p.size * p.itemsize for p in model.get_parameters())
    return {"load": loaded - began, "before": before, "peak": most, "size": size}


def measure(folder: Path, dtype: str, state: str, claimed: bool) -> dict[str, float]:
    """All of them, each in a fresh process."""
    found: dict[str, float] = {}
    for what in ("read", "keep", "fill", "load"):
        command = [sys.executable, __file__, str(folder), "--dtype", dtype, "--state", state, "--here", what]
        command += [] if claimed else ["--as-is"]
        found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return found


def show(folder: Path, dtype: str, state: str, rounds: list[dict[str, float]]) -> str:
    """A line of the table."""
    middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    text = f"{folder.name:<26}{dtype:<9}{state:<5}"
    text += "".join(f"{middle[key]:>7.2f}" for key in ("read", "keep", "fill", "load")) + " s"
    for key in ("read", "keep", "fill"):
        ratios = [one["load"] / one[key] for one in rounds]
        span = f"({min(ratios):.1f} to {max(ratios):.1f})"
        text += f"{statistics.median(ratios):>6.1f} {span:<15}"
    most, bound = max(one["peak"] for one in rounds), 1.15 * middle["size"] + 400e6
    return text + "".join(f"{size / 1e6:>7.0f}" for size in (middle["size"], middle["before"], most, bound)) + " MB"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--state", nargs="+", choices=["cold", "warm"], default=["cold", "warm"])
    parser.add_argument("--as-is", action="store_true", help="do not have memory at hand before each measurement")
    parser.add_argument("--here", choices=["read", "keep", "fill", "load"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        case = (options.folders[0], options.dtype[0], options.state[0])
        print(json.dumps(measure_here(options.here, *case, not options.as_is)))
        return
    cases = [(f, dtype, state) for f in options.folders for dtype in options.dtype for state in options.state]
    found: dict[tuple[Path, str, str], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            found[case].append(measure(*case, not options.as_is))
    print(f"{options.rounds} rounds")
    times = "".join(f"{name:>7}" for name in ("read", "keep", "fill", "load"))
    ratios = f"{'load / read':<22}{'load / keep':<22}{'load / fill':<22}"
    sizes = "".join(f"{name:>7}" for name in ("model", "before", "peak", "bound"))
    print(f"{'folder':<26}{'dtype':<9}{'state':<5}{times}     {ratios}{sizes}")
    for case in cases:
        print(show(*case, found[case]))


if __name__ == "__main__":
    main()
