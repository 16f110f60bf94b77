"""Whether a run came out as the one that it repeats: figure by figure, within its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from discovery_xp.analysis import statistics
from discovery_xp.analysis.comparison import SEED
from discovery_xp.analysis.figures import FIGURES, Figure
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.analysis.statistics import Interval
from discovery_xp.analysis.tables import Table

TOLERANCE = 0.10


@dataclass(frozen=True)
class Judged:
    """A figure of a run then and now, and the interval for now; `basis` says where that is from."""

    figure: Figure
    old: float
    new: float
    interval: Interval
    basis: str

    @property
    def is_within(self) -> bool:
        """Tell whether it came out within the interval."""
        return self.interval.holds(self.new)


def judge(
    old: Measurements, new: Measurements, tolerance: float = TOLERANCE, seed: int = SEED
) -> list[Judged]:
    """Return the figures that both runs have.

    What VMs say has the bootstrap's prediction interval of a new run with as many VMs, 95 %: it
    covers how VMs of one run differ.  A figure of the run as a whole has a stated tolerance.
    """
    judged = []
    for figure in FIGURES:
        was, now = figure.of(old), figure.of(new)
        if was is None or now is None:
            continue
        vms = figure.by_vm(old)
        if figure.statistic is not None and vms is not None:
            random = np.random.default_rng([seed, *figure.key.encode()])
            interval = statistics.prediction_interval(vms.to_numpy(), figure.statistic, random)
            basis = f"prediction from {len(vms)} VMs"
        else:
            interval = Interval(was * (1 - tolerance), was * (1 + tolerance))
            basis = f"± {100 * tolerance:g} %, as stated"
        judged.append(Judged(figure, was, now, interval, basis))
    return judged


def table(judged: Sequence[Judged], seed: int = SEED) -> Table:
    """Return the figures with their intervals and verdicts."""
    rows = [
        {
            "figure": each.figure.words,
            "old": each.old,
            "new": each.new,
            "ratio": each.new / each.old if each.old else float("nan"),
            "low": each.interval.low,
            "high": each.interval.high,
            "basis": each.basis,
            "is_within": "yes" if each.is_within else "NO",
        }
        for each in judged
    ]
    columns = ["figure", "old", "new", "ratio", "low", "high", "basis", "is_within"]
    notes = (
        f"'interval' is for the new run. Predictions: {statistics.RESAMPLES} resamples, 95 %, "
        f"seed {seed}; they cover how VMs of one run differ from each other, and not how one run "
        "differs from the next.",
    )
    return Table("reproduction", "Reproduced?", pd.DataFrame(rows, columns=columns), notes)
