"""Tables of the anatomy of boots: what their time went to, and at which steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from discovery_xp.analysis.anatomy import WITHIN, Boot
from discovery_xp.analysis.condensed import Step
from discovery_xp.analysis.tables import Table
from discovery_xp.store import ACTIVITIES

_STEPS = 20

# What activities are called where people read them.
WORDS = {
    "processor": "on the processor",
    "waiting": "waiting for it, or for a lock",
    "queue": "waiting for a free thread",
    "database": "database round trips",
    "cache": "memcached round trips",
    "http": "HTTP round trips",
    "bus": "bus hops",
}

_CROSSINGS = (
    "A crossing is the passage of a link between two sites in one direction: a round trip has two, "
    "a message of the bus one for each link on its way over the broker."
)


def figures(boots: Sequence[Boot]) -> dict[str, float | None]:
    """Return the figures of a run's boots that stand beside its seconds: medians."""
    names = ("crossings_per_vm", "wan_wait_s_per_vm", "all_crossings_per_vm")
    if not boots:
        return dict.fromkeys(names)
    frame = pd.DataFrame(
        [(boot.crossings, boot.wan_wait_s, boot.all_crossings) for boot in boots], columns=names
    )
    return {name: float(frame[name].median()) for name in names}


def tables(
    boots: Sequence[Boot], sums: Mapping[Step, tuple[float, int]], active: int
) -> list[Table]:
    """Return the tables of all boots together, none without boots.

    `sums` are those of their steps, `active` is how many VMs got ACTIVE.
    """
    return [activities(boots, active), steps(sums, len(boots))] if boots else []


def activities(boots: Sequence[Boot], active: int) -> Table:
    """Return what the critical path's time went to, and between which sites."""
    sums = [boot.seconds_by() for boot in boots]
    crossings: dict[tuple[str, str], int] = {}
    for boot in boots:
        for part in boot.parts():
            key = part.activity, part.where
            crossings[key] = crossings.get(key, 0) + part.crossings
    total_s = sum(boot.seconds for boot in boots)
    rows = []
    for key in sorted({key for each in sums for key in each}, key=_order):
        seconds = pd.Series([each.get(key, 0.0) for each in sums])
        rows.append(
            {
                "time": WORDS[key[0]],
                "where": key[1],
                "median_s": float(seconds.median()),
                "p90_s": float(seconds.quantile(0.9)),
                "mean_s": float(seconds.mean()),
                "time_share": float(seconds.sum()) / total_s if total_s else math.nan,
                "crossings_per_vm": crossings[key] / len(boots),
            }
        )
    seconds = pd.Series([boot.seconds for boot in boots])
    rows.append(
        {
            "time": "in all",
            "where": "",
            "median_s": float(seconds.median()),
            "p90_s": float(seconds.quantile(0.9)),
            "mean_s": float(seconds.mean()),
            "time_share": 1.0,
            "crossings_per_vm": sum(crossings.values()) / len(boots),
        }
    )
    known = f"{len(boots)} of {active} VMs" if len(boots) != active else f"all {active} VMs"
    both = figures(boots)
    notes = (
        f"Of the critical path of each boot, from the request's arrival at Nova's API until the VM "
        f"is ACTIVE in the database; {known}. Means add up, medians don't.",
        f"{_CROSSINGS} The median VM's path has {both['crossings_per_vm']:.0f}, which take "
        f"{both['wan_wait_s_per_vm']:.2f} s on the links alone; with what goes on beside the path "
        f"it is {both['all_crossings_per_vm']:.0f}.",
    )
    return Table("anatomy", "Where the time of a boot went", pd.DataFrame(rows), notes)


def _order(key: tuple[str, str]) -> tuple[int, bool, str]:
    return ACTIVITIES.index(key[0]), key[1] != WITHIN, key[1]


def steps(sums: Mapping[Step, tuple[float, int]], count: int) -> Table:
    """Return at which steps of which services the path's time was spent, the most first.

    `sums` are seconds and crossings of `count` boots together.
    """
    rows: list[dict[str, Any]] = [
        {
            "service": service,
            "kind": kind,
            "step": name,
            "mean_s": seconds / count,
            "crossings_per_vm": crossings / count,
        }
        for (service, kind, name), (seconds, crossings) in sums.items()
    ]
    rows.sort(key=lambda row: (-row["mean_s"], row["service"], row["kind"], row["step"]))
    frame = pd.DataFrame(rows)
    return Table(
        "anatomy-steps",
        f"Steps of a boot's critical path, {min(_STEPS, len(frame))} of {len(frame)}",
        frame.head(_STEPS),
        ("Each step's own time, without what it waited for at others that are steps themselves.",),
    )


def each_boot(boots: Sequence[Boot]) -> Table:
    """Return a row for each boot, the shortest first."""
    rows = []
    for boot in boots:
        sums = dict.fromkeys(ACTIVITIES, 0.0)
        for part in boot.parts():
            sums[part.activity] += part.seconds
        rows.append(
            {
                "vm": boot.vm,
                "site": boot.root.site,
                "host_site": boot.host_site,
                "path_s": boot.seconds,
                **{f"{activity}_s": seconds for activity, seconds in sums.items()},
                "crossings": boot.crossings,
                "wan_wait_s": boot.wan_wait_s,
                "all_crossings": boot.all_crossings,
            }
        )
    return Table("anatomy-boots", "The critical path of each boot", pd.DataFrame(rows))


def stretches(boot: Boot) -> Table:
    """Return a boot's critical path: a row for each part of each of its stretches, in order."""
    rows = [
        {
            "from_s": stretch.start,
            "to_s": stretch.end,
            "service": stretch.node.service,
            "site": stretch.node.site,
            "kind": stretch.node.kind,
            "step": stretch.node.name,
            "time": part.activity,
            "where": part.where,
            "seconds": part.seconds,
            "crossings": part.crossings,
        }
        for stretch in boot.stretches
        for part in stretch.parts
    ]
    return Table("anatomy-path", "The critical path of one boot", pd.DataFrame(rows))
