"""NATS's client protocol: bytes to what they say, and back.  Pure.

Lines end with CR LF; messages have their payload behind their line.  What a server may send is
bounded, so that a stranger on its port can't fill the memory of a service.  Source: "Client
Protocol" in the documentation of NATS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.errors import ProtocolError

END = b"\r\n"
PING, PONG = b"PING\r\n", b"PONG\r\n"
# INFO names all servers of a cluster; no other line is long.
MOST_LINE = 1 << 20
MOST_PAYLOAD = 64 << 20  # more than any server is configured for

# The status of a message whose subject nobody listens to, and where requests for more have ended.
NO_RESPONDERS = 503
_HEADERS = b"NATS/1.0"


@dataclass(frozen=True, slots=True)
class Info:
    """What a server says of itself, first and whenever that changes."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a subscription; `status` is 0 unless the server itself says something."""

    subject: str
    sid: int
    reply: str
    payload: bytes
    status: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """The server asks whether this client is there."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping of ours."""


@dataclass(frozen=True, slots=True)
class Error:
    """What the server doesn't like; it often hangs up afterwards."""

    words: str


Event = Info | Message | Ping | Pong | Error


class Parser:
    """Takes bytes as they come, and yields what they say once it is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Of a message whose payload isn't whole: its line's fields, and the payload's sizes.
        self._head: tuple[str, int, str] | None = None
        self._header_size = self._size = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Yield all that is whole now; raises ProtocolError on what no server says."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while True:
                if self._head is not None:
                    if len(buffer) - at < self._size + 2:
                        return
                    yield self._message(bytes(buffer[at : at + self._size]))
                    at += self._size + 2
                    continue
                end = buffer.find(END, at)
                if end < 0:
                    if len(buffer) - at > MOST_LINE:
                        raise ProtocolError(f"a line of more than {MOST_LINE} bytes")
                    return
                event = self._line(bytes(buffer[at:end]))
                at = end + 2
                if event is not None:
                    yield event
        finally:
            if at:
                del buffer[:at]

    def _line(self, line: bytes) -> Event | None:
        """Return what a line says; None for the head of a message, and for "+OK"."""
        word, _, rest = line.partition(b" ")
        try:
            if word == b"MSG":
                subject, sid, *reply, size = rest.split()
                self._begin(subject, sid, reply, b"0", size)
                return None
            if word == b"HMSG":
                subject, sid, *reply, header_size, size = rest.split()
                self._begin(subject, sid, reply, header_size, size)
                return None
            if word == b"INFO":
                values = json.loads(rest)
                if isinstance(values, dict):
                    return Info(values)
        except (ValueError, RecursionError):
            raise ProtocolError(f"no line of NATS: {line[:80]!r}") from None
        if word == b"PING":
            return Ping()
        if word == b"PONG":
            return Pong()
        if word == b"+OK":
            return None
        if word == b"-ERR":
            return Error(rest.decode(errors="replace").strip().strip("'"))
        raise ProtocolError(f"no line of NATS: {line[:80]!r}")

    def _begin(
        self, subject: bytes, sid: bytes, reply: Sequence[bytes], header: bytes, size: bytes
    ) -> None:
        if len(reply) > 1:
            raise ValueError
        self._header_size, self._size = int(header), int(size)
        if not 0 <= self._header_size <= self._size <= MOST_PAYLOAD:
            raise ValueError
        self._head = subject.decode(), int(sid), reply[0].decode() if reply else ""

    def _message(self, data: bytes) -> Message:
        assert self._head is not None
        subject, sid, reply = self._head
        self._head = None
        if not self._header_size:
            return Message(subject, sid, reply, data)
        status = _status_of(data[: self._header_size])
        return Message(subject, sid, reply, data[self._header_size :], status)


def _status_of(header: bytes) -> int:
    """Return the number on a header's first line; 0 where there is none."""
    first = header.partition(END)[0]
    if not first.startswith(_HEADERS):
        raise ProtocolError(f"no headers of NATS: {first[:80]!r}")
    word = first[len(_HEADERS) :].strip().partition(b" ")[0]
    return int(word) if word.isdigit() else 0


# ---------------------------------------------------------------- what a client says


def connect(options: Mapping[str, Any]) -> bytes:
    """Return the line by which a client says who it is."""
    return b"CONNECT " + json.dumps(options, separators=(",", ":")).encode() + END


def publish(subject: str, payload: bytes, reply: str = "", identifier: str = "") -> bytes:
    """Return a message to a subject; answers go to `reply`.

    A stream takes messages of one `identifier` once.
    """
    middle = f" {reply} " if reply else " "
    if not identifier:
        return f"PUB {subject}{middle}{len(payload)}\r\n".encode() + payload + END
    header = f"NATS/1.0\r\nNats-Msg-Id: {identifier}\r\n\r\n".encode()
    sizes = f"{len(header)} {len(header) + len(payload)}"
    return f"HPUB {subject}{middle}{sizes}\r\n".encode() + header + payload + END


def subscribe(subject: str, sid: int, group: str = "") -> bytes:
    """Return a subscription; of those with one `group` a message goes to one."""
    middle = f" {group} " if group else " "
    return f"SUB {subject}{middle}{sid}\r\n".encode()


def unsubscribe(sid: int) -> bytes:
    """Return the end of a subscription."""
    return f"UNSUB {sid}\r\n".encode()
