"""What is in a message of ours: a line about it, and what it carries.  Pure.

The line is a list in JSON: what the message is, its identifier, and what else its kind has.  It is
read by the connection's thread; what the message carries is only read by who works on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hermes.errors import ProtocolError

VERSION = 1
# A request that is answered; one that isn't; one to all servers of a topic.
CALL, CAST, FANOUT = "call", "cast", "fanout"
# What comes back: the answer; a sign of life; that a cast was taken, or a call is worked on; and of
# a request that was asked about, that nobody here knows it.
REPLY, HEARTBEAT, TAKEN, UNKNOWN = "reply", "heartbeat", "taken", "unknown"
# Whether a request is known, asked of all workers of a topic; and who they are.
PROBE, WHO, HERE = "probe", "who", "here"
_KINDS = frozenset((CALL, CAST, FANOUT, REPLY, HEARTBEAT, TAKEN, UNKNOWN, PROBE, WHO, HERE))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message: `more` is of its kind (of a call, the seconds between its signs of life)."""

    kind: str
    id: str
    more: Any = None
    body: bytes = b""


def pack(kind: str, identifier: str, more: Any = None, body: bytes = b"") -> bytes:
    """Return a message as bytes."""
    line = [VERSION, kind, identifier] if more is None else [VERSION, kind, identifier, more]
    return json.dumps(line, separators=(",", ":")).encode() + b"\n" + body


def unpack(data: bytes) -> Envelope:
    """Return what bytes say; raises ProtocolError where nobody of ours wrote them."""
    line, _, body = data.partition(b"\n")
    try:
        version, kind, identifier, *more = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        raise ProtocolError(f"no message of ours: {line[:80]!r}") from None
    if version != VERSION or kind not in _KINDS or not isinstance(identifier, str):
        raise ProtocolError(f"no message of ours: {line[:80]!r}")
    return Envelope(kind, identifier, more[0] if more else None, body)
