"""How many answers the server makes at a time, where nobody says."""

from __future__ import annotations

import pytest
import tiny

from ms_medqa.config.serve_section import ServeSection
from ms_medqa.models.cache import CachedDecoder, position_bytes
from ms_medqa.models.prompt_reader import PromptReader
from ms_medqa.serving.build import rows_for


@pytest.mark.parametrize(("megabytes", "rows"), [(1, 32), (64, 32), (65, 16), (128, 16), (129, 8), (256, 8), (1024, 8)])
def test_rows_by_the_size_of_one(megabytes: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GiB hold 32 rows of 64 MiB."""
    model = tiny.model()
    # The model's limit is shorter than that of the settings.
    longest = model.config.position_limit
    monkeypatch.setattr("ms_medqa.serving.build.position_bytes", lambda of: megabytes * 2**20 // longest)
    assert rows_for(model, ServeSection()) == rows
    assert rows_for(model, ServeSection(max_batch=5)) == 5


def test_bytes_of_a_position_are_those_of_the_caches() -> None:
    decoder = CachedDecoder(PromptReader(tiny.model()), 2, 16)
    held = sum(cache.nbytes for cache in (*decoder.keys, *decoder.values))
    assert held == 2 * 16 * position_bytes(tiny.model())
