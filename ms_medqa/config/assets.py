"""Files that come with the package."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
MEDQA_MINI = ASSETS / "medqa-mini" / "records.jsonl"
DEMO_CONFIG = ASSETS / "demo.yaml"
