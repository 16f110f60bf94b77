"""Estimates against values that were worked out by hand, or by looking at every resample."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from discovery_xp.analysis import statistics
from discovery_xp.analysis.statistics import Interval


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- Cliff's delta


@pytest.mark.parametrize(
    ("a", "b", "delta", "word"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0, "large"),
        ([4, 5, 6], [1, 2, 3], -1.0, "large"),
        ([1, 2], [1, 2], 0.0, "negligible"),
        # Of 9 pairs 5 are above, 3 below, 1 is equal.
        ([1, 3, 5], [2, 3, 6], 2 / 9, "small"),
        # Of 4 pairs 2 are above, 1 is equal, 1 below.
        ([1, 4], [1, 5], 0.25, "small"),
        ([5], [5, 5, 5], 0.0, "negligible"),
    ],
)
def test_cliffs_delta_counts_every_pair(
    a: Sequence[float], b: Sequence[float], delta: float, word: str
) -> None:
    assert statistics.cliffs_delta(a, b) == pytest.approx(delta)
    pairs = list(itertools.product(a, b))
    counted = sum((y > x) - (y < x) for x, y in pairs) / len(pairs)
    assert statistics.cliffs_delta(a, b) == pytest.approx(counted)
    assert statistics.magnitude(statistics.cliffs_delta(a, b)) == word


def test_magnitudes_begin_where_the_literature_has_them() -> None:
    words = [statistics.magnitude(each) for each in (0.146, 0.147, 0.329, 0.33, 0.473, -0.474)]
    assert words == ["negligible", "small", "small", "medium", "medium", "large"]


# ---------------------------------------------------------------- resampling


def every_mean(values: Sequence[float]) -> list[float]:
    """Means of all resamples, each as likely as another."""
    resamples = itertools.product(values, repeat=len(values))
    return [sum(each) / len(values) for each in resamples]


def test_resamples_are_as_frequent_as_all_of_them_say() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    drawn = statistics.resampled(values, statistics.mean, generator(), 40_000)
    exact = every_mean(values)
    assert set(np.round(drawn, 6)) <= set(np.round(exact, 6))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert float(np.quantile(drawn, share)) == pytest.approx(
            np.quantile(exact, share), abs=0.26
        )
    assert float(drawn.mean()) == pytest.approx(3.75, abs=0.03)
    assert float(drawn.std()) == pytest.approx(np.std(exact), rel=0.02)


def test_the_interval_of_two_values_is_their_range() -> None:
    drawn = statistics.resampled([3.0, 5.0], statistics.mean, generator())
    interval = statistics.interval_of(drawn, 2, statistics.attainable_paired(2))
    assert interval == Interval(3.0, 5.0, 0.5)


def test_few_values_are_taken_further_out_than_quantiles_of_many() -> None:
    draws = np.linspace(0.0, 1.0, 100_001)
    # By hand: t(0.95, 4) = 2.776, times sqrt(5 / 4) = 3.104; the normal tail beyond is 0.000954.
    five = statistics.interval_of(draws, 5)
    assert (five.low, five.high) == pytest.approx((0.000954, 0.999046), abs=3e-6)
    many = statistics.interval_of(draws, 100_000)
    assert (many.low, many.high) == pytest.approx((0.025, 0.975), abs=1e-4)


def test_rows_that_belong_together_are_drawn_together() -> None:
    a = [1.0, 2.0, 5.0, 9.0]
    b = [2 * each for each in a]
    drawn_a, drawn_b = statistics.resampled_together([a, b], statistics.median, generator())
    assert np.allclose(drawn_b / drawn_a, 2.0), "the ratio is the same in every resample"
    apart = statistics.resampled(b, statistics.median, generator(1)) / statistics.resampled(
        a, statistics.median, generator(2)
    )
    assert apart.std() > 0.5


def test_a_large_sample_is_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.arange(1.0, 101.0))
    whole = statistics.resampled(values, statistics.mean, generator(), 500)
    monkeypatch.setattr(statistics, "_AT_ONCE", 1000)  # 10 resamples at a time
    parts = statistics.resampled(values, statistics.mean, generator(), 500)
    assert len(parts) == 500
    assert np.allclose(np.sort(parts), np.sort(whole)), "the same stream, in other portions"


def test_the_same_seed_gives_the_same_numbers() -> None:
    values = [1.0, 5.0, 2.0]
    first = statistics.resampled(values, statistics.p90, generator(3))
    assert np.array_equal(first, statistics.resampled(values, statistics.p90, generator(3)))


# ---------------------------------------------------------------- what few values can give


def test_the_confidence_of_a_range_is_that_of_all_orders() -> None:
    for pairs in range(1, 8):
        signs = list(itertools.product((-1, 1), repeat=pairs))
        one_sided = sum(len(set(each)) == 1 for each in signs) / len(signs)
        assert statistics.attainable_paired(pairs) == pytest.approx(1 - one_sided)
    assert statistics.attainable_paired(0) == 0
    for a, b in ((2, 2), (3, 3), (2, 4)):
        orders = list(itertools.combinations(range(a + b), a))
        apart = sum(max(each) == a - 1 or min(each) == b for each in orders) / len(orders)
        assert statistics.attainable(a, b) == pytest.approx(1 - apart)


@pytest.mark.parametrize(("pairs", "least", "most"), [(3, 0.68, 0.82), (6, 0.90, 0.99),
                                                      (12, 0.92, 0.99)])  # fmt: skip
def test_intervals_of_paired_ratios_cover_as_often_as_they_say(
    pairs: int, least: float, most: float
) -> None:
    """Ratios of a skewed distribution whose geometric mean is 1.3; 400 experiments."""
    random, held = generator(20), 0
    for _ in range(400):
        ratios = 1.3 * np.exp(random.laplace(0.0, 0.2, pairs))
        draws = statistics.resampled(list(ratios), statistics.geometric_mean, random, 999)
        held += statistics.interval_of(draws, pairs).holds(1.3)
    assert least <= held / 400 <= most


def test_intervals_of_a_median_ratio_cover_as_often_as_they_say() -> None:
    """Boots of two runs, log-normal, one 1.2 times as long; 300 experiments."""
    random, held = generator(21), 0
    for _ in range(300):
        a = np.exp(random.normal(2.0, 0.4, 40))
        b = 1.2 * np.exp(random.normal(2.0, 0.4, 40))
        draws = statistics.resampled(list(b), statistics.median, random, 999)
        draws = draws / statistics.resampled(list(a), statistics.median, random, 999)
        held += statistics.interval_of(draws, 40).holds(1.2)
    assert 0.92 <= held / 300 <= 0.995


def test_a_prediction_holds_the_next_run_as_often_as_it_says() -> None:
    random, held = generator(22), 0
    for _ in range(300):
        old, new = (np.exp(random.normal(2.0, 0.4, 40)) for _ in range(2))
        interval = statistics.prediction_interval(list(old), statistics.median, random, 999)
        held += interval.holds(float(np.median(new)))
    assert 0.92 <= held / 300 <= 0.995


# ---------------------------------------------------------------- runs needed


def test_runs_needed_by_hand() -> None:
    # Logarithms of the ratios are -0.1, 0 and 0.1: variance 0.01; (1.96 / ln 1.05)^2 = 1613.8.
    b = [math.exp(-0.1), 1.0, math.exp(0.1)]
    assert statistics.runs_needed([1.0] * 3, b, 0.05, paired=True) == 17
    # Unpaired, A has no spread here, so it is the same; with A's as large as B's, twice as many.
    assert statistics.runs_needed([1.0] * 3, b, 0.05, paired=False) == 17
    assert statistics.runs_needed(b, b, 0.05, paired=False) == 33
    assert statistics.runs_needed(b, b, 0.05, paired=True) == 2, "pairs that are equal"
    assert statistics.runs_needed([1.0] * 3, b, 0.10, paired=True) == 5


# From tables of Student's t, two-sided.
@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_quantiles_of_t(degrees: int, expected: float) -> None:
    assert statistics.student_t(0.95, degrees) == pytest.approx(expected, abs=6e-4)
    assert statistics.student_t(0.5, degrees) < statistics.student_t(0.99, degrees)
