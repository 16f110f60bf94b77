"""Ranges and first rows of a key in tables of 100,000 rows, beside another version of ROME.

What each statement takes: rows that the store looks at, bytes over the wire, round trips,
milliseconds (the median of runs that take turns); the memory of a row; and what the commit of
one row costs the server.

    python -m benchmarks.ordered [--rows 100000] [--beside DIRECTORY]

DIRECTORY is the `src` of the other version.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from pathlib import Path
from typing import Any

from . import machine, servers, tables
from .backends import Failed, Python, Worker, say

_HERE = Path(__file__).resolve()
_ROUNDS = 9
_INSERTS = 300  # in each round


def measure(sources: dict[str, Path], rows: int) -> dict[str, Any]:
    """All figures, by statement and version."""
    found: dict[str, Any] = {"rows": rows, "statements": {}, "insert_us": {}, "bytes_per_row": {}}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, source in sources.items():
            server = stack.enter_context(servers.redis())
            python = Python(sys.executable, {"PYTHONPATH": str(source)})
            workers[name] = Worker(python, "ordered_worker", str(server.port))
            stack.callback(workers[name].close)
            say(f"{name}: 2 x {rows} rows")
            found["bytes_per_row"][name] = workers[name].ask("fill", rows=rows) / (2 * rows)
        first = next(iter(workers.values()))
        for statement in first.ask("names"):
            say(statement)
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
            for turn in range(_ROUNDS + 1):
                for name in list(workers)[:: 1 if turn % 2 else -1]:
                    runs[name].append(workers[name].ask("run", name=statement))
            found["statements"][statement] = {
                name: {
                    "ms": statistics.median(run["ms"] for run in its[1:]),
                    **{key: its[-1][key] for key in ("rows", "trips", "bytes")},
                    "looked_at": workers[name].ask("looked_at", name=statement),
                }
                for name, its in runs.items()
            }
        for table in ("numbered", "named"):
            say(f"inserts into {table}")
            times: dict[str, list[float]] = {name: [] for name in workers}
            for turn in range(_ROUNDS):
                for name in list(workers)[:: 1 if turn % 2 else -1]:
                    times[name].append(workers[name].ask("insert", table=table, count=_INSERTS))
            found["insert_us"][table] = {
                name: statistics.median(its) for name, its in times.items()
            }
    return found


def table(found: dict[str, Any]) -> str:
    """In Markdown."""
    names = list(found["bytes_per_row"])
    heads = ["statement", "rows"]
    for words in ("looked at", "round trips", "bytes", "ms"):
        heads += [f"{words}: {name}" for name in names]
    lines = []
    for statement, its in found["statements"].items():
        line = [f"`{statement}`", f"{its[names[0]]['rows']:.0f}"]
        for key, digits in (("looked_at", 0), ("trips", 0), ("bytes", 0), ("ms", 2)):
            line += [tables.number(its[name][key], digits) for name in names]
        lines.append(line)
    costs = [
        [f"commit of a row, in the server, µs: {kind}"]
        + [tables.number(its[name], 1) for name in names]
        for kind, its in found["insert_us"].items()
    ]
    costs.append(
        ["memory of a row, bytes (half with an integer key, half with a text of 36)"]
        + [tables.number(found["bytes_per_row"][name], 0) for name in names]
    )
    return f"{tables.markdown(heads, lines)}\n{tables.markdown(['', *names], costs)}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="of each table")
    parser.add_argument("--beside", type=Path, help="src of another version")
    parser.add_argument("--results", type=Path, default=_HERE.parent / "results")
    options = parser.parse_args()
    sources = {"ROME": _HERE.parents[1] / "src"}
    if options.beside is not None:
        sources = {"before": options.beside.resolve(), **sources}
    try:
        found = measure(sources, options.rows)
    except (Failed, *tables.KNOWN) as error:
        say(f"ordered: {error}")
        return 2
    described = machine.describe(Python(sys.executable, {"PYTHONPATH": str(sources["ROME"])}))
    text = f"# Ordered indexes\n\n{machine.in_words(described)}\n\n{table(found)}"
    tables.write(options.results, "ordered", text, {**described, "ordered": found})
    sys.stdout.write(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
