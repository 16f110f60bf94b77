"""Changes of the schema of which a failover loses a part, or whose outcome isn't known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from rome.admin.check import check
from rome.stores.redis.store import RedisStore
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import IntegrityError, OperationalError

from rome import driver
from tests.fuzzing.pairs import wrong_index
from tests.servers import RedisServer

TABLE = (
    "CREATE TABLE t (name VARCHAR(9) PRIMARY KEY, x INTEGER)",
    "CREATE INDEX by_x ON t (x)",
    "INSERT INTO t VALUES ('a', 5), ('b', NULL), ('c', -7)",
)
_numbers = itertools.count()
ROWS = [("a", 5), ("b", None), ("c", -7)]


@pytest.fixture
def connection(redis_server: RedisServer) -> Iterator[Connection]:
    engine = create_engine(redis_server.url(f"lost-ddl-{next(_numbers)}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        run(made, *TABLE)
        yield made
    engine.dispose()


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def rows(connection: Connection, sql: str = "SELECT * FROM t ORDER BY name") -> list[Any]:
    return list(map(tuple, connection.exec_driver_sql(sql)))


def store_of(connection: Connection) -> tuple[RedisStore, driver.Connection]:
    own: Any = connection.connection.dbapi_connection
    assert isinstance(own.store, RedisStore)
    return own.store, own


def findings(connection: Connection, repair: bool = False) -> list[str]:
    store, own = store_of(connection)
    return [finding.text for finding in check(store, own.catalogue, repair=repair)]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ALTER COLUMN x TYPE TEXT",
        "DROP INDEX by_x",
        "DROP TABLE t",
        "DROP INDEX by_both",
    ],
)
def test_a_failover_that_loses_a_change_keeps_the_rows(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Rows and entries go only under the schema that no longer has them."""
    store, _ = store_of(connection)
    run(connection, "CREATE UNIQUE INDEX by_both ON t (x, name)")
    prefix = store.prefix
    change = RedisStore.change_schema

    def lose(self: RedisStore, *args: Any, **kwargs: Any) -> str:
        found = self.schema_unless("")
        assert found is not None
        version, entries = found
        changed = change(self, *args, **kwargs)
        monkeypatch.setattr(RedisStore, "change_schema", change)
        flat = [part for pair in entries.items() for part in pair]
        self._wire.call("DEL", prefix + "schema")
        self._wire.call("HSET", prefix + "schema", *flat)
        self._wire.call("HSET", prefix + "meta", "schema", version)
        return changed

    monkeypatch.setattr(RedisStore, "change_schema", lose)
    run(connection, statement)
    assert rows(connection) == ROWS
    assert rows(connection, "SELECT name FROM t WHERE x = 5") == [("a",)]
    # A copy that isn't the table may be left.
    assert all("of no table" in text for text in findings(connection, repair=True))
    run(connection, statement)
    assert findings(connection) == []


def test_a_change_of_unknown_outcome_removes_nothing(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = RedisStore.change_schema

    def unknown(self: RedisStore, *args: Any, **kwargs: Any) -> str:
        change(self, *args, **kwargs)
        monkeypatch.setattr(RedisStore, "change_schema", change)
        raise driver.OutcomeUnknown("on purpose")

    monkeypatch.setattr(RedisStore, "change_schema", unknown)
    with pytest.raises(OperationalError, match="on purpose"):
        run(connection, "ALTER TABLE t ALTER COLUMN x TYPE TEXT")
    with connection.engine.connect() as other:
        assert rows(other) == [("a", "5"), ("b", None), ("c", "-7")]
        # The old table's rows are left, and found.
        assert any("of no table" in text for text in findings(other, repair=True))
        assert rows(other) == [("a", "5"), ("b", None), ("c", "-7")]
        assert wrong_index(other) is None


@pytest.mark.parametrize("kind", ["UNIQUE INDEX", "INDEX"])
def test_an_index_is_built_again_after_a_lost_connection(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A failover may have lost entries that were made before it."""
    build = RedisStore.build_index
    built = 0

    def lose(self: RedisStore, table: int, index: int, *args: Any) -> None:
        nonlocal built
        built += 1
        build(self, table, index, *args)
        if built == 1:
            self._wire.close()
            letter = "u" if kind.startswith("UNIQUE") else "i"
            for key in list(self._scans.keys(f"{self.prefix}{letter}{table}.{index}".encode())):
                self._wire.call("UNLINK", key)

    monkeypatch.setattr(RedisStore, "build_index", lose)
    run(connection, "DROP INDEX by_x", f"CREATE {kind} i ON t (x)")
    assert built == 2
    assert rows(connection, "SELECT name FROM t WHERE x = 5") == [("a",)]
    if kind == "UNIQUE INDEX":
        with pytest.raises(IntegrityError):
            run(connection, "INSERT INTO t VALUES ('d', 5)")
    assert findings(connection) == []


def test_copies_of_a_table_keep_its_order(connection: Connection) -> None:
    run(connection, "ALTER TABLE t ALTER COLUMN x TYPE TEXT")
    store, own = store_of(connection)
    table = own.catalogue.load(store).tables["t"]
    assert [order.ready for order in table.ordered] == [True]
    assert len(list(store.members(table.number, table.ordered[0].number))) == len(ROWS)
    assert findings(connection) == []


def test_another_primary_key_has_another_order(connection: Connection) -> None:
    run(
        connection,
        "CREATE TABLE u (a TEXT NOT NULL, b TEXT NOT NULL, CONSTRAINT k PRIMARY KEY (a))",
        "INSERT INTO u VALUES ('x', '2'), ('y', '1')",
        "ALTER TABLE u DROP CONSTRAINT k",
        "ALTER TABLE u ADD CONSTRAINT k PRIMARY KEY (b, a)",
    )
    store, own = store_of(connection)
    table = own.catalogue.load(store).tables["u"]
    assert [(order.slots, order.ready) for order in table.ordered] == [((1, 0), True)]
    assert len(list(store.members(table.number, table.ordered[0].number))) == 2
    assert rows(connection, "SELECT a FROM u ORDER BY b LIMIT 1") == [("y",)]
    assert findings(connection) == []
