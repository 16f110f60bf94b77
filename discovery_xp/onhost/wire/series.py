"""Time series of a window: what is sampled on each host, and the lines that say it.

A line is `at  subject  metric  value`, with tabs: seconds since 1970, and what is measured
of what.  The subject is a unit, a service by its port, a queue, or the host itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import checks

# The subject of what is measured of a whole host; and of all queues of the message bus together.
HOST, ALL_QUEUES = "host", "(all)"
# Of the sampler itself.
SAMPLER = "sampler"


@dataclass(frozen=True)
class Metric:
    """What is sampled: `is_counter` is true of one that only grows; `words` say what it is."""

    is_counter: bool
    words: str


def _counter(words: str) -> Metric:
    return Metric(True, words)


def _gauge(words: str) -> Metric:
    return Metric(False, words)


# By the name that the table `series` has for it.  Counters begin anywhere: only differences mean
# something.  Names end with the unit where there is one.
METRICS: Mapping[str, Metric] = {
    "cpu_s": _counter("CPU time of a unit's processes, those that have ended included."),
    "memory_bytes": _gauge("Resident memory of a unit's processes; shared pages count for each."),
    "cpu_periods": _counter("Periods in which a limit of CPU time was in force and used."),
    "throttled_periods": _counter("Periods in which that limit was reached."),
    "throttled_s": _counter("Time that processors' run queues stood still at that limit, added."),
    "connections": _gauge("TCP connections that are open at a service's ports."),
    "load_1min": _gauge("Load average of the last minute."),
    "queue_ready": _gauge("Messages that wait in a queue."),
    "queue_unacknowledged": _gauge("Messages that were delivered and not acknowledged."),
    "redis_commands": _counter("Commands that Redis has processed."),
    "redis_connections": _gauge("Clients that are connected to Redis."),
    "redis_memory_bytes": _gauge("Memory that Redis has allocated."),
    "redis_keys": _gauge("Keys that Redis holds."),
    "redis_hits": _counter("Reads of keys that were there."),
    "redis_misses": _counter("Reads of keys that weren't there."),
    "db_questions": _counter("Statements that clients have sent to MariaDB."),
    "db_commits": _counter("COMMIT statements."),
    "db_rollbacks": _counter("ROLLBACK statements."),
    "db_row_lock_waits": _counter("Times that InnoDB waited for a row's lock."),
    "db_row_lock_wait_s": _counter("Time that InnoDB waited for rows' locks, added."),
    "db_deadlocks": _counter("Deadlocks of InnoDB."),
    "db_connections": _gauge("Clients that are connected to MariaDB."),
    "db_threads_running": _gauge("Threads of MariaDB that don't sleep."),
    "db_certification_failures": _counter("Transactions that failed Galera's certification."),
    "db_brute_force_aborts": _counter("Local transactions that replicated ones have aborted."),
    "db_flow_control_paused_s": _counter("Time that Galera's flow control stopped replication."),
    "rome_commits": _counter("Transactions with writes that ROME has committed."),
    "rome_conflicts": _counter("Transactions that ROME gave up for those of others."),
    "rome_retries": _counter("Runs of a transaction's statements once more, before it committed."),
}

# What the services with ROME count of themselves; see `wire.probes`.
COUNTED_INSIDE = ("rome_commits", "rome_conflicts", "rome_retries")

# A host that samples 64 units each second for a day has less than that many lines.
MOST_LINES = 2_000_000

Row = dict[str, Any]

_UNWANTED = str.maketrans("\t\n\r", "   ")


def line(at: float, subject: str, metric: str, value: float) -> str:
    """Return the line of a value."""
    number = f"{value:.6f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))
    return f"{at:.3f}\t{subject.translate(_UNWANTED)}\t{metric}\t{number}\n"


def parse(text: str, place: Mapping[str, str]) -> Iterator[Row]:
    """Yield rows of the table `series`; `place`, host and site, is a part of each.

    A last line without its end is left out: who wrote it was killed.  Raises Unfit for what
    isn't a sample.
    """
    lines = text.split("\n")[:-1]
    if len(lines) > MOST_LINES:
        raise checks.Unfit(f"{len(lines)} samples, more than {MOST_LINES}")
    for each in lines:
        fields = each.split("\t")
        if len(fields) != 4:
            raise checks.Unfit(f"{checks.shown(each)} is no sample")
        at, subject, metric, value = fields
        number = checks.number_of(value)
        if number < 0:
            raise checks.Unfit(f"{checks.shown(value)} is less than nothing")
        yield row(place, checks.number_of(at), checks.name(subject),
                  checks.one_of(metric, tuple(METRICS)), number)  # fmt: skip


def added(increments: Iterable[Row], since: float, until: float, every_s: float) -> Iterator[Row]:
    """Yield counters of what increments say, a row for each that came and `every_s` of a window.

    A counter is of a host, a service and a metric, whose processes are added up; it begins at 0.
    What was counted beyond the window's ends is in its first and last row.
    """
    last = max(0, math.ceil((until - since) / every_s) - 1)
    sums: dict[tuple[str, str, str, str], list[float]] = {}
    for each in increments:
        key = each["host"], each["site"], each["service"], each["metric"]
        parts = sums.setdefault(key, [0.0] * (last + 1))
        place = math.ceil((each["at"] - since) / every_s) - 1
        parts[min(last, max(0, place))] += each["value"]
    for (host, site, service, metric), parts in sums.items():
        total = 0.0
        yield row({"host": host, "site": site}, since, service, metric, total)
        for number, part in enumerate(parts, start=1):
            total += part
            at = min(until, since + number * every_s)
            yield row({"host": host, "site": site}, at, service, metric, total)


def row(place: Mapping[str, str], at: float, subject: str, metric: str, value: float) -> Row:
    """Return a row of the table."""
    return {
        "at": at,
        "host": place["host"],
        "site": place["site"],
        "service": subject,
        "metric": metric,
        "value": value,
    }
