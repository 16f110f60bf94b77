"""How long a campaign takes, and how much disk and how many node-hours it needs.

Before anything was run, each job takes what a bench of its plan is expected to take.  Runs that
ended correct that: by the ratio of what they took to what was expected, those of the same part and
back end if there are any, else all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.bench_request import expected_s
from discovery_xp.campaigns.ledger import Done, Ledger
from discovery_xp.campaigns.requests import plan_of, request_of
from discovery_xp.campaigns.schedule import Job
from discovery_xp.inputs.campaign_values import Campaign, Point

RUN_BYTES = 20_000_000  # of a run of 500 VMs on 65 hosts with all probes, about


@dataclass(frozen=True)
class Need:
    """What a job needs: seconds by a clock, bytes of disk, hours of all of its hosts together."""

    seconds: float
    disk_bytes: float
    hosts: int

    @property
    def node_hours(self) -> float:
        """Hours of hosts."""
        return self.hosts * self.seconds / 3600


@dataclass(frozen=True)
class Forecast:
    """What each job that is left needs, by its key; `measured` runs have corrected it."""

    needs: Mapping[tuple[str, int], Need]
    measured: int

    @property
    def seconds(self) -> float:
        """By a clock, one job after the other."""
        return sum(need.seconds for need in self.needs.values())

    @property
    def disk_bytes(self) -> float:
        """Of the results' folder."""
        return sum(need.disk_bytes for need in self.needs.values())

    @property
    def node_hours(self) -> float:
        """Of nodes that are reserved, if they are."""
        return sum(need.node_hours for need in self.needs.values())


def forecast(ledger: Ledger) -> Forecast:
    """Return what is left to do of a campaign, as far as its runs so far tell."""
    expected: dict[str, Need] = {}

    def need_of(job: Job) -> Need:
        if job.point.digest not in expected:
            expected[job.point.digest] = _expected(ledger.campaign, job)
        return expected[job.point.digest]

    ratios: list[tuple[Point, float]] = []
    sizes: list[int] = []
    for entry in ledger.entries:
        if entry.done is not None:
            ratios.append((entry.job.point, took_s(entry.done) / need_of(entry.job).seconds))
            sizes.append(_size(entry.done.run.folder))
    needs = {}
    for entry in ledger.of("left"):
        need = need_of(entry.job)
        needs[entry.job.key] = Need(
            need.seconds * _ratio(entry.job.point, ratios),
            statistics.fmean(sizes or [need.disk_bytes]),
            need.hosts,
        )
    return Forecast(needs, len(sizes))


def took_s(done: Done) -> float:
    """Return how long a run took, its deployment included, in seconds by a clock."""
    return sum(done.record.stages_s.values())


def _expected(campaign: Campaign, job: Job) -> Need:
    plan = plan_of(campaign, job)
    request = request_of(campaign, job, Path("results"))
    return Need(expected_s(plan, request), RUN_BYTES, len(plan.hosts))


def _ratio(point: Point, ratios: Sequence[tuple[Point, float]]) -> float:
    """Return what a run takes, over what is expected, by those that are most like it."""

    def kind(of: Point) -> tuple[str, str]:
        return of.part, of.topology.openstack.backend

    like = [ratio for other, ratio in ratios if kind(other) == kind(point)]
    return statistics.fmean(like or [ratio for _, ratio in ratios] or [1.0])


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
