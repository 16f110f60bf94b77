"""Records of the probe `spans`: what a service did for one request, from when to when.

    p  at  ms  cpu_ms  queued_ms  kind  name  peer  trace  span  parent  link  count  trips  server
       error

`peer` is the address that was asked.  `trace` is OpenStack's id of the outermost request, as far as
the service knew it.  `span` and `parent` name spans of one process; `link` is what both ends of a
request or message know it by: the id of the request at the service that answers it, or the id of
the message.  `server` is the VM that a request to boot one made.  Services import this module: it
is kept light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import checks

SPAN = "p"
FIELDS = 15

# What a span is: a request answered, a request made; an RPC that is waited for, a message that
# isn't, the handling of either; work that was handed to another thread; round trips to a database
# and to memcached, summed up between two other spans.
SERVER, CLIENT, CALL, CAST, HANDLER, THREAD, DATABASE, CACHE = KINDS = (
    "server", "client", "call", "cast", "handler", "thread", "database", "cache",
)  # fmt: skip
# Those that begin a request or a message, and those that it leads to.
SENDING = (CLIENT, CALL, CAST)
RECEIVING = (SERVER, HANDLER)

_LONGEST_NAME = 200
_LONGEST_ERROR = 200
_UNWANTED = str.maketrans("\t\n\r", "   ")

Row = dict[str, Any]


def encode(record: tuple[Any, ...]) -> str:
    """Return the line of a span."""
    (_, at, seconds, cpu_s, queued_s, kind, name, peer, trace, span, parent, link, count, trips,
     server, error) = record  # fmt: skip
    words = [
        str(word)[:_LONGEST_NAME].translate(_UNWANTED)
        for word in (name, peer, trace, span, parent, link)
    ]
    times = "\t".join(f"{value * 1000:.3f}" for value in (seconds, cpu_s, queued_s))
    named = "\t".join(words)
    return f"{SPAN}\t{at:.6f}\t{times}\t{kind}\t{named}\t{count}\t{trips}\t{server}\t{error}\n"


def row(unit: str, place: Mapping[str, str], fields: Sequence[str]) -> Row:
    """Return a row of the table `spans`, its `peer` still an address; raises Unfit."""
    (at, ms, cpu_ms, queued_ms, kind, name, peer, trace, span, parent, link, count, trips, server,
     error) = fields  # fmt: skip
    return {
        "at": checks.number_of(at),
        "service": unit,
        **place,
        "kind": checks.one_of(kind, KINDS),
        "name": checks.name(name),
        "peer": checks.name(peer) or None,
        "peer_site": None,
        "trace": checks.name(trace) or None,
        "span": checks.name(span),
        "parent": checks.name(parent) or None,
        "link": checks.name(link) or None,
        "server_id": checks.name(server) or None,
        "duration_ms": checks.number_of(ms),
        "cpu_ms": checks.number_of(cpu_ms),
        "queued_ms": checks.number_of(queued_ms),
        "count": checks.whole_of(count),
        "round_trips": checks.whole_of(trips),
        "error": checks.text(error, _LONGEST_ERROR) or None,
    }
