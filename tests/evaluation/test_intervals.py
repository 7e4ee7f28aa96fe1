"""Intervals and tests against SciPy, against a bootstrap written out, and against what 95 % means."""

from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import stats

from ms_medqa.evaluation import intervals
from ms_medqa.evaluation.figures import macro_f1_figure, mean_figure, ratio_figure, share_figure
from ms_medqa.evaluation.intervals import difference, interval, mcnemar


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 1), (7, 20), (499, 1000)])
def test_the_interval_of_a_share_is_wilsons(hits: int, n: int) -> None:
    figure = share_figure("accuracy", [*([True] * hits), *([False] * (n - hits)), None])
    bounds = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert interval(figure) == (bounds.low, bounds.high)
    # And by the formula itself.
    z, p = stats.norm.ppf(0.975), hits / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert interval(figure) == pytest.approx([(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])


def test_the_bootstrap_of_few_items_is_that_of_all_their_samples() -> None:
    values = [0.0, 0.1, 0.35, 0.7, 1.0]
    # All 5⁵ equally likely samples.
    means = [float(np.mean(sample)) for sample in itertools.product(values, repeat=5)]
    low, high = interval(mean_figure("rouge_l", values))
    assert low == pytest.approx(np.percentile(means, 2.5), abs=0.03)
    assert high == pytest.approx(np.percentile(means, 97.5), abs=0.03)


def test_the_bootstrap_of_a_ratio_draws_items_not_tokens() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(5, 50, 60).astype(float)
    losses = tokens * random.gamma(2, 1, 60)
    low, high = interval(ratio_figure("perplexity", losses.tolist(), tokens.tolist(), np.exp))
    samples = random.integers(60, size=(4000, 60))
    values = np.exp(losses[samples].sum(1) / tokens[samples].sum(1))
    assert [low, high] == pytest.approx(np.percentile(values, [2.5, 97.5]), rel=0.03)


def test_equal_figures_have_equal_intervals_however_much_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(101).tolist()
    first = interval(mean_figure("rouge_l", values))
    assert interval(mean_figure("rouge_l", values)) == first
    monkeypatch.setattr(intervals, "_BLOCK", 700)
    assert interval(mean_figure("rouge_l", values)) == pytest.approx(first, rel=1e-12)


def test_memory_is_bounded_however_many_items_there_are() -> None:
    figure = mean_figure("rouge_l", np.random.default_rng(3).random(100_000).tolist())
    tracemalloc.start()
    low, high = interval(figure)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All resamples at once would take 1.6 GB.
    assert peak < 200e6
    half = 1.96 * np.sqrt(1 / 12 / 100_000)
    assert [low, high] == pytest.approx([figure.value - half, figure.value + half], abs=half / 5)


def test_items_that_are_not_counted_do_not_change_an_interval() -> None:
    values = np.random.default_rng(4).random(30).tolist()
    assert interval(mean_figure("m", [None, *values, None, None])) == interval(mean_figure("m", values))


@pytest.mark.parametrize("values", [[], [None, None], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_figure_without_a_value_has_no_interval(values: list[float | None]) -> None:
    figure = mean_figure("m", values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(interval(figure)).all()
        assert np.isnan(difference(figure, figure)).all()
        assert np.isnan(interval(share_figure("s", [None]))).all()


def test_one_item_tells_a_value_but_not_how_sure_it_is() -> None:
    figure = ratio_figure("perplexity", [20.0], [10.0], np.exp)
    assert np.isnan(interval(figure)).all()
    value, low, high = difference(figure, figure)
    assert value == 0
    assert math.isnan(low)
    assert math.isnan(high)


def test_samples_without_any_right_class_do_not_spoil_an_interval() -> None:
    # What is drawn has one, two or three classes; each sample is measured on its own.
    figure = macro_f1_figure("macro_f1", [0, 1, None], [0, 2, 1], 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = interval(figure)
    assert 0 <= low < figure.value < high <= 1


def test_a_difference_is_sharper_than_two_intervals_where_items_are_hard_for_both() -> None:
    random = np.random.default_rng(5)
    hard = random.random(200)
    base = mean_figure("rouge_l", hard.tolist())
    tuned = mean_figure("rouge_l", (hard + 0.05 + 0.02 * random.standard_normal(200)).tolist())
    value, low, high = difference(base, tuned)
    assert value == pytest.approx(tuned.value - base.value)
    # As the paired t interval has it, for the mean of the differences.
    gaps = tuned.stats[:, 0] - base.stats[:, 0]
    theirs = stats.ttest_1samp(gaps, 0).confidence_interval()
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=5e-4)
    assert high - low < (interval(base)[1] - interval(base)[0]) / 5
    assert difference(tuned, base) == pytest.approx((-value, -high, -low))


def test_a_difference_of_shares_and_of_figures_counted_on_other_items() -> None:
    base = share_figure("parsed", [True, None, False, False, None] * 20)
    tuned = share_figure("parsed", [True, True, None, True, None] * 20)
    value, low, high = difference(base, tuned)
    assert value == pytest.approx(1 - 1 / 3)
    assert low < value < high
    with pytest.raises(AssertionError, match="different items"):
        difference(base, share_figure("parsed", [True]))


def test_95_of_100_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(6)
    inside = 0
    for _ in range(200):
        tokens = random.integers(5, 40, 60).astype(float)
        losses = random.gamma(tokens, 1.5)
        low, high = interval(ratio_figure("loss", losses.tolist(), tokens.tolist()))
        inside += low <= 1.5 <= high
    # 190 expected, by a standard deviation of 3; the bootstrap of 60 items is a little too narrow.
    assert 178 <= inside <= 199


def test_mcnemar_is_the_exact_binomial_test_of_what_differs() -> None:
    base = [True] * 40 + [True] * 5 + [False] * 15 + [False] * 10
    tuned = [True] * 40 + [False] * 5 + [True] * 15 + [False] * 10
    found = mcnemar(base, tuned)
    assert (found["only_base"], found["only_tuned"]) == (5, 15)
    # Both tails, added up.
    tail = sum(math.comb(20, k) for k in range(6)) / 2**20
    assert found["p"] == pytest.approx(2 * tail)
    assert mcnemar(tuned, base)["p"] == pytest.approx(found["p"])


def test_mcnemar_of_models_that_agree_finds_nothing() -> None:
    assert mcnemar([True, False], [True, False]) == {"only_base": 0, "only_tuned": 0, "p": 1.0}
    assert mcnemar([], []) == {"only_base": 0, "only_tuned": 0, "p": 1.0}
