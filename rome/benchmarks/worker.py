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

from nova.db.main import api as nova_db

from . import cloud, workload
from .driver_time import DriverTime
from .marks import Marks
from .orders import begin, serve

_BY_NAME = {operation.name: operation for operation in workload.OPERATIONS}


class Worker:
    """Does the orders; each method is one."""

    def __init__(self) -> None:
        self._arguments: list[Any] = []
        self._driver = DriverTime()

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
            {"name": it.name, "target": it.target, "heavy": it.heavy} for it in workload.OPERATIONS
        ]

    def prepare(self, name: str, count: int) -> None:
        """The arguments of the next `run`."""
        self._arguments = _BY_NAME[name].prepare(count)
        gc.collect()

    def run(self, name: str) -> dict[str, Any]:
        """Once for each argument: milliseconds of each, those in the driver, and CPU of this
        process in all."""
        run = _BY_NAME[name].run
        times, in_driver = [], []
        cpu = time.process_time()
        for argument in self._arguments:
            before, started = self._driver.seconds, time.perf_counter()
            run(argument)
            times.append((time.perf_counter() - started) * 1000)
            in_driver.append((self._driver.seconds - before) * 1000)
        return {"ms": times, "driver_ms": in_driver, "cpu_ms": (time.process_time() - cpu) * 1000}

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


def main() -> None:
    """The process; its argument are the databases' URLs by name, as JSON."""
    answers = begin()
    cloud.configure(json.loads(sys.argv[1]))
    serve(answers, Worker())


if __name__ == "__main__":
    main()
