"""Round trips to databases and to memcached, as parts of the span that waits for them."""

from __future__ import annotations

import functools
import threading
import time
from types import ModuleType
from typing import Any

from ...wire import spans as wire
from . import statements
from .current import current
from .recorder import Recorder


def watch_pymysql(recorder: Recorder, module: ModuleType) -> None:
    """Have each command of PyMySQL counted for the span of its thread."""

    def count(kind: str, _number: int, trips: int, _sent: int, _got: int, seconds: float) -> None:
        span = current()
        if span is not None:
            span.asked(wire.DATABASE, kind, statements.asked.peer, trips, seconds)

    statements.watch_pymysql(module, recorder, count)


class _Exchanges(threading.local):
    """What this thread has asked of Redis since its last statement, and waited for it."""

    trips = 0
    seconds = 0.0
    peer = ""


_exchanges = _Exchanges()


def watch_redis(recorder: Recorder, module: ModuleType) -> None:
    """Watch each round trip: of a statement's time, ROME itself takes a part."""
    exchange = module.Wire._exchange
    clock = time.perf_counter

    @functools.wraps(exchange)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if current() is None:
            return exchange(self, *args, **kwargs)
        started = clock()
        try:
            return exchange(self, *args, **kwargs)
        finally:
            _exchanges.trips += 1
            _exchanges.seconds += clock() - started
            node = self.node
            if node is not None:
                _exchanges.peer = node.address[0]

    module.Wire._exchange = watched


def watch_rome(recorder: Recorder, module: ModuleType) -> None:
    """Have what a statement of ROME asked of Redis counted for the span of its thread."""

    def count(kind: str, _number: int, _trips: int, _sent: int, _got: int, _s: float) -> None:
        if not _exchanges.trips:
            return
        try:
            span = current()
            if span is not None:
                span.asked(
                    wire.DATABASE, kind, _exchanges.peer, _exchanges.trips, _exchanges.seconds
                )
        except Exception as error:
            recorder.failed(error)
        _exchanges.trips, _exchanges.seconds = 0, 0.0

    module.observers.append(count)


def watch_memcached(recorder: Recorder, module: ModuleType) -> None:
    """Have each question to memcached counted for the span of its thread."""
    ask = module.Memcached._ask
    clock = time.perf_counter

    @functools.wraps(ask)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        span = current()
        if span is None:
            return ask(self, *args, **kwargs)
        started = clock()
        try:
            return ask(self, *args, **kwargs)
        finally:
            try:
                peer = str(self._client.server[0])
                span.asked(wire.CACHE, "memcached", peer, 1, clock() - started)
            except Exception as error:
                recorder.failed(error)

    module.Memcached._ask = watched
