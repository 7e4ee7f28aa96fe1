#!/usr/bin/env bash
# Trains on several devices of one or several hosts, through msrun.
#
#   bash run/run_distribute_train.sh DEVICE_NUM [CONFIG] [RANK_TABLE_FILE] [--resume] [key=value…]
#
# CONFIG is configs/lora_medqa_tiny.yaml if not given. DEVICE_TARGET=CPU runs without an NPU.
# Logs: OUTPUT_DIR/msrun_log/worker_N.log; what this host's first worker says, rank 0 on host 0, is shown here.
#
# DEVICE_NUM counts the devices of all hosts. On several, run the same command on each, with
#   NODE_NUM=2 NODE_RANK=0|1 MASTER_ADDR=ADDRESS_OF_HOST_0 [MASTER_PORT=8118] [CLUSTER_TIME_OUT=600]
# docs/distributed.md says more.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

use_project_python
exec "$PYTHON" -m ms_medqa.launch.msrun "$@"
