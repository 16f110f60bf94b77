"""What work on the schema costs: round trips and bytes of databases of some tables.

Counted by ROME's own connections: one round trip is one answer waited for.  The first of a
kind may take one more, as it brings its script to the server.

    python -m benchmarks.schema_costs [--tables 40 80] [--rows 20] [--save] [--before FILE]
"""

# ruff: noqa: T201 (a command prints)
from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rome.cli import main as command
from rome.stores.base import Traffic
from rome.stores.redis.store import RedisStore
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    insert,
)
from sqlalchemy.pool import NullPool

from . import servers
from .tables import markdown, write

RESULTS = Path(__file__).parent / "results"
# Round trips and bytes by kind of work.
Costs = dict[str, tuple[int, int]]


def schema(count: int) -> MetaData:
    """Return tables with indexes of each kind; each but the first refers to one before it."""
    metadata = MetaData()
    for number in range(count):
        Table(
            f"t{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("name", String(40), nullable=False, index=number > 0),
            Column("code", String(40)),
            Column("parent", Integer, *([ForeignKey(f"t{number // 2}.id")] if number else [])),
            UniqueConstraint("code", "name", name=f"one{number}"),
        )
    return metadata


class Meter:
    """Round trips and bytes of all stores that are opened meanwhile."""

    def __init__(self) -> None:
        self._stores: list[Traffic] = []

    @contextmanager
    def watching(self) -> Iterator[Meter]:
        """Count what is opened inside."""
        opened: Any = RedisStore.__init__

        def opening(store: RedisStore, *arguments: Any, **named: Any) -> None:
            opened(store, *arguments, **named)
            self._stores.append(store.traffic)

        RedisStore.__init__ = opening  # type: ignore[assignment,method-assign]
        try:
            yield self
        finally:
            RedisStore.__init__ = opened  # type: ignore[method-assign]

    def of(self, action: Callable[[], Any]) -> tuple[int, int]:
        """Return the round trips, and bytes both ways, of an action."""
        before = self._total()
        action()
        after = self._total()
        return after[0] - before[0], after[1] - before[1]

    def _total(self) -> tuple[int, int]:
        return (
            sum(traffic.round_trips for traffic in self._stores),
            sum(traffic.sent + traffic.received for traffic in self._stores),
        )


def run_command(*arguments: str, given: str = "") -> str:
    """Return what the command `rome` prints.  Raises RuntimeError if it doesn't end with 0."""
    said = io.StringIO()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    try:
        with contextlib.redirect_stdout(said):
            code = command(arguments)
    finally:
        sys.stdin = before
    if code:
        raise RuntimeError(f"rome {arguments[0]} ended with {code}")
    return said.getvalue()


def costs(url: str, count: int, rows: int = 20) -> Costs:
    """Return what each kind of work costs on a database of so many tables with so many rows."""
    metadata = schema(count)
    engine = create_engine(url, poolclass=NullPool)
    found: Costs = {}
    with Meter().watching() as meter:
        found["create_all"] = meter.of(lambda: metadata.create_all(engine))
        found["create_all, all there"] = meter.of(lambda: metadata.create_all(engine))
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                values = [
                    {"id": n, "name": f"n{n}", "code": f"c{n}", "parent": n}
                    for n in range(1, rows + 1)
                ]
                connection.execute(insert(table), values)
        # As another process has it, which doesn't know the schema yet.
        stranger = create_engine(url.replace("127.0.0.1", "localhost"), poolclass=NullPool)
        found["reflection"] = meter.of(lambda: MetaData().reflect(stranger))
        dumped: list[str] = []
        found["rome dump"] = meter.of(lambda: dumped.append(run_command("dump", url)))
        found["rome check"] = meter.of(lambda: run_command("check", url))
        found["rome inspect"] = meter.of(lambda: run_command("inspect", url))
        copy = url + "-copy"
        found["rome load"] = meter.of(lambda: run_command("load", copy, given=dumped[0]))
        found["rome drop"] = meter.of(lambda: run_command("drop", copy, "--yes"))
        found["drop_all"] = meter.of(lambda: metadata.drop_all(engine))
    engine.dispose()
    return found


def table(found: dict[int, Costs], before: dict[int, Costs]) -> str:
    """Return the figures as a table: round trips, and KiB."""
    counts = list(found)
    heads = ["work"]
    for count in counts:
        if count in before:
            heads.append(f"{count} tables, before")
        heads.append(f"{count} tables")

    def cell(cost: tuple[int, int]) -> str:
        return f"{cost[0]} ({cost[1] / 1024:.0f} KiB)"

    lines = []
    for kind in found[counts[0]]:
        line = [kind]
        for count in counts:
            if count in before:
                line.append(cell(before[count][kind]))
            line.append(cell(found[count][kind]))
        lines.append(line)
    return markdown(heads, lines)


def main() -> None:
    """Measure, print, and with --save write schema_costs.md and .json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tables", type=int, nargs="+", default=[40, 80])
    parser.add_argument("--rows", type=int, default=20, help="in each table")
    parser.add_argument("--save", action="store_true", help="write into results/")
    parser.add_argument("--before", type=Path, help="schema_costs.json of an earlier version")
    options = parser.parse_args()
    saved = options.before or RESULTS / "schema_costs.json"
    before: dict[int, Costs] = {}
    if saved.exists():
        data = json.loads(saved.read_text())
        kept = data["costs"] if options.before else data["before"]
        before = {int(n): {k: (c[0], c[1]) for k, c in of.items()} for n, of in kept.items()}
    with servers.redis() as server:
        found = {
            count: costs(f"rome+redis://127.0.0.1:{server.port}/of{count}", count, options.rows)
            for count in options.tables
        }
    text = table(found, before)
    print(text, end="")
    if options.save:
        heading = (
            "# Work on the schema\n\nRound trips and bytes both ways, of a database with"
            f" {options.rows} rows in each table.\n\n"
        )
        write(RESULTS, "schema_costs", heading + text, {"costs": found, "before": before})


if __name__ == "__main__":
    main()
