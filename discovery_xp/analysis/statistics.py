"""Estimates that assume no distribution: bootstrap intervals, Cliff's delta, runs needed.

Intervals are expanded percentile intervals (Hesterberg, "What Teachers Should Know About the
Bootstrap", The American Statistician 69(4), 2015): quantiles of the resamples' statistics, taken
further out the fewer values there are, as plain percentile intervals of few values are too
narrow.  No interval is wider than what was observed, so few values can't give 95 %:
`attainable_paired` and `attainable` say what they give at best.

Ratios are of geometric means, so that A to B is the inverse of B to A.  All randomness comes from
a seed that the caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Sample = Sequence[float] | npt.NDArray[np.floating[Any]]
# From values, or from rows of them, to a number, or one for each row.
Statistic = Callable[[Values], Values]

CONFIDENCE = 0.95
RESAMPLES = 9999
_AT_ONCE = 2_000_000  # values of resamples that are in memory

# Romano et al., "Appropriate statistics for ordinal level data", 2006: up to which |delta|.
_MAGNITUDES = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"), (math.inf, "large"))


@dataclass(frozen=True)
class Interval:
    """Where a value lies with `confidence`, or at most so much where that is what is attainable."""

    low: float
    high: float
    confidence: float = CONFIDENCE

    def holds(self, value: float) -> bool:
        """Tell whether a value is within; rounding of a last digit isn't without."""
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack


# ---------------------------------------------------------------- statistics of values


def median(values: Values) -> Values:
    """Return the median of values, or of each row."""
    return np.asarray(np.median(values, axis=-1))


def p90(values: Values) -> Values:
    """Return the 90th percentile of values, or of each row."""
    return np.asarray(np.quantile(values, 0.9, axis=-1))


def mean(values: Values) -> Values:
    """Return the mean of values, or of each row."""
    return np.asarray(np.mean(values, axis=-1))


def geometric_mean(values: Values) -> Values:
    """Return the geometric mean of positive values, or of each row."""
    return np.asarray(np.exp(np.mean(np.log(values), axis=-1)))


# ---------------------------------------------------------------- bootstrap


def resampled(
    values: Sample,
    statistic: Statistic,
    random: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Values:
    """Return the statistic of so many samples of the values, each drawn with replacement."""
    (drawn,) = resampled_together([values], statistic, random, resamples)
    return drawn


def resampled_together(
    columns: Sequence[Sample],
    statistic: Statistic,
    random: np.random.Generator,
    resamples: int = RESAMPLES,
) -> list[Values]:
    """Return the statistic of each column, of samples that draw the same rows of all columns."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(arrays[0])
    drawn: list[list[Values]] = [[] for _ in arrays]
    step = max(1, _AT_ONCE // max(1, count))
    for start in range(0, resamples, step):
        rows = random.integers(0, count, (min(step, resamples - start), count))
        for parts, array in zip(drawn, arrays, strict=True):
            parts.append(statistic(array[rows]))
    return [np.concatenate(parts) for parts in drawn]


def interval_of(draws: Values, count: int, at_best: float = 1.0) -> Interval:
    """Return the expanded percentile interval of resampled statistics of `count` values.

    `at_best` is the confidence that so few values can give.
    """
    tail = (1 - CONFIDENCE) / 2
    if count > 1:
        t = student_t(CONFIDENCE, count - 1)
        tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high), min(CONFIDENCE, at_best))


def attainable_paired(pairs: int) -> float:
    """Return the confidence of the whole range of so many pairs' ratios, for their median.

    The median is outside only where all pairs are on one side of it.
    """
    return 1 - 2.0 ** (1 - pairs) if pairs else 0.0


def attainable(count_a: int, count_b: int) -> float:
    """Return the confidence of the whole range of ratios between two independent samples.

    Where both are of one distribution, one lies wholly below the other in 1 of so many orders.
    """
    return 1 - 2 / math.comb(count_a + count_b, count_a)


def student_t(confidence: float, degrees: int) -> float:
    """Return the t that |T| stays below with probability `confidence`, T of so many degrees.

    It only says here how much further out the quantiles of few values are taken.  From the
    closed form of T's distribution for whole degrees of freedom (Abramowitz and Stegun, 26.7.3
    and 26.7.4), by bisection on its angle.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        if _within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """Return P(|T| <= tan(angle) sqrt(degrees))."""
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if degrees % 2 else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + degrees % 2, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return (angle + sine * total) * 2 / math.pi if degrees % 2 else sine * total


# ---------------------------------------------------------------- a new run


def prediction_interval(
    values: Sample,
    statistic: Statistic,
    random: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return where the statistic of as many new values of the same kind comes to lie.

    Both samples vary, the known one and the new one: the interval is the known statistic times
    the quantiles of the ratio of two resamples' statistics.
    """
    known = float(statistic(np.asarray(values, dtype=np.float64)))
    new = resampled(values, statistic, random, resamples)
    old = resampled(values, statistic, random, resamples)
    return interval_of(known * new / old, len(values))


# ---------------------------------------------------------------- effect and precision


def cliffs_delta(values_a: Sample, values_b: Sample) -> float:
    """Return how much more often a value of B is above one of A than below: -1 to 1.

    Every value is compared with every one of the other side (Cliff 1993).
    """
    ordered = np.sort(np.asarray(values_a, dtype=np.float64))
    b = np.asarray(values_b, dtype=np.float64)
    below = np.searchsorted(ordered, b, side="left").sum()
    above = (len(ordered) - np.searchsorted(ordered, b, side="right")).sum()
    return float(below - above) / (len(ordered) * len(b))


def magnitude(delta: float) -> str:
    """Return the word for a Cliff's delta: negligible, small, medium or large."""
    return next(word for most, word in _MAGNITUDES if abs(delta) < most)


def runs_needed(values_a: Sample, values_b: Sample, precision: float, paired: bool) -> int:
    """Return how many runs each side needs for a ratio within `precision`, at 95 %.

    0.05 is 5 %: an interval from the ratio divided by 1.05 to the ratio times 1.05.  Estimated
    from the spread of the runs' logarithms that are there, whose mean is near to normal by then;
    with few runs that spread is rough itself.  At least two values on each side, all positive.
    """
    log_a = np.log(np.asarray(values_a, dtype=np.float64))
    log_b = np.log(np.asarray(values_b, dtype=np.float64))
    variance = (
        float(np.var(log_b - log_a, ddof=1))
        if paired
        else float(np.var(log_a, ddof=1) + np.var(log_b, ddof=1))
    )
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return max(2, math.ceil(variance * (z / math.log1p(precision)) ** 2 - 1e-9))
