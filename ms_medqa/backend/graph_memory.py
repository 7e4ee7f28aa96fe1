"""MindSpore keeps a graph, and what its operators have made, until the process ends, even where its Cell is gone."""

from __future__ import annotations

from mindspore import nn

try:
    from mindspore.graph.api import ms_compile_cache
except ImportError:  # before 2.9
    from mindspore.common.api import ms_compile_cache


def free_graphs(cell: nn.Cell) -> int:
    """Give back the memory of the graphs of a Cell's `ms.jit` methods, and say how many there were.

    A graph that is called again is compiled anew. MindSpore has a public function for the graphs of all Cells alone
    (`ms_memory_recycle`); where the private one for some is missing, nothing is freed.
    """
    try:
        from mindspore._c_expression import JitExecutor_
    except ImportError:
        return 0
    # A graph's name holds when its Cell was made, and where that lies.
    names = {name for name in ms_compile_cache if f".{cell.create_time}" in name and f".{id(cell)}." in name}
    if names:
        JitExecutor_.get_instance().del_net_res(None, names)
        ms_compile_cache.difference_update(names)
    return len(names)
