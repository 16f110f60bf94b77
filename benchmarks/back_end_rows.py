"""The arms of the benchmark of back ends, and its rows: what one says of a run, and merging.

An arm is a back end in a layout; a row is a run of it, or says why there is none.
`benchmarks/back_ends.py` makes the runs, `docs/generator/back_ends.py` the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml

from discovery_xp.analysis import statistics
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.onhost.wire.probes import DEADLOCK
from discovery_xp.onhost.wire.verification import STATUSES

Row = dict[str, Any]

SITES = 2
DELAY = "50ms"
# A host builds its VMs one after the other: where they land decides how long boots take.
PLACEMENT_SEED = 1
SEED = 1  # of intervals
SHARED, CELLS = "shared", "cells"


@dataclass(frozen=True)
class Settings:
    """What all rows of a file have in common: VMs, so many at a time (None: all), hosts, scale.

    `computes` are those of each site.
    """

    vms: int = 100
    at_once: int | None = None
    computes: int = 6
    time_scale: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Tell whether VMs and hosts are as many as documents show."""
        return (self.vms, self.computes) == (Settings.vms, Settings.computes)

    def scenario(self) -> str:
        """Return the file of the load."""
        return yaml.safe_dump(
            {
                "name": "back-ends",
                "kind": "boot",
                "vms": self.vms,
                "concurrency": "all" if self.at_once is None else self.at_once,
            },
            sort_keys=False,
        )


@dataclass(frozen=True)
class Arm:
    """A back end in a layout.

    `words` say what is special; `options` are further ones of the topology's `openstack`.  Each of
    the two sites has `data` hosts; `has_third_site` adds one that has a data host and no other.
    """

    backend: str
    layout: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data: int = 1
    has_third_site: bool = False

    @property
    def data_hosts(self) -> int:
        """Return how many data hosts there are in all."""
        return SITES * self.data + self.has_third_site

    def topology(self, name: str, settings: Settings) -> str:
        """Return the topology's file; `name` is its testbed's."""
        servers = {"controllers": 1, "computes": settings.computes, "data": self.data}
        sites: list[Mapping[str, Any]] = [{"name": "site", "count": SITES, **servers}]
        if self.has_third_site:
            sites.append({"name": "third", "controllers": 0, "computes": 0, "data": 1})
        return yaml.safe_dump(
            {
                "name": name,
                "sites": sites,
                "network": {"delay": DELAY},
                "openstack": {"backend": self.backend, "layout": self.layout, **self.options},
            },
            sort_keys=False,
        )


def _galera(layout: str, words: str, **options: Any) -> Arm:
    return Arm("galera", layout, words, {"galera": options} if options else {})


def _cluster(words: str, replicas: int = 0, **hosts: Any) -> Arm:
    rome = {"store": "cluster", "replicas": replicas}
    return Arm("rome", SHARED, words, {"rome": rome}, **hosts)


ARMS: Mapping[str, Arm] = {
    "mysql": Arm("mysql", SHARED, "one MariaDB, on the master"),
    "mysql-cells": Arm("mysql", CELLS, "a MariaDB for each cell, one for what is above them"),
    "galera": _galera(SHARED, "a node at each site, all of them written to"),
    "galera-one-writer": _galera(SHARED, "all services ask the first site's node", writers="one"),
    "galera-reads-wait": _galera(SHARED, "reads wait for others' writes, not updates", sync_wait=1),
    "galera-gap-locks": _galera(
        SHARED, "transactions lock the gaps between rows, too", isolation="repeatable-read"
    ),
    "galera-no-wait": _galera(SHARED, "nothing waits for others' writes", sync_wait=0),
    "galera-no-segments": _galera(SHARED, "sites are no segments of the group", segments=False),
    "galera-cells": _galera(CELLS, "databases of the cells on Galera, as all others"),
    "rome": Arm("rome", SHARED, "one Redis, at the first site", {"rome": {"store": "server"}}),
    "rome-leases": Arm(
        "rome", SHARED, "one Redis, with tables that are only read leased for 2 s",
        {"rome": {"store": "server", "table_lease": 2}},
    ),
    "rome-servers": Arm(
        "rome", SHARED, "a Redis at each site, which share the databases out",
        {"rome": {"store": "servers"}},
    ),
    "rome-sites": _cluster("a Redis Cluster, a node at each of three sites", has_third_site=True),
    "rome-4": _cluster("a Redis Cluster of 4 nodes", data=2),
    "rome-4-replica": _cluster("4 nodes, a replica of each", replicas=1, data=2),
    "rome-cells": Arm(
        "rome", CELLS, "a Redis at each site, the first one for what is above the cells, too",
        {"rome": {"store": "server"}},
    ),
}  # fmt: skip


def testbed_of(name: str) -> str:
    """Return the name of an arm's testbed, and of its experiment."""
    return f"back-ends-{name}"


# ---------------------------------------------------------------- what a row says of a run


def figures(run: Measurements) -> Row:
    """Return what a row says of a run; what wasn't measured is None."""
    record, found = run.record, run.record.validity
    stages_s = (run.run.read_json("deployment.json") or {}).get("stages_s", {})
    merging = record.merging
    active = record.vms.active
    inter_mb = run.figures["inter_mb"]
    return {
        "run": run.run.name,
        "at": record.started,
        "commit": record.commit,
        "status": record.status,
        "placement": None if record.drawn is None else record.drawn.digest,
        "deploy_s": _rounded(sum(stages_s.values())) if stages_s else None,
        "deploy_stages_s": stages_s,
        "memory_gib": None if merging is None else _gib(merging.hosts_memory_bytes),
        "merged_gib": None if merging is None else _gib(merging.saved_bytes),
        "databases_mb": _databases_mb(run),
        "asked": record.vms.asked,
        "active": active,
        "verdict": None if found is None else found.verdict,
        "busy": None if found is None else found.busy,
        "saturated": None if found is None else found.saturated,
        "load_s": _rounded(run.duration_s),
        "boot": boots(run.vms.loc[run.vms["status"] == "ACTIVE", "boot_duration_s"].dropna()),
        "per_vm": {
            name: _rounded(run.figures.get(f"{name}_per_vm"))
            for name in ("crossings", "all_crossings", "wan_wait_s", "round_trips", "cpu_ms")
        }
        | {"inter_mb": _rounded(inter_mb / active) if inter_mb is not None and active else None},
        "conflicts": conflicts(run),
    }


def boots(seconds: pd.Series[float]) -> Row:
    """Return median and P90 of boots, and where the median lies by a bootstrap over the VMs."""
    if seconds.empty:
        return dict.fromkeys(("median_s", "low_s", "high_s", "p90_s"))
    values = seconds.to_numpy(dtype=float)
    draws = statistics.resampled(values, statistics.median, np.random.default_rng(SEED))
    interval = statistics.interval_of(draws, len(values))
    return {
        "median_s": _rounded(float(np.median(values))),
        "low_s": _rounded(interval.low),
        "high_s": _rounded(interval.high),
        "p90_s": _rounded(float(np.quantile(values, 0.9))),
    }


_CONFLICTS = {
    "certification_failures": "db_certification_failures",
    "brute_force_aborts": "db_brute_force_aborts",
    "flow_control_paused_s": "db_flow_control_paused_s",
    "rome_conflicts": "rome_conflicts",
    "rome_retries": "rome_retries",
}


def conflicts(run: Measurements) -> Row:
    """Return how often transactions met each other, over the window and all hosts.

    `given_up` are those that the database gave up, and OpenStack did again.
    """
    found: Row = {name: _rounded(growth(run.series, metric)) for name, metric in _CONFLICTS.items()}
    given_up = run.statements.loc[run.statements["kind"] == DEADLOCK, "count"]
    found["given_up"] = int(given_up.sum()) if run.measured("statements") else None
    return found


def growth(series: pd.DataFrame, metric: str) -> float | None:
    """Return how far a counter came, all hosts and services together; None where it has no sample.

    One that begins anew, as its process did, goes on from there.
    """
    rows = series[series["metric"] == metric].sort_values("at", kind="stable")
    if rows.empty:
        return None
    steps = rows.groupby(["host", "service"])["value"].diff()
    return float(steps.clip(lower=0).sum())


def _databases_mb(run: Measurements) -> float | None:
    """Return the resident memory of all processes that keep databases, at the load's end."""
    if not run.measured("usage"):
        return None
    of_databases = run.usage["service"].str.match("mariadb|redis|etcd")
    return _rounded(float(run.usage.loc[of_databases, "memory_bytes"].sum()) / 1e6)


def _gib(count: float | None) -> float | None:
    return None if count is None else _rounded(count / 2**30)


def _rounded(value: float | None) -> float | None:
    # What isn't a number has no form in JSON.
    return None if value is None or value != value else round(float(value), 3)


def in_words(row: Row) -> str:
    """Return a row in a line."""
    words = f"{row['arm']}, block {row['block']}: "
    if row["failure"] is not None:
        return f"{words}failed: {row['failure']}"
    boot = row["boot"]
    return (
        f"{words}{row['active']} of {row['asked']} ACTIVE, a boot {boot['median_s']} s "
        f"({boot['low_s']} to {boot['high_s']}), deployed in {row['deploy_s']} s, "
        f"{row['memory_gib']} GiB, {row['verdict']}"
    )


# ---------------------------------------------------------------- rows of a file


def with_row(rows: Iterable[Row], row: Row) -> list[Row]:
    """Return rows with another one, in the place of that of the same arm and block; sorted."""
    key = (row["arm"], row["block"])
    kept = [each for each in rows if (each["arm"], each["block"]) != key]
    return sorted([*kept, row], key=lambda each: (_place(each["arm"]), each["block"]))


def _place(arm: str) -> int:
    """Return an arm's place among all; one that is no longer there comes last."""
    return list(ARMS).index(arm) if arm in ARMS else len(ARMS)


def pending(
    order: Sequence[tuple[int, int, str]], rows: Iterable[Row], again: str | None
) -> list[tuple[int, str]]:
    """Return block and arm of each run that is to be made, in their order.

    `again` says which of those that have a row are made again: None, 'failed' or 'all'.
    """
    done = {
        (row["block"], row["arm"])
        for row in rows
        if again is None or (again == "failed" and row["failure"] is None)
    }
    return [(block, arm) for block, _position, arm in order if (block, arm) not in done]


def disagreement(found: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Return in words what a file's rows have that new ones wouldn't; None where nothing.

    Both have `settings`, the seed of the order and the machine.
    """
    keys: Collection[str] = ("settings", "order_seed", "processor", "cores", "memory_gib")
    for key in keys:
        if found.get("rows") and found.get(key) != own.get(key):
            return f"its rows have {key} {found.get(key)}, and not {own.get(key)}"
    return None


# ---------------------------------------------------------------- verifications


def verification(run: Measurements) -> Row:
    """Return what a run of OpenStack's own tests says: how many ended how."""
    record = run.record
    counts = run.verdicts["status"].value_counts()
    return {
        "backend": record.backend,
        "layout": str(record.options.get("layout", SHARED)),
        "sites": record.sites,
        "nics": int(record.options.get("nics", 0)),
        "services": list(record.scenario.get("services", [])),
        "run": run.run.name,
        "at": record.started,
        "commit": record.commit,
        "failure": record.why_partial,
        **{status: int(counts.get(status, 0)) for status in STATUSES},
    }


def with_verification(rows: Sequence[Row], row: Row) -> list[Row]:
    """Return rows with another one; of those of the same back end and layout the newer stays."""
    key = (row["backend"], row["layout"])
    kept = [each for each in rows if (each["backend"], each["layout"]) != key]
    same = [each for each in rows if (each["backend"], each["layout"]) == key]
    row = max([*same, row], key=lambda each: str(each["at"]))
    backends = dict.fromkeys(arm.backend for arm in ARMS.values())
    places = {backend: place for place, backend in enumerate(backends)}
    return sorted(
        [*kept, row],
        key=lambda each: (places.get(each["backend"], len(places)), each["layout"] != SHARED),
    )
