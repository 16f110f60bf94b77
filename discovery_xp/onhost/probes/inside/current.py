"""The span that the code at hand is a part of, and how spans begin and end.

A service's thread is in at most one span; what it asks meanwhile is a span below.  The services
run native threads, and a thread begins without a span; a context variable would follow greenlets,
too.  Round trips to a database or to memcached are summed up, by what was asked and whom, until
the next span begins or theirs ends: a row each would be most of what a boot writes.
"""

from __future__ import annotations

import itertools
import os
import time
from contextvars import ContextVar
from typing import Any

from ...wire.spans import SPAN
from .recorder import Recorder

_current: ContextVar[Span | None] = ContextVar("discovery_probes_span", default=None)

# A request that never ends can't fill memory: further kinds of statements aren't counted.
_MOST_SUMS = 100

current = _current.get


class Names:
    """Names for the spans of this process that no other process gives; a fork takes others."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Begin anew, with a random prefix."""
        prefix = os.urandom(6).hex()
        self.next = map(f"{prefix}.{{:x}}".format, itertools.count(1)).__next__


_names = Names()


class Sums:
    """Round trips of one kind to one peer: when the first began, and how long all of them took."""

    __slots__ = ("count", "seconds", "since", "trips")

    def __init__(self, since: float) -> None:
        self.since = since
        self.seconds = 0.0
        self.count = self.trips = 0


class Span:
    """Something that takes time on behalf of a request; see `wire.spans`.

    `recorder` is where it ends up.
    """

    __slots__ = (
        "at", "before", "children_cpu_s", "clock", "cpu_s", "error", "id", "kind", "link", "name",
        "parent", "peer", "queued_s", "recorder", "server", "sums", "trace",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        kind: str,
        name: str,
        peer: str = "",
        trace: str = "",
        link: str = "",
        parent: Span | None = None,
        queued_s: float = 0.0,
    ) -> None:
        """Begin it: this thread is in it from now on, until `end`."""
        self.recorder = recorder
        self.kind, self.name, self.peer, self.link = kind, name, peer, link
        self.id: str = _names.next()
        self.parent: str = parent.id if parent else ""
        self.trace: str = trace or (parent.trace if parent else "")
        self.queued_s = queued_s
        self.server = self.error = ""
        self.sums: dict[tuple[str, str, str], Sums] = {}
        self.children_cpu_s = 0.0
        self.before = _current.get()
        if self.before is not None:
            self.before.write_sums()
        _current.set(self)
        self.cpu_s = time.thread_time()
        self.clock = time.perf_counter()
        self.at = time.time()

    def asked(self, kind: str, name: str, peer: str, trips: int, seconds: float) -> None:
        """Add round trips that end now."""
        key = kind, name, peer
        sums = self.sums.get(key)
        if sums is None:
            if len(self.sums) >= _MOST_SUMS:
                return
            sums = self.sums[key] = Sums(time.time() - seconds)
        sums.seconds += seconds
        sums.count += 1
        sums.trips += trips

    def write_sums(self) -> None:
        """Record the round trips since the last time.

        Their time is what was waited; the processor's is that of the span.
        """
        if not self.sums:
            return
        for (kind, name, peer), sums in self.sums.items():
            self.recorder.record(
                (SPAN, sums.since, sums.seconds, 0.0, 0.0, kind, name, peer, self.trace,
                 _names.next(), self.id, "", sums.count, sums.trips, "", "")
            )  # fmt: skip
        self.sums = {}

    def end(self, error: BaseException | None = None) -> None:
        """End it: this thread is in the span again that it was in before."""
        seconds = time.perf_counter() - self.clock
        cpu_s = time.thread_time() - self.cpu_s
        before = self.before
        if before is not None:
            before.children_cpu_s += cpu_s
        _current.set(before)
        self.write_sums()
        name = self.error or (type(error).__name__ if error else "")
        self.recorder.record(
            (SPAN, self.at, seconds, max(0.0, cpu_s - self.children_cpu_s), self.queued_s,
             self.kind, self.name, self.peer, self.trace, self.id, self.parent, self.link, 1, 0,
             self.server, name)
        )  # fmt: skip


def spanned(recorder: Recorder, begin: Any, function: Any, finish: Any = None) -> Any:
    """Return `function` in spans.

    `begin` is called with its arguments and returns a span or None; `finish` with the span and
    what the function returned.  What goes wrong in either is the recorder's matter.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        span: Span | None = None
        try:
            span = begin(*args, **kwargs)
        except Exception as error:
            recorder.failed(error)
        if span is None:
            return function(*args, **kwargs)
        raised: BaseException | None = None
        try:
            result = function(*args, **kwargs)
            if finish is not None:
                try:
                    finish(span, result)
                except Exception as error:
                    recorder.failed(error)
            return result
        except BaseException as error:
            raised = error
            raise
        finally:
            try:
                span.end(raised)
            except Exception as error:
                recorder.failed(error)
            del raised

    call.__name__ = getattr(function, "__name__", "call")
    call.__doc__ = getattr(function, "__doc__", None)
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call
