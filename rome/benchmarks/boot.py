"""Round trips of one whole boot, from the list of flavors to ACTIVE.

Nova's own API, conductor, scheduler and computes (fake driver) run in one process with
Placement, as Nova's functional tests have it: see boot_worker.py.  Keystone, Glance and Neutron
are not among them, so a whole cloud has somewhat more.  One boot warms up; of the others the
mean is told.

    python -m benchmarks.boot [--boots 5] [--statements]
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import backends, machine, tables
from .backends import MARIADB, ROME, Backend, Failed, Python, Worker, say

TARGET = 177
_DELAY = 2.0  # ms: so that the turns are told apart
_KINDS = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass
class Boot:
    """One."""

    turns: int
    sent: int
    received: int
    seconds: float
    kinds: dict[str, int]
    statements: list[str] = field(default_factory=list)


def boots(backend: Backend, python: Python, count: int) -> list[Boot]:
    """One after the other."""
    say(f"{backend.name}: starting Nova's services and Placement")
    worker = Worker(python, "boot_worker", backend.urls(_DELAY))
    found = []
    try:
        worker.ask("start")
        backend.proxy.delay(_DELAY)
        for _ in range(count + 1):
            before = backend.proxy.counts()
            answer = worker.ask("boot")
            after = backend.proxy.counts()
            found.append(Boot(
                after.turns - before.turns, after.sent - before.sent,
                after.received - before.received, answer["seconds"], answer["kinds"],
                answer["statements"],
            ))
            say(f"{backend.name}: ACTIVE after {found[-1].turns} round trips")
    finally:
        backend.proxy.delay(0)
        worker.close()
    return found[1:]


def mean(of: list[Boot], what: str) -> float:
    """Of a figure, or of a kind of statement."""
    return statistics.mean(
        getattr(it, what) if hasattr(it, what) else it.kinds.get(what, 0) for it in of
    )


def table(found: dict[str, list[Boot]]) -> str:
    """In Markdown."""
    lines = []
    for name, of in found.items():
        line = [name, f"{mean(of, 'turns'):.0f}"]
        line += [f"{mean(of, 'BEGIN'):.0f}", *(f"{mean(of, kind):.0f}" for kind in _KINDS)]
        line += [f"{mean(of, 'sent') / 1000:.0f}", f"{mean(of, 'received') / 1000:.0f}"]
        if name == ROME:
            line += [f"≤ {TARGET}", tables.verdict(mean(of, "turns") <= TARGET)]
        lines.append(line + [""] * (11 - len(line)))
    return tables.markdown(
        ["one boot", "round trips", "transactions", *_KINDS, "kB sent", "kB received", "target",
         "reached"],
        [line[:11] for line in lines],
    )


def run(python: Python, results: Path, count: int = 5) -> dict[str, list[Boot]]:
    """Measure, and write boot.md and boot.json."""
    described = machine.describe(python)
    with backends.running() as running:
        found = {name: boots(running[name], python, count) for name in (MARIADB, ROME)}
    text = (
        f"# One boot\n\n{machine.in_words(described)}\n\n"
        f"Mean of {count} boots after one.\n\n{table(found)}"
    )
    tables.write(results, "boot", text, {
        **described,
        "boots": {name: [asdict(it) | {"statements": None} for it in of]
                  for name, of in found.items()},
        "statements": {name: of[-1].statements for name, of in found.items()},
    })
    return found


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--statements", action="store_true", help="of the last, how often each")
    options = parser.parse_args()
    try:
        with backends.environment(options.python) as python:
            found = run(python, options.results, options.boots)
    except (Failed, *tables.KNOWN) as error:
        say(f"boot: {error}")
        return 2
    sys.stdout.write(table(found))
    if options.statements:
        for words, times in Counter(found[ROME][-1].statements).most_common():
            sys.stdout.write(f"{times:4d}  {words[:200]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
