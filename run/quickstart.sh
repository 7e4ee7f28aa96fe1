#!/usr/bin/env bash
# Makes .venv, installs the project, and runs the whole path on the shipped sample: convert, train, eval, ask.
#
#   bash run/quickstart.sh [--output DIR]
#
# PYTHON=/path/to/python3.11 chooses the Python that makes the environment, MS_MEDQA_VENV=DIR another place for it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_into_venv ""
exec "$VENV/bin/ms-medqa" demo "$@"
