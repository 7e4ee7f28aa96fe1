#!/usr/bin/env bash
# Makes .venv if needed, installs the test extra, and runs the tests.
#
#   bash run/run_tests.sh [pytest arguments…]        e.g.  bash run/run_tests.sh -m "not slow"
#
# MS_MEDQA_PARITY=1 also installs PyTorch, transformers and PEFT, and so runs the tests that compare with them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extras="[test]"
if [ "${MS_MEDQA_PARITY:-0}" = 1 ]; then
  extras="[test,parity]"
fi
install_into_venv "$extras"
cd "$ROOT"
# A process for each core, at most four: each takes up to 3 GB. The tests of a file stay together, for they share models;
# files are dealt out in the order of tests/conftest.py.
exec "$VENV/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
