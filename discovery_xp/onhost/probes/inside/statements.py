"""SQL statements and database round trips of a process, counted by its drivers.

PyMySQL is counted at the wire: each command that is sent and answered is a round trip.  ROME
counts itself.  Several counters may watch one driver, which is patched once.
Another driver joins by a line in DRIVERS: a module, and what makes it call `count`.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...wire.probes import DEADLOCK, KINDS, STATEMENT
from .recorder import Recorder

# (kind, statements, round trips, bytes sent, bytes received, seconds)
Count = Callable[[str, int, int, int, int, float], None]


def patches(recorder: Recorder) -> Mapping[str, Callable[[ModuleType], None]]:
    """Return what this probe does to which module: one for each driver."""

    def count(kind: str, number: int, trips: int, sent: int, received: int, seconds: float) -> None:
        recorder.record((STATEMENT, kind, number, trips, sent, received, seconds))

    return {
        module: functools.partial(watch, recorder=recorder, count=count)
        for module, watch in DRIVERS.items()
    }


class Asked(threading.local):
    """Whom this thread's driver asked for what is counted right now: an address."""

    peer = ""


asked = Asked()


# ---------------------------------------------------------------- drivers that count themselves


def watch_own_counters(module: ModuleType, recorder: Recorder, count: Count) -> None:
    """Join a driver whose module calls each of its list `observers` with what `Count` takes."""
    module.observers.append(count)


# ---------------------------------------------------------------- PyMySQL

_BY_START = {
    **{kind[:6].encode(): kind for kind in KINDS[:-1]},
    **{kind[:6].lower().encode(): kind for kind in KINDS[:-1]},
}
_COM_QUERY = 3


class Wire:
    """What went over one connection since its last command was counted."""

    __slots__ = ("file", "kind", "received", "sent", "started", "writes")

    def __init__(self) -> None:
        self.kind = "OTHER"
        self.sent = self.received = self.writes = 0
        self.started = 0.0  # 0 while no command waits for its answer
        self.file: Any = None  # what is read from; another one once TLS begins


def kind_of(command: int, sql: Any) -> str:
    """Return the kind of a command as PyMySQL sends it.

    Statements are text or bytes by then, those of many rows a bytearray.
    """
    if command != _COM_QUERY:
        return "OTHER"
    kind = _BY_START.get(_as_bytes(sql[:6]))
    if kind is None:
        kind = _BY_START.get(_as_bytes(sql[:64]).lstrip(b" \t\r\n(")[:6].upper(), "OTHER")
    return kind


def _as_bytes(text: str | bytes | bytearray) -> bytes:
    return text.encode(errors="replace") if isinstance(text, str) else bytes(text)


def watch_pymysql(module: ModuleType, recorder: Recorder, count: Count) -> None:
    """Count at the methods that every command goes through, and at the socket."""
    counters: list[Count] | None = module.__dict__.get("_discovery_counters")
    if counters is not None:
        counters.append(count)
        return
    counters = module._discovery_counters = [count]  # type: ignore[attr-defined]
    connection = module.Connection
    clock = time.perf_counter

    def counted(self: Any, trips: int, wire: Wire) -> None:
        seconds = clock() - wire.started
        asked.peer = getattr(self, "host", None) or ""
        for counter in counters:
            counter(wire.kind, 1, trips, wire.sent, wire.received, seconds)
        wire.started = 0.0
        wire.sent = wire.received = 0

    def wire_of(self: Any) -> Wire:
        wire: Wire | None = self.__dict__.get("_discovery_wire")
        if wire is None:
            wire = self._discovery_wire = Wire()
        if wire.file is not self._rfile:
            _count_reads(self._rfile, wire)
            wire.file = self._rfile
        return wire

    def answered(self: Any) -> None:
        wire: Wire | None = self.__dict__.get("_discovery_wire")
        if wire is None or not wire.started:
            return
        counted(self, 1, wire)

    def before(name: str, look: Callable[..., None]) -> None:
        original = getattr(connection, name)

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                look(self, *args, **kwargs)
            except Exception as error:
                recorder.failed(error)
            return original(self, *args, **kwargs)

        setattr(connection, name, method)

    def after(name: str, look: Callable[[Any], None]) -> None:
        original = getattr(connection, name)

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(self, *args, **kwargs)
            finally:
                try:
                    look(self)
                except Exception as error:
                    recorder.failed(error)

        setattr(connection, name, method)

    def command_begins(self: Any, command: int, sql: Any) -> None:
        wire = wire_of(self)
        wire.kind = kind_of(command, sql)
        wire.started = clock()

    def bytes_go(self: Any, data: Any) -> None:
        wire = wire_of(self)
        wire.sent += len(data)
        wire.writes += 1

    def connecting(self: Any, *_args: Any, **_kwargs: Any) -> None:
        wire = self._discovery_wire = Wire()
        wire.started = clock()

    def greeting(self: Any, *_args: Any) -> None:
        wire_of(self)  # the socket is there: count from its first byte

    def logged_in(self: Any) -> None:
        # The connection itself, the server's greeting, and an answer to all that we wrote.
        wire = wire_of(self)
        counted(self, 2 + wire.writes, wire)

    before("_execute_command", command_begins)
    before("_write_bytes", bytes_go)
    before("connect", connecting)
    before("_get_server_information", greeting)
    after("_request_authentication", logged_in)
    # One of the two reads the answer to whatever was sent.
    after("_read_query_result", answered)
    after("_read_ok_packet", answered)


_counted: dict[type, type] = {}


def _count_reads(file: Any, wire: Wire) -> None:
    """Count the bytes that a buffered file gets from its socket.

    Here they come by packets of the network; PyMySQL's own reads are two for each row.
    """
    raw = getattr(file, "raw", None)
    if raw is None or type(raw) in _counted.values():
        return
    kind = type(raw)
    if kind not in _counted:

        class Counted(kind):  # type: ignore[misc, valid-type]
            def readinto(self, buffer: Any) -> Any:
                got = super().readinto(buffer)
                if got:
                    self.discovery_wire.received += got
                return got

        _counted[kind] = Counted
    raw.discovery_wire = wire
    raw.__class__ = _counted[kind]


_ER_LOCK_DEADLOCK = 1213


def watch_deadlocks(module: ModuleType, recorder: Recorder, count: Count) -> None:
    """Count transactions that the database gave up: what it says is raised by one function."""
    original = module.raise_mysql_exception

    def counted(data: bytes) -> None:
        try:
            if int.from_bytes(data[1:3], "little") == _ER_LOCK_DEADLOCK:
                count(DEADLOCK, 1, 0, 0, 0, 0.0)
        except Exception as error:
            recorder.failed(error)
        original(data)

    module.raise_mysql_exception = counted  # type: ignore[attr-defined]


DRIVERS: Mapping[str, Callable[..., None]] = {
    "pymysql.connections": watch_pymysql,
    "pymysql.err": watch_deadlocks,
    "rome.driver": watch_own_counters,
}
