"""The kept list of losses is what transformers, PEFT and PyTorch compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package, reason=f"parity with PyTorch needs {package}")
pytestmark = pytest.mark.parity

FOLDER = Path(__file__).resolve().parents[1] / "training"


def test_the_golden_losses_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import make_golden

    kept, made = json.loads(make_golden.uneven.GOLDEN.read_text(encoding="utf-8")), make_golden.compute()
    assert kept.keys() == made.keys()
    kept_adapter, adapter = kept.pop("adapter"), made.pop("adapter")
    for name, values in made.items():
        np.testing.assert_allclose(kept[name], values, rtol=1e-6, err_msg=name)
    assert kept_adapter.keys() == adapter.keys()
    for name, value in adapter.items():
        np.testing.assert_allclose(kept_adapter[name], value, atol=1e-6, err_msg=name)
