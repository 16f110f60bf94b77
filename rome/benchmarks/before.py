"""ROME beside another version of itself: time, CPU and round trips of Nova's and Placement's own
functions, in one run, each on a Redis of its own.

    python -m benchmarks.before CHECKOUT [--delays 0,10] [--only PATTERN] [--rounds N]

CHECKOUT is another source tree of this repository, such as one that `git worktree add` makes.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from . import backends, machine, tables
from .backends import MARIADB, ROME, Failed, Python, say
from .operations import Row, measure

# The other version stands where MariaDB stands elsewhere.
BEFORE, NOW = MARIADB, ROME


def table(rows: list[Row], delays: list[float]) -> str:
    """Write the comparison in Markdown."""
    heads = ["operation", "round trips: before → now"]
    heads += [f"time at {delay:g} ms: now / before" for delay in delays]
    heads += ["CPU-ms, server's too: before → now", "CPU: now / before"]
    lines = []
    for row in rows:
        cpu = row.cpu_ms(BEFORE), row.cpu_ms(NOW)
        line = [row.name, " → ".join(tables.number(row.turns(name), 1) for name in (BEFORE, NOW))]
        line += [tables.number(row.ratio(delay), 2) for delay in delays]
        line += [" → ".join(tables.number(it, 2) for it in cpu), tables.number(_ratio(*cpu), 2)]
        lines.append(line)
    return tables.markdown(heads, lines)


def _ratio(before: float | None, now: float | None) -> float | None:
    return now / before if before and now is not None else None


def summary(rows: list[Row], delays: list[float]) -> str:
    """Tell the middle and the worst of all operations, in one line."""
    words = []
    for delay in delays:
        ratios = [ratio for row in rows if (ratio := row.ratio(delay)) is not None]
        words.append(f"time at {delay:g} ms {_spread(ratios)}")
    cpu = [_ratio(row.cpu_ms(BEFORE), row.cpu_ms(NOW)) for row in rows]
    words.append(f"CPU {_spread([ratio for ratio in cpu if ratio is not None])}")
    return "now / before, median and worst: " + "; ".join(words)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}, {max(ratios):.2f}" if ratios else "-"


def run(
    python: Python,
    before: Python,
    results: Path,
    delays: list[float],
    only: str = "",
    rounds: int | None = None,
) -> list[Row]:
    """Measure, and write before.md and before.json."""
    with backends.running(sides=(ROME, ROME)) as running:
        described = machine.describe(python)
        rows = measure(running, {BEFORE: before, NOW: python}, delays, only, rounds, plain=False)
    text = (
        f"# ROME beside version {before.commit} of itself\n\n{machine.in_words(described)}\n\n"
        f"{table(rows, delays)}\n{summary(rows, delays)}.\n"
    )
    data = {**described, "before": before.commit, "operations": [asdict(row) for row in rows]}
    tables.write(results, "before", text, data)
    return rows


def main() -> int:
    """Run the command."""
    parser = backends.parser(__doc__)
    parser.add_argument("checkout", type=Path, help="another source tree of this repository")
    parser.add_argument("--delays", default="0,10", help="milliseconds of a round trip")
    parser.add_argument("--only", default="", metavar="PATTERN", help="operations by their names")
    parser.add_argument("--rounds", type=int, help="how often each side is measured in turn")
    options = parser.parse_args()
    try:
        delays = tables.delays(options.delays)
        tables.pattern(options.only)
        with (
            backends.environment(options.python) as python,
            backends.environment(None, options.checkout.resolve()) as before,
        ):
            rows = run(python, before, options.results, delays, options.only, options.rounds)
    except (Failed, *tables.KNOWN) as error:
        say(f"before: {error}")
        return 2
    sys.stdout.write(f"{table(rows, delays)}\n{summary(rows, delays)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
