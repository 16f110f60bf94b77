"""SQLite and ROME side by side: the same statements, and what must be the same after each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from rome.errors import ConflictError
from rome.schema.tables import Table as StoredTable
from rome.stores.rows import NULL, split, unpack_value
from rome.stores.sort_bytes import entry
from sqlalchemy import Connection, Engine, create_engine, event, exc, func, insert, select, text
from sqlalchemy.pool import StaticPool

from tests.fuzzing.schemas import Made, random_schema
from tests.fuzzing.statements import Generator, Query, Source, Write


class Differs(AssertionError):
    """ROME's answer isn't SQLite's."""


def sqlite_engine() -> Engine:
    """SQLite in memory, with foreign keys and with transactions that hold DDL and savepoints."""
    engine = create_engine("sqlite://", poolclass=StaticPool)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


class Side:
    """One database with a connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connection = engine.connect()
        self.savepoints: list[Any] = []

    def run(self, statement: Any, parameters: Any = None) -> tuple[str, list[Any], int]:
        """Class of the error, rows, count of rows."""
        try:
            result = self.connection.execute(statement, parameters)
            rows = [tuple(row) for row in result] if result.returns_rows else []
            return "", rows, result.rowcount if not result.returns_rows else -1
        except exc.DBAPIError as error:
            if isinstance(error.orig, ConflictError):
                raise Differs(f"a conflict without another transaction: {error}") from error
            return type(error).__name__, [], -1
        except (LookupError, TypeError, ValueError) as error:
            # A value that its type can't read, as of a UNION of several.
            return type(error).__name__, [], -1

    def table(self, made: Made) -> list[str]:
        """All rows of a table."""
        return sorted(map(repr, map(tuple, self.connection.execute(select(made.table)))))

    def close(self) -> None:
        """End connection and engine."""
        self.connection.close()
        self.engine.dispose()


class Pair:
    """An example: a schema, and statements one after another."""

    def __init__(self, schema_seed: int, rome: Engine) -> None:
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.schema = random_schema(Random(schema_seed))
        self.plain = Side(sqlite_engine())
        self.rome = Side(rome)
        self.schema.metadata.create_all(self.plain.engine)
        self.schema.metadata.create_all(rome)
        self._fill(Random(schema_seed))

    def close(self) -> None:
        """End both."""
        self.plain.close()
        self.rome.close()

    def _existing(self, column: Any) -> list[Any]:
        return list(self.plain.connection.execute(select(column).order_by(column)).scalars())

    def _fill(self, rng: Random) -> None:
        generator = Generator(rng, self.schema, self._existing)
        for made in self.schema.tables:
            for number in range(rng.randint(3, 9)):
                row = generator.row(made, given=True)
                if made.auto and not number:
                    row[made.keys[0].name] = 50  # numbers that are given begin beyond
                self._write(Write(insert(made.table).values(row), made))
        self.commit()

    # ------------------------------------------------------------ steps

    def step(self, seed: int) -> None:
        """A random step."""
        rng = Random(seed)
        generator = Generator(rng, self.schema, self._existing)
        pick = rng.randrange(100)
        if pick < 6:
            both = generator.read_and_write()
            if both is not None:
                self._query(both[0])
                self._write(both[1])
        elif pick < 46:
            self._query(generator.query())
        elif pick < 82:
            self._write(generator.write())
        elif pick < 87:
            self._savepoint()
        elif pick < 91:
            self._end_savepoint(rng.randrange(3) > 0)
        elif pick < 96:
            self.commit()
        elif pick < 98:
            self._both(lambda side: side.connection.rollback(), "ROLLBACK")
            self._forget_savepoints()
        else:
            self.compare_tables()

    def _query(self, query: Query) -> None:
        self._log(query.statement)
        expected = self.plain.run(query.statement)
        found = self.rome.run(query.statement)
        self._same("error", expected[0], found[0])
        self._same("rows", _shown(expected[1], query.ordered), _shown(found[1], query.ordered))
        self.counts["failed query" if expected[0] else "query"] += 1
        self.counts["query with rows"] += bool(expected[1])

    def _write(self, write: Write) -> None:
        self._log(write.statement, write.parameters)
        key = write.made.keys[0]
        numbered = not write.given
        before = self._ids(key) if numbered else ({}, {})
        found = self.rome.run(write.statement, write.parameters)
        # In ROME a statement is all or nothing, with many sets of parameters as well.
        around = self.plain.connection.begin_nested() if write.parameters is not None else None
        expected = self.plain.run(write.statement, write.parameters)
        if around is not None:
            (around.rollback if expected[0] else around.commit)()
        self._same("error", expected[0], found[0])
        # Python's sqlite3 has no count after WITH.  Where rows of one table refer to each
        # other, SQLite doesn't count those that a CASCADE has taken before.
        if expected[2] >= 0 and not (write.statement.is_delete and "up" in write.made.references):
            self._same("count of rows", expected[2], found[2])
        if numbered and not expected[0]:
            self._same_numbers(key, before, self._ids(key))
        hidden = list(write.made.table.columns).index(key) if numbered else -1
        self._same("rows returned", _returned(expected[1], hidden), _returned(found[1], hidden))
        self.counts["failed write" if expected[0] else "write"] += 1
        self.counts["write of rows"] += expected[2] > 0 or bool(expected[1])
        if self.counts["write"] % 4 == 0:
            self._same_table(write.made)

    def _ids(self, key: Any) -> tuple[dict[int, None], dict[int, None]]:
        return (
            dict.fromkeys(self.plain.connection.execute(select(key).order_by(key)).scalars()),
            dict.fromkeys(self.rome.connection.execute(select(key).order_by(key)).scalars()),
        )

    def _same_numbers(self, key: Any, before: Any, after: Any) -> None:
        """Row numbers that the databases gave are free to differ: SQLite's become ROME's."""
        theirs = [n for n in after[0] if n not in before[0]]
        ours = [n for n in after[1] if n not in before[1]]
        self._same("count of new rows", len(theirs), len(ours))
        table, name = key.table.name, key.name
        move = text(f"UPDATE {table} SET {name} = :new WHERE {name} = :old")
        for old, new in zip(theirs, ours, strict=True):
            self.plain.connection.execute(move, {"old": old, "new": -1000 - new})
        for new in ours:
            self.plain.connection.execute(move, {"old": -1000 - new, "new": new})

    # ------------------------------------------------------------ transactions

    def _both(self, action: Callable[[Side], Any], words: str) -> None:
        self.log.append(words)
        action(self.plain)
        action(self.rome)

    def _savepoint(self) -> None:
        if len(self.plain.savepoints) < 3:
            self._both(
                lambda side: side.savepoints.append(side.connection.begin_nested()), "SAVEPOINT"
            )

    def _end_savepoint(self, back: bool) -> None:
        if not self.plain.savepoints:
            return

        def end(side: Side) -> None:
            savepoint = side.savepoints.pop()
            (savepoint.rollback if back else savepoint.commit)()

        self._both(end, "ROLLBACK TO SAVEPOINT" if back else "RELEASE")

    def _forget_savepoints(self) -> None:
        self.plain.savepoints.clear()
        self.rome.savepoints.clear()

    def commit(self) -> None:
        """Commit both; then a new connection must see the same, and indexes must fit."""
        while self.plain.savepoints:
            self._end_savepoint(False)
        self.log.append("COMMIT")
        self.plain.connection.commit()
        try:
            self.rome.connection.commit()
        except exc.DBAPIError as error:
            raise self._differs(f"commit: {error}") from error
        self._same("replays of a commit", 0, self._replays())
        self.counts["commit"] += 1
        with self.rome.engine.connect() as other:
            for made in self.schema.tables:
                rows = sorted(map(repr, map(tuple, other.execute(select(made.table)))))
                self._same(f"table {made.table.name} committed", self.plain.table(made), rows)
                number = other.scalar(select(func.count()).select_from(made.table))
                self._same(f"count of {made.table.name}", len(rows), number)
        self.plain.connection.rollback()
        problem = wrong_index(self.rome.connection)
        if problem:
            raise self._differs(problem)

    def _replays(self) -> int:
        """How often ROME has run transactions again: there is nobody to collide with."""
        driver: Any = self.rome.connection.connection.dbapi_connection
        replays: int = driver.transaction.retries
        return replays

    def compare_tables(self) -> None:
        """The transaction's own view of all tables."""
        for made in self.schema.tables:
            self._same_table(made)

    def _same_table(self, made: Made) -> None:
        self._same(f"table {made.table.name}", self.plain.table(made), self.rome.table(made))

    # ------------------------------------------------------------ words

    def _log(self, statement: Any, parameters: Any = None) -> None:
        compiled = statement.compile(self.rome.engine)
        bound = parameters if parameters is not None else compiled.params
        words = " ".join(str(compiled).split())
        self.log.append(f"{words}\n      {bound}")

    def _same(self, what: str, expected: Any, found: Any) -> None:
        if expected != found:
            raise self._differs(f"{what}: expected {expected}, found {found}")

    def _differs(self, what: str) -> Differs:
        tables = "\n".join(
            str(row[0]) for row in self.plain.connection.execute(
                text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
        )  # fmt: skip
        rows = "\n".join(
            f"{made.table.name}: {self.plain.table(made)}" for made in self.schema.tables
        )
        steps = "\n".join(f"  {step}" for step in self.log)
        return Differs(f"{what}\n{tables}\n{steps}\nSQLite's tables:\n{rows}\n{what}")


def _shown(rows: list[Any], ordered: bool) -> list[str]:
    shown = [repr(row) for row in rows]
    return shown if ordered else sorted(shown)


def _returned(rows: list[Any], hidden: int) -> list[str]:
    """Rows of RETURNING, where some versions of SQLite show 1 for 1.0."""
    return sorted(
        repr([
            float(value) if type(value) is int and abs(value) < 2**53 else value
            for place, value in enumerate(row) if place != hidden
        ])
        for row in rows
    )  # fmt: skip


def wrong_index(connection: Connection) -> str | None:
    """What is wrong between the rows of the store and its indexes, if anything."""
    driver: Any = connection.connection.dbapi_connection
    store = driver.store
    for table in driver.catalogue.load(store).tables.values():
        if table.is_view:
            continue
        rows = {number: _columns(table, row) for number, row in store.scan(table.number)}
        for index in table.indexes:
            problem = _wrong(store, table, index, rows)
            if problem:
                return problem
        for order in table.ordered:
            wanted = {_member(table, order, number, parts) for number, parts in rows.items()}
            found = set(store.members(table.number, order.number))
            if wanted != found:
                return f"order of {table.name}: {sorted(found)}, expected {sorted(wanted)}"
        if table.key is not None:
            for number, parts in rows.items():
                if unpack_value(parts[table.key]) != number:
                    return f"{table.name}: row {number} has the key {parts[table.key]!r}"
    return None


def _member(table: StoredTable, order: Any, number: int, parts: list[bytes]) -> bytes:
    if order.slots == (table.key,):
        return str(number).encode()
    return entry([unpack_value(parts[slot]) for slot in order.slots], number)


def _columns(table: StoredTable, row: bytes) -> list[bytes]:
    """The bytes of each column, also of those that are younger than the row."""
    parts = split(row)
    defaults = dict(map(tuple, table.packed_defaults))
    return parts + [defaults.get(slot, NULL) for slot in range(len(parts), table.full_width)]


def _wrong(store: Any, table: StoredTable, index: Any, rows: Any) -> str | None:
    wanted = {
        (b"".join(parts[slot] for slot in index.slots), number)
        for number, parts in rows.items()
        if not index.unique or all(parts[slot] != NULL for slot in index.slots)
    }
    found = set(store.entries(table.number, index.number, index.unique))
    if wanted == found:
        return None
    names = table.names(index.slots)
    return (
        f"index of {table.name} over {names}: lacks {sorted(wanted - found)},"
        f" has too many {sorted(found - wanted)}"
    )


__all__ = ["Differs", "Pair", "Source", "sqlite_engine", "wrong_index"]
