"""How far predictions are from runs that the model wasn't calibrated from.

A run is predicted from the calibrations of other runs of its back end and layout.  How fast its
machine was, and how much of it others had, is taken from other runs on the same machine with the
same probes: from their processor time alone, never from how long they took.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from discovery_xp.model.calibration import IDLE_CORES, Calibration
from discovery_xp.model.cloud import Cloud
from discovery_xp.model.machines import KEPT, Machines, emulated
from discovery_xp.model.prediction import Prediction, predict
from discovery_xp.model.simulation import Load
from discovery_xp.planning.plan import Plan

FIGURES = ("duration_s", "boot_median_s", "boot_p90_s", "crossings", "cpu_ms")


@dataclass(frozen=True)
class Point:
    """A run as it was measured; times are of the cloud, `crossings` and `cpu_ms` per VM.

    `machine` is what it has in common with others of the same speed; `kept` the part of the
    machine's work that was the cloud's.  What wasn't measured is None.
    """

    run: str
    plan: Plan
    load: Load
    machine: tuple[str, ...]
    cores: int
    duration_s: float
    boot_median_s: float
    boot_p90_s: float
    crossings: float | None = None
    cpu_ms: float | None = None
    kept: float | None = None

    @property
    def kind(self) -> tuple[str, str]:
        """Return back end and layout."""
        options = self.plan.require_cloud().options
        return options.backend, options.layout


@dataclass(frozen=True)
class Held:
    """A run beside what was predicted of it."""

    point: Point
    prediction: Prediction
    machines: Machines
    sources: tuple[str, ...]

    def error(self, figure: str) -> float | None:
        """Return by how much the prediction is off, as a part of what was measured."""
        measured: float | None = getattr(self.point, figure)
        if not measured:
            return None
        predicted: float = getattr(self.prediction, figure).value
        return predicted / measured - 1


def held_out(
    points: Sequence[Point], calibrations: Sequence[Calibration], seeds: int = 3
) -> list[Held]:
    """Return each point beside its prediction, but for those of which no other run was traced."""
    rows = []
    for point in points:
        known = [each for each in calibrations if each.run != point.run]
        own_kind = [each for each in known if each.kind == point.kind]
        if not own_kind:
            continue
        machines = machines_of(point, points, known)
        prediction = predict(point.plan, point.load, machines, own_kind, seeds)
        rows.append(Held(point, prediction, machines, tuple(each.run for each in own_kind)))
    return rows


def machines_of(
    point: Point, points: Sequence[Point], calibrations: Sequence[Calibration]
) -> Machines:
    """Return a point's machine as other points know it."""
    others = [each for each in points if each.machine == point.machine and each is not point]
    speeds = [speed for each in others if (speed := _speed(each, calibrations)) is not None]
    kept = [each.kept for each in others if each.kept is not None]
    return emulated(
        point.cores,
        point.plan.time_scale,
        statistics.fmean(kept) if kept else KEPT,
        statistics.geometric_mean(speeds) if speeds else 1.0,
    )


def _speed(point: Point, calibrations: Sequence[Calibration]) -> float | None:
    """Return how fast a point's machine was: what its VMs should take, over what they took."""
    chosen = [each for each in calibrations if each.kind == point.kind]
    if not chosen or point.cpu_ms is None:
        return None
    cloud = Cloud(point.plan)
    others = point.load.vms / len(cloud.computes) - 1
    scale = point.plan.time_scale
    expected = statistics.fmean(
        each.cpu_ms(others) * emulated(1, scale).cost_of(each.time_scale) for each in chosen
    )
    idle = 1000 * IDLE_CORES * cloud.idle_processes * point.duration_s * scale / point.load.vms
    return expected / max(0.1 * point.cpu_ms, point.cpu_ms - idle)


def median_error(rows: Sequence[Held], figure: str) -> float | None:
    """Return the median of the absolute errors of a figure, None where nobody measured it."""
    errors = [abs(error) for row in rows if (error := row.error(figure)) is not None]
    return statistics.median(errors) if errors else None
