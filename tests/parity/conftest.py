"""Settings of every comparison with PyTorch."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """PyTorch's threads and MindSpore's get in each other's way on few cores."""
    try:
        import torch
    except ImportError:
        # Each of these files skips itself then.
        return
    torch.set_num_threads(1)
