"""Runs a suite's tests in worker processes, each test with a bounded time."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.openstack.environment import Failed, packages_folder
from tests.openstack.suites import Suite

WORKER = Path(__file__).with_name("worker.py")
LOAD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Result:
    """What one test came to; `statements` are counted by the dialect that sent them."""

    test: str
    outcome: str  # passed, failed, skipped, or timeout
    text: str
    seconds: float
    statements: dict[str, int] = field(default_factory=dict)


class Worker:
    """One process that has loaded the tests and runs those it is given."""

    def __init__(self, python: Path, suite: Suite, url: str | None, path: str) -> None:
        job = {
            "package": suite.package, "modules": suite.modules, "base": suite.base, "url": url,
        }  # fmt: skip
        # What tests print and log; its end tells why a worker died.
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), str(WORKER), json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            # Glance's tests name their files as seen from its repository.
            env=_environment(path), cwd=packages_folder(python),
        )  # fmt: skip
        self.running: str | None = None
        self._buffer = b""

    def read(self, timeout_s: float) -> dict[str, Any] | None:
        """The next answer, or None if none comes in time; raises EOFError when it died."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(timeout_s):
                    return None
                chunk = os.read(self.process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise EOFError
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, number: int, test: str) -> None:
        """Have it run a test."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n".encode())
        self.process.stdin.flush()
        self.running = test

    def last_words(self) -> str:
        """The end of what it printed."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:].strip()

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.communicate()
        self.log.close()


def run_tests(
    python: Path, suite: Suite, url: str | None, path: str, concurrency: int, timeout_s: float,
    wanted: Callable[[list[str]], Iterable[str]], progress: Callable[[Result], None],
) -> list[Result]:  # fmt: skip
    """Results of the tests which `wanted` picks from all of the suite's, by id.

    `url` is where the tests' connections go (None: to SQLite); `path` is the workers'
    PYTHONPATH.
    """
    return _Run(python, suite, url, path, timeout_s, progress).run(wanted, concurrency)


class _Run:
    def __init__(
        self, python: Path, suite: Suite, url: str | None, path: str, timeout_s: float,
        progress: Callable[[Result], None],
    ) -> None:  # fmt: skip
        self._make: Callable[[], Worker] = lambda: Worker(python, suite, url, path)
        self._title = suite.title
        self._timeout_s = timeout_s
        self._progress = progress
        self._numbers: dict[str, int] = {}
        self._queue: list[str] = []
        self._results: list[Result] = []

    def run(self, wanted: Callable[[list[str]], Iterable[str]], concurrency: int) -> list[Result]:
        first = self._start()
        self._queue = sorted(wanted(list(self._numbers)), reverse=True)
        slots = max(1, min(concurrency, len(self._queue)))
        workers = [first]
        try:
            workers += [self._start() for _ in range(slots - 1)]
            self._work(workers)
        finally:
            for worker in workers:
                worker.end()
        return sorted(self._results, key=lambda result: result.test)

    def _start(self) -> Worker:
        worker = self._make()
        try:
            answer = worker.read(LOAD_TIMEOUT_S)
        except EOFError:
            answer = None
        if answer is None:
            said = worker.last_words().splitlines()[-1:] or ["no answer"]
            worker.end()
            raise Failed(f"{self._title}'s tests can't be loaded: {said[0]}")
        self._numbers = {test: number for number, test in enumerate(answer["tests"])}
        return worker

    def _work(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._next(worker)
        started = {id(worker): time.monotonic() for worker in workers}
        while any(worker.running for worker in workers):
            busy = [worker for worker in workers if worker.running]
            with selectors.DefaultSelector() as selector:
                for worker in busy:
                    assert worker.process.stdout is not None
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                ready = {id(key.data) for key, _ in selector.select(1.0)}
            for place, worker in enumerate(workers):
                if not worker.running:
                    continue
                late = time.monotonic() - started[id(worker)] > self._timeout_s
                if id(worker) not in ready and not late:
                    continue
                result = self._result(worker)
                self._results.append(result)
                self._progress(result)
                if result.outcome in ("timeout", "died"):
                    worker.end()
                    if self._queue:
                        workers[place] = worker = self._start()
                    else:
                        worker.running = None
                        continue
                self._next(worker)
                started[id(worker)] = time.monotonic()

    def _next(self, worker: Worker) -> None:
        worker.running = None
        if self._queue:
            test = self._queue.pop()
            worker.ask(self._numbers[test], test)

    def _result(self, worker: Worker) -> Result:
        test = worker.running or ""
        try:
            answer = worker.read(0.5)
        except EOFError:
            return Result(test, "died", f"its process ended: {worker.last_words()}", 0.0)
        if answer is None:
            text = f"no end within {self._timeout_s:g} s"
            return Result(test, "timeout", text, self._timeout_s)
        return Result(**answer)


def _environment(path: str) -> dict[str, str]:
    keep = {
        name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))
    }
    return {**keep, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
