"""Everything, one after the other, and one summary of it: results/summary.md.

python -m benchmarks.all [--quick]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from . import backends, boot, hot_row, machine, memory, operations, tables
from .backends import MARIADB, ROME, Failed, Python, say


def run(python: Python, results: Path, *, quick: bool) -> str:
    """Measure all; the summary."""
    delays = [0.0, 10.0] if quick else [0.0, 10.0, 50.0]
    started = time.monotonic()
    rows = operations.run(python, results, delays, rounds=2 if quick else None)
    contended = hot_row.run(python, results, [0.0, 10.0])
    remembered = memory.run(python, results, 100 if quick else 500)
    booted = boot.run(python, results, 2 if quick else 5)
    aborts = max(it.aborts for it in contended if it.backend == ROME)
    trips = {name: sum(row.turns(name) or 0 for row in rows) for name in (ROME, MARIADB)}
    heads = ["what", "target", "ROME", "MariaDB", "reached"]
    lines = [
        [
            f"{words}: time on ROME / on MariaDB, the worst of {len(of)} at any delay",
            f"≤ {target:g}",
            _worst(of, delays),
            "1",
            tables.verdict(all(row.reached for row in of))
            + (f" ({sum(bool(row.reached) for row in of)} of {len(of)})"),
        ]
        for words, target in (
            ("reads by key, single inserts", 0.5),
            ("instance_get_by_uuid, instance_create", 0.6),
            ("all others, lists and aggregates among them", 1.0),
        )
        if (of := [row for row in rows if row.target == target and row.reached is not None])
    ]
    lines += [
        ["round trips, each operation once", "", f"{trips[ROME]:.0f}", f"{trips[MARIADB]:.0f}", ""],
        [
            "round trips of a whole boot",
            f"≤ {boot.TARGET}, ≤ {boot.SHARE:.2f} of MariaDB's",
            f"{booted.turns(ROME):.0f}, {booted.share:.2f}",
            f"{booted.turns(MARIADB):.0f}",
            tables.verdict(booted.reached),
        ],
        [
            f"aborts of {contended[0].commits} commits on one row, 4 processes",
            f"< {hot_row.TARGET}",
            str(aborts),
            str(max(it.aborts for it in contended if it.backend == MARIADB)),
            tables.verdict(hot_row.reached(contended)),
        ],
        [
            "KiB of an instance (15 rows)",
            f"≤ {memory.TARGET_KIB}",
            f"{remembered.redis:.1f}",
            f"{remembered.mariadb:.1f}",
            tables.verdict(remembered.reached),
        ],
    ]
    text = (
        f"{tables.markdown(heads, lines)}\n{machine.in_words(machine.describe(python))}  "
        f"Measured in {(time.monotonic() - started) / 60:.0f} minutes; delays are round trips.\n\n"
        f"{operations.table(rows, delays)}"
    )
    (results / "summary.md").write_text(text)
    return text


def _worst(rows: list[operations.Row], delays: list[float]) -> str:
    found = [
        (ratio, row.name, delay)
        for row in rows
        for delay in delays
        if (ratio := row.ratio(delay)) is not None
    ]
    if not found:
        return "fails"
    ratio, name, delay = max(found)
    return f"{ratio:.2f} ({name}, {delay:g} ms)"


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="less of each: to see that it runs")
    options = parser.parse_args()
    try:
        with backends.environment(options.python) as python:
            sys.stdout.write(run(python, options.results, quick=options.quick))
    except (Failed, *tables.KNOWN) as error:
        say(f"all: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
