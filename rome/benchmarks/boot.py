"""Round trips of one whole boot, from the list of flavors to ACTIVE.

Nova's own API, conductor, scheduler and computes (fake driver) run in one process with
Placement, as Nova's functional tests have it: see boot_worker.py.  Keystone, Glance and Neutron
are not among them.  The VM is looked at once, when it is there: clients that poll add to both.

    python -m benchmarks.boot [--boots 5]
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import backends, machine, tables
from .backends import MARIADB, ROME, Backend, Failed, Python, Worker, say
from .explain import told

TARGET = 177
SHARE = TARGET / 512  # of MariaDB's, where the target comes from
WARM_UP = 6  # boots: until the scheduler has heard from each compute more than once
_DELAY = 2.0  # ms: so that the turns are told apart
_KINDS = ("BEGIN", "SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass
class Boot:
    """One."""

    turns: int
    sent: int
    received: int
    seconds: float
    kinds: dict[str, int]


def boots(backend: Backend, python: Python, count: int) -> tuple[list[Boot], list[list[Any]]]:
    """One after the other; and the trace of another."""
    say(f"{backend.name}: starting Nova's services and Placement")
    worker = Worker(python, "boot_worker", backend.urls(_DELAY))
    found = []
    try:
        worker.ask("start")
        backend.proxy.delay(_DELAY)
        for _ in range(WARM_UP + count):
            before = backend.proxy.counts()
            answer = worker.ask("boot")
            after = backend.proxy.counts()
            found.append(
                Boot(
                    after.turns - before.turns,
                    after.sent - before.sent,
                    after.received - before.received,
                    answer["seconds"],
                    answer["kinds"],
                )
            )
            say(f"{backend.name}: ACTIVE after {found[-1].turns} round trips")
        trace = worker.ask("trace", control=backend.proxy.control)
    finally:
        backend.proxy.delay(0)
        worker.close()
    return found[WARM_UP:], trace


def mean(of: list[Boot], what: str) -> float:
    """Of a figure, or of a kind of statement."""
    return statistics.mean(
        getattr(it, what) if hasattr(it, what) else it.kinds.get(what, 0) for it in of
    )


@dataclass
class Result:
    """Of both."""

    boots: dict[str, list[Boot]]
    traces: dict[str, list[list[Any]]]

    def turns(self, name: str) -> float:
        """The mean."""
        return mean(self.boots[name], "turns")

    @property
    def share(self) -> float:
        """ROME's round trips / MariaDB's."""
        return self.turns(ROME) / self.turns(MARIADB)

    @property
    def reached(self) -> bool:
        """In figures, and in the share."""
        return self.turns(ROME) <= TARGET and self.share <= SHARE


def table(result: Result) -> str:
    """In Markdown."""
    lines = []
    for name, of in result.boots.items():
        line = [name, f"{mean(of, 'turns'):.0f}"]
        line += [f"{mean(of, kind):.0f}" for kind in _KINDS]
        line += [f"{mean(of, what) / 1000:.0f}" for what in ("sent", "received")]
        lines.append(line)
    return tables.markdown(
        ["one boot", "round trips", "transactions", *_KINDS[1:], "kB sent", "kB received"], lines
    ) + (
        f"\nTarget: at most {TARGET} round trips, and as MariaDB's own number depends on what is "
        f"counted as a boot, at most {SHARE:.2f} of it ({TARGET} of 512): "
        f"{result.turns(ROME):.0f}, {result.share:.2f}: {tables.verdict(result.reached)}.\n"
    )


def run(python: Python, results: Path, count: int = 5) -> Result:
    """Measure, and write boot.md, boot.json, and the statements in boot-statements.txt."""
    described = machine.describe(python)
    result = Result({}, {})
    with backends.running() as running:
        for name in (MARIADB, ROME):
            result.boots[name], result.traces[name] = boots(running[name], python, count)
    text = (
        f"# One boot\n\n{machine.in_words(described)}\n\n"
        f"Mean of {count} boots, after {WARM_UP} others.\n\n{table(result)}"
    )
    tables.write(
        results,
        "boot",
        text,
        {
            **described,
            "boots": {name: [asdict(it) for it in of] for name, of in result.boots.items()},
        },
    )
    (results / "boot-statements.txt").write_text(
        "".join(
            f"=== {name}: ms, round trips, statement\n\n{told(trace)}\n"
            for name, trace in result.traces.items()
        )
    )
    return result


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--boots", type=int, default=5)
    options = parser.parse_args()
    try:
        with backends.environment(options.python) as python:
            result = run(python, options.results, options.boots)
    except (Failed, *tables.KNOWN) as error:
        say(f"boot: {error}")
        return 2
    sys.stdout.write(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
