"""Likelihoods of trees of texts: those of each text read alone, by the NumPy decoder."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import tiny
import trainable

from ms_medqa.evaluation import likelihood
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.trees import Score, Tree, packs
from ms_medqa.generation.generate import load_model

# The tensors of a checkpoint, and its config.
Model = tuple[decoders.Weights, dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    """The device must be set up before the first tensor, whichever test comes first."""
    tiny.model()


@functools.cache
def trees() -> tuple[Tree, ...]:
    """Trunks and branches of all sizes, some without branches, some without targets in the trunk."""
    draw = np.random.default_rng(0)

    def tokens(most: int) -> list[int]:
        return draw.integers(0, tiny.model().config.vocab_size, draw.integers(1, most)).tolist()

    made = [Tree(tokens(60), [tokens(9) for _ in range(draw.integers(0, 5))]) for _ in range(24)]
    return tuple(Tree(one.trunk, one.branches, list(range(1, len(one.trunk), 2))) for one in made)


def alone(model: Model, ids: Sequence[int], targets: Iterable[int]) -> tuple[float, int, int]:
    """Loss, hits and number of the targets of one text."""
    logits = decoders.logits(*model, ids)
    loss, correct, count = 0.0, 0, 0
    for place in targets:
        row = logits[place - 1]
        loss -= row[ids[place]] - row.max() - np.log(np.exp(row - row.max()).sum())
        correct += int(row.argmax() == ids[place])
        count += 1
    return loss, correct, count


def expected(model: Model, tree: Tree) -> list[tuple[float, int, int]]:
    start = len(tree.trunk)
    found = [alone(model, tree.trunk, tree.targets)]
    return found + [alone(model, [*tree.trunk, *one], range(start, start + len(one))) for one in tree.branches]


def check(scores: dict[int, list[Score]], wanted: Sequence[list[tuple[float, int, int]]]) -> None:
    assert sorted(scores) == list(range(len(wanted)))
    for number, each in enumerate(wanted):
        assert [(score.correct, score.tokens) for score in scores[number]] == [(hits, count) for _, hits, count in each]
        np.testing.assert_allclose([score.loss for score in scores[number]], [loss for loss, *_ in each], atol=2e-4)


@functools.cache
def wanted() -> list[list[tuple[float, int, int]]]:
    folder = tiny.folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = trainable.tensors(folder / "model.safetensors"), config
    return [expected(model, tree) for tree in trees()]


def test_a_branch_is_as_likely_as_behind_its_trunk_alone() -> None:
    check(dict(Scorer(tiny.model()).score(trees())), wanted())


def test_long_texts_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "WIDTH", 8)
    monkeypatch.setattr(likelihood, "LONGEST", 16)
    monkeypatch.setattr("ms_medqa.generation.reading.LARGEST_PIECE", 32)
    check(dict(Scorer(tiny.model()).score(trees())), wanted())


def test_few_logits_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 1)
    check(dict(Scorer(tiny.model()).score(trees())), wanted())


@pytest.mark.parametrize(
    "config",
    [
        decoders.config_of("MistralForCausalLM", sliding_window=7),
        decoders.config_of(
            "LlamaForCausalLM", max_position_embeddings=24, rope_scaling={"rope_type": "dynamic", "factor": 4.0}
        ),
        decoders.baichuan_config("13B"),
    ],
    ids=["window", "dynamic rope", "alibi"],
)
def test_other_ways_to_see_and_to_count_positions(config: dict[str, Any], tmp_path: Path) -> None:
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path, dtype="float32")
    most, vocabulary = model.config.position_limit, model.config.vocab_size

    def known(ids: Sequence[int]) -> list[int]:
        return [token % vocabulary for token in ids]

    some = [
        Tree(known(one.trunk), list(map(known, one.branches)), one.targets) for one in trees() if one.longest <= most
    ]
    assert len(some) > 3
    check(dict(Scorer(model).score(some[:8])), [expected((weights, config), tree) for tree in some[:8]])


def test_packs_hold_every_tree_once_and_are_no_longer_than_a_pass() -> None:
    lengths = np.random.default_rng(1).integers(1, 700, 1500).tolist()
    found = list(packs(lengths, 512))
    assert sorted(one for pack in found for one in pack) == list(range(1500))
    assert all(len(pack) == 1 or sum(lengths[one] for one in pack) <= 512 for pack in found)
    # First fit wastes little: within a tenth of what cannot be less.
    small = [length for length in lengths if length <= 512]
    assert len(found) <= 1.1 * (sum(small) / 512 + len(lengths) - len(small)) + 3
