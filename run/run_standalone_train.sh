#!/usr/bin/env bash
# Trains on one device.
#
#   bash run/run_standalone_train.sh CONFIG [--resume] [key=value…]
#
# DEVICE_TARGET=CPU|GPU|Ascend chooses the device, DEVICE_ID the card.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -ge 1 ] || fail "usage: bash run/run_standalone_train.sh CONFIG [--resume] [key=value…]"
use_project_python
exec "$PYTHON" -m ms_medqa.cli.main train "$@"
