"""Samples of a run as curves over its window: sums over hosts, rates of counters.

Time is the experiment's: seconds since the window's start, divided by the run's time scale, so that
rates and cores are those of the machines that are emulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from discovery_xp.analysis.measurements import Measurements
from discovery_xp.analysis.tables import Table
from discovery_xp.onhost.wire.series import ALL_QUEUES, METRICS, SAMPLER

_MOST_POINTS = 400  # of a curve; more can't be seen
_DEFAULT_EVERY_S = 5.0
_RANDOM = re.compile(r"_[0-9a-f]{32}$")


@dataclass(frozen=True)
class Curve:
    """Values at the grid's times; `words` name what they are of."""

    words: str
    values: np.ndarray

    @property
    def most(self) -> float:
        """Return the largest value."""
        return float(np.max(self.values)) if len(self.values) else 0.0


class Curves:
    """The curves of a run; `grid` is their times in s since the window's start."""

    def __init__(self, run: Measurements) -> None:
        self.run = run
        record = run.record
        frame = run.series
        window = run.window
        start = window.start if window else (float(frame["at"].min()) if len(frame) else 0.0)
        end = window.end if window else (float(frame["at"].max()) if len(frame) else 0.0)
        self.start = start
        length_s = max(0.0, end - start)
        every_s = record.sample_every_s or _DEFAULT_EVERY_S
        points = min(_MOST_POINTS, max(2, math.floor(length_s / every_s) + 1))
        self.grid = np.linspace(0.0, max(length_s, 1e-3), points)
        self._by_metric = dict(list(frame.groupby("metric"))) if len(frame) else {}

    def has(self, metric: str) -> bool:
        """Return whether a metric was sampled at all."""
        return metric in self._by_metric

    def by_service(self, metric: str, grid: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return a metric's values by service, hosts added up: of a counter how far it came."""
        sums: dict[str, np.ndarray] = {}
        frame = self._by_metric.get(metric)
        if frame is None:
            return sums
        for (service, _host), rows in frame.groupby(["service", "host"]):
            values = self._on_grid(metric, rows, self.grid if grid is None else grid)
            sums[str(service)] = sums.get(str(service), 0.0) + values
        return sums

    def rates(self, metric: str) -> dict[str, np.ndarray]:
        """Return a counter's growth per second by service, each since the grid's point before.

        The first is that of a step before the window, as far as there are samples of it.
        """
        step = self.grid[1] - self.grid[0]
        grid = np.concatenate([[self.grid[0] - step], self.grid])
        return {
            service: np.diff(values) / step
            for service, values in self.by_service(metric, grid).items()
        }

    def total_rate(self, metric: str) -> np.ndarray:
        """Return a counter's growth per second, of all services together."""
        total = np.zeros(len(self.grid))
        for rate in self.rates(metric).values():
            total = total + rate
        return total

    def _on_grid(self, metric: str, rows: pd.DataFrame, grid: np.ndarray) -> np.ndarray:
        """Return the values of one host and service at a grid's times.

        A counter is interpolated, a gauge keeps its value until the next sample.
        """
        ordered = rows.sort_values("at", kind="stable")
        times = ordered["at"].to_numpy(dtype=float) - self.start
        values = ordered["value"].to_numpy(dtype=float)
        if METRICS[metric].is_counter:
            return np.asarray(np.interp(grid, times, values))
        places = np.searchsorted(times, grid, side="right") - 1
        return np.asarray(values[np.maximum(places, 0)])


# ---------------------------------------------------------------- what figures show


def active_vms(curves: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Return when VMs got ACTIVE, in s since the window's start, and how many were so then."""
    active = np.sort(curves.run.vms["active_at"].dropna().to_numpy(dtype=float))
    times = active - curves.start
    return np.concatenate([[0.0], times]), np.arange(len(times) + 1)


def largest(values: dict[str, np.ndarray], most: int) -> list[Curve]:
    """Return the curves with the largest values, and the sum of the others as one more."""
    ranked = sorted(values.items(), key=lambda item: (-float(np.max(item[1])), item[0]))
    curves = [Curve(name, each) for name, each in ranked[:most]]
    rest = ranked[most:]
    if any(float(np.max(each)) > 0 for _, each in rest):
        curves.append(Curve(f"{len(rest)} others", np.sum([each for _, each in rest], axis=0)))
    return curves


def queues(curves: Curves, most: int) -> list[Curve]:
    """Return the lengths of queues, messages that are being worked on included.

    Queues that a process made for itself, whose names end at random, are added up by their kind.
    """
    lengths: dict[str, np.ndarray] = {}
    for metric in ("queue_ready", "queue_unacknowledged"):
        for queue, count in curves.by_service(metric).items():
            kind = _RANDOM.sub("_*", queue)
            lengths[kind] = lengths.get(kind, 0.0) + count
    total = lengths.pop(ALL_QUEUES, None)
    busy = {queue: each for queue, each in lengths.items() if float(np.max(each)) > 0}
    if not busy and total is not None:
        return [Curve("all queues", total)]
    return largest(busy, most)


# What databases do each second: words and counters.
_DATABASES = (
    ("MariaDB commits", "db_commits"),
    ("MariaDB rollbacks", "db_rollbacks"),
    ("MariaDB row lock waits", "db_row_lock_waits"),
    ("MariaDB deadlocks", "db_deadlocks"),
    ("Galera certification failures", "db_certification_failures"),
    ("ROME commits", "rome_commits"),
    ("ROME conflicts", "rome_conflicts"),
    ("ROME retries", "rome_retries"),
)


def databases(curves: Curves) -> list[Curve]:
    """Return what databases did per second; what never happened has no curve."""
    found = [Curve(words, curves.total_rate(metric)) for words, metric in _DATABASES
             if curves.has(metric)]  # fmt: skip
    return [curve for curve in found if curve.most > 0]


def throttled_shares(curves: Curves, most: int) -> list[Curve]:
    """Return the share in percent of limited periods in which a service stood at its limit."""
    periods, throttled = curves.rates("cpu_periods"), curves.rates("throttled_periods")
    shares = {
        service: 100 * np.divide(
            throttled[service], each, out=np.zeros_like(each), where=each > 0
        )
        for service, each in periods.items()
        if service in throttled
    }  # fmt: skip
    return largest(shares, most)[:most]


def cores(curves: Curves, most: int) -> list[Curve]:
    """Return the cores that services used, hosts added up; not those of the sampler."""
    rates = curves.rates("cpu_s")
    rates.pop(SAMPLER, None)
    return largest(rates, most)


# ---------------------------------------------------------------- a table


def series_table(run: Measurements) -> Table | None:
    """Return the mean and the largest value of what was sampled; None where nothing was."""
    if not len(run.series):
        return None
    curves = Curves(run)
    rows: list[dict[str, Any]] = []

    def add(words: str, unit: str, values: np.ndarray) -> None:
        if len(values) and float(np.max(values)) > 0:
            rows.append({"series": words, "unit": unit, "mean": float(np.mean(values)),
                         "most": float(np.max(values))})  # fmt: skip

    for curve in queues(curves, 5):
        add(f"queue {curve.words}", "messages", curve.values)
    for curve in databases(curves):
        add(curve.words, "per s", curve.values)
    add("MariaDB statements", "per s", curves.total_rate("db_questions"))
    add("Redis commands", "per s", curves.total_rate("redis_commands"))
    for service, values in sorted(curves.by_service("connections").items()):
        add(f"connections of {service}", "open", values)
    for curve in cores(curves, 8):
        add(f"CPU of {curve.words}", "cores", curve.values)
    for curve in throttled_shares(curves, 5):
        add(f"throttled: {curve.words}", "% of periods", curve.values)
    sampled = curves.rates("cpu_s").get(SAMPLER)
    if sampled is not None:
        add("CPU of the sampling itself", "cores", sampled)
    notes = [f"A sample each {run.record.sample_every_s or _DEFAULT_EVERY_S:g} s, hosts added up."]
    if run.time_scale != 1:
        notes.append(f"Times are divided by the time scale, {run.time_scale:g}.")
    return Table("series", "Series over the window", pd.DataFrame(rows), tuple(notes))


def busiest(curves: Sequence[Curve]) -> Curve | None:
    """Return the curve with the largest value."""
    return max(curves, key=lambda curve: curve.most, default=None)
