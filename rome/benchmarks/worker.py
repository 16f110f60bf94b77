"""One back end's process: Nova and Placement on its databases, doing what it is told."""

from __future__ import annotations

import cProfile
import gc
import io
import json
import pstats
import sys
import time
from typing import Any

import sqlalchemy as sa

from . import cloud, workload
from .orders import begin, serve

_BY_NAME = {operation.name: operation for operation in workload.OPERATIONS}


class Worker:
    """Does the orders; each method is one."""

    def __init__(self) -> None:
        self._arguments: list[Any] = []
        self._statements: list[dict[str, Any]] | None = None

    def schemas(self) -> None:
        """Make them by the services' migrations."""
        cloud.sync()

    def fill(self) -> None:
        """Put the cloud in."""
        cloud.fill()

    def operations(self) -> list[dict[str, Any]]:
        """All there are."""
        return [
            {"name": it.name, "target": it.target, "heavy": it.heavy}
            for it in workload.OPERATIONS
        ]

    def prepare(self, name: str, count: int) -> None:
        """The arguments of the next `run`."""
        self._arguments = _BY_NAME[name].prepare(count)
        gc.collect()

    def run(self, name: str) -> list[float]:
        """Once for each argument; milliseconds."""
        run = _BY_NAME[name].run
        times = []
        for argument in self._arguments:
            started = time.perf_counter()
            run(argument)
            times.append((time.perf_counter() - started) * 1000)
        return times

    def statements(self, name: str) -> list[dict[str, Any]]:
        """What one run asks the driver, in order, with milliseconds spent there."""
        operation = _BY_NAME[name]
        self._watch()
        (argument,) = operation.prepare(1)
        operation.run(argument)
        (argument,) = operation.prepare(1)
        self._statements = []
        operation.run(argument)
        found, self._statements = self._statements, None
        return found

    def profile(self, name: str, count: int) -> str:
        """Where the process spends its time."""
        operation = _BY_NAME[name]
        arguments = operation.prepare(count)
        profiler = cProfile.Profile()
        profiler.enable()
        for argument in arguments:
            operation.run(argument)
        profiler.disable()
        text = io.StringIO()
        stats = pstats.Stats(profiler, stream=text)
        stats.sort_stats("cumulative").print_stats(45)
        stats.sort_stats("tottime").print_stats(30)
        return text.getvalue()

    def _watch(self) -> None:
        if getattr(self, "_watched", False):
            return
        self._watched = True
        starts: list[float] = []

        def before(*_: Any) -> None:
            starts.append(time.perf_counter())

        def after(_c: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            took = (time.perf_counter() - starts.pop()) * 1000
            if self._statements is not None:
                self._statements.append(
                    {"sql": statement, "ms": took, "rows": getattr(cursor, "rowcount", None)}
                )

        sa.event.listen(sa.engine.Engine, "before_cursor_execute", before)
        sa.event.listen(sa.engine.Engine, "after_cursor_execute", after)
        for name in ("commit", "rollback", "begin"):

            def ended(_c: Any, name: str = name) -> None:
                if self._statements is not None:
                    self._statements.append({"sql": name.upper(), "ms": None, "rows": None})

            sa.event.listen(sa.engine.Engine, name, ended)


def main() -> None:
    """The process; its argument are the databases' URLs by name, as JSON."""
    answers = begin()
    cloud.configure(json.loads(sys.argv[1]))
    serve(answers, Worker())


if __name__ == "__main__":
    main()
