"""Figures of sums over items against the libraries of the field, over all items and over many samples at once."""

from __future__ import annotations

import math
import statistics
import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ms_medqa.evaluation.figures import Figure, macro_f1_figure, mean_figure, ratio_figure, share_figure


def test_a_mean_leaves_out_items_without_a_value() -> None:
    figure = mean_figure("rouge_l", [0.25, None, 1.0, 0.0, None])
    assert figure.name == "rouge_l"
    assert figure.value == pytest.approx(statistics.mean([0.25, 1.0, 0.0]))
    assert figure.n == 3
    assert figure.counted.tolist() == [True, False, True, True, False]
    assert not figure.stats[~figure.counted].any()
    assert not figure.proportion


def test_a_share_is_a_proportion_of_counted_items() -> None:
    figure = share_figure("key_fact_rate", [True, None, False, True])
    assert (figure.value, figure.n, figure.proportion) == (pytest.approx(2 / 3), 3, True)
    with pytest.raises(AssertionError, match="no share"):
        share_figure("accuracy", [0.5, 1.0])  # type: ignore[list-item]


def test_perplexity_is_over_all_tokens_not_the_mean_of_items() -> None:
    losses, tokens = [10 * math.log(2), 90 * math.log(8)], [10.0, 90.0]
    figure = ratio_figure("perplexity", losses, tokens, np.exp)
    assert figure.value == pytest.approx(math.exp(sum(losses) / 100))
    assert ratio_figure("loss", losses, tokens).value == pytest.approx(sum(losses) / 100)


def test_an_item_without_tokens_is_not_counted_and_adds_nothing() -> None:
    figure = ratio_figure("token_accuracy", [3.0, 5.0], [4.0, 0.0])
    assert (figure.value, figure.n) == (0.75, 1)


@pytest.mark.parametrize(
    "figure",
    [
        mean_figure("rouge_1", []),
        mean_figure("rouge_1", [None, None]),
        share_figure("accuracy", [None]),
        ratio_figure("perplexity", [0.0], [0.0], np.exp),
        macro_f1_figure("macro_f1", [1, None], [None, None], 3),
        macro_f1_figure("macro_f1", [], [], 3),
    ],
)
def test_a_figure_of_nothing_has_no_value_and_gives_no_warning(figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(figure.value)
        assert figure.n == 0
        # Nor does a sample that holds nothing.
        assert np.isnan(figure.of(np.zeros((2, figure.stats.shape[1])))).all()


@pytest.mark.parametrize("seed", range(8))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes = 6
    # Not all classes occur: some not at all, some in the picks or in the golds alone.
    golds = random.choice([0, 1, 2, 3], 40)
    picks = random.choice([0, 1, 2, 4], 40)
    labels = sorted({*golds})
    figure = macro_f1_figure("macro_f1", picks.tolist(), golds.tolist(), classes)
    assert figure.value == pytest.approx(f1_score(golds, picks, labels=labels, average="macro", zero_division=0))
    # So is that of each subset, over the classes that it has itself.
    for size in (3, 8, 40):
        places = random.integers(40, size=size)
        labels = sorted({*golds[places]})
        theirs = f1_score(golds[places], picks[places], labels=labels, average="macro", zero_division=0)
        assert figure.of(figure.stats[places].sum(axis=0)) == pytest.approx(theirs)


def test_a_class_that_no_item_has_is_a_wrong_answer_and_no_class_of_its_own() -> None:
    golds = [0, 0, 1, 1, 2, 2]
    none = macro_f1_figure("macro_f1", [0, None, 1, 1, 2, 2], golds, 5)
    for outside in (3, 4):
        assert macro_f1_figure("macro_f1", [0, outside, 1, 1, 2, 2], golds, 5).value == pytest.approx(none.value)
    assert none.value == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_macro_f1_of_two_models_is_over_the_same_classes_in_each_sample() -> None:
    random = np.random.default_rng(3)
    golds = random.integers(5, size=20)
    # One right on every item of three classes; the other names a class that is not there.
    first = macro_f1_figure("f", [int(gold) if gold < 3 else None for gold in golds], golds.tolist(), 6)
    second = macro_f1_figure("f", [int(gold) if gold < 3 else 5 for gold in golds], golds.tolist(), 6)
    samples = random.integers(20, size=(50, 4))
    found = [figure.of(figure.stats[samples].sum(axis=1)) for figure in (first, second)]
    shares = [len({*golds[sample]} & {0, 1, 2}) / len({*golds[sample]}) for sample in samples]
    assert found[0] == pytest.approx(shares)
    assert found[1] == pytest.approx(shares)


def test_an_answer_without_a_class_is_a_miss_of_the_right_one() -> None:
    golds = [0, 0, 1, 1, 2]
    picks = [0, None, 1, 0, None]
    # To scikit-learn it is a class of its own that no score is taken of.
    theirs = f1_score(golds, [9 if pick is None else pick for pick in picks], labels=[0, 1, 2], average="macro")
    figure = macro_f1_figure("macro_f1", picks, golds, 3)
    assert figure.value == pytest.approx(theirs)
    assert figure.n == 5


def test_macro_f1_leaves_out_items_without_one_right_class() -> None:
    figure = macro_f1_figure("macro_f1", [0, 1, 1], [0, None, 1], 2)
    assert (figure.value, figure.n) == (1.0, 2)


def test_figures_are_taken_of_many_sums_at_once() -> None:
    random = np.random.default_rng(0)
    golds, picks = random.integers(3, size=30), random.integers(3, size=30)
    values = random.random(30)
    for figure in (
        mean_figure("m", values.tolist()),
        share_figure("s", (values > 0.5).tolist()),
        ratio_figure("r", values.tolist(), (values + 1).tolist(), np.exp),
        macro_f1_figure("f", picks.tolist(), golds.tolist(), 3),
    ):
        samples = random.integers(30, size=(4, 5, 30))
        sums = figure.stats[samples].sum(axis=2)
        assert figure.of(sums).shape == (4, 5)
        one = Figure("one", figure.stats[samples[2, 3]], np.ones(30, bool), figure.of)
        assert figure.of(sums)[2, 3] == pytest.approx(one.value)
