#!/usr/bin/env bash
# Evaluates on several devices of one or several hosts, through msrun: each process takes its share of the items.
#
#   bash run/run_distribute_eval.sh DEVICE_NUM [RANK_TABLE_FILE] --output DIR [what `ms-medqa eval` takes…]
#
# DEVICE_TARGET=CPU runs without an NPU. Logs: DIR/msrun_log/worker_N.log; what rank 0 says is shown here.
# On several hosts DIR must be one folder that all of them see; NODE_NUM, NODE_RANK and MASTER_ADDR as for
# run_distribute_train.sh. docs/distributed.md says more.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

use_project_python
exec "$PYTHON" -m ms_medqa.launch.msrun_eval "$@"
