"""What a record is: a tuple in the service, a line of fields with tabs in the file.

c  at  ms  api  function  lazy  error        a call of Nova's database API
r  at  ms  method  path  status              a REST request that was answered
s  from  to  kind  count  trips  sent  received  ms      statements of about a second
#  discovery-probes  1  pid  program         first line of each file
!  at  dropped  errors  last error           in a file of its own: what was missed so far
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

CALL, REQUEST, STATEMENT, NOTE, HEADER = "c", "r", "s", "!", "#"
FORMAT = 1

_UNWANTED = str.maketrans("\t\n\r", "   ")


def header(pid: int, program: Sequence[str]) -> str:
    """The first line of a file."""
    name = (program[0] if program else "").translate(_UNWANTED)
    return f"{HEADER}\tdiscovery-probes\t{FORMAT}\t{pid}\t{name}\n"


def note(at: float, dropped: int, errors: int, last: str) -> str:
    """How much is missing, and why."""
    return f"{NOTE}\t{at:.6f}\t{dropped}\t{errors}\t{last.translate(_UNWANTED)}\n"


def encode(records: Iterable[tuple[Any, ...]], since: float, now: float) -> str:
    """Lines of `records`; statements are summed up by kind."""
    written: list[str] = []
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
    return "".join(written)


# Numbers, UUIDs with and without hyphens, and what users may call as they like.
_ID = re.compile(r"(?<=/)(?:\d+|[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")
_NAMED = re.compile(
    r"(?<=/)(os-keypairs|flavors|domains|regions|traits|resource_classes|tags|metadata|"
    r"os-extra_specs)/(?!detail(?:/|$))[^/]+"
)


def template(path: str) -> str:
    """A request's path with `{id}` for every identifier, without its query."""
    path = path.partition("?")[0]
    return _NAMED.sub(r"\1/{id}", _ID.sub("{id}", path))
