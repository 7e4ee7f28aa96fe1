"""The start by rank table: a platform or a loop starts plain processes, and the environment says which one each is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ms_medqa.launch.nodes import Nodes
from ms_medqa.launch.rank_table import check_rank_table


def check_rank_table_start(environment: Mapping[str, str] | None = None) -> None:
    """Check the table of a process that is part of a start by rank table; any other process is left alone.

    What the other variables must be is `backend.distributed`'s matter, which knows the device.

    Raises:
        UserError: the table cannot be read, stays incomplete, is wrong, or has not RANK_SIZE cards.
    """
    variables = os.environ if environment is None else environment
    path, size = variables.get("RANK_TABLE_FILE"), variables.get("RANK_SIZE", "")
    if not path or "MS_ROLE" in variables or not size.isdecimal() or int(size) <= 1:
        return
    # NODE_NUM and its like are no part of such a start, but the time to wait is.
    time_out = Nodes.from_environment({"CLUSTER_TIME_OUT": variables.get("CLUSTER_TIME_OUT", "")}).time_out
    check_rank_table(path, int(size), wait_seconds=time_out)
