"""Statements over a table of 100,000 rows: seconds, round trips, and how long others wait.

Redis serves nobody else while it runs a command.  So beside each statement stand the longest
command in its SLOWLOG, and the longest wait of another client, a process that sends PING over
and over.  `--before DIRECTORY` measures another ROME (a checkout's `rome/src`) in the same run,
statement by statement in turns, each on a server of its own.

    python -m benchmarks.large_tables [--rows 100000] [--rounds 3] [--before DIRECTORY]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from . import servers, tables
from .orders import nothing_reused

_ROOT = Path(__file__).resolve().parent.parent
NOW, BEFORE = "now", "before"
STATEMENTS = (
    "all rows",
    "1 % of the rows, no index",
    "1 % of the rows, one column",
    "half of the rows, by an index",
    "COUNT",
    "COUNT of half, by an index",
    "COUNT of 1 %, no index",
    "SUM",
    "SUM by group",
    "ORDER BY LIMIT 10",
    "join with a tenth",
    "UPDATE of a tenth",
    "its COMMIT",
    "INSERT of a tenth",
    "its COMMIT ",
    "DELETE of a tenth",
    "its COMMIT  ",
)


# ---------------------------------------------------------------- the processes


def work(port: int, rows: int) -> None:
    """Run the statements whose names come; answer with seconds, round trips, bytes."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"rome+redis://127.0.0.1:{port}/large?{nothing_reused()}")
    metadata = sa.MetaData()
    things = sa.Table(
        "things",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", sa.String(36), unique=True),
        sa.Column("host", sa.String(36), index=True),
        sa.Column("kind", sa.Integer, index=True),
        sa.Column("state", sa.String(36)),
        sa.Column("n", sa.Integer),
        *[sa.Column(f"text{i}", sa.String(36)) for i in range(6)],
    )
    notes = sa.Table(
        "notes",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("thing", sa.Integer, index=True),
        sa.Column("text", sa.String(36)),
    )

    def thing(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "uuid": f"00000000-0000-0000-0000-{number:012}",
            "host": f"host{number % 1000}",
            "kind": number % 2,
            "state": f"state{number % 100}",
            "n": number * 7919 % 1000003,
            **{f"text{i}": f"some text {i} of {number}" for i in range(6)},
        }

    def fill() -> None:
        metadata.create_all(engine)
        for start in range(1, rows + 1, 2000):
            with engine.begin() as filling:
                numbers = range(start, min(start + 2000, rows + 1))
                filling.execute(things.insert(), [thing(number) for number in numbers])
        with engine.begin() as filling:
            values = [{"thing": i * 10, "text": f"note {i}"} for i in range(1, rows // 10 + 1)]
            filling.execute(notes.insert(), values)

    column, count = things.c, sa.select(sa.func.count()).select_from(things)
    of_state = column.state == "state7"
    selects = [
        sa.select(things),
        sa.select(things).where(of_state),
        sa.select(column.uuid).where(of_state),
        sa.select(column.id, column.n).where(column.kind == 1),
        count,
        count.where(column.kind == 1),
        count.where(of_state),
        sa.select(sa.func.sum(column.n)),
        sa.select(column.state, sa.func.sum(column.n), sa.func.max(column.n)).group_by(
            column.state
        ),
        sa.select(column.id, column.n).order_by(column.n).limit(10),
        sa.select(column.id, notes.c.text).join(notes, column.id == notes.c.thing),
    ]
    new = [thing(number) for number in range(rows + 1, rows + rows // 10 + 1)]
    connection = engine.connect()

    def read(statement: Any) -> None:
        connection.execute(statement).all()
        connection.rollback()

    runs: dict[str, Any] = {
        name: functools.partial(read, statement)
        for name, statement in zip(STATEMENTS, selects, strict=False)
    }
    update = things.update().where(column.id <= rows // 10).values(n=column.n + 1)
    delete = things.delete().where(column.id > rows)
    runs |= {
        "fill": fill,
        "UPDATE of a tenth": lambda: connection.execute(update),
        "INSERT of a tenth": lambda: connection.execute(things.insert(), new),
        "DELETE of a tenth": lambda: connection.execute(delete),
    }
    for line in sys.stdin:
        driver: Any = connection.connection.dbapi_connection
        traffic = driver.store.traffic
        trips, received = traffic.round_trips, traffic.received
        began = time.perf_counter()
        runs.get(line.rstrip("\n"), connection.commit)()
        seconds = time.perf_counter() - began
        answer = [seconds, traffic.round_trips - trips, traffic.received - received]
        _say(json.dumps(answer))


def probe(port: int) -> None:
    """From one line of the input to the next, PING over and over; the longest wait in ms."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while sys.stdin.readline():
            longest = 0.0
            while not select.select([sys.stdin], [], [], 0.0005)[0]:
                began = time.perf_counter()
                wire.sendall(b"PING\r\n")
                wire.recv(100)
                longest = max(longest, time.perf_counter() - began)
            sys.stdin.readline()
            _say(str(longest * 1000))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Process:
    """One that answers a line with a line."""

    def __init__(self, mode: str, port: int, rows: int, source: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.large_tables", mode, str(port)]
        self._process = subprocess.Popen(
            [*command, "--rows", str(rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{_ROOT}"},
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """A line."""
        if self._process.stdin is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """Its line."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise servers.CannotStart("a worker has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


# ---------------------------------------------------------------- the measuring


class _Measured:
    """One ROME, on a server of its own."""

    def __init__(self, stack: ExitStack, source: Path, rows: int, priority: int) -> None:
        server = stack.enter_context(servers.redis())
        port = server.port
        self._client = stack.enter_context(redis.Redis(port=port))
        self._worker = _Process("--work", port, rows, source)
        stack.callback(self._worker.close)
        self._probe = _Process("--probe", port, rows, source)
        stack.callback(self._probe.close)
        if priority:
            for pid in (server.pid, self._probe.pid):
                os.setpriority(os.PRIO_PROCESS, pid, priority)
        self._worker.tell("fill")
        self._worker.answer()
        self._client.config_set("slowlog-log-slower-than", 1000)
        self._client.config_set("slowlog-max-len", 10000)

    def run(self, statement: str) -> dict[str, float]:
        """One run of a statement."""
        self._client.slowlog_reset()
        self._probe.tell("")
        self._worker.tell(statement)
        seconds, trips, received = self._worker.answer()
        self._probe.tell("")
        wait = self._probe.answer()
        slow = [entry["duration"] / 1000 for entry in self._client.slowlog_get(10000)]
        return {
            "seconds": seconds,
            "trips": trips,
            "received": received / 1e6,
            "longest": max(slow, default=1.0),
            "wait": wait,
        }


def run(
    rows: int, rounds: int, before: Path | None, priority: int
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The runs by statement and ROME."""
    sources = {NOW: _ROOT / "src"} | ({BEFORE: before} if before else {})
    samples: dict[str, dict[str, list[dict[str, float]]]] = {}
    with ExitStack() as stack:
        measured = {
            name: _Measured(stack, source, rows, priority) for name, source in sources.items()
        }
        for _ in range(rounds):
            for statement in STATEMENTS:
                for name, it in measured.items():
                    sample = it.run(statement)
                    samples.setdefault(statement, {}).setdefault(name, []).append(sample)
    return samples


def table(samples: dict[str, dict[str, list[dict[str, float]]]], rows: int) -> str:
    """In Markdown: medians of all runs."""
    names = [name for name in (BEFORE, NOW) if name in next(iter(samples.values()))]
    heads = [f"of {rows:,} rows"]
    for words in ("s", "round trips", "MB", "longest command, ms", "longest wait of another, ms"):
        heads += [f"{words}, {name}" for name in names]
    lines = []
    for statement, by_name in samples.items():
        line = [statement.strip()]
        for key, form, middle in (
            ("seconds", ".3f", statistics.median),
            ("trips", ".0f", statistics.median),
            ("received", ".2f", statistics.median),
            ("longest", ".1f", statistics.median),
            ("wait", ".1f", statistics.median),
        ):
            line += [format(middle([it[key] for it in by_name[name]]), form) for name in names]
        lines.append(line)
    return tables.markdown(heads, lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="sources of another ROME to compare with")
    parser.add_argument("--results", type=Path, help="folder to write large_tables.md and .json in")
    parser.add_argument(
        "--priority",
        type=int,
        default=0,
        help="nice value of the servers and of the client that waits: negative ones (for root)"
        " leave out what other work on the machine does to them",
    )
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.rows)
        return 0
    if options.probe:
        probe(options.probe)
        return 0
    samples = run(options.rows, options.rounds, options.before, options.priority)
    load = f"{os.getloadavg()[0]:.0f} processes wanted the {os.cpu_count()} cores at the end."
    text = f"{table(samples, options.rows)}\nMedians of {options.rounds} runs; {load}\n"
    sys.stdout.write(text)
    if options.results:
        (options.results / "large_tables.md").write_text(text)
        (options.results / "large_tables.json").write_text(json.dumps(samples, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
