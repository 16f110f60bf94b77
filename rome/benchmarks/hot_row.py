"""Increments of one row by four processes at once: commits, aborts, replays, round trips.

Each transaction is `UPDATE hot SET n = n + 1 WHERE id = 1`, through oslo.db's facade; one that
ends with what oslo.db calls a deadlock (DBDeadlock) is an abort, and is tried again until it
commits.  At the end the row must hold the sum.

    python -m benchmarks.hot_row [--processes 4] [--increments 200] [--delays 0,10]
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import backends, machine, tables
from .backends import MARIADB, ROME, Backend, Failed, Python, Worker, say

TARGET = 80  # aborts of 800 commits: fewer


@dataclass
class Outcome:
    """Of all processes together."""

    backend: str
    delay: float
    commits: int
    value: int
    aborts: int
    replays: int
    turns: int
    seconds: float

    @property
    def right(self) -> bool:
        """No increment was lost or done twice."""
        return self.value == self.commits


def contend(
    backend: Backend, python: Python, delay: float, processes: int, increments: int
) -> Outcome:
    """All at once."""
    workers = [
        Worker(python, "hot_row_worker", backend.url("hot_row", delay)) for _ in range(processes)
    ]
    try:
        workers[0].ask("create")
        for worker in workers:
            worker.ask("increment", count=1)  # has connected and knows the schema
        backend.proxy.delay(delay)
        before = backend.proxy.counts()
        started = time.perf_counter()
        for worker in workers:
            worker.tell("increment", count=increments)
        answers = [worker.answer() for worker in workers]
        seconds = time.perf_counter() - started
        after = backend.proxy.counts()
        backend.proxy.delay(0)
        value = workers[0].ask("value") - processes
    finally:
        backend.proxy.delay(0)
        for worker in workers:
            worker.close()
    return Outcome(
        backend.name,
        delay,
        sum(it["commits"] for it in answers),
        value,
        sum(it["aborts"] for it in answers),
        sum(it["replays"] for it in answers),
        after.turns - before.turns,
        round(seconds, 2),
    )


def reached(outcomes: list[Outcome]) -> bool:
    """Whether ROME does what it should."""
    ours = [it for it in outcomes if it.backend == ROME]
    return bool(ours) and all(it.right and it.aborts < TARGET * it.commits / 800 for it in ours)


def table(outcomes: list[Outcome]) -> str:
    """In Markdown."""
    return tables.markdown(
        [
            "",
            "delay, ms",
            "commits",
            "final value",
            "aborts",
            "replays",
            "round trips",
            "a commit",
            "seconds",
        ],
        [
            [
                it.backend,
                f"{it.delay:g}",
                str(it.commits),
                str(it.value) + ("" if it.right else " **wrong**"),
                str(it.aborts),
                str(it.replays) if it.backend == ROME else "-",
                str(it.turns),
                f"{it.turns / it.commits:.1f}",
                f"{it.seconds:.1f}",
            ]
            for it in outcomes
        ],
    )


def run(
    python: Python, results: Path, delays: list[float], processes: int = 4, increments: int = 200
) -> list[Outcome]:
    """Measure, and write hot_row.md and hot_row.json."""
    described = machine.describe(python)
    outcomes = []
    with backends.running() as running:
        for delay in delays:
            for name in (MARIADB, ROME):
                say(f"{name}: {processes} processes x {increments} increments at {delay:g} ms")
                outcomes.append(contend(running[name], python, delay, processes, increments))
    text = (
        f"# A hot row\n\n{machine.in_words(described)}\n\n"
        f"{processes} processes increment one row {increments} times each, all at once.\n\n"
        f"{table(outcomes)}\n"
        f"Target: fewer than {TARGET} aborts of 800 on ROME, and the right sum: "
        f"{tables.verdict(reached(outcomes))}.\n"
    )
    tables.write(
        results, "hot_row", text, {**described, "outcomes": [asdict(it) for it in outcomes]}
    )
    return outcomes


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--increments", type=int, default=200, help="by each")
    parser.add_argument("--delays", default="0,10", help="milliseconds of a round trip")
    options = parser.parse_args()
    try:
        delays = tables.delays(options.delays)
        with backends.environment(options.python) as python:
            outcomes = run(python, options.results, delays, options.processes, options.increments)
    except (Failed, *tables.KNOWN) as error:
        say(f"hot_row: {error}")
        return 2
    sys.stdout.write(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
