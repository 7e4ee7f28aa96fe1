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
from ms_medqa.evaluation.figures import Figure, macro_f1_figure, mean_figure, ratio_figure, share_figure
from ms_medqa.evaluation.intervals import difference, in_both, interval, mcnemar, paired_test


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 1), (7, 20), (499, 1000)])
def test_the_interval_of_a_share_is_wilsons(hits: int, n: int) -> None:
    figure = share_figure("accuracy", [*([True] * hits), *([False] * (n - hits)), None])
    bounds = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert interval(figure) == (bounds.low, bounds.high)
    # And by the formula itself.
    z, p = stats.norm.ppf(0.975), hits / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert interval(figure) == pytest.approx([(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])


def outer(n: int) -> list[float]:
    """Hesterberg's levels: of the t interval, and of a variance over n - 1."""
    low = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    return [low, 1 - low]


def test_the_bootstrap_of_few_items_is_that_of_all_their_samples() -> None:
    values = [0.0, 0.1, 0.35, 0.7, 1.0]
    # All 5⁵ equally likely samples.
    means = [float(np.mean(sample)) for sample in itertools.product(values, repeat=5)]
    assert interval(mean_figure("rouge_l", values)) == pytest.approx(np.quantile(means, outer(5)), abs=0.05)


@pytest.mark.parametrize("n", [30, 200])
def test_the_bootstrap_of_a_mean_is_as_wide_as_the_t_interval(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    low, high = interval(mean_figure("m", values.tolist()))
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    assert high - low == pytest.approx(theirs.high - theirs.low, rel=0.08)


def test_the_bootstrap_of_a_ratio_draws_items_not_tokens() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(5, 50, 60).astype(float)
    losses = tokens * random.gamma(2, 1, 60)
    low, high = interval(ratio_figure("perplexity", losses.tolist(), tokens.tolist(), np.exp))
    low_level, high_level = outer(60)
    theirs = stats.bootstrap(
        (losses, tokens),
        lambda top, bottom, axis: np.exp(top.sum(axis) / bottom.sum(axis)),
        paired=True,
        confidence_level=high_level - low_level,
        n_resamples=9999,
        method="percentile",
        random_state=0,
    ).confidence_interval
    assert [low, high] == pytest.approx([theirs.low, theirs.high], rel=0.05)


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


@pytest.mark.parametrize(("value", "n"), [(0.0, 50), (0.1, 50), (1 / 3, 7)])
def test_where_all_samples_are_equal_nothing_tells_how_sure_a_figure_is(value: float, n: int) -> None:
    figure = mean_figure("repeated_4grams", [value] * n)
    assert np.isnan(interval(figure)).all()
    other = mean_figure("repeated_4grams", [value + 0.2] * n)
    found, low, high = difference(figure, other)
    assert found == pytest.approx(0.2)
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
    assert difference(tuned, base) == pytest.approx((-value, -high, -low), rel=1e-6)


def test_a_difference_of_shares_and_of_figures_counted_on_other_items() -> None:
    base = share_figure("parsed", [True, None, False, False, None] * 20)
    tuned = share_figure("parsed", [True, True, None, True, None] * 20)
    # Over the first and the fourth of each five, which both have.
    both = difference(share_figure("parsed", [True, False] * 20), share_figure("parsed", [True, True] * 20))
    assert difference(base, tuned) == both
    assert both[0] == 0.5
    assert in_both(base, tuned) == 40
    with pytest.raises(AssertionError, match="different items"):
        difference(base, share_figure("parsed", [True]))


def pair(both: int, only_tuned: int, only_base: int, neither: int) -> tuple[Figure, Figure]:
    """The base and the tuned model, right on so many items."""
    base = [True] * both + [False] * only_tuned + [True] * only_base + [False] * neither
    tuned = [True] * both + [True] * only_tuned + [False] * only_base + [False] * neither
    return share_figure("accuracy", [*base, None]), share_figure("accuracy", [*tuned, None])


def test_the_interval_of_paired_shares_is_newcombes() -> None:
    # Altman et al. (2000), Statistics with confidence, table 6.2, worked out there by this method: 0.122, of 0.011 to
    # 0.226.
    assert difference(*pair(14, 5, 0, 22)) == pytest.approx((0.122, 0.011, 0.226), abs=6e-4)
    assert difference(*pair(14, 0, 5, 22)) == pytest.approx((-0.122, -0.226, -0.011), abs=6e-4)


@pytest.mark.parametrize("cells", [(14, 5, 0, 22), (3, 10, 12, 2), (0, 4, 0, 6), (9, 0, 0, 0), (50, 30, 10, 60)])
def test_newcombes_interval_by_its_formula(cells: tuple[int, int, int, int]) -> None:
    e, f, g, h = cells
    n = sum(cells)
    p1, p2 = (e + f) / n, (e + g) / n
    one, two = (stats.binomtest(hits, n).proportion_ci(method="wilson") for hits in (e + f, e + g))
    table = e * h - f * g
    top = table if table < 0 else max(table - n / 2, 0)
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    phi = top / math.sqrt(margins) if margins else 0
    dl1, du1, dl2, du2 = p1 - one.low, one.high - p1, p2 - two.low, two.high - p2
    delta = math.sqrt(dl1**2 - 2 * phi * dl1 * du2 + du2**2)
    epsilon = math.sqrt(du1**2 - 2 * phi * du1 * dl2 + dl2**2)
    assert difference(*pair(*cells)) == pytest.approx((p1 - p2, p1 - p2 - delta, p1 - p2 + epsilon))


def test_newcombes_interval_holds_the_truth_where_few_items_differ() -> None:
    random = np.random.default_rng(7)
    # Both, the tuned model alone, the base alone, neither: no difference, and few items that differ.
    tables = random.multinomial(40, [0.6, 0.05, 0.05, 0.3], 500)
    inside = [low <= 0 <= high for _, low, high in (difference(*pair(*map(int, cells))) for cells in tables)]
    assert np.mean(inside) >= 0.94


def test_a_test_goes_with_a_difference_of_shares_over_the_same_items() -> None:
    assert paired_test(*pair(14, 5, 0, 22)) == {"only_base": 0, "only_tuned": 5, "p": pytest.approx(0.0625)}
    one_more = paired_test(share_figure("s", [True, False, None]), share_figure("s", [True, True, True]))
    assert one_more == {"only_base": 0, "only_tuned": 1, "p": 1.0}
    assert paired_test(share_figure("s", [None]), share_figure("s", [None])) is None
    assert paired_test(mean_figure("m", [1.0]), mean_figure("m", [1.0])) is None


# 5 in 100 by a standard deviation of 1.1; ratios of few skewed items are a little more.
@pytest.mark.parametrize(("n", "most"), [(30, 0.1), (100, 0.085)])
def test_two_equally_good_models_seldom_seem_to_differ(n: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    random = np.random.default_rng(n)
    trials, wrong = 400, {"mean": 0, "ratio": 0, "macro_f1": 0}
    for _ in range(trials):
        hard = random.gamma(0.7, 1, n)
        tokens = random.integers(5, 60, n).astype(float)
        golds = random.integers(3, size=n)
        guesses = [np.where(random.random(n) < 0.6, golds, random.integers(3, size=n)) for _ in range(2)]
        noise = [hard + random.gamma(0.7, 0.5, n) for _ in range(2)]
        pairs = {
            "mean": [mean_figure("m", values.tolist()) for values in noise],
            "ratio": [ratio_figure("r", values * tokens, tokens, np.exp) for values in noise],
            "macro_f1": [macro_f1_figure("f", picks.tolist(), golds.tolist(), 3) for picks in guesses],
        }
        for name, (base, tuned) in pairs.items():
            _, low, high = difference(base, tuned)
            wrong[name] += low > 0 or high < 0
    rates = {name: count / trials for name, count in wrong.items()}
    assert all(0.01 < rate < most for rate in rates.values()), rates


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
