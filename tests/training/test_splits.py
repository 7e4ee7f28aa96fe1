"""One list of losses and one adapter, however a global batch is split: those that PyTorch computes without any split.

`golden.json` is made by `make_golden.py`, from which `tests/parity` makes it anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trainable
import uneven

from ms_medqa.data.dataset import BatchPlan

pytestmark = pytest.mark.usefixtures("graph_mode")

# (rows of a micro-batch, micro-batches, ranks); the ranks are processes under the launcher.
SPLITS = [(8, 1, 1), (2, 4, 1), (1, 4, 2), (1, 1, 8)]
# With two ranks a run ends in `test_ranks`.
TRAINED = [split for split in SPLITS if split[2] != 2]


@pytest.mark.parametrize(
    ("batch", "accumulation", "ranks"),
    [
        pytest.param(*split, marks=[pytest.mark.slow] if split[2] > 1 else [], id="x".join(map(str, split)))
        for split in TRAINED
    ],
)
def test_losses_and_adapter_do_not_depend_on_the_split(
    tmp_path: Path, batch: int, accumulation: int, ranks: int
) -> None:
    output = tmp_path / "out"
    # The update is the same whether each rank keeps all moments or its part of them.
    config = uneven.write_config(output, batch, accumulation, shard_optimizer=ranks == 8)
    if ranks == 1:
        assert trainable.train(config) == 0
    else:
        assert f" x {ranks} ranks" in trainable.launch(ranks, config)
        # Only rank 0 writes: one TensorBoard file, and a line a step, which `assert_golden` counts.
        assert len(list((output / "tensorboard").iterdir())) == 1
        assert {path.name for path in tmp_path.iterdir()} == {"out", "out.yaml"}
        workers = {f"worker_{rank}.log" for rank in range(ranks)}
        assert {path.name for path in (output / "msrun_log").iterdir()} == {"scheduler.log", "msrun.log", *workers}
    uneven.assert_golden(output)


@pytest.mark.parametrize(("batch", "accumulation", "ranks"), SPLITS)
def test_the_parts_of_a_step_hold_unequal_numbers_of_answer_tokens(batch: int, accumulation: int, ranks: int) -> None:
    """With equal ones, a mean of the parts' means would be the mean over all tokens."""
    plan = BatchPlan(uneven.rows(), batch, accumulation, ranks, uneven.TRAINING["seed"])
    assert plan.global_batch == uneven.GLOBAL_BATCH
    for epoch in range(uneven.TRAINING["epochs"]):
        for step in range(plan.steps_per_epoch):
            parts = [plan.rows_of(epoch, step, micro, rank) for micro in range(accumulation) for rank in range(ranks)]
            counts = [int(plan.rows.label_counts[part[part >= 0]].sum()) for part in parts]
            filled = [count for count in counts if count]
            assert len(set(filled)) == len(filled), (epoch, step, counts)
            assert sum(counts) == plan.label_count(epoch, step)
