"""The tables of our runs: beside each other, and of a single one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from discovery_xp.analysis import anatomy_tables, series, summaries, verdict_tables
from discovery_xp.analysis.measurements import (
    BUSY,
    BUSY_WORDS,
    Measurements,
    group,
    groups,
    label,
    labels,
    status_word,
    summary,
)
from discovery_xp.analysis.tables import Table, or_nan

# ---------------------------------------------------------------- runs beside each other

_OVERVIEW = (
    "number", "run", "status", "backend", "sites", "computes", "latency_ms", "rtt_ms",
    "time_scale", "vms_asked", "vms_active", "natural_s", "duration_s", "s_per_vm",
    "crossings_per_vm", "wan_wait_s_per_vm", "boot_median_s", "boot_p90_s", "fullest_host_vms",
)  # fmt: skip
_COSTS = (
    "number", "status", "call_mean_ms", "call_median_ms", "call_p75_ms", "call_p90_ms",
    "call_p99_ms", "cpu_ms_per_vm", "statements_per_vm", "round_trips_per_vm", "db_kb_per_vm",
    "messages_per_vm", "network_mb_per_vm", "openstack_share", "load_share", "other_share",
    "machine_busy",
)  # fmt: skip


def overview(runs: Sequence[Measurements]) -> Table:
    """A row for each run: what it was and how it went."""
    frame = _with_status(runs)[list(_OVERVIEW)]
    if frame["run"].map(lambda name: name.split("/")[0]).nunique() == 1:
        frame["run"] = frame["run"].map(lambda name: name.split("/")[1])
    reasons = tuple(
        f"#{run.number} is PARTIAL: {run.record.why_partial}."
        for run in runs
        if run.record.is_partial
    )
    canned = tuple(
        f"#{run.number} is CANNED: {CANNED_WORDS}." for run in runs if run.record.is_canned
    )
    busy = tuple(f"#{run.number} is {BUSY}: {BUSY_WORDS}." for run in runs if run.record.is_busy)
    return Table("runs", "Runs", frame, (*canned, *reasons, *busy), unit_of(runs))


def costs(runs: Sequence[Measurements]) -> Table:
    """A row for each run: response times, and what a VM cost."""
    frame = _with_status(runs)[list(_COSTS)]
    return Table(
        "costs",
        "Calls of the database API, and the cost of a VM",
        frame,
        (
            "For each VM that got ACTIVE, or round or token. The last four columns: whose CPU time "
            "it was while the load ran, and how much of the processors' time was used.",
        ),
        unit_of(runs),
    )


def unit_of(runs: Sequence[Measurements]) -> str:
    """What was asked for, where that is the same in all runs; VMs otherwise."""
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "VM"


def _with_status(runs: Sequence[Measurements]) -> pd.DataFrame:
    """Summarise runs, with a word on those that aren't what they seem."""
    words = [
        "CANNED" if run.record.is_canned else status_word(run.record.is_partial, run.record.is_busy)
        for run in runs
    ]
    return summary(runs).assign(status=words)


_REPEATED = {
    "duration_s": "time to create, s",
    "s_per_vm": "time to create, s per VM",
    "boot_median_s": "boot, median, s",
    "crossings_per_vm": "crossings per VM",
    "wan_wait_s_per_vm": "WAN wait, s per VM",
    "call_mean_ms": "DB API call, mean, ms",
    "call_median_ms": "DB API call, median, ms",
    "call_p90_ms": "DB API call, P90, ms",
    "cpu_ms_per_vm": "CPU, ms per VM",
    "statements_per_vm": "statements per VM",
    "round_trips_per_vm": "database round trips per VM",
    "messages_per_vm": "messages per VM",
    "network_mb_per_vm": "network, MB per VM",
}


def repeats(runs: Sequence[Measurements]) -> Table:
    """For each configuration run more than once: mean, interval and deviation of quantities."""
    names = labels(runs)
    rows: list[dict[str, Any]] = []
    for repeated in groups(runs):
        if len(repeated) < 2:
            continue
        frame = summary(repeated)
        for quantity, words in _REPEATED.items():
            interval = summaries.mean_interval(frame[quantity])
            if interval.count:
                rows.append(
                    {
                        "configuration": names[group(repeated[0].record)],
                        "quantity": words.replace("VM", repeated[0].unit),
                        "runs": interval.count,
                        "mean": interval.mean,
                        "low": or_nan(interval.low),
                        "high": or_nan(interval.high),
                        "deviation": or_nan(interval.deviation),
                    }
                )
    columns = ["configuration", "quantity", "runs", "mean", "low", "high", "deviation"]
    return Table(
        "repeats",
        "Spread over repeats",
        pd.DataFrame(rows, columns=columns),
        (
            "Bootstrap interval of the mean: 95 % confidence, but at most 50 % of two runs, "
            "75 % of three, 94 % of five; standard deviation of the sample.",
        ),
    )


# ---------------------------------------------------------------- one run

_TOP = 15


def run_tables(run: Measurements) -> list[Table]:
    """What one run measured, each table that has a row."""
    if run.record.is_verification:
        return [table for table in verdict_tables.of_one(run) if len(table.frame)]
    active = run.done
    functions = summaries.calls_by_function(run.calls)
    queues = run.messages.sort_values("published", ascending=False, ignore_index=True)
    tables = [
        Table("vms", "What became of the VMs", summaries.vms_by_status(run.vms)),
        Table(
            "sites",
            "VMs by site",
            summaries.vms_by_site(run.vms),
            ("'asked' at the site's API; 'active' on the site's hosts.",),
        ),
        *anatomy_tables.tables(run.boots, run.steps, run.done),
        Table("actions", "Actions of the load", summaries.actions_by_name(run.actions)),
        Table("calls", "Calls of Nova's database API", _call_table(run)),
        Table(
            "functions",
            f"Where the time of the database API went, {min(_TOP, len(functions))} "
            f"of {len(functions)} functions",
            functions.head(_TOP),
            ("'lazy': a relationship that was loaded after the call it belongs to.",),
        ),
        Table("requests", "REST requests", summaries.requests_by_service(run.requests, active)),
        Table(
            "statements",
            "SQL statements by kind",
            summaries.statements_by_kind(run.statements, active),
        ),
        Table(
            "database",
            "Use of the database by service",
            summaries.statements_by_service(run.statements, active),
        ),
        Table("usage", "CPU and memory by service", summaries.cpu_by_service(run.usage, active)),
        Table("traffic", "Bytes by service", summaries.traffic_by_service(run.traffic)),
        Table(
            "messages",
            f"Messages of the bus, {min(_TOP, len(queues))} of {len(queues)} queues",
            queues.head(_TOP),
        ),
        Table("links", "Round trips between sites, all pairs", _round_trip_table(run)),
    ]
    sampled = series.series_table(run)
    if sampled is not None:
        tables.append(sampled)
    return [dataclasses.replace(table, unit=run.unit) for table in tables if len(table.frame)]


def _call_table(run: Measurements) -> pd.DataFrame:
    statistics = summaries.call_statistics(run.calls)
    frame = pd.DataFrame([statistics])
    return frame if statistics["calls"] else frame.head(0)


def _round_trip_table(run: Measurements) -> pd.DataFrame:
    """For each phase: what was requested and observed over all pairs."""
    rows = []
    for phase, part in run.round_trips.groupby("phase", sort=False):
        observed, requested = part["observed_ms"].astype(float), part["requested_ms"].astype(float)
        round_trips = sorted(requested.unique())
        error = (observed - requested).abs()
        rows.append(
            {
                "phase": f"{phase} the load",
                "pairs": len(part),
                "requested_ms": " to ".join(f"{value:g}" for value in dict.fromkeys(
                    (round_trips[0], round_trips[-1]))),
                "observed_ms": float(observed.median()),
                "least_ms": float(observed.min()),
                "most_ms": float(observed.max()),
                "worst_error_ms": float(error.max()),
                "unreachable": int(observed.isna().sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


# What is said wherever a run is shown that had no hosts.
CANNED_WORDS = "nothing was measured; there were no hosts, and every figure is made up"


def title(run: Measurements) -> str:
    """A run in a line: its experiment and what was run."""
    return f"{run.record.experiment}: {label(run.record)}"
