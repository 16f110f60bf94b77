"""One back end's process: Nova and Placement on its databases, doing what it is told."""

from __future__ import annotations

import cProfile
import functools
import gc
import io
import itertools
import json
import pstats
import sys
import time
from typing import Any

import sqlalchemy as sa
from nova.db.main import api as nova_db

from . import cloud, proxy, workload
from .orders import begin, serve

_BY_NAME = {operation.name: operation for operation in workload.OPERATIONS}


class Worker:
    """Does the orders; each method is one."""

    def __init__(self) -> None:
        self._arguments: list[Any] = []

    def schemas(self) -> None:
        """Make them by the services' migrations."""
        cloud.sync()

    def fill(self) -> None:
        """Put the cloud in."""
        cloud.fill()

    def fill_instances(self, count: int) -> None:
        """Put these in, and no more."""
        for values in workload.new_values(count):
            nova_db.instance_create(cloud.context(), values)

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

    def statements(self, name: str, control: int) -> list[list[Any]]:
        """What one run asks the driver, in order: words, milliseconds, turns.

        The proxy that is controlled by this port counts the turns.
        """
        operation = _BY_NAME[name]
        for argument in operation.prepare(2):
            operation.run(argument)
        (argument,) = operation.prepare(1)
        with Marks(control) as marks:
            operation.run(argument)
        return marks.segments()

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


class Marks:
    """Marks made at what SQLAlchemy tells of; each lasts until the next."""

    def __init__(self, control: int) -> None:
        self._counts = proxy.Control(control)
        self._made: list[tuple[str, float, float, int]] = []  # words, ended, began, turns

    def __enter__(self) -> Marks:
        """Begin to listen."""
        self._listeners = [("before_cursor_execute", self._statement),
                           ("after_cursor_execute", self._executed)]
        for name in ("commit", "rollback"):
            self._listeners.append((name, functools.partial(self._end, name.upper())))
        for listener in self._listeners:
            sa.event.listen(sa.engine.Engine, *listener)
        self._mark("(before)")
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._mark("(after)")
        for listener in self._listeners:
            sa.event.remove(sa.engine.Engine, *listener)

    def _statement(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._mark(statement)

    def _executed(self, *_: Any) -> None:
        self._mark("  (rows are read, objects made)")

    def _end(self, word: str, _connection: Any) -> None:
        self._mark(word)

    def _mark(self, words: str) -> None:
        ended = time.perf_counter()
        turns = self._counts.counts().turns
        self._made.append((words, ended, time.perf_counter(), turns))

    def segments(self) -> list[list[Any]]:
        """Words, milliseconds, turns."""
        return [
            [words, (ended - began) * 1000, later - turns]
            for (words, _, began, turns), (_, ended, _, later) in itertools.pairwise(self._made)
        ]


def main() -> None:
    """The process; its argument are the databases' URLs by name, as JSON."""
    answers = begin()
    cloud.configure(json.loads(sys.argv[1]))
    serve(answers, Worker())


if __name__ == "__main__":
    main()
