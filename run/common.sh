# Sourced by the scripts beside it: where the project is, which Python to use, how to install.

# Without CDPATH, under which cd may go elsewhere and print where it went.
ROOT="$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${MS_MEDQA_VENV:-$ROOT/.venv}"

fail() {
  echo "$(basename "$0"): error: $1" >&2
  exit 2
}

# True if $1 runs, is a Python that MindSpore has wheels for, and can make virtual environments.
is_usable_python() {
  # A name on PATH may be a stub that only prints an error, so it is run and not just looked up.
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# Prints the Python that makes the virtual environment: $PYTHON, or the first usable one on PATH.
find_base_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_usable_python "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 with the venv module"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python3.12 python3.11 python3.10 python; do
    if is_usable_python "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 with the venv module on PATH: install one (Debian, Ubuntu: apt install python3 \
python3-venv; openEuler: dnf install python3), or name one: PYTHON=/path/to/python3.11 bash $0"
}

# install_into_venv EXTRAS: makes the virtual environment and installs the project with EXTRAS ("" or "[test]"), unless
# that was done before and neither the requirements nor the version have changed since.
install_into_venv() {
  local extras="$1" base stamp wanted usable=false quiet=""
  stamp="$VENV/.installed$extras"
  wanted="$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/ms_medqa/__init__.py" \
    "$ROOT"/ms_medqa/backend/kernels/* | cksum) $(command -v g++ || echo "no g++") $ROOT"
  if "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    usable=true
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
      return
    fi
  fi
  [ -w "$ROOT" ] || fail "$ROOT cannot be written to, and pip builds there: copy the project to a folder of your own"
  if ! $usable; then
    # --clear empties the folder, so it must be one that was made for this.
    if [ -d "$VENV" ] && [ ! -f "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
      fail "$VENV is no virtual environment: remove it, or name another folder: MS_MEDQA_VENV=DIR bash $0"
    fi
    base="$(find_base_python)"
    mkdir -p "$VENV" 2>/dev/null || fail "$VENV cannot be made: name another folder: MS_MEDQA_VENV=DIR bash $0"
    echo "making a virtual environment in $VENV"
    "$base" -m venv --clear "$VENV"
  fi
  echo "installing ms_medqa$extras with MindSpore (a download of about 1 GB, 3 GB on disk; one to several minutes)"
  # On a terminal pip shows its progress; in a log that would be a hundred lines.
  if [ ! -t 1 ]; then
    quiet=--quiet
  fi
  (cd "$ROOT" && "$VENV/bin/python" -m pip install $quiet --disable-pip-version-check --use-pep517 -e ".$extras")
  echo "$wanted" >"$stamp"
}

# Sets PYTHON to the interpreter that runs the project: $PYTHON, the virtual environment's, or the first on PATH that
# has MindSpore (such as the one of a container image).
use_project_python() {
  local candidate
  # The scripts run the code beside them, installed or not.
  export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such program"
    return
  fi
  if [ -x "$VENV/bin/python" ]; then
    PYTHON="$VENV/bin/python"
    return
  fi
  for candidate in python python3; do
    if "$candidate" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mindspore"))' >/dev/null 2>&1; then
      PYTHON="$(command -v "$candidate")"
      return
    fi
  done
  fail "no Python with MindSpore: run \`bash run/quickstart.sh\`, or \`pip install .\` in your own environment"
}
