"""A tiny MindSpore computation in its own process: `python -m ms_medqa.launch.probe`.

It prints one JSON object a line as it gets on, so that a crash in compiled code still shows how far it came.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> int:
    """Import MindSpore, list the devices, multiply two 2x2 matrices in both modes."""
    try:
        import mindspore as ms
        import numpy as np
        from mindspore import nn, ops
    # Whatever a broken installation raises is the finding.
    except Exception as error:
        _emit(import_error=f"{type(error).__name__}: {error}")
        return 1

    from ms_medqa.backend.device import available_devices, setup

    devices = available_devices()
    _emit(devices={name: 1 if name == "CPU" else ms.hal.device_count(name) for name in devices})
    # A DEVICE_TARGET that is not here has a finding of its own, and hides nothing of what is here.
    target = os.environ.get("DEVICE_TARGET")
    device = target if target in devices else devices[0]

    class Product(nn.Cell):
        def construct(self, left: ms.Tensor, right: ms.Tensor) -> ms.Tensor:
            return ops.matmul(left, right)

    expected = np.array([[7.0, 10.0], [15.0, 22.0]], np.float32)
    for mode in ("graph", "pynative"):
        try:
            setup(device, mode=mode)
            matrix = ms.Tensor(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
            result = Product()(matrix, matrix).asnumpy()
        except Exception as error:
            _emit(mode=mode, error=f"{type(error).__name__}: {error}")
        else:
            _emit(mode=mode, error=None if np.array_equal(result, expected) else f"wrong product {result.tolist()}")
    return 0


def _emit(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
