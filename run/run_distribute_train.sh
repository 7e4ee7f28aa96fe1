#!/usr/bin/env bash
# Trains on several devices of this machine, through msrun.
#
#   bash run/run_distribute_train.sh DEVICE_NUM [CONFIG] [RANK_TABLE_FILE] [--resume] [key=value…]
#
# CONFIG is configs/lora_medqa_tiny.yaml if not given. DEVICE_TARGET=CPU runs without an NPU.
# Logs: OUTPUT_DIR/msrun_log/worker_N.log; what rank 0 says is shown here.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

use_project_python
exec "$PYTHON" -m ms_medqa.launch.msrun "$@"
