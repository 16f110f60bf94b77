"""What a load writes down: lines as things happen, and iterations in Rally's own form."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ..wire import load as wire
from .api import Refusal
from .regions import Region


class Records:
    """The file of JSON lines; each line is there once `write` returns."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, **values: Any) -> None:
        """Append a line of a kind."""
        os.write(self.file, wire.encode(kind, **values).encode())

    def action(
        self, name: str, region: Region, started: float, ended: float, error: str | None,
        iteration: int,
    ) -> None:  # fmt: skip
        """Append a timed step of an iteration."""
        self.write("action", action=name, iteration=iteration, region=region.name,
                   site=region.request.site, started_at=started, duration_s=ended - started,
                   error=error)  # fmt: skip

    def stage(self, name: str, done: int, total: int) -> None:
        """Append how far a stage before the load, or after it, has come."""
        self.write("stage", stage=name, done=done, total=total)


def cpu_s() -> float:
    """Return CPU seconds of this process and all that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(each.ru_utime + each.ru_stime for each in used), 3)


class Iterations:
    """Iterations for Rally's report; `report` gets each when it ended."""

    def __init__(self, records: Records, report: Callable[[dict[str, Any]], None]) -> None:
        self.records = records
        self.report = report

    @contextlib.contextmanager
    def one(self, region: Region, number: int) -> Iterator[Steps]:
        """Report an iteration: from its first step to the end of its last."""
        steps = Steps(self.records, region, number)
        yield steps
        first = steps.taken[0]["started_at"] if steps.taken else time.time()
        last = steps.taken[-1]["finished_at"] if steps.taken else first
        self.report(
            {
                "timestamp": first,
                "duration": max(0.0, last - first),
                "idle_duration": 0.0,
                "error": ["Failed", steps.error, ""] if steps.error else [],
                "output": {"additive": [], "complete": []},
                "atomic_actions": steps.taken,
            }
        )


class Steps:
    """The timed steps of an iteration, Rally's atomic actions; the first error is kept."""

    def __init__(self, records: Records, region: Region, number: int) -> None:
        self.records, self.region, self.number = records, region, number
        self.taken: list[dict[str, Any]] = []
        self.error: str | None = None

    def add(self, name: str, started: float, ended: float, error: str | None) -> None:
        """Take a step that is over."""
        step = {"name": name, "children": [], "started_at": started, "finished_at": ended}
        self.taken.append({**step, **({"failed": True} if error else {})})
        self.error = self.error or error
        if name != "delete":  # that one was noted where it was done
            self.records.action(name, self.region, started, ended, error, self.number)

    async def take(self, name: str, request: Awaitable[Any]) -> None:
        """Make a request, as a step; a Refusal is its error."""
        started, error = time.time(), None
        try:
            await request
        except Refusal as refusal:
            error = str(refusal)
            self.region.note(refusal)
        self.add(name, started, time.time(), error)
