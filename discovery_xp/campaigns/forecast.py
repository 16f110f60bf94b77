"""How long a campaign takes, and how much disk and how many node-hours it needs.

Before anything was run, each job takes what a bench of its plan is expected to take.  Runs that
ended correct that: by the ratio of what they took to what was expected, those of the same part and
back end if there are any, else all of them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.bench_request import expected_s
from discovery_xp.campaigns.ledger import Entry, Ledger
from discovery_xp.campaigns.requests import plan_of, request_of
from discovery_xp.campaigns.schedule import Job
from discovery_xp.inputs.campaign import Campaign

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
    """What the jobs that are left need, each in their order.

    `measured` is how many runs have corrected it.
    """

    needs: tuple[tuple[Entry, Need], ...]
    measured: int

    @property
    def seconds(self) -> float:
        """By a clock, one job after the other."""
        return sum(need.seconds for _, need in self.needs)

    @property
    def disk_bytes(self) -> float:
        """Of the results' folder."""
        return sum(need.disk_bytes for _, need in self.needs)

    @property
    def node_hours(self) -> float:
        """Of nodes that are reserved, if they are."""
        return sum(need.node_hours for _, need in self.needs)


def forecast(ledger: Ledger, expected: Callable[[Campaign, Job], Need] | None = None) -> Forecast:
    """Return what is left to do of a campaign, as far as its runs so far tell."""
    by_plan = expected or _expected
    known: dict[str, Need] = {}

    def need_of(job: Job) -> Need:
        if job.point.digest not in known:
            known[job.point.digest] = by_plan(ledger.campaign, job)
        return known[job.point.digest]

    done = [entry for entry in ledger.of("done") if entry.run and entry.record]
    ratios = [(entry, took_s(entry) / need_of(entry.job).seconds) for entry in done]
    sizes = [_size(entry.run.folder) for entry in done if entry.run]
    disk = statistics.fmean(sizes) if sizes else None
    needs = []
    for entry in ledger.of("left"):
        need = need_of(entry.job)
        ratio = _ratio(entry, ratios)
        needs.append((entry, Need(need.seconds * ratio, disk or need.disk_bytes, need.hosts)))
    return Forecast(tuple(needs), len(done))


def took_s(entry: Entry) -> float:
    """Return how long a run took, its deployment included, in seconds by a clock."""
    return sum(entry.record.stages_s.values()) if entry.record else 0.0


def _expected(campaign: Campaign, job: Job) -> Need:
    plan = plan_of(campaign, job)
    request = request_of(campaign, job, Path("results"))
    return Need(expected_s(plan, request), RUN_BYTES, len(plan.hosts))


def _ratio(entry: Entry, ratios: Sequence[tuple[Entry, float]]) -> float:
    point = entry.job.point
    like = [
        ratio
        for other, ratio in ratios
        if other.job.point.part == point.part
        and other.job.point.topology.openstack.backend == point.topology.openstack.backend
    ]
    every = [ratio for _, ratio in ratios]
    return statistics.fmean(like or every or [1.0])


def _size(folder: Path) -> int:
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )
