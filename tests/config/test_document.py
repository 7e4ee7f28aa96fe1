"""`docs/config.md` is the schema's."""

from __future__ import annotations

from pathlib import Path

from ms_medqa.config.document import config_reference
from ms_medqa.config.loader import known_keys, section_type
from ms_medqa.config.schema import Config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == config_reference(), (
        "run: python -m ms_medqa.config.document docs/config.md"
    )


def test_every_key_has_a_row_with_a_meaning():
    rows = {line.split("|")[1].strip(" `"): line for line in config_reference().splitlines() if line.startswith("| `")}
    keys = {key for key in known_keys() if not _is_section(key)}
    assert set(rows) == keys
    assert all(len(row.split("|")[4].strip()) > 3 for row in rows.values())
    assert "None" not in "".join(rows.values())


def test_small_numbers_and_choices_are_written_out():
    page = config_reference()
    assert "| `train.learning_rate` | number, > 0 | `0.0002` |" in page
    assert "| `runtime.device` | `auto`, `CPU`, `GPU`, `Ascend` | `auto` |" in page


def _is_section(key: str) -> bool:
    model = Config
    for part in key.split("."):
        model = section_type(model.model_fields[part].annotation)
        if model is None:
            return False
    return True
