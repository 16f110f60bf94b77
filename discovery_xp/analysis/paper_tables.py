"""The paper's six tables with our runs beside, our other latencies, and clouds with cells.

Only a run that fits a published cell stands beside its value; runs that repeat each other
share a row, which holds their mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery_xp.analysis import paper, summaries
from discovery_xp.analysis.measurements import (
    BUSY,
    BUSY_WORDS,
    Measurements,
    configuration,
    status_word,
    summary,
)
from discovery_xp.analysis.paper import Published
from discovery_xp.analysis.tables import Table, is_empty, or_nan


@dataclass(frozen=True)
class Cell:
    """Where a value stands: in the paper's tables, or where a run fits in.

    `aggregates` is None in tables that don't tell runs with zones from those without, `cells` in
    those without clouds that have a cell of Nova at each site.
    """

    backend: str
    nodes: int = 1
    replicas: int = 0
    clusters: int = 1
    latency_ms: float | None = None
    aggregates: bool | None = None
    cells: bool | None = None

    def order(self) -> tuple[Any, ...]:
        latency = -1.0 if self.latency_ms is None else self.latency_ms
        # With one cluster by configuration, else by clusters, as the paper has them.
        by_configuration = (self.nodes, self.replicas) if self.clusters == 1 else (0, 0)
        aggregates = {True: 0, False: 1, None: 2}[self.aggregates]
        backend = {"redis": 0, "mysql": 1, "galera": 2}.get(paper.column(self.backend), 3)
        return (self.clusters, latency, *by_configuration, aggregates, backend, self.backend,
                self.nodes, self.replicas, bool(self.cells))  # fmt: skip


_CELLS = "shared, cells"  # how a summary calls clouds with cells, over whose sites VMs may land


def _cell_of(row: Any, number: int | str) -> Cell:
    return Cell(
        row.backend,
        int(row.nodes),
        int(row.replicas),
        int(row.sites),
        None if row.sites == 1 or is_empty(row.latency_ms) else float(row.latency_ms),
        row.placement != "shared" if number == 6 else None,
        row.placement == _CELLS if number == "cells" else None,
    )


def published_cell(value: Published) -> Cell:
    """Return the cell of a published value."""
    return Cell(
        value.backend,
        value.nodes,
        value.replicas,
        value.clusters,
        value.latency_ms,
        value.aggregates,
    )


def _beside(where: Cell) -> Cell:
    """The published cell that a run's stands beside, if there is one."""
    return dataclasses.replace(where, backend=paper.column(where.backend))


def _compare(
    number: int | str,
    runs: pd.DataFrame,
    row_of: Callable[[Cell, pd.DataFrame | None, Published | None], dict[str, Any]],
    whole: bool,
) -> pd.DataFrame:
    """A row for each group of runs, and with `whole` for published cells without runs.

    A table that has no number stands beside no published value.
    """
    own = paper.published(number) if isinstance(number, int) else ()
    values = {published_cell(value): value for value in own}
    runs = runs[runs["unit"] == "VM"] if len(runs) else runs
    cells: list[tuple[Cell, pd.DataFrame | None]] = []
    for _, part in runs.groupby("group", sort=False) if len(runs) else ():
        cells.append((_cell_of(next(part.itertuples()), number), part))
    if whole:
        filled = {_beside(where) for where, _ in cells}
        cells += [(where, None) for where in values if where not in filled]
    cells.sort(key=lambda item: item[0].order())  # stable: groups stay in their order
    return pd.DataFrame([row_of(where, part, values.get(_beside(where))) for where, part in cells])


def _common(part: pd.DataFrame | None) -> dict[str, Any]:
    """Which runs a row is of, and their VMs."""
    if part is None:
        unknown = dict.fromkeys(("computes", "vms_asked", "vms_active"), math.nan)
        return {"runs": 0, "numbers": "", "status": "", **unknown}
    return {
        "runs": len(part),
        "numbers": " ".join(f"#{number}" for number in part["number"]),
        "status": status_word(bool(part["partial"].any()), bool(part["busy"].any())),
        "computes": float(part["computes"].iloc[0]),
        "vms_asked": float(part["vms_asked"].iloc[0]),
        "vms_active": float(part["vms_active"].mean()),
    }


def _measured(part: pd.DataFrame | None, column: str, name: str) -> dict[str, float | None]:
    """The mean over the repeats and its interval."""
    interval = summaries.mean_interval([] if part is None else part[column])
    return {name: interval.mean, "low": or_nan(interval.low), "high": or_nan(interval.high)}


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
    vm_counts = frame.loc[frame["runs"] > 0, "vms_asked"].dropna().unique()
    other = sorted({int(count) for count in vm_counts} - {paper.VMS})
    if other:
        counts = ", ".join(str(count) for count in other)
        notes.append(f"Not {paper.VMS} VMs as published, but {counts}: compare what one VM took.")
    if frame["status"].str.contains(BUSY).any():
        notes.append(f"{BUSY}: {BUSY_WORDS}.")
    if frame["status"].str.startswith("PARTIAL").any():
        notes.append("PARTIAL: runs that didn't come to their end; they are in no mean of others.")
    if frame["runs"].max() > 1:
        notes.append(
            "Several runs in a row: their mean, and its bootstrap interval (docs/analysis.md)."
        )
    return (*notes, *_why_empty(frame))


# Why a cell of ours may be empty, by column; a column that is empty throughout isn't shown.
_WHY_EMPTY = {
    "low": "No interval: there is one run of that cell.",
    "crossings_per_vm": "No crossings, no WAN wait: boots weren't traced, as `spans` was off or "
    "the run is older than traces.",
    "rtt_ms": "No RTT seen: it wasn't measured.",
    "latency_ms": "No latency: there is one site.",
    "call_median_ms": "No quantiles: `calls` was off.",
    "published_ms": "Nothing published: the paper has no such cell.",
    "published_s": "Nothing published: the paper has no such cell.",
    "published_mb": "Nothing published: the paper has no such cell.",
}


def _why_empty(frame: pd.DataFrame) -> list[str]:
    """Say why cells are empty: of rows with runs, and which rows have none."""
    measured = frame[frame["runs"] > 0]
    notes = [
        why
        for column, why in _WHY_EMPTY.items()
        if column in frame
        and measured[column].map(is_empty).any()
        and not frame[column].map(is_empty).all()
    ]
    if len(measured) < len(frame):
        notes.append("Nothing measured: no run of that cell is among these.")
    return notes


def _shared(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["placement"] == "shared"


def table_1(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Average response time to API requests, mono-site; with `whole`, all published cells."""
    frame = summary(runs)
    if len(frame):
        frame = frame[(frame["sites"] == 1) & _shared(frame) & (frame["calls"] > 0)]

    def row(where: Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
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

    table = _compare(1, frame, row, whole)
    return Table(
        "table-1",
        "Table 1. Average response time to API requests, mono-site",
        table,
        _notes(
            table,
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
    number: int | str,
    runs: pd.DataFrame,
    whole: bool,
    keys: Callable[[Cell], dict[str, Any]],
) -> pd.DataFrame:
    def row(where: Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
        return {
            **keys(where),
            **_common(part),
            **({"rtt_ms": _mean(part, "rtt_ms")} if number != 2 else {}),
            **_measured(part, "duration_s", "measured_s"),
            "s_per_vm": _mean(part, "s_per_vm"),
            "crossings_per_vm": _mean(part, "crossings_per_vm"),
            "wan_wait_s_per_vm": _mean(part, "wan_wait_s_per_vm"),
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
    table = _creation(
        2,
        frame,
        whole,
        lambda where: {
            "configuration": configuration(where.nodes, where.replicas),
            "backend": where.backend,
        },
    )
    return Table(
        "table-2", "Table 2. Time to create the VMs, single cluster", table, _notes(table, _CLOCK)
    )


_CLOCK = "The clock runs from the first request to the last VM ACTIVE."


def _clusters(where: Cell) -> dict[str, Any]:
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
    table = _creation(number, frame, whole, _clusters)
    return Table(
        f"table-{number}",
        f"Table {number}. Time to create the VMs, {latency_ms:g} ms between clusters",
        table,
        _notes(table, _CLOCK, f"{latency_ms:g} ms is each link's one-way delay."),
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
    table = _creation(
        0, frame, whole, lambda where: {"latency_ms": where.latency_ms, **_clusters(where)}
    )
    table = table.drop(columns=["published_s", "published_s_per_vm", "source"], errors="ignore")
    return Table(
        "other-latencies",
        "Time to create the VMs, other latencies between clusters",
        table,
        _notes(table, _CLOCK),
    )


def table_5(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Data exchanged over the network; what was published is of a single cluster."""
    frame = summary(runs)
    if len(frame):
        frame = frame[_shared(frame) & frame["network_mb"].notna()]

    def row(where: Cell, part: pd.DataFrame | None, value: Published | None) -> dict[str, Any]:
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

    table = _compare(5, frame, row, whole)
    return Table(
        "table-5",
        "Table 5. Data exchanged over the network",
        table,
        _notes(
            table,
            "Bytes between hosts, counted where they were sent; MB are 10^6 bytes. What a host "
            "said to itself, or to others than the testbed's hosts, isn't in it.",
            "Published for a single cluster only.",
        ),
    )


def table_6(runs: Sequence[Measurements], whole: bool = False) -> Table:
    """Time to create the VMs with and without host aggregates, 10 ms between clusters."""
    frame = _multi_site(runs)
    if len(frame):
        frame = frame[(frame["latency_ms"] == 10) & ~frame["placement"].str.endswith(", cells")]
    table = _creation(
        6,
        frame,
        whole,
        lambda where: {"aggregates": "with" if where.aggregates else "without", **_clusters(where)},
    )
    return Table(
        "table-6",
        "Table 6. Time to create the VMs with and without host aggregates, 10 ms between clusters",
        table,
        _notes(
            table,
            _CLOCK,
            "With aggregates each site is an availability zone, and keeps the VMs asked for there.",
            "The published 'without' disagrees with table 3's Redis column for the same nominal "
            "configuration; both are printed as published.",
        ),
    )


def cells_table(runs: Sequence[Measurements]) -> Table:
    """Time to create the VMs with a cell of Nova at each site, beside clouds that share one."""
    frame = _multi_site(runs)
    if len(frame):
        frame = frame[frame["placement"].isin(["shared", _CELLS])]
        places = [(row.sites, row.latency_ms) for row in frame.itertuples()]
        with_cells = {
            place
            for place, words in zip(places, frame["placement"], strict=True)
            if words == _CELLS
        }
        frame = frame[[place in with_cells for place in places]]
    table = _creation(
        "cells",
        frame,
        False,
        lambda where: {
            "latency_ms": where.latency_ms,
            **_clusters(where),
            "layout": "cells" if where.cells else "shared",
        },
    )
    table = table.drop(columns=["published_s", "published_s_per_vm", "source"], errors="ignore")
    return Table(
        "cells",
        "Time to create the VMs, a cell of Nova at each site beside a shared one",
        table,
        _notes(
            table,
            _CLOCK,
            "With cells each site has a database, message bus and conductors of its own.",
        ),
    )


def paper_tables(runs: Sequence[Measurements], whole: bool = False) -> list[Table]:
    """Tables 1 to 6, our other latencies, and clouds with cells: those that have a row.

    Without `whole`, table 6 needs a run with aggregates: it would repeat table 3.  What is
    canned stands beside no published value.
    """
    runs = [run for run in runs if not run.record.is_canned]
    tables = [
        table(runs, whole)
        for table in (table_1, table_2, table_3, table_4, other_latencies, table_5, table_6)
    ]
    shown = [
        table
        for table in (*tables, cells_table(runs))
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
