"""What was found in 2016, each finding as a ratio of two published cells, and whether it holds.

A finding says that one cell's figure is larger or smaller than another's.  Runs that fit both
cells say the same of today's software, or something else; a ratio is compared with 1, since
seconds of other machines and another OpenStack can't be compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from discovery_xp.analysis import paper, statistics
from discovery_xp.analysis.measurements import (
    BUSY,
    Measurements,
    configuration,
    nodes,
    placement,
    replicas,
)
from discovery_xp.analysis.paper import GALERA, MYSQL, REDIS, Published, Quantile, Source
from discovery_xp.analysis.paper_tables import Cell, published_cell
from discovery_xp.analysis.statistics import Interval
from discovery_xp.analysis.tables import Table, digits
from discovery_xp.store import RunRecord

Verdict = Literal["holds", "does not hold", "no difference", "open"]
SEED = 1
SHARED, ZONES = "shared", "availability-zones"  # where VMs may land
# A ratio without an interval this near to 1 says nothing.
_NEAR = 0.02


def fits(cell: Cell, record: RunRecord) -> bool:
    """Tell whether a run is of a published cell."""
    latency_ms = record.latency_ms if record.sites > 1 else None
    return (
        paper.column(record.backend) == cell.backend
        and (nodes(record), replicas(record)) == (cell.nodes, cell.replicas)
        and (record.sites, latency_ms) == (cell.clusters, cell.latency_ms)
        and placement(record) == (ZONES if cell.aggregates else SHARED)
    )


_BACKENDS = {REDIS: "Redis", MYSQL: "MySQL", GALERA: "Galera"}


def words_of(cell: Cell) -> str:
    """Say which cell it is: 'Redis, 8 sites, 10 ms, zones'."""
    parts = [_BACKENDS[cell.backend]]
    if cell.backend == REDIS and cell.clusters == 1:
        parts.append(configuration(cell.nodes, cell.replicas))
    if cell.clusters > 1:
        parts += [f"{cell.clusters} sites", f"{cell.latency_ms:g} ms"]
    if cell.aggregates:
        parts.append("zones")
    return ", ".join(parts)


@dataclass(frozen=True)
class Finding:
    """A published claim: the figure of cell `a` over that of cell `b`.

    `figure` is a column of `measurements.summary`, `unit` that of the two published values.
    """

    key: str
    claim: str
    figure: str
    unit: str
    a: Cell
    b: Cell
    published_a: float
    published_b: float
    source: Source

    @property
    def published(self) -> float:
        """The published ratio."""
        return self.published_a / self.published_b


@dataclass(frozen=True)
class Judged:
    """A finding beside what runs say: their figures, ratio and interval, where they say anything.

    `caveats` say why the numbers aren't what they seem, such as a machine that was full.
    """

    finding: Finding
    verdict: Verdict
    a: tuple[Measurements, ...] = ()
    b: tuple[Measurements, ...] = ()
    value_a: float | None = None
    value_b: float | None = None
    ratio: float | None = None
    interval: Interval | None = None
    caveats: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Say in one sentence what was published and what came out."""
        finding = self.finding
        was = (
            f"{finding.claim}: published {finding.published_a:g} over {finding.published_b:g} "
            f"{finding.unit}, {digits(finding.published)} times [{finding.source.key}]"
        )
        if self.value_a is None or self.value_b is None or self.ratio is None:
            return f"{was}; no runs of ours say anything of it."
        spread = "" if self.interval is None else (
            f" ({digits(self.interval.low)} to {digits(self.interval.high)})"
        )  # fmt: skip
        caveats = f" ({'; '.join(self.caveats)})" if self.caveats else ""
        return (
            f"{was}; here {digits(self.value_a)} over {digits(self.value_b)} {finding.unit}, "
            f"{digits(self.ratio)} times{spread}{caveats}."
        )


# ---------------------------------------------------------------- what was published


def _one_site() -> Iterator[Finding]:
    figures = (
        (1, "call_mean_ms", "ms", "A call of the database API takes {} on average, one site"),
        (2, "duration_s", "s", "Creating 500 VMs takes {}, one site"),
        (5, "network_mb", "MB", "More bytes cross the network {}, one site"),
    )
    words = {
        "call_mean_ms": ("longer on Redis than on MySQL", "as long on 4 nodes as on one",
                         "longer with a replica"),
        "duration_s": ("longer on Redis than on MySQL", "as long on 4 nodes as on one",
                       "longer with a replica"),
        "network_mb": ("with Redis than with MySQL", "with 4 nodes than with one",
                       "with a replica"),
    }  # fmt: skip
    for table, figure, unit, claim in figures:
        values = {published_cell(value): value for value in paper.published(table)}
        mysql, one = Cell(MYSQL), Cell(REDIS)
        four, replicated = Cell(REDIS, 4), Cell(REDIS, 4, 1)
        pairs = ((one, mysql), (four, one), (replicated, four))
        for number, (pair, part) in enumerate(zip(pairs, words[figure], strict=True), start=1):
            a, b = (values[cell] for cell in pair)
            yield Finding(
                f"table-{table}-{number}", claim.format(part), figure, unit, *pair,
                a.value, b.value, a.source,
            )  # fmt: skip


def _quantiles() -> Iterator[Finding]:
    words = {
        0.75: "Three of four calls of the database API end sooner on Redis than on MySQL",
        0.9: "The slowest tenth of the calls takes longer on Redis than on MySQL",
    }
    by: dict[tuple[str, float], Quantile] = {(q.backend, q.share): q for q in paper.QUANTILES}
    for share, claim in words.items():
        redis, mysql = by[REDIS, share], by[MYSQL, share]
        yield Finding(
            f"quantile-{share * 100:.0f}", claim, f"call_p{share * 100:.0f}_ms", "ms",
            Cell(REDIS), Cell(MYSQL), redis.at_ms, mysql.at_ms, redis.source,
        )  # fmt: skip


def _many_sites() -> Iterator[Finding]:
    for table in (3, 4):
        values = {published_cell(value): value for value in paper.published(table)}
        latency_ms = next(iter(values)).latency_ms or 0.0

        def made(
            key: str,
            claim: str,
            a: Cell,
            b: Cell,
            values: dict[Cell, Published] = values,
            table: int = table,
        ) -> Finding:
            return Finding(
                f"table-{table}-{key}", claim, "duration_s", "s", a, b,
                values[a].value, values[b].value, values[a].source,
            )  # fmt: skip

        at = f"{latency_ms:g} ms"
        clusters = sorted({cell.clusters for cell in values})
        redis = {n: Cell(REDIS, n, 0, n, latency_ms) for n in clusters}
        mysql = {n: Cell(MYSQL, 1, 0, n, latency_ms) for n in clusters}
        galera = {n: Cell(GALERA, n, 0, n, latency_ms) for n in clusters}
        for n in clusters:
            when = "later" if values[redis[n]].value > values[mysql[n]].value else "sooner"
            yield made(
                f"redis-{n}", f"With {n} sites at {at} the VMs are there {when} on Redis than on "
                "MySQL", redis[n], mysql[n],
            )  # fmt: skip
        yield made("saturation", f"MySQL saturates between 6 and 8 sites at {at}",
                   mysql[8], mysql[6])  # fmt: skip
        yield made("scaling", f"More sites make Redis faster at {at}", redis[8], redis[2])
        for n in clusters:
            if galera[n] in values:
                claim = f"With {n} sites at {at} the VMs are there later on Galera than on MySQL"
                yield made(f"galera-{n}", claim, galera[n], mysql[n])


def _zones() -> Iterator[Finding]:
    values = {published_cell(value): value for value in paper.published(6)}
    for n in (4, 8):
        with_zones, without = (Cell(REDIS, n, 0, n, 10.0, each) for each in (True, False))
        a, b = values[with_zones], values[without]
        slower = "slower" if a.value > b.value else "faster"
        yield Finding(
            f"zones-{n}", f"Zones make {n} sites at 10 ms {slower} on Redis", "duration_s", "s",
            with_zones, without, a.value, b.value, a.source,
        )  # fmt: skip


FINDINGS: tuple[Finding, ...] = (*_one_site(), *_quantiles(), *_many_sites(), *_zones())


# ---------------------------------------------------------------- what runs say


def judge(runs: Sequence[Measurements]) -> list[Judged]:
    """Return each published finding with what complete runs of VMs say of it."""
    usable = [
        run
        for run in runs
        if run.unit == "VM" and not run.record.is_partial and not run.record.is_canned
        and not run.record.is_verification
    ]  # fmt: skip
    return [_judged(finding, usable) for finding in FINDINGS]


def _judged(finding: Finding, runs: Sequence[Measurements]) -> Judged:
    by_terms: dict[Any, tuple[list[Measurements], list[Measurements]]] = {}
    for run in runs:
        for place, cell in enumerate((finding.a, finding.b)):
            if fits(cell, run.record) and _value(finding, run) is not None:
                by_terms.setdefault(_terms(run), ([], []))[place].append(run)
    both = [sides for sides in by_terms.values() if all(sides)]
    if not both:
        return Judged(finding, "open")
    a, b = max(both, key=lambda sides: (min(map(len, sides)), _newest(sides)))
    points_a, points_b = ([_value(finding, run) or math.nan for run in side] for side in (a, b))
    ratio = _mean(points_a) / _mean(points_b)
    interval = None
    if min(len(points_a), len(points_b)) > 1:
        random = np.random.default_rng([SEED, *finding.key.encode()])
        mean = statistics.geometric_mean
        draws = statistics.resampled(points_a, mean, random)
        draws = draws / statistics.resampled(points_b, mean, random)
        at_best = statistics.attainable(len(points_a), len(points_b))
        interval = statistics.interval_of(draws, min(len(points_a), len(points_b)), at_best)
    return Judged(
        finding, _verdict(finding.published, ratio, interval), tuple(a), tuple(b),
        _mean(points_a), _mean(points_b), ratio, interval, _caveats(a, b),
    )  # fmt: skip


def _terms(run: Measurements) -> Any:
    """What two runs have to have in common, so that their figures can stand beside each other."""
    record = run.record
    machine = record.machine
    return (
        record.vms.asked, record.time_scale, machine.cpus, machine.cpu_model, machine.provider,
        record.options.get("nics", 0), str(record.options.get("workers")),
    )  # fmt: skip


def _newest(sides: tuple[list[Measurements], list[Measurements]]) -> str:
    return max(run.record.started for side in sides for run in side)


def _value(finding: Finding, run: Measurements) -> float | None:
    value = run.figures.get(finding.figure)
    if value is None or math.isnan(value) or value <= 0:
        return None
    return float(value)


def _mean(points: Sequence[float]) -> float:
    return float(statistics.geometric_mean(np.asarray(points, dtype=np.float64)))


def _verdict(published: float, ratio: float, interval: Interval | None) -> Verdict:
    """Say whether a ratio is on the same side of 1 as the published one."""
    is_equal = abs(ratio - 1) < _NEAR if interval is None else interval.holds(1)
    if abs(published - 1) < _NEAR:  # that there is no difference was the finding
        return "holds" if is_equal or abs(ratio - 1) < _NEAR else "does not hold"
    if is_equal:
        return "no difference"
    return "holds" if (ratio > 1) == (published > 1) else "does not hold"


def _caveats(a: Sequence[Measurements], b: Sequence[Measurements]) -> tuple[str, ...]:
    runs = [*a, *b]
    caveats = []
    if any(run.record.is_busy for run in runs):
        caveats.append(f"{BUSY} machine")
    if len(a) == len(b) == 1:
        caveats.append("one run each")
    asked = {run.record.vms.asked for run in runs}
    if asked != {paper.VMS}:
        caveats.append(f"{', '.join(map(str, sorted(asked)))} VMs")
    return tuple(caveats)


# ---------------------------------------------------------------- as a table


def words_on(judged: Judged) -> str:
    """Return the verdict with what has to be said beside it."""
    return judged.verdict + (f" ({'; '.join(judged.caveats)})" if judged.caveats else "")


def table(judged: Sequence[Judged]) -> Table:
    """Return findings as a table, a row for each."""
    rows = []
    for each in judged:
        finding, interval = each.finding, each.interval
        row: dict[str, Any] = {
            "finding": finding.claim,
            "a": words_of(finding.a),
            "b": words_of(finding.b),
            "published_ratio": finding.published,
            "ratio": math.nan if each.ratio is None else each.ratio,
            "low": math.nan if interval is None else interval.low,
            "high": math.nan if interval is None else interval.high,
            "verdict": words_on(each),
        }
        rows.append(row)
    return Table(
        "findings",
        "What was found in 2016, and what is measured today",
        pd.DataFrame(rows),
        (
            "Each ratio is A's figure over B's. A finding holds where today's ratio is on the same "
            "side of 1 as the published one, its interval included.",
        ),
    )
