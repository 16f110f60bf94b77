"""Sums, means, percentiles and intervals of what runs measured.

Frames in, numbers or frames out; figures per VM are divided by the VMs that got ACTIVE.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from discovery_xp.analysis import statistics as resampling
from discovery_xp.onhost.wire.probes import DEADLOCK
from discovery_xp.store import RunRecord

MB = 1e6
_SEED = 1  # of intervals: the same runs have the same


# ---------------------------------------------------------------- repeats


@dataclass(frozen=True)
class Interval:
    """The mean of `count` repeats, and where it lies with at most 95 % confidence.

    `low` and `high` are None with less than two repeats, and so is `deviation`, the
    sample's standard deviation.
    """

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    count: int


def mean_interval(values: Iterable[float | None]) -> Interval:
    """Return a bootstrap interval of the mean, which takes repeats as independent.

    It is no wider than what was observed: of N repeats it holds the middle of all with a
    confidence of at most 1 - 2^(1-N).  Nulls are left out; the mean of nothing is NaN.
    """
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    count = len(numbers)
    if not count:
        return Interval(math.nan, None, None, None, 0)
    mean = statistics.fmean(numbers)
    if count == 1:
        return Interval(mean, None, None, None, 1)
    deviation = statistics.stdev(numbers)
    draws = resampling.resampled(numbers, resampling.mean, np.random.default_rng(_SEED))
    interval = resampling.interval_of(draws, count)
    return Interval(mean, interval.low, interval.high, deviation, count)


# ---------------------------------------------------------------- calls of the database API


def call_statistics(calls: pd.DataFrame) -> dict[str, float | int | None]:
    """Return number, mean, percentiles, lazy loads and failures of database API calls.

    The mean is all time spent, lazy loads included, for each call proper.  Percentiles are
    of the calls proper: it isn't known which call a lazy load belongs to.  A call that
    raised took its time like any other.  All but the numbers are None without calls.
    """
    lazy = calls["lazy"].astype(bool)
    proper = calls.loc[~lazy, "duration_ms"]
    none = proper.empty
    quantiles = {"median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
    return {
        "calls": len(proper),
        "lazy_loads": int(lazy.sum()),
        "lazy_ms": float(calls.loc[lazy, "duration_ms"].sum()),
        "failed_calls": int(calls.loc[~lazy, "error"].notna().sum()),
        "call_mean_ms": None if none else float(calls["duration_ms"].sum()) / len(proper),
        **{
            f"call_{name}_ms": None if none else float(proper.quantile(share))
            for name, share in quantiles.items()
        },
    }


def calls_by_function(calls: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each function, and each relationship loaded later; most time first."""
    grouped = calls.groupby(["function", "lazy"])["duration_ms"]
    frame = grouped.agg(
        calls="count",
        mean_ms="mean",
        median_ms="median",
        p90_ms=lambda values: values.quantile(0.9),
        total_ms="sum",
    ).reset_index()
    total = frame["total_ms"].sum()
    frame["share"] = frame["total_ms"] / total if total else 0.0
    return frame.sort_values("total_ms", ascending=False, ignore_index=True)


# ---------------------------------------------------------------- by service


def requests_by_service(requests: pd.DataFrame, active: int) -> pd.DataFrame:
    """Return each service's REST requests: number, per VM, mean, P90, errors (400 and up)."""
    grouped = requests.assign(failed=requests["status"] >= 400).groupby("service")
    frame = grouped.agg(
        requests=("duration_ms", "count"),
        mean_ms=("duration_ms", "mean"),
        p90_ms=("duration_ms", lambda values: values.quantile(0.9)),
        failed=("failed", "sum"),
    ).reset_index()
    frame.insert(2, "requests_per_vm", _per_vm(frame["requests"], active))
    return frame.sort_values("requests", ascending=False, ignore_index=True)


def cpu_by_service(usage: pd.DataFrame, active: int) -> pd.DataFrame:
    """Return the CPU of each service over all hosts, and its memory; the most first."""
    grouped = usage.groupby("service")
    frame = grouped.agg(
        instances=("host", "count"),
        cpu_s=("cpu_s", "sum"),
        memory_mb=("memory_bytes", lambda values: values.sum() / MB),
        grown_mb=("memory_bytes", lambda values: values.sum() / MB),
    ).reset_index()
    frame["grown_mb"] -= grouped["memory_start_bytes"].sum().to_numpy() / MB
    frame.insert(3, "cpu_ms_per_vm", _per_vm(frame["cpu_s"] * 1000, active))
    return frame.sort_values("cpu_s", ascending=False, ignore_index=True)


def sent(statements: pd.DataFrame) -> pd.DataFrame:
    """Return the statements that were sent: without rows that count answers of a kind."""
    return statements[statements["kind"] != DEADLOCK]


def statements_by_kind(statements: pd.DataFrame, active: int) -> pd.DataFrame:
    """Return SQL statements of each kind and their round trips, in all and per VM."""
    frame = statements.groupby("kind")[["count", "round_trips", "duration_ms"]].sum().reset_index()
    frame = frame.rename(columns={"count": "statements"})
    frame["mean_ms"] = frame["duration_ms"] / frame["statements"].where(frame["statements"] > 0)
    frame = frame.drop(columns="duration_ms")
    frame.insert(2, "statements_per_vm", _per_vm(frame["statements"], active))
    frame.insert(4, "round_trips_per_vm", _per_vm(frame["round_trips"], active))
    return frame.sort_values("statements", ascending=False, ignore_index=True)


def statements_by_service(statements: pd.DataFrame, active: int) -> pd.DataFrame:
    """Return statements, round trips and bytes of the database per VM, by service."""
    columns = ["count", "round_trips", "bytes_sent", "bytes_received"]
    sums = sent(statements).groupby("service")[columns].sum().reset_index()
    frame = pd.DataFrame(
        {
            "service": sums["service"],
            "statements_per_vm": _per_vm(sums["count"], active),
            "round_trips_per_vm": _per_vm(sums["round_trips"], active),
            "sent_kb_per_vm": _per_vm(sums["bytes_sent"] / 1000, active),
            "received_kb_per_vm": _per_vm(sums["bytes_received"] / 1000, active),
        }
    )
    return frame.sort_values("statements_per_vm", ascending=False, ignore_index=True)


def actions_by_name(actions: pd.DataFrame) -> pd.DataFrame:
    """Return the load's timed actions: number, failures, mean, median, P90."""
    grouped = actions.assign(failed=actions["error"].notna()).groupby("action", sort=False)
    return grouped.agg(
        actions=("duration_s", "count"),
        failed=("failed", "sum"),
        mean_s=("duration_s", "mean"),
        median_s=("duration_s", "median"),
        p90_s=("duration_s", lambda values: values.quantile(0.9)),
    ).reset_index()


def _per_vm(values: pd.Series[Any], active: int) -> pd.Series[float]:
    return values / active if active else values * math.nan


# ---------------------------------------------------------------- network and sites


def network_mb(traffic: pd.DataFrame) -> dict[str, float]:
    """Return megabytes (10^6) between hosts: in all, within sites, between sites.

    Each byte counts once, where it was sent.  What went to others than the testbed's hosts
    (this machine, the internet) is in `outside_mb` alone.
    """
    sent = traffic[traffic["direction"] == "out"]
    outside = sent["peer_site"] == ""
    within = sent["site"] == sent["peer_site"]
    return {
        "network_mb": float(sent.loc[~outside, "bytes"].sum()) / MB,
        "intra_mb": float(sent.loc[within, "bytes"].sum()) / MB,
        "inter_mb": float(sent.loc[~within & ~outside, "bytes"].sum()) / MB,
        "outside_mb": float(sent.loc[outside, "bytes"].sum()) / MB,
    }


def traffic_by_service(traffic: pd.DataFrame) -> pd.DataFrame:
    """Return each service's megabytes, within and between sites and outside; the most first."""
    rows = [
        {"service": str(service), **network_mb(part)}
        for service, part in traffic.groupby("service")
    ]
    frame = pd.DataFrame(
        rows, columns=["service", "network_mb", "intra_mb", "inter_mb", "outside_mb"]
    )
    return frame.sort_values("network_mb", ascending=False, ignore_index=True)


def vms_by_site(vms: pd.DataFrame) -> pd.DataFrame:
    """Return for each site: VMs requested there, VMs ACTIVE on its hosts, share, even share."""
    active = vms[vms["status"] == "ACTIVE"]
    names = {*vms["site"].dropna().unique(), *vms["host_site"].dropna().unique()}
    sites = sorted(names, key=_natural)
    landed, requests = active["host_site"].value_counts(), vms["site"].value_counts()
    frame = pd.DataFrame(
        {
            "site": sites,
            "asked": [int(requests.get(site, 0)) for site in sites],
            "active": [int(landed.get(site, 0)) for site in sites],
        }
    )
    frame["share"] = frame["active"] / len(active) if len(active) else math.nan
    frame["even_share"] = 1 / len(sites) if sites else math.nan
    return frame


def _natural(name: str) -> tuple[str, int, str]:
    """Return the key that puts site2 before site10."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :].lstrip("0")  # compared as text: there may be thousands
    return head, len(digits), digits


def vms_by_status(vms: pd.DataFrame) -> pd.DataFrame:
    """Return how many VMs ended in each status, and the most frequent error of each."""
    rows = [
        {
            "status": str(status),
            "vms": len(part),
            "error": next(iter(part["error"].dropna().mode()), ""),
        }
        for status, part in vms.groupby("status")
    ]
    return pd.DataFrame(rows, columns=["status", "vms", "error"])


# ---------------------------------------------------------------- the machine


def cpu_shares(record: RunRecord) -> dict[str, float | None]:
    """Return who used the CPU while the load ran, and how busy that made the machine.

    Shares are of all CPU seconds used; `machine_busy` is those, of the seconds that the
    processors had.
    """
    harness = record.harness
    keys = ("openstack_share", "load_share", "other_share")
    if harness is None or not harness.total_cpu_s:
        return dict.fromkeys((*keys, "machine_busy"))
    parts = (harness.openstack_cpu_s, harness.load_cpu_s, harness.other_cpu_s)
    shares: dict[str, float | None] = {
        key: part / harness.total_cpu_s for key, part in zip(keys, parts, strict=True)
    }
    had_s = record.machine.cpus * harness.elapsed_s
    shares["machine_busy"] = harness.total_cpu_s / had_s if had_s else None
    return shares
