"""A process that asks for ranges and first rows of a key, on the ROME of its PYTHONPATH."""

from __future__ import annotations

import re
import socket
import sys
import time
from typing import Any

import sqlalchemy as sa

from .orders import begin, nothing_reused, serve

_METADATA = sa.MetaData()


def _table(name: str, *keys: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        _METADATA,
        *keys,
        sa.Column("state", sa.String(20)),
        sa.Column("host", sa.String(40), index=True),
        sa.Column("created_at", sa.DateTime),
        sa.Column("payload", sa.String(200)),
    )


NUMBERED = _table("numbered", sa.Column("id", sa.Integer, primary_key=True))
NAMED = _table("named", sa.Column("uuid", sa.String(36), primary_key=True))
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
_INSERTS = "numbered", "named"


def uuid(number: int) -> str:
    """Give a name whose order has nothing to do with the number."""
    mixed = number * 2654435761 % 2**32
    return f"{mixed:08x}-0000-4000-8000-{number:012x}"


def statements(rows: int) -> dict[str, Any]:
    """Say what is measured, by name; `rows`: of each table."""
    n, u, middle = NUMBERED.c, NAMED.c, rows // 2
    few = sa.select(n.id).order_by(n.id).limit(100).scalar_subquery()
    return {
        "ORDER BY id LIMIT 10": sa.select(NUMBERED).order_by(n.id).limit(10),
        "ORDER BY id DESC LIMIT 10": sa.select(NUMBERED).order_by(n.id.desc()).limit(10),
        "id > ? ORDER BY id LIMIT 100": (
            sa.select(NUMBERED).where(n.id > middle).order_by(n.id).limit(100)
        ),
        "id BETWEEN ? AND ?, 100 rows": (
            sa.select(NUMBERED).where(n.id.between(middle, middle + 99))
        ),
        "state = ?, one of 50, ORDER BY id LIMIT 10": (
            sa.select(NUMBERED).where(n.state == "state 7").order_by(n.id).limit(10)
        ),
        "host = ?, one of 20, ORDER BY id LIMIT 10": (
            sa.select(NUMBERED).where(n.host == "host 7").order_by(n.id).limit(10)
        ),
        "max(id)": sa.select(sa.func.max(n.id)),
        "count(*) WHERE id > ?": sa.select(sa.func.count()).where(n.id > middle),
        "DELETE WHERE id IN (SELECT id ORDER BY id LIMIT 100)": (
            sa.delete(NUMBERED).where(n.id.in_(few))
        ),
        "uuid > ? ORDER BY uuid LIMIT 100": (
            sa.select(NAMED).where(u.uuid > "80000000").order_by(u.uuid).limit(100)
        ),
        "uuid BETWEEN ? AND ?, about 98 rows": (
            sa.select(NAMED).where(u.uuid.between("40000000", "40400000"))
        ),
        "one row by its key": sa.select(NUMBERED).where(n.id == middle),
    }


class Asker:
    """Does the orders."""

    def __init__(self, port: int) -> None:
        self._port = port
        url = f"rome+redis://127.0.0.1:{port}/ordered?{nothing_reused()}"
        self._engine = sa.create_engine(url)
        self._rows = 0
        self._next = 10**6

    def fill(self, rows: int) -> float:
        """Make the tables and their rows; the growth of used_memory, in bytes."""
        _METADATA.create_all(self._engine)
        before = self._used()
        self._rows = rows
        with self._engine.connect() as connection:
            for start in range(1, rows + 1, 2000):
                stop = min(start + 2000, rows + 1)
                self._insert(connection, range(start, stop), NUMBERED)
                self._insert(connection, range(start, stop), NAMED)
                connection.commit()
        return self._used() - before

    @staticmethod
    def _insert(connection: Any, numbers: range, table: sa.Table) -> None:
        connection.execute(
            table.insert(),
            [
                {
                    "id" if table is NUMBERED else "uuid": i if table is NUMBERED else uuid(i),
                    "state": f"state {i % 50}",
                    "host": f"host {i % 20}",
                    "payload": "p" * 120,
                }
                for i in numbers
            ],
        )

    def names(self) -> list[str]:
        """Of the statements."""
        return list(statements(self._rows))

    def run(self, name: str) -> dict[str, float]:
        """One statement, rolled back: ms, round trips, bytes, and the server's longest script."""
        statement = statements(self._rows)[name]
        with self._engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            traffic = driver.transaction.session.store.traffic
            before = traffic.round_trips, traffic.sent + traffic.received
            started = time.perf_counter()
            result = connection.execute(statement)
            rows = len(result.all()) if result.returns_rows else result.rowcount
            ms = (time.perf_counter() - started) * 1000
            trips = traffic.round_trips - before[0]
            data = traffic.sent + traffic.received - before[1]
            connection.rollback()
        return {"ms": ms, "rows": rows, "trips": trips, "bytes": data}

    def looked_at(self, name: str) -> int:
        """How many rows of the store one statement has looked at."""
        with socket.create_connection(("127.0.0.1", self._port)) as monitor:
            monitor.sendall(b"MONITOR\r\n")
            monitor.recv(5)
            self.run(name)
            with socket.create_connection(("127.0.0.1", self._port)) as other:
                other.sendall(b"ECHO the-end\r\n")
                heard = b""
                while b"the-end" not in heard:
                    heard += monitor.recv(1 << 20)
        count = 0
        for line in heard.decode(errors="replace").splitlines():
            words = _WORD.findall(line)
            if "lua]" not in line or len(words) < 2 or not re.search(r":r\d+\Z", words[1]):
                continue
            if words[0] == "HMGET":
                count += len(words) - 2
            elif words[0] == "HGET":
                count += 1
            elif words[0] == "HGETALL" or (words[0] == "HSCAN" and words[2] == "0"):
                count += self._rows
        return count

    def insert(self, table: str, count: int) -> float:
        """One row a commit, so often; the server's microseconds for each commit's script."""
        chosen = _METADATA.tables[table]
        with self._engine.connect() as connection:
            self._insert(connection, range(self._next, self._next + 1), chosen)
            connection.commit()
            before = self._scripts()
            for i in range(self._next + 1, self._next + 1 + count):
                self._insert(connection, range(i, i + 1), chosen)
                connection.commit()
            after = self._scripts()
        self._next += count + 1
        return (after[1] - before[1]) / count

    def _ask(self, *words: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port)) as client:
            client.sendall(" ".join(words).encode() + b"\r\n")
            heard = client.recv(1 << 20)
            size = int(heard[1 : heard.index(b"\r\n")])
            while len(heard) < size:
                heard += client.recv(1 << 20)
        return heard

    def _scripts(self) -> tuple[int, int]:
        """Calls of scripts, and their microseconds."""
        found = re.search(
            rb"cmdstat_evalsha:calls=(\d+),usec=(\d+)", self._ask("INFO", "commandstats")
        )
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _used(self) -> float:
        found = re.search(rb"used_memory:(\d+)", self._ask("INFO", "memory"))
        return float(found[1]) if found else 0.0


def main() -> None:
    """The process; its argument is the server's port."""
    answers = begin()
    serve(answers, Asker(int(sys.argv[1])))


if __name__ == "__main__":
    main()
