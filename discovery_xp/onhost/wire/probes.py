"""Records of the probes inside services: tuples in a service, lines with tabs in its file.

    c  at  ms  api  function  lazy  error     a call of Nova's database API
    r  at  ms  method  path  status           a REST request that was answered
    s  from  to  kind  count  trips  sent  received  ms      statements of about a second
    p  ...                                    a span of a request, see `wire.spans`
    #  discovery-probes  1  pid  program      the first line of each file
    v  from  to  metric  value               what a driver counts of itself, in about a second
    !  at  dropped  errors  last error        in a file of its own: what was missed so far
    @  unit  pid                              put before the lines of a process when sent

Times are seconds since 1970.  Services import this module: it is kept light.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import checks
from . import series, spans

CALL, REQUEST, STATEMENT, COUNT = "c", "r", "s", "v"
NOTE, HEADER, PROCESS = "!", "#", "@"
FORMAT = 1

# By tag: how many fields follow it, of the lines that are parsed.
_FIELDS = {
    PROCESS: 2, CALL: 6, REQUEST: 5, STATEMENT: 8, COUNT: 4, NOTE: 4, spans.SPAN: spans.FIELDS,
}  # fmt: skip

# Which of Nova's database APIs a call belongs to, and what kind a statement is of.
APIS = ("main", "api")
KINDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT", "ROLLBACK", "OTHER")
# No statement, but the answer to one: another transaction was faster, here or on another node of
# Galera, and OpenStack does this one again.
DEADLOCK = "DEADLOCK"
ALL_KINDS = (*KINDS, DEADLOCK)

# Of what one host complains of, so many are told.
MOST_PROBLEMS = 20
_LONGEST_WORDS = 2000

Row = dict[str, Any]

_UNWANTED = str.maketrans("\t\n\r", "   ")


# ---------------------------------------------------------------- written on hosts


def header(pid: int, program: Sequence[str]) -> str:
    """Return the first line of a file."""
    name = (program[0] if program else "").translate(_UNWANTED)
    return f"{HEADER}\tdiscovery-probes\t{FORMAT}\t{pid}\t{name}\n"


def note(at: float, dropped: int, errors: int, last: str) -> str:
    """Return the line that says how much is missing, and why."""
    return f"{NOTE}\t{at:.6f}\t{dropped}\t{errors}\t{last.translate(_UNWANTED)}\n"


def process(unit: str, pid: str) -> str:
    """Return the line that says whose the lines after it are."""
    return f"{PROCESS}\t{unit}\t{pid}\n"


def encode(records: Iterable[tuple[Any, ...]], since: float, now: float) -> str:
    """Return the lines of `records`; statements are summed up by kind, counts by metric."""
    written: list[str] = []
    counted: dict[str, int] = {}
    sums: dict[str, list[float]] = {}
    for record in records:
        tag = record[0]
        if tag == STATEMENT:
            _, kind, count, trips, sent, received, seconds = record
            total = sums.setdefault(kind, [0, 0, 0, 0, 0.0])
            total[0] += count
            total[1] += trips
            total[2] += sent
            total[3] += received
            total[4] += seconds
        elif tag == CALL:
            _, at, seconds, api, function, lazy, error = record
            written.append(
                f"{CALL}\t{at:.6f}\t{seconds * 1000:.3f}\t{api}\t{function}\t{lazy:d}\t{error}\n"
            )
        elif tag == spans.SPAN:
            written.append(spans.encode(record))
        elif tag == COUNT:
            _, metric, number = record
            counted[metric] = counted.get(metric, 0) + number
        elif tag == REQUEST:
            _, ended, seconds, method, path, status = record
            path = template(str(path)).translate(_UNWANTED)
            written.append(
                f"{REQUEST}\t{ended - seconds:.6f}\t{seconds * 1000:.3f}\t{method}\t{path}\t"
                f"{str(status).split(' ', 1)[0]}\n"
            )
    for kind, (count, trips, sent, received, seconds) in sums.items():
        written.append(
            f"{STATEMENT}\t{since:.6f}\t{now:.6f}\t{kind}\t{count}\t{trips}\t{sent}\t{received}\t"
            f"{seconds * 1000:.3f}\n"
        )
    for metric, number in counted.items():
        written.append(f"{COUNT}\t{since:.6f}\t{now:.6f}\t{metric}\t{number}\n")
    return "".join(written)


# Numbers, UUIDs with and without hyphens, and what users may call as they like.
_ID = re.compile(r"(?<=/)(?:\d+|[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")
_NAMED = re.compile(
    r"(?<=/)(os-keypairs|flavors|domains|regions|traits|resource_classes|tags|metadata|"
    r"os-extra_specs)/(?!detail(?:/|$))[^/]+"
)


def template(path: str) -> str:
    """Return a request's path with `{id}` for every identifier, without its query."""
    path = path.partition("?")[0]
    return _NAMED.sub(r"\1/{id}", _ID.sub("{id}", path))


def is_within(line: str, since: float, until: float) -> bool:
    """Tell whether a line belongs to a window.

    A call, a request or a span belongs to it by its start; statements, which are summed up, where
    any of them may.
    """
    fields = line.split("\t", 3)
    try:
        if fields[0] in (CALL, REQUEST, spans.SPAN):
            return since <= float(fields[1]) < until
        if fields[0] in (STATEMENT, COUNT):
            return float(fields[1]) < until and since < float(fields[2])
    except (IndexError, ValueError):
        return False
    return False


# ---------------------------------------------------------------- parsed by who asked


def parse(
    text: str, place: Mapping[str, str], complain: Callable[[str], None]
) -> Iterator[tuple[str, Row]]:
    """Yield (table, row) of the lines that the probes of one host wrote.

    What drivers count of themselves is no table, but `counts`: rows of the table `series` with
    how far a counter came until then; `series.added` makes counters of them.

    `place` is the host and its site, part of every row.  `complain` is told what the probes
    missed.  Raises Unfit for any other lines.
    """
    complaints = 0
    unit, pid = "", 0
    sums: dict[tuple[str, int, str], list[float]] = {}
    for line in text.split("\n"):
        tag, *fields = line.split("\t")
        if tag not in _FIELDS:
            continue
        if len(fields) != _FIELDS[tag]:
            raise checks.Unfit(f"{checks.shown(line)} is no record")
        if tag == PROCESS:
            unit, pid = checks.name(fields[0]), checks.whole_of(fields[1])
        elif tag == CALL:
            yield "calls", _call(unit, place, fields)
        elif tag == REQUEST:
            yield "requests", _request(unit, place, fields)
        elif tag == spans.SPAN:
            yield "spans", spans.row(unit, place, fields)
        elif tag == STATEMENT:
            _, _, kind, *numbers = fields
            key = unit, pid, checks.one_of(kind, ALL_KINDS)
            total = sums.setdefault(key, [0.0] * len(numbers))
            sums[key] = [
                old + checks.number_of(new) for old, new in zip(total, numbers, strict=True)
            ]
        elif tag == COUNT:
            _, until, metric, number = fields
            yield "counts", _count(unit, place, until, metric, number)
        elif complaints < MOST_PROBLEMS:
            complaints += 1
            _, *words = fields
            dropped, errors, last = (checks.name(each) for each in words)
            complain(
                f"{unit} on {place['host']}: {dropped} records dropped, {errors} errors of the "
                f"probes since it started{f', the last: {last}' if last else ''}"
            )
    for (service, process_id, kind), totals in sums.items():
        yield "statements", _statements(service, place, process_id, kind, totals)


def _call(unit: str, place: Mapping[str, str], fields: Sequence[str]) -> Row:
    at, ms, api, function, lazy, error = fields
    return {
        "at": checks.number_of(at),
        "service": unit,
        **place,
        "function": checks.name(function),
        "api": checks.one_of(api, APIS),
        "duration_ms": checks.number_of(ms),
        "lazy": lazy == "1",
        "error": checks.text(error, _LONGEST_WORDS) or None,
    }


def _request(unit: str, place: Mapping[str, str], fields: Sequence[str]) -> Row:
    at, ms, method, path, status = fields
    return {
        "at": checks.number_of(at),
        "service": unit,
        **place,
        "method": checks.name(method),
        "path": checks.text(path, _LONGEST_WORDS),
        "status": checks.whole_of(status),
        "duration_ms": checks.number_of(ms),
    }


def _count(unit: str, place: Mapping[str, str], until: str, metric: str, number: str) -> Row:
    return series.row(
        place,
        checks.number_of(until),
        unit,
        checks.one_of(metric, series.COUNTED_INSIDE),
        float(checks.whole_of(number)),
    )


def _statements(
    unit: str, place: Mapping[str, str], pid: int, kind: str, totals: Sequence[float]
) -> Row:
    count, trips, sent, received, milliseconds = totals
    return {
        "service": unit,
        **place,
        "pid": pid,
        "kind": kind,
        "count": checks.whole(int(count)),
        "round_trips": checks.whole(int(trips)),
        "bytes_sent": checks.whole(int(sent)),
        "bytes_received": checks.whole(int(received)),
        "duration_ms": round(checks.number(milliseconds), 3),
    }
