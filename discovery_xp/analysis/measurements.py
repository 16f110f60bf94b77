"""Stored files to tidy frames: one row is one thing that was observed.

runs = read_runs([Path("results")])
runs[0].calls            # a frame with the columns of calls.parquet
summary(runs)            # a row for each run
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from discovery_xp.analysis import anatomy, anatomy_tables, condensed, summaries
from discovery_xp.onhost.wire.verification import EXCLUDED, FAILED, PASSED
from discovery_xp.store import TABLES, VERIFY, Run, RunRecord, Window, find_runs

# What figures are for each of, by kind of load; VMs for all others.
_UNITS = {"reads": "round", "authenticate": "token", VERIFY: "test"}


class Measurements:
    """What one run measured; each table is read once, when it is asked for.

    `number` is the run's among those that were read together, from 1.  A table whose probe
    was off has no rows; `record.probes` says which were on.

    Where time was scaled, files hold what a clock showed, and everything here is divided by the
    scale but `record` itself: `_frame` does it to durations and moments, `window`, `duration_s`
    and `natural_s` to what run.json says.  Seconds of a processor and bytes stay as they are.
    """

    def __init__(self, run: Run, number: int = 1) -> None:
        self.run = run
        self.number = number
        self.record: RunRecord = run.load()

    def __repr__(self) -> str:
        return f"Measurements({self.run.name!r})"

    def measured(self, table: str) -> bool:
        """Return whether the run has the table at all."""
        return self.run.has(table)

    @functools.cached_property
    def vms(self) -> pd.DataFrame:
        """Return a row for each VM that was requested."""
        return self._frame("vms")

    @functools.cached_property
    def actions(self) -> pd.DataFrame:
        """Return a row for each timed action of the load."""
        return self._frame("actions")

    @functools.cached_property
    def calls(self) -> pd.DataFrame:
        """Return a row for each call of Nova's database API that began while the load ran."""
        return self._in_window(self._frame("calls"))

    @functools.cached_property
    def requests(self) -> pd.DataFrame:
        """Return a row for each REST request that arrived while the load ran."""
        return self._in_window(self._frame("requests"))

    @functools.cached_property
    def statements(self) -> pd.DataFrame:
        """Return SQL statements by process and kind."""
        return self._frame("statements")

    @functools.cached_property
    def boots(self) -> list[anatomy.Boot]:
        """Return the anatomy of each boot whose records are whole, the shortest first.

        Of a condensed run most of them are sums alone.
        """
        if not self.measured("spans"):
            return []
        vms = self.vms.loc[self.vms["status"] == "ACTIVE", ["server_id", "name"]].dropna()
        whole = anatomy.boots(
            self.run.table("spans").to_pylist(),
            dict(vms.itertuples(index=False, name=None)),
            self.rtt_s,
            self.record.time_scale,
        )
        if not self.is_condensed:
            return whole
        rows, parts = (self.run.table(name).to_pylist() for name in ("boots", "boot_parts"))
        return condensed.boots_of(rows, parts, whole)

    @property
    def is_condensed(self) -> bool:
        """Tell whether the run keeps sums of its boots in the place of most spans."""
        return self.run.has("boots") and self.run.has("boot_parts")

    @functools.cached_property
    def steps(self) -> dict[condensed.Step, tuple[float, int]]:
        """Return seconds and crossings of all boots together by step of their critical paths."""
        if self.is_condensed:
            return condensed.steps_in(self.run.table("boot_steps").to_pylist())
        return condensed.steps_of(self.boots)

    @functools.cached_property
    def rtt_s(self) -> dict[tuple[str, str], float]:
        """Return the round trip of each pair of sites, the lesser name first: as observed, or
        as requested where it wasn't."""
        by_pair: dict[tuple[str, str], list[float]] = {}
        for row in self.round_trips.to_dict("records"):
            one, other = sorted((str(row["source"]), str(row["target"])))
            observed = row["observed_ms"]
            ms = row["requested_ms"] if pd.isna(observed) else observed
            by_pair.setdefault((one, other), []).append(float(ms) / 1000)
        return {pair: sum(values) / len(values) for pair, values in by_pair.items()}

    @functools.cached_property
    def traffic(self) -> pd.DataFrame:
        """Return bytes and packets between hosts, without those from a host to itself."""
        frame = self._frame("traffic")
        return frame[frame["host"] != frame["peer"]].reset_index(drop=True)

    @functools.cached_property
    def messages(self) -> pd.DataFrame:
        """Return messages of the bus by queue."""
        return self._frame("messages")

    @functools.cached_property
    def usage(self) -> pd.DataFrame:
        """Return CPU and memory by service and host."""
        return self._frame("usage")

    @functools.cached_property
    def series(self) -> pd.DataFrame:
        """Return samples: a row for each value of a host's service or queue."""
        return self._frame("series")

    @functools.cached_property
    def verdicts(self) -> pd.DataFrame:
        """Return a row for each of OpenStack's own tests."""
        return self._frame("verdicts")

    @functools.cached_property
    def round_trips(self) -> pd.DataFrame:
        """Return round trips between sites: `phase` (before, after), pair, requested, observed."""
        links = self.run.links()
        columns = ["phase", "source", "target", "requested_ms", "observed_ms", "samples", "lost"]
        rows: list[dict[str, Any]] = []
        for phase, pairs in (("before", links.before), ("after", links.after)):
            rows += [{"phase": phase, **dataclasses.asdict(pair)} for pair in pairs]
        return pd.DataFrame(rows, columns=columns)

    @functools.cached_property
    def figures(self) -> dict[str, Any]:
        """Return the run's row of `summary`."""
        return _summary(self)

    @property
    def unit(self) -> str:
        """Return what the load requests: 'VM', or 'round' or 'token' where it boots none."""
        return _UNITS.get(str(self.record.scenario.get("kind")), "VM")

    @functools.cached_property
    def done(self) -> int:
        """Return how many units went well, VMs ACTIVE among them: the divisor of figures per VM."""
        if self.unit == "VM":
            return self.record.vms.active
        if self.record.is_verification:
            return int((self.verdicts["status"] == PASSED).sum())
        failed = self.actions.loc[self.actions["error"].notna(), "iteration"]
        return len(set(self.actions["iteration"]) - set(failed))

    @property
    def asked(self) -> int:
        """Return how many units were requested."""
        if self.unit == "VM":
            return self.record.vms.asked
        if self.record.is_verification:
            return int((self.verdicts["status"] != EXCLUDED).sum())
        return int(self.record.scenario.get("iterations", 0))

    @property
    def time_scale(self) -> float:
        """Return how many seconds of a clock stood for one."""
        return self.record.time_scale

    @property
    def window(self) -> Window | None:
        """Return the load's own time; it begins when it began by a clock."""
        window = self.record.window
        if window is None:
            return None
        return Window(window.start, float(self._moment(window.end)))

    @property
    def window_s(self) -> float | None:
        """Return how long the load ran."""
        return None if self.window is None else self.window.end - self.window.start

    @property
    def natural_s(self) -> float | None:
        """Return how long the load took by a clock: all VMs, or the window of other loads."""
        if self.unit == "VM":
            return self.record.duration_s
        return None if self.window_s is None else self.window_s * self.time_scale

    @property
    def duration_s(self) -> float | None:
        """Return how long the load took."""
        return None if self.natural_s is None else self.natural_s / self.time_scale

    def _moment(self, at: Any) -> Any:
        """Return moments of a clock as they are counted from the window's start on."""
        start = self.record.window.start if self.record.window else 0.0
        return start + (at - start) / self.time_scale

    def _frame(self, table: str) -> pd.DataFrame:
        frame: pd.DataFrame = self.run.table(table).to_pandas()
        for column in TABLES[table] if self.time_scale != 1 else ():
            if column.time == "moment":
                frame[column.name] = self._moment(frame[column.name])
            elif column.time == "duration":
                frame[column.name] /= self.time_scale
        return frame

    def _in_window(self, frame: pd.DataFrame) -> pd.DataFrame:
        window = self.window
        if window is None:
            return frame
        return frame[frame["at"].between(window.start, window.end)].reset_index(drop=True)


def read_runs(paths: Iterable[Path]) -> list[Measurements]:
    """Return the runs in `paths`, each a run's folder or a folder of runs, the oldest first.

    Raises Refused where there is none, or one is damaged.
    """
    return measured(find_runs(paths))


def measured(runs: Iterable[Run]) -> list[Measurements]:
    """Return what runs measured; they are numbered in their order."""
    return [Measurements(run, number) for number, run in enumerate(runs, start=1)]


def loads(runs: Iterable[Measurements]) -> list[Measurements]:
    """Return the runs that had a load."""
    return [run for run in runs if not run.record.is_verification]


def verifications(runs: Iterable[Measurements]) -> list[Measurements]:
    """Return the runs of OpenStack's own tests."""
    return [run for run in runs if run.record.is_verification]


def nodes(record: RunRecord) -> int:
    """Return how many nodes hold the databases, copies not counted.

    The run says so itself, or it is the data hosts; with MySQL it is one server, unless cells have
    servers of their own.
    """
    usual = 1 if record.backend == "mysql" else max(record.data, 1)
    return int(record.options.get("nodes", usual))


def replicas(record: RunRecord) -> int:
    """Return the number of copies of each datum beyond the first."""
    return int(record.options.get("replicas", 0))


def has_cells(record: RunRecord) -> bool:
    """Tell whether each site had a cell of Nova of its own."""
    return record.options.get("layout") == "cells"


def placement(record: RunRecord) -> str:
    """Return where VMs could land, in words; the paper's clouds are 'shared'."""
    words = str(record.options.get("placement", "shared"))
    return f"{words}, cells" if has_cells(record) else words


def configuration(nodes_: int, replicas_: int) -> str:
    """Return a configuration in the paper's words: '4 nodes + 1 replica'."""
    words = f"{nodes_} node{'s' if nodes_ != 1 else ''}"
    if replicas_:
        words += f" + {replicas_} replica{'s' if replicas_ != 1 else ''}"
    return words


# Beside the seconds of a run whose machine was full.
BUSY = "busy"
BUSY_WORDS = "its machine was full, so that its seconds are the machine's more than the cloud's"


def status_word(is_partial: bool, is_busy: bool) -> str:
    """Return what is said beside the figures of a run that aren't what they seem."""
    words = [word for word, holds in (("PARTIAL", is_partial), (BUSY, is_busy)) if holds]
    return ", ".join(words)


def latency(record: RunRecord) -> str:
    """Return the one-way delay in words; empty with one site."""
    if record.sites == 1:
        return ""
    return "mixed latency" if record.latency_ms is None else f"{record.latency_ms:g} ms"


def label(record: RunRecord, with_latency: bool = True) -> str:
    """Return the name of a run in a legend: 'mysql, 2 sites, 10 ms'."""
    parts = [record.backend]
    usual = 1 if record.backend == "mysql" else record.sites  # a node at each site
    if (nodes(record) != usual and not has_cells(record)) or replicas(record):
        parts.append(configuration(nodes(record), replicas(record)))
    parts.append("1 site" if record.sites == 1 else f"{record.sites} sites")
    if record.sites > 1 and with_latency:
        parts.append(latency(record))
    if has_cells(record):
        parts.append("cells")
    if record.options.get("placement", "shared") != "shared":
        parts.append("zones")
    if record.time_scale != 1:
        parts.append(f"time scale {record.time_scale:g}")
    if record.is_busy:
        parts.append(BUSY)
    if record.is_canned:
        parts.append("CANNED")
    if record.is_partial:
        parts.append("PARTIAL")
    return ", ".join(parts)


def group(record: RunRecord) -> str:
    """Return a key that is equal for repeats: same cloud, links, load, probes and machine.

    A partial run repeats no complete one, one of a full machine none of another, and the commit
    of this project doesn't count.
    """
    machine = record.machine
    description = {
        "partial": record.is_partial,
        "backend": record.backend,
        "options": record.options,
        "hosts": [record.sites, record.controllers, record.computes, record.data],
        "latency_ms": record.latency_ms,
        "imposed_by": record.imposed_by,
        # Earlier versions lack keys that later ones leave without a value.
        "scenario": {k: v for k, v in record.scenario.items() if v is not None},
        "vms": record.vms.asked,
        "probes": sorted(record.probes),
        "machine": [machine.cpus, machine.cpu_model, machine.memory_bytes, machine.provider],
        "versions": {k: v for k, v in record.versions.items() if k != "discovery-xp"},
    }
    if record.time_scale != 1:
        description["time_scale"] = record.time_scale
    if record.is_busy:
        description["busy"] = True
    # Links that differ from each other are in the plan alone.
    if record.latency_ms is None and record.sites > 1:
        description["plan"] = record.plan
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]


def groups(runs: Sequence[Measurements]) -> list[list[Measurements]]:
    """Return the runs that repeat each other together, in the order of their first."""
    by_key: dict[str, list[Measurements]] = {}
    for run in runs:
        by_key.setdefault(group(run.record), []).append(run)
    return list(by_key.values())


def labels(runs: Sequence[Measurements], with_latency: bool = True) -> dict[str, str]:
    """Return a label for each group, by its key, that no other group has.

    Without the latency in it, groups at different latencies may share one.
    """
    by_label: dict[str, list[str]] = {}
    first: dict[str, Measurements] = {}
    for run in runs:
        key = group(run.record)
        if key not in first:
            first[key] = run
            by_label.setdefault(label(run.record), []).append(key)
    return {
        key: label(first[key].record, with_latency)
        + ("" if len(keys) == 1 else f" (#{first[key].number})")
        for keys in by_label.values()
        for key in keys
    }


def summary(runs: Sequence[Measurements]) -> pd.DataFrame:
    """Return a row for each run: what it was, how it went, and the cost of a VM.

    Of loads without VMs, what a `unit` took: a round of reads, or a token.
    Units are in the names of the columns; what wasn't measured is NaN.
    """
    return pd.DataFrame([run.figures for run in runs])


def _summary(run: Measurements) -> dict[str, Any]:
    record = run.record
    active = run.done
    duration_s = run.duration_s
    scaled = run.time_scale != 1
    are_active = run.vms["status"] == "ACTIVE"
    boots = run.vms.loc[are_active, "boot_duration_s"]
    on_hosts = run.vms.loc[are_active, "host"].value_counts()
    row: dict[str, Any] = {
        "number": run.number,
        "run": run.run.name,
        "group": group(record),
        "status": record.status,
        "partial": record.is_partial,
        "reason": record.why_partial,
        "busy": record.is_busy,
        "started": record.started,
        "backend": record.backend,
        "nodes": nodes(record),
        "replicas": replicas(record),
        "configuration": configuration(nodes(record), replicas(record)),
        "sites": record.sites,
        "controllers": record.controllers,
        "computes": record.computes,
        "latency_ms": record.latency_ms if record.sites > 1 else None,
        "rtt_ms": record.rtt_ms,
        "placement": placement(record),
        "unit": run.unit,
        "vms_asked": run.asked,
        "vms_active": active,
        "vms_failed": _failed(run),
        "time_scale": run.time_scale if scaled else None,
        "natural_s": run.natural_s if scaled else None,
        "duration_s": duration_s,
        "s_per_vm": _per(duration_s, active),
        "vms_per_s": _per(active, duration_s),
        "boot_median_s": boots.median(),
        "boot_p90_s": boots.quantile(0.9),
        "fullest_host_vms": on_hosts.max() if len(on_hosts) else None,
    }
    row |= summaries.call_statistics(run.calls)
    network = summaries.network_mb(run.traffic) if run.measured("traffic") else {}
    row |= {key: network.get(key) for key in ("network_mb", "intra_mb", "inter_mb", "outside_mb")}
    row["network_mb_per_vm"] = _per(row["network_mb"], active)
    statements = summaries.sent(run.statements) if run.measured("statements") else None
    row["statements_per_vm"] = _total(statements, ("count",), active)
    row["round_trips_per_vm"] = _total(statements, ("round_trips",), active)
    row["db_kb_per_vm"] = _total(statements, ("bytes_sent", "bytes_received"), active, 1000)
    messages = run.messages if run.measured("messages") else None
    row["messages_per_vm"] = _total(messages, ("published",), active)
    usage = run.usage if run.measured("usage") else None
    row["cpu_ms_per_vm"] = _total(usage, ("cpu_s",), active, 0.001)
    row |= anatomy_tables.figures(run.boots)
    return row | summaries.cpu_shares(record)


def _failed(run: Measurements) -> int:
    if run.unit == "VM":
        return run.record.vms.failed
    if run.record.is_verification:
        return int((run.verdicts["status"] == FAILED).sum())
    return run.asked - run.done


def _per(value: float | None, count: float | None) -> float | None:
    return None if value is None or not count else value / count


def _total(
    frame: pd.DataFrame | None, columns: tuple[str, ...], active: int, unit: float = 1
) -> float | None:
    """Return the sum of columns per VM, in `unit`."""
    if frame is None:
        return None
    return _per(float(frame[list(columns)].to_numpy().sum()) / unit, active)
