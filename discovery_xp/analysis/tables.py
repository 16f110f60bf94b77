"""A table: a frame whose columns have units in their names, and how people read it.

The paper's tables are in `paper_tables`, those of our runs in `run_tables`.
"""

from __future__ import annotations

import functools
import html
import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery_xp.text import printable, shortened

# What a column is called where people read it; others are called by their own name.
HEADINGS = {
    "number": "#",
    "runs": "runs",
    "numbers": "which",
    "status": "status",
    "backend": "back end",
    "clusters": "clusters",
    "latency_ms": "latency, ms",
    "rtt_ms": "RTT seen, ms",
    "aggregates": "host aggregates",
    "placement": "placement",
    "vms": "VMs",
    "time_scale": "time scale",
    "natural_s": "by a clock, s",
    "duration_s": "to create, s",
    "s_per_vm": "s per VM",
    "vms_per_s": "VMs per second",
    "crossings_per_vm": "crossings per VM",
    "wan_wait_s_per_vm": "WAN wait per VM, s",
    "all_crossings_per_vm": "all crossings per VM",
    "time_share": "share",
    "path_s": "path, s",
    "all_crossings": "all crossings",
    "wan_wait_s": "WAN wait, s",
    "boot_median_s": "boot, median, s",
    "boot_p90_s": "boot, P90, s",
    "fullest_host_vms": "VMs on the fullest host",
    "measured_ms": "measured, ms",
    "measured_s": "measured, s",
    "measured_mb": "measured, MB",
    "interval": "interval",
    "published_ms": "published, ms",
    "published_s": "published, s",
    "published_s_per_vm": "published, s per VM",
    "published_mb": "published, MB",
    "published_mb_per_vm": "published, MB per VM",
    "source": "source",
    "calls": "calls",
    "call_mean_ms": "DB API call, mean, ms",
    "call_median_ms": "median, ms",
    "call_p75_ms": "P75, ms",
    "call_p90_ms": "P90, ms",
    "call_p99_ms": "P99, ms",
    "lazy_loads": "lazy loads",
    "lazy_ms": "lazy loads, ms in all",
    "failed_calls": "calls that raised",
    "mean_ms": "mean, ms",
    "median_ms": "median, ms",
    "p90_ms": "P90, ms",
    "total_ms": "in all, ms",
    "mean_s": "mean, s",
    "median_s": "median, s",
    "p90_s": "P90, s",
    "cpu_ms_per_vm": "CPU-ms per VM",
    "cpu_s": "CPU, s",
    "memory_mb": "memory at the end, MB",
    "grown_mb": "of it grown, MB",
    "statements": "statements",
    "statements_per_vm": "statements per VM",
    "round_trips": "round trips",
    "round_trips_per_vm": "round trips per VM",
    "db_kb_per_vm": "database, kB per VM",
    "sent_kb_per_vm": "sent, kB per VM",
    "received_kb_per_vm": "received, kB per VM",
    "requests_per_vm": "requests per VM",
    "messages_per_vm": "messages per VM",
    "network_mb": "network, MB",
    "network_mb_per_vm": "network, MB per VM",
    "intra_mb": "within sites, MB",
    "inter_mb": "between sites, MB",
    "outside_mb": "to others, MB",
    "openstack_share": "OpenStack",
    "load_share": "load",
    "other_share": "other",
    "machine_busy": "machine busy",
    "even_share": "even share",
    "finding": "finding",
    "published_ratio": "published, A over B",
    "a": "A",
    "b": "B",
    "ratio": "ratio",
    "over": "resampled",
    "delta": "Cliff's delta",
    "more_runs": "more runs",
    "old": "then",
    "new": "now",
    "is_within": "reproduced",
    "requested_ms": "requested, ms",
    "observed_ms": "observed, ms",
    "least_ms": "least, ms",
    "most_ms": "most, ms",
    "worst_error_ms": "worst error, ms",
}
# Left out where nothing of them is known, instead of standing there empty.
_OPTIONAL = {
    "interval", "numbers", "latency_ms", "rtt_ms", "status", "time_scale", "natural_s",
    "crossings_per_vm", "wan_wait_s_per_vm",
}  # fmt: skip
# What stands in the column `status` of runs that need a warning.
MARKS = ("PARTIAL", "busy", "PARTIAL, busy")
_RIGHT = {"vms", "interval", "requested_ms"}  # text of numbers
_SHARES = ("share", "machine_busy")
_CELL = 1000  # characters that are shown of a text; CSV has all of it
_COUNTS = {"computes", "calls", "clusters", "runs"}  # whole, but for means of repeats


@dataclass(frozen=True)
class Table:
    """A frame for people: `name` is that of its files."""

    name: str
    title: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    unit: str = "VM"

    @functools.cached_property
    def shown(self) -> pd.DataFrame:
        """Return the frame as it is shown: some columns joined, empty optional ones left out."""
        frame = self.frame.copy()
        if "vms_active" in frame:
            frame["vms_asked"] = [
                _of(active, count)
                for active, count in zip(frame["vms_active"], frame["vms_asked"], strict=True)
            ]
            frame = frame.drop(columns="vms_active").rename(columns={"vms_asked": "vms"})
        if "low" in frame:
            frame["low"] = [
                "" if is_empty(low) else f"{digits(low)} to {digits(high)}"
                for low, high in zip(frame["low"], frame["high"], strict=True)
            ]
            frame = frame.drop(columns="high").rename(columns={"low": "interval"})
        if "numbers" in frame:
            frame = frame.drop(columns="runs")  # they can be counted
        empty = [name for name in _OPTIONAL & set(frame) if frame[name].map(is_empty).all()]
        return frame.drop(columns=empty)

    def headings(self) -> list[str]:
        """Return the names of the columns shown."""
        named = [HEADINGS.get(name, name.replace("_", " ")) for name in map(str, self.shown)]
        return named if self.unit == "VM" else [re.sub(r"\bVM", self.unit, each) for each in named]

    def cells(self) -> list[list[str]]:
        """Return the rows as text, '-' where nothing is known."""
        return [
            [cell(str(column), value) for column, value in zip(self.shown, row, strict=True)]
            for row in self.shown.itertuples(index=False, name=None)
        ]

    def numeric(self) -> list[bool]:
        """Return for each column shown whether it holds numbers, which stand at the right."""
        return [
            name in _RIGHT
            or (
                pd.api.types.is_numeric_dtype(self.shown[name])
                and not pd.api.types.is_bool_dtype(self.shown[name])
            )
            for name in self.shown
        ]

    def published(self) -> list[bool]:
        """Return for each column shown whether others published it."""
        return [str(name).startswith("published_") or name == "source" for name in self.shown]

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in self.headings())
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>"
            for row in self.cells()
        )
        notes = "".join(
            f"<p><small>{html.escape(printable(note))}</small></p>" for note in self.notes
        )
        return (
            f"<p><b>{html.escape(printable(self.title))}</b></p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{notes}"
        )


def _of(active: float, requested: float) -> str:
    """Return '18 of 20', or '20' when all of them got ACTIVE."""
    if is_empty(requested):
        return ""
    if active == requested:
        return f"{requested:g}"
    return (
        f"{active:g} of {requested:g}"
        if float(active).is_integer()
        else (
            f"{digits(active)} of {requested:g}"  # a mean over repeats
        )
    )


def is_empty(value: object) -> bool:
    """Return whether a cell shows the value as '-'."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def cell(column: str, value: Any) -> str:
    """Return a value for people: shares in percent, numbers with three digits or more."""
    if is_empty(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return shortened(value, _CELL)
    if column.endswith(_SHARES):
        return f"{value * 100:.0f} %"
    if column == "latency_ms":
        return f"{value:g}"
    if column in _COUNTS and float(value).is_integer():
        return f"{value:.0f}"
    return str(value) if isinstance(value, int) else digits(float(value))


def digits(value: float) -> str:
    """Return three significant digits, and no whole number cut: 0.0123, 1.23, 12.3, 1234."""
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}" if size >= 0.0001 else f"{value:.2g}"


def or_nan(value: float | None) -> float:
    """Return a number that pandas takes for missing where there is none."""
    return math.nan if value is None else value
