"""The paper's six tables with our runs beside, and the tables of single runs.

A `Table` is a frame whose columns have units in their names, with a title and notes.
Only a run that fits a published cell stands beside its value; runs that repeat each other
share a row, which holds their mean.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery_xp.analysis import paper, summaries
from discovery_xp.analysis.measurements import (
    Measurements,
    configuration,
    group,
    groups,
    label,
    labels,
    summary,
)
from discovery_xp.analysis.paper import Published
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
    "duration_s": "to create, s",
    "s_per_vm": "s per VM",
    "vms_per_s": "VMs per second",
    "boot_median_s": "boot, median, s",
    "boot_p90_s": "boot, P90, s",
    "fullest_host_vms": "VMs on the fullest host",
    "measured_ms": "measured, ms",
    "measured_s": "measured, s",
    "measured_mb": "measured, MB",
    "interval": "95 % interval",
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
    "requested_ms": "requested, ms",
    "observed_ms": "observed, ms",
    "least_ms": "least, ms",
    "most_ms": "most, ms",
    "worst_error_ms": "worst error, ms",
}
# Left out where nothing of them is known, instead of standing there empty.
_OPTIONAL = {"interval", "numbers", "latency_ms", "rtt_ms", "status"}
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
        """The frame as it is shown: some columns are joined, those that hold nothing left out."""
        frame = self.frame.copy()
        if "vms_active" in frame:
            frame["vms_asked"] = [
                _of(active, asked)
                for active, asked in zip(frame["vms_active"], frame["vms_asked"], strict=True)
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
        """What the columns shown are called."""
        named = [HEADINGS.get(name, name.replace("_", " ")) for name in map(str, self.shown)]
        return named if self.unit == "VM" else [re.sub(r"\bVM", self.unit, each) for each in named]

    def cells(self) -> list[list[str]]:
        """The rows as text, '-' where nothing is known."""
        return [
            [cell(str(column), value) for column, value in zip(self.shown, row, strict=True)]
            for row in self.shown.itertuples(index=False, name=None)
        ]

    def numeric(self) -> list[bool]:
        """For each column shown, whether it holds numbers, which stand at the right."""
        return [
            name in _RIGHT
            or (
                pd.api.types.is_numeric_dtype(self.shown[name])
                and not pd.api.types.is_bool_dtype(self.shown[name])
            )
            for name in self.shown
        ]

    def published(self) -> list[bool]:
        """For each column shown, whether others published it."""
        return [str(name).startswith("published_") or name == "source" for name in self.shown]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
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


def _of(active: float, asked: float) -> str:
    """'18 of 20', or '20' when all of them got ACTIVE."""
    if is_empty(asked):
        return ""
    if active == asked:
        return f"{asked:g}"
    return (
        f"{active:g} of {asked:g}"
        if float(active).is_integer()
        else (
            f"{digits(active)} of {asked:g}"  # a mean over repeats
        )
    )


def is_empty(value: object) -> bool:
    """True of what a cell shows as '-'."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def cell(column: str, value: Any) -> str:
    """A value for people: shares in percent, numbers with three digits or more."""
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
    """Three significant digits, and no whole number cut: 0.0123, 1.23, 12.3, 1234."""
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}" if size >= 0.0001 else f"{value:.2g}"


# ---------------------------------------------------------------- the paper's tables


@dataclass(frozen=True)
class _Cell:
    """Where a value stands: in the paper's tables, or where a run fits in."""

    backend: str
    nodes: int
    replicas: int
    clusters: int
    latency_ms: float | None
    aggregates: bool | None

    def order(self) -> tuple[Any, ...]:
        latency = -1.0 if self.latency_ms is None else self.latency_ms
        # With one cluster by configuration, else by clusters, as the paper has them.
        by_configuration = (self.nodes, self.replicas) if self.clusters == 1 else (0, 0)
        aggregates = {True: 0, False: 1, None: 2}[self.aggregates]
        backend = {"redis": 0, "mysql": 1, "galera": 2}.get(paper.column(self.backend), 3)
        return (self.clusters, latency, *by_configuration, aggregates, backend, self.backend,
                self.nodes, self.replicas)  # fmt: skip


def _cell_of(row: Any, aggregates: bool) -> _Cell:
    return _Cell(
        row.backend,
        int(row.nodes),
        int(row.replicas),
        int(row.sites),
        None if row.sites == 1 or is_empty(row.latency_ms) else float(row.latency_ms),
        row.placement != "shared" if aggregates else None,
    )


def _published_cell(value: Published) -> _Cell:
    return _Cell(
        value.backend,
        value.nodes,
        value.replicas,
        value.clusters,
        value.latency_ms,
        value.aggregates,
    )


def _beside(where: _Cell) -> _Cell:
    """The published cell that a run's stands beside, if there is one."""
    return dataclasses.replace(where, backend=paper.column(where.backend))


def _compare(
    number: int,
    runs: pd.DataFrame,
    row_of: Callable[[_Cell, pd.DataFrame | None, Published | None], dict[str, Any]],
    whole: bool,
) -> pd.DataFrame:
    """A row for each group of runs, and with `whole` for published cells without runs."""
    values = {_published_cell(value): value for value in paper.published(number)}
    runs = runs[runs["unit"] == "VM"] if len(runs) else runs
    found: list[tuple[_Cell, pd.DataFrame | None]] = []
    for _, part in runs.groupby("group", sort=False) if len(runs) else ():
        found.append((_cell_of(next(part.itertuples()), aggregates=number == 6), part))
    if whole:
        filled = {_beside(where) for where, _ in found}
        found += [(where, None) for where in values if where not in filled]
    found.sort(key=lambda item: item[0].order())  # stable: groups stay in their order
    return pd.DataFrame([row_of(where, part, values.get(_beside(where))) for where, part in found])


def _common(part: pd.DataFrame | None) -> dict[str, Any]:
    """Which runs a row is of, and their VMs."""
    if part is None:
        unknown = dict.fromkeys(("computes", "vms_asked", "vms_active"), math.nan)
        return {"runs": 0, "numbers": "", "status": "", **unknown}
    return {
        "runs": len(part),
        "numbers": " ".join(f"#{number}" for number in part["number"]),
        "status": "PARTIAL" if part["partial"].any() else "",
        "computes": float(part["computes"].iloc[0]),
        "vms_asked": float(part["vms_asked"].iloc[0]),
        "vms_active": float(part["vms_active"].mean()),
    }


def _measured(part: pd.DataFrame | None, column: str, name: str) -> dict[str, float | None]:
    """The mean over the repeats and its interval."""
    interval = summaries.mean_interval([] if part is None else part[column])
    return {name: interval.mean, "low": _or_nan(interval.low), "high": _or_nan(interval.high)}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(part: pd.DataFrame | None, column: str) -> float:
    return math.nan if part is None else float(part[column].astype(float).mean())


def _source(value: Published | None) -> str:
    return f"[{value.source.key}]" if value else ""


def _value(value: Published | None) -> float:
    return value.value if value else math.nan


def _notes(frame: pd.DataFrame, *more: str) -> tuple[str, ...]:
    notes = list(more)
    if frame.empty:
        return tuple(notes)
    renamed = sorted({own for own in frame["backend"] if paper.column(own) != own})
    if renamed:
        notes.append(
            f"Beside {', '.join(renamed)} stands what was published for "
            f"{', '.join(sorted({paper.column(own) for own in renamed}))}, where the number of "
            "nodes is the same: the first ROME, in the place of Nova's database layer."
        )
    asked = frame.loc[frame["runs"] > 0, "vms_asked"].dropna().unique()
    other = sorted({int(count) for count in asked} - {paper.VMS})
    if other:
        counts = ", ".join(str(count) for count in other)
        notes.append(f"Not {paper.VMS} VMs as published, but {counts}: compare what one VM took.")
    if (frame["status"] == "PARTIAL").any():
        notes.append("PARTIAL: runs that didn't come to their end; they are in no mean of others.")
    if frame["runs"].max() > 1:
        notes.append(
            "Several runs in a row: their mean, and Student's t interval with 95 % confidence."
        )
    return tuple(notes)


def _shared(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["placement"] == "shared"


def table_1(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Average response time to API requests, mono-site; with `whole`, all published cells."""
    frame = summary(runs)
    if len(frame):
        frame = frame[(frame["sites"] == 1) & _shared(frame) & (frame["calls"] > 0)]

    def row(where: _Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
        quantiles = {
            column: _mean(part, column)
            for column in ("call_median_ms", "call_p75_ms", "call_p90_ms", "call_p99_ms")
        }
        return {
            "configuration": configuration(where.nodes, where.replicas),
            "backend": where.backend,
            **_common(part),
            "calls": _mean(part, "calls"),
            **_measured(part, "call_mean_ms", "measured_ms"),
            **quantiles,
            "published_ms": _value(value),
            "source": _source(value),
        }

    made = _compare(1, frame, row, whole)
    return Table(
        "table-1",
        "Table 1. Average response time to API requests, mono-site",
        made,
        _notes(
            made,
            "An API request is a call of Nova's database API. The mean is all time spent, "
            "relationships loaded later included, for each call; percentiles are of the calls "
            "alone.",
            "Published besides: "
            + "; ".join(
                f"{q.share * 100:.0f} % of the calls within {q.at_ms:g} ms "
                f"with {q.backend} [{q.source.key}]"
                for q in paper.QUANTILES
            )
            + ".",
        ),
    )


def _creation(
    number: int,
    runs: pd.DataFrame,
    whole: bool,
    keys: Callable[[_Cell], dict[str, Any]],
) -> pd.DataFrame:
    def row(where: _Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
        return {
            **keys(where),
            **_common(part),
            **({"rtt_ms": _mean(part, "rtt_ms")} if number != 2 else {}),
            **_measured(part, "duration_s", "measured_s"),
            "s_per_vm": _mean(part, "s_per_vm"),
            "published_s": _value(value),
            "published_s_per_vm": _value(value) / paper.VMS,
            "source": _source(value),
        }

    return _compare(number, runs, row, whole)


def table_2(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs, single cluster."""
    frame = summary(runs)
    if len(frame):
        frame = frame[(frame["sites"] == 1) & _shared(frame) & frame["duration_s"].notna()]
    made = _creation(
        2,
        frame,
        whole,
        lambda where: {
            "configuration": configuration(where.nodes, where.replicas),
            "backend": where.backend,
        },
    )
    return Table(
        "table-2", "Table 2. Time to create the VMs, single cluster", made, _notes(made, _CLOCK)
    )


_CLOCK = "The clock runs from the first request to the last VM ACTIVE."


def _clusters(where: _Cell) -> dict[str, Any]:
    return {
        "clusters": where.clusters,
        "backend": where.backend,
        "configuration": configuration(where.nodes, where.replicas),
    }


def _multi_site(runs: Sequence[Measurements]) -> pd.DataFrame:
    frame = summary(runs)
    return frame[(frame["sites"] > 1) & frame["duration_s"].notna()] if len(frame) else frame


def _at_latency(number: int, latency_ms: float, runs: Sequence[Measurements], whole: bool) -> Table:
    frame = _multi_site(runs)
    if len(frame):
        frame = frame[_shared(frame) & (frame["latency_ms"] == latency_ms)]
    made = _creation(number, frame, whole, _clusters)
    return Table(
        f"table-{number}",
        f"Table {number}. Time to create the VMs, {latency_ms:g} ms between clusters",
        made,
        _notes(made, _CLOCK, f"{latency_ms:g} ms is each link's one-way delay."),
    )


def table_3(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs by number of clusters, 10 ms between them."""
    return _at_latency(3, 10, runs, whole)


def table_4(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs by number of clusters, 50 ms between them."""
    return _at_latency(4, 50, runs, whole)


def other_latencies(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs over several sites at latencies that weren't published."""
    frame = _multi_site(runs)
    if len(frame):
        frame = frame[_shared(frame) & ~frame["latency_ms"].isin([10, 50])]
    made = _creation(
        0, frame, whole, lambda where: {"latency_ms": where.latency_ms, **_clusters(where)}
    )
    made = made.drop(columns=["published_s", "published_s_per_vm", "source"], errors="ignore")
    return Table(
        "other-latencies",
        "Time to create the VMs, other latencies between clusters",
        made,
        _notes(made, _CLOCK),
    )


def table_5(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Data exchanged over the network; what was published is of a single cluster."""
    frame = summary(runs)
    if len(frame):
        frame = frame[_shared(frame) & frame["network_mb"].notna()]

    def row(where: _Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
        return {
            "configuration": configuration(where.nodes, where.replicas),
            "backend": where.backend,
            "clusters": where.clusters,
            "latency_ms": where.latency_ms,
            **_common(part),
            **_measured(part, "network_mb", "measured_mb"),
            "intra_mb": _mean(part, "intra_mb"),
            "inter_mb": _mean(part, "inter_mb"),
            "network_mb_per_vm": _mean(part, "network_mb_per_vm"),
            "published_mb": _value(value),
            "published_mb_per_vm": _value(value) / paper.VMS,
            "source": _source(value),
        }

    made = _compare(5, frame, row, whole)
    return Table(
        "table-5",
        "Table 5. Data exchanged over the network",
        made,
        _notes(
            made,
            "Bytes between hosts, counted where they were sent; MB are 10^6 bytes. What a host "
            "said to itself, or to others than the testbed's hosts, isn't in it.",
            "Published for a single cluster only.",
        ),
    )


def table_6(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs with and without host aggregates, 10 ms between clusters."""
    frame = _multi_site(runs)
    if len(frame):
        frame = frame[frame["latency_ms"] == 10]
    made = _creation(
        6,
        frame,
        whole,
        lambda where: {"aggregates": "with" if where.aggregates else "without", **_clusters(where)},
    )
    return Table(
        "table-6",
        "Table 6. Time to create the VMs with and without host aggregates, 10 ms between clusters",
        made,
        _notes(
            made,
            _CLOCK,
            "With aggregates each site is an availability zone, and keeps the VMs asked for there.",
            "The published 'without' disagrees with table 3's Redis column for the same nominal "
            "configuration; both are printed as published.",
        ),
    )


def paper_tables(runs: Sequence[Measurements], whole: bool = False) -> list[Table]:
    """Tables 1 to 6 and our other latencies: those that have a row.

    Without `whole`, table 6 needs a run with aggregates: it would repeat table 3.
    """
    made = [
        table(runs, whole)
        for table in (table_1, table_2, table_3, table_4, other_latencies, table_5, table_6)
    ]
    shown = [
        table
        for table in made
        if len(table.frame)
        and (
            whole
            or table.name != "table-6"
            or ((table.frame["aggregates"] == "with") & (table.frame["runs"] > 0)).any()
        )
    ]
    if len(runs) > 1:
        return shown
    # Which run it is needs no saying.
    return [
        dataclasses.replace(table, frame=table.frame.drop(columns=["runs", "numbers"]))
        for table in shown
    ]


# ---------------------------------------------------------------- runs beside each other

_OVERVIEW = (
    "number", "run", "status", "backend", "sites", "computes", "latency_ms", "rtt_ms", "vms_asked",
    "vms_active", "duration_s", "s_per_vm", "boot_median_s", "boot_p90_s",
    "fullest_host_vms",
)  # fmt: skip
_COSTS = (
    "number", "status", "call_mean_ms", "call_median_ms", "call_p75_ms", "call_p90_ms",
    "call_p99_ms", "cpu_ms_per_vm", "statements_per_vm", "round_trips_per_vm", "db_kb_per_vm",
    "messages_per_vm", "network_mb_per_vm", "openstack_share", "load_share", "other_share",
    "machine_busy",
)  # fmt: skip


def overview(runs: Sequence[Measurements]) -> Table:
    """A row for each run: what it was and how it went."""
    frame = _with_status(summary(runs))[list(_OVERVIEW)]
    if frame["run"].map(lambda name: name.split("/")[0]).nunique() == 1:
        frame["run"] = frame["run"].map(lambda name: name.split("/")[1])
    reasons = tuple(
        f"#{run.number} is PARTIAL: {run.record.why_partial}."
        for run in runs
        if run.record.is_partial
    )
    return Table("runs", "Runs", frame, reasons, unit_of(runs))


def costs(runs: Sequence[Measurements]) -> Table:
    """A row for each run: response times, and what a VM cost."""
    frame = _with_status(summary(runs))[list(_COSTS)]
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


def _with_status(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(status=frame["partial"].map({True: "PARTIAL", False: ""}))


_REPEATED = {
    "duration_s": "time to create, s",
    "s_per_vm": "time to create, s per VM",
    "boot_median_s": "boot, median, s",
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
                        "low": _or_nan(interval.low),
                        "high": _or_nan(interval.high),
                        "deviation": _or_nan(interval.deviation),
                    }
                )
    columns = ["configuration", "quantity", "runs", "mean", "low", "high", "deviation"]
    return Table(
        "repeats",
        "Spread over repeats",
        pd.DataFrame(rows, columns=columns),
        ("Student's t interval of the mean, 95 % confidence; standard deviation of the sample.",),
    )


# ---------------------------------------------------------------- one run

_TOP = 15


def run_tables(run: Measurements) -> list[Table]:
    """What one run measured, each table that has a row."""
    active = run.done
    functions = summaries.calls_by_function(run.calls)
    queues = run.messages.sort_values("published", ascending=False, ignore_index=True)
    made = [
        Table("vms", "What became of the VMs", summaries.vms_by_status(run.vms)),
        Table(
            "sites",
            "VMs by site",
            summaries.vms_by_site(run.vms),
            ("'asked' at the site's API; 'active' on the site's hosts.",),
        ),
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
    return [dataclasses.replace(table, unit=run.unit) for table in made if len(table.frame)]


def _call_table(run: Measurements) -> pd.DataFrame:
    statistics = summaries.call_statistics(run.calls)
    frame = pd.DataFrame([statistics])
    return frame if statistics["calls"] else frame.head(0)


def _round_trip_table(run: Measurements) -> pd.DataFrame:
    """For each phase: what was requested and observed over all pairs."""
    rows = []
    for phase, part in run.round_trips.groupby("phase", sort=False):
        observed, requested = part["observed_ms"].astype(float), part["requested_ms"].astype(float)
        wanted = sorted(requested.unique())
        error = (observed - requested).abs()
        rows.append(
            {
                "phase": f"{phase} the load",
                "pairs": len(part),
                "requested_ms": " to ".join(f"{value:g}" for value in dict.fromkeys(
                    (wanted[0], wanted[-1]))),
                "observed_ms": float(observed.median()),
                "least_ms": float(observed.min()),
                "most_ms": float(observed.max()),
                "worst_error_ms": float(error.max()),
                "unreachable": int(observed.isna().sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def title(run: Measurements) -> str:
    """A run in a line: its experiment and what was run."""
    return f"{run.record.experiment}: {label(run.record)}"
