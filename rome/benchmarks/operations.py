"""Time and round trips of Nova's and Placement's own functions, on ROME beside MariaDB.

Both hold the same cloud (48 hosts, 1300 instances).  Each operation runs a few times on one,
then on the other, and so on in rounds, the order changing; the medians are compared.  Without
delay the workers are connected to the servers directly, else through a proxy that delays.

    python -m benchmarks.operations [--delays 0,10,50] [--only PATTERN] [--rounds N] [--control]

With --etcd, ROME on Redis is compared with ROME on one member of etcd.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import backends, machine, proxy, tables
from .backends import ETCD, MARIADB, ROME, Backend, Failed, Python, Worker, say

BOTH = (MARIADB, ROME)
# ROME once more, where it neither uses answers again nor foresees statements; without delay.
PLAIN = "ROME, nothing reused"


@dataclass
class Measured:
    """One operation on one back end at one delay."""

    samples_ms: list[float] = field(default_factory=list)
    driver_ms: list[float] = field(default_factory=list)  # of the same runs, in the DBAPI's calls
    # Of each round, for one run:
    cpu_ms: list[float] = field(default_factory=list)  # the server's too
    turns: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)  # bytes
    received: list[float] = field(default_factory=list)
    failed: str | None = None

    @property
    def ms(self) -> float | None:
        """The median."""
        return statistics.median(self.samples_ms) if self.samples_ms else None

    @property
    def in_driver_ms(self) -> float | None:
        """The median of what the DBAPI took."""
        return statistics.median(self.driver_ms) if self.driver_ms else None


@dataclass
class Row:
    """One operation: by back end and delay."""

    name: str
    target: float
    measured: dict[str, dict[float, Measured]]

    def ratio(self, delay: float, name: str = ROME) -> float | None:
        """Time on ROME / time on MariaDB."""
        if delay not in self.measured.get(name, {}):
            return None
        ours, theirs = (self.measured[side][delay].ms for side in (name, MARIADB))
        return ours / theirs if ours is not None and theirs is not None else None

    @property
    def least(self) -> float | None:
        """That ratio without delay, if ROME's driver took no time at all."""
        if 0 not in self.measured[ROME]:
            return None
        ours, theirs = self.measured[ROME][0], self.measured[MARIADB][0]
        if ours.ms is None or ours.in_driver_ms is None or theirs.ms is None:
            return None
        return (ours.ms - ours.in_driver_ms) / theirs.ms

    def turns(self, name: str) -> float | None:
        """Round trips of one run, where there was a delay (there they are told apart best)."""
        counted = [each for it in self.measured[name].values() for each in it.turns]
        return statistics.median(counted) if counted else None

    def cpu_ms(self, name: str) -> float | None:
        """CPU of one run, the worker's and the server's."""
        used = [each for it in self.measured[name].values() for each in it.cpu_ms]
        return statistics.median(used) if used else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met at every delay; None if the operation fails on MariaDB."""
        if any(it.failed for it in self.measured[MARIADB].values()):
            return None
        ratios = [self.ratio(delay) for delay in self.measured[ROME]]
        return all(ratio is not None and ratio <= self.target for ratio in ratios)


def runs(delay: float, *, heavy: bool) -> tuple[int, int]:
    """Rounds, and how often in each: more where it is quick."""
    if delay == 0:
        return (12, 2) if heavy else (25, 4)
    if delay <= 20:
        return (5, 2) if heavy else (5, 4)
    return (3, 2)


def measure(
    running: dict[str, Backend],
    pythons: Mapping[str, Python],
    delays: list[float],
    only: str,
    rounds: int | None,
    *,
    plain: bool = True,
) -> list[Row]:
    """Measure all; `pythons` by back end, `plain`: ROME with nothing reused as well."""
    rows: list[Row] = []
    filled = False
    for delay in delays:
        workers = {name: _worker(it, pythons[name], delay) for name, it in running.items()}
        try:
            if not filled:
                for name, worker in workers.items():
                    _fill(name, worker)
                filled = True
            if plain and delay == 0 and running[ROME].scheme.startswith("rome"):
                urls = running[ROME].urls(None, "?result_cache=off&prefetch=off")
                workers[PLAIN] = Worker(pythons[ROME], "worker", urls)
            for backend in running.values():
                backend.proxy.delay(delay)
            chosen = [
                it for it in workers[MARIADB].ask("operations") if re.search(only, it["name"])
            ]
            if not chosen:
                raise Failed(f"no operation's name matches {only!r}")
            for it in chosen:
                row = next((row for row in rows if row.name == it["name"]), None)
                if row is None:
                    row = Row(it["name"], it["target"], {name: {} for name in running})
                    rows.append(row)
                many, each = runs(delay, heavy=it["heavy"])
                for name in workers:
                    row.measured.setdefault(name, {})[delay] = Measured()
                _alternate(row, running, workers, delay, rounds or many, each)
                _tell(row, delay)
        finally:
            for backend in running.values():
                backend.proxy.delay(0)
            for worker in workers.values():
                worker.close()
    return rows


def _worker(backend: Backend, python: Python, delay: float) -> Worker:
    return Worker(python, "worker", backend.urls(delay or None))


def _fill(name: str, worker: Worker) -> None:
    say(f"{name}: the services' migrations, then a cloud of 1300 instances")
    worker.ask("schemas")
    worker.ask("fill")


def _alternate(
    row: Row,
    running: dict[str, Backend],
    workers: dict[str, Worker],
    delay: float,
    rounds: int,
    each: int,
) -> None:
    """A/B/A/B; the first round warms up and does not count."""
    for turn in range(rounds + 1):
        for name in list(workers) if turn % 2 else reversed(list(workers)):
            backend = running.get(name) or running[ROME]
            measured = row.measured[name][delay]
            if measured.failed:
                continue
            try:
                workers[name].ask("prepare", name=row.name, count=each if turn else 2)
                server = backend.server
                before, cpu = backend.proxy.counts(), server.cpu_ms()
                took = workers[name].ask("run", name=row.name)
                after, server_cpu = backend.proxy.counts(), server.cpu_ms() - cpu
            except Failed as error:
                measured.failed = str(error)
                say(error.details)
                continue
            if turn == 0:
                continue
            measured.samples_ms += took["ms"]
            measured.driver_ms += took["driver_ms"]
            measured.cpu_ms.append((took["cpu_ms"] + server_cpu) / each)
            if delay:
                measured.turns.append((after.turns - before.turns) / each)
                measured.sent.append((after.sent - before.sent) / each)
                measured.received.append((after.received - before.received) / each)


def _tell(row: Row, delay: float) -> None:
    ratio = row.ratio(delay)
    say(
        f"{delay:>4g} ms  {row.name:<45}"
        + "".join(
            f" {it.ms:9.2f}" if it.ms is not None else f"   fails: {it.failed}"
            for it in (row.measured[name][delay] for name in BOTH)
        )
        + (f"  x {ratio:.2f}" if ratio is not None else "")
    )


# ---------------------------------------------------------------- what is written


def table(rows: list[Row], delays: list[float]) -> str:
    """In Markdown."""
    heads = ["operation", "MariaDB round trips", "ROME round trips"]
    heads += [f"ROME/MariaDB time at {delay:g} ms" for delay in delays]
    heads += [f"ms at {delay:g} ms: MariaDB → ROME" for delay in delays]
    extra = 0 in delays and any(PLAIN in row.measured for row in rows)
    if extra:
        heads += [
            "ms in the driver at 0 ms: MariaDB → ROME",
            "ROME/MariaDB at 0 ms if its driver took no time",
            "ROME/MariaDB at 0 ms, nothing reused",
        ]
    heads += ["CPU-ms, server's too: MariaDB → ROME", "target", "reached"]
    lines = []
    for row in rows:
        failed = next((it.failed for it in row.measured[ROME].values() if it.failed), None)
        line = [row.name, *(tables.number(row.turns(name), 1) for name in BOTH)]
        line += [tables.number(row.ratio(delay), 2) for delay in delays]
        line += [
            " → ".join(tables.number(row.measured[name][delay].ms, 1) for name in BOTH)
            for delay in delays
        ]
        if extra:
            line += [
                " → ".join(tables.number(row.measured[name][0].in_driver_ms, 1) for name in BOTH),
                tables.number(row.least, 2),
                tables.number(row.ratio(0, PLAIN), 2),
            ]
        line += [" → ".join(tables.number(row.cpu_ms(name), 1) for name in BOTH)]
        line += [f"≤ {row.target:g}", tables.verdict(row.reached)]
        if failed:
            line[-1] += f": {failed[:80]}"
        lines.append(line)
    return tables.markdown(heads, lines)


def stores_table(rows: list[Row], delays: list[float]) -> str:
    """In Markdown, where Redis stands in for MariaDB and etcd for ROME."""
    heads = ["operation", "Redis: round trips", "etcd: round trips"]
    heads += [f"etcd/Redis time at {delay:g} ms" for delay in delays]
    heads += [f"ms at {delay:g} ms: Redis → etcd" for delay in delays]
    heads += ["CPU-ms, server's too: Redis → etcd"]
    lines = []
    for row in rows:
        failed = next((it.failed for it in row.measured[ROME].values() if it.failed), None)
        line = [row.name, *(tables.number(row.turns(name), 1) for name in BOTH)]
        line += [tables.number(row.ratio(delay), 2) for delay in delays]
        line += [
            " → ".join(tables.number(row.measured[name][delay].ms, 1) for name in BOTH)
            for delay in delays
        ]
        line += [" → ".join(tables.number(row.cpu_ms(name), 1) for name in BOTH)]
        if failed:
            line[-1] += f": {failed[:80]}"
        lines.append(line)
    return tables.markdown(heads, lines)


def summary(rows: list[Row]) -> str:
    """One line."""
    judged = [row for row in rows if row.reached is not None]
    return f"{sum(bool(row.reached) for row in judged)} of {len(judged)} operations reach it"


def run(
    python: Python,
    results: Path,
    delays: list[float],
    only: str = "",
    rounds: int | None = None,
    *,
    control: bool = False,
    etcd: bool = False,
) -> list[Row]:
    """Measure, and write operations.md and operations.json (control, etcd)."""
    sides = (MARIADB, MARIADB) if control else (ROME, ETCD) if etcd else BOTH
    with backends.running(sides=sides) as running:
        used = ("Redis", "etcd") if etcd else ("MariaDB", "Redis")
        described: dict[str, Any] = machine.describe(python, used)
        trips = proxy.round_trips(delays)
        pythons = dict.fromkeys(BOTH, python)
        rows = measure(running, pythons, delays, only, rounds, plain=not etcd)
    title = "Control: MariaDB beside itself" if control else "Operations"
    if etcd:
        title = "Operations: ROME on etcd beside ROME on Redis"
    text = (
        f"# {title}\n\n{machine.in_words(described)}\n\n"
        "Round trips are turns counted by the proxy; milliseconds are medians.  A turn through "
        "the proxy took "
        + ", ".join(f"{ms} ms at {delay:g}" for delay, ms in trips.items())
        + " (at 0 the workers do not go through it).\n\n"
        + (stores_table(rows, delays) if etcd else table(rows, delays) + f"\n{summary(rows)}.\n")
    )
    tables.write(
        results,
        "control" if control else "etcd" if etcd else "operations",
        text,
        {
            **described,
            "round_trip_ms": trips,
            "operations": [asdict(row) for row in rows],
        },
    )
    return rows


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--delays", default="0,10,50", help="milliseconds of a round trip")
    parser.add_argument("--only", default="", metavar="PATTERN", help="operations by their names")
    parser.add_argument("--rounds", type=int, help="how often each side is measured in turn")
    parser.add_argument(
        "--control",
        action="store_true",
        help="a second MariaDB stands in for ROME: all ratios should be 1",
    )
    parser.add_argument(
        "--etcd", action="store_true", help="compare ROME on etcd with ROME on Redis"
    )
    options = parser.parse_args()
    try:
        delays = tables.delays(options.delays)
        tables.pattern(options.only)
        with backends.environment(options.python) as python:
            rows = run(
                python,
                options.results,
                delays,
                options.only,
                options.rounds,
                control=options.control,
                etcd=options.etcd,
            )
    except (Failed, *tables.KNOWN) as error:
        say(f"operations: {error}")
        return 2
    if options.etcd:
        sys.stdout.write(stores_table(rows, delays))
    else:
        sys.stdout.write(table(rows, delays) + f"\n{summary(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
