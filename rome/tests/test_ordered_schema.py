"""Ordered indexes through changes of the schema, and in databases of an older version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgpack import unpackb
from rome.schema.change import enter_orders
from rome.schema.tables import OrderedIndex, from_entry, to_entry
from rome.schema.tables import Table as StoredTable
from rome.stores.base import Dropped
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    text,
)

from tests.fuzzing.pairs import wrong_index
from tests.ordered_tables import metadata, named, numbered


def driver_of(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def orders_of(connection: Connection) -> dict[str, list[tuple[list[str], bool]]]:
    """By table, the columns of its ordered indexes, and whether they are ready."""
    driver = driver_of(connection)
    return {
        table.name: [(table.names(index.slots), index.ready) for index in table.ordered]
        for table in driver.catalogue.load(driver.store).tables.values()
        if not table.is_view
    }


def run(engine: Engine, *words: str) -> None:
    with engine.begin() as connection:
        for each in words:
            connection.execute(text(each))


def test_which_columns_are_kept_in_order(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, x INT UNIQUE)",
        "CREATE TABLE b (x TEXT, y TEXT, PRIMARY KEY (y, x))",
        "CREATE TABLE c (x TEXT)",
        "CREATE TABLE d (x TEXT COLLATE NOCASE, y INT PRIMARY KEY)",
        "CREATE VIEW v AS SELECT x FROM c",
    )
    with engine.connect() as connection:
        assert orders_of(connection) == {
            "a": [(["id"], True)],
            "b": [(["y", "x"], True)],
            "c": [],
            "d": [(["y"], True)],
        }


def test_order_outlives_changes_of_the_table(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE t (a TEXT PRIMARY KEY, b INT, c INT)",
        "INSERT INTO t VALUES ('x', 1, 1), ('y', 2, 2), ('w', 3, 3)",
        "ALTER TABLE t ADD COLUMN d INT DEFAULT 5",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t RENAME COLUMN a TO key",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES ('v', 4, 6)",
    )
    u = Table("u", MetaData(), Column("key", String, primary_key=True), Column("d", Integer))
    with engine.connect() as connection:
        assert orders_of(connection) == {"u": [(["key"], True)]}
        question = select(u.c.key, u.c.d).where(u.c.key < "y").order_by(u.c.key.desc()).limit(2)
        assert list(map(tuple, connection.execute(question))) == [("x", 5), ("w", 5)]
        assert wrong_index(connection) is None
        driver = driver_of(connection)
        stored = driver.catalogue.schema.tables["u"]
        connection.rollback()
        run(engine, "DROP TABLE u")
        assert list(driver.store.members(stored.number, stored.ordered[0].number)) == []


def older(engine: Engine) -> None:
    """Make the database as a version without ordered indexes has made it."""
    with engine.connect() as connection:
        driver = driver_of(connection)
        schema = driver.catalogue.load(driver.store)
        entries = {}
        for table in schema.tables.values():
            orders = [index.number for index in table.ordered]
            dropped = Dropped(table.number, [], [], orders, [], whole=False)
            driver.store.remove(schema.version, [dropped])
            entries[table.name] = to_entry(replace(table, ordered=()))
        driver.store.change_schema(schema.version, entries, [], [])


def test_a_database_of_an_older_version_gets_its_orders(engine: Engine) -> None:
    metadata.create_all(engine, [numbered, named])
    with engine.begin() as connection:
        connection.execute(insert(numbered), [{"k": n} for n in (5, -3, 9)])
        connection.execute(insert(named), [{"k": name} for name in "cab"])
    older(engine)
    questions_of_both = [
        (select(numbered.c.k).where(numbered.c.k > 0).order_by(numbered.c.k).limit(1), 5),
        (select(func.max(named.c.k)), "c"),
    ]
    with engine.connect() as connection:
        assert orders_of(connection) == {"numbered": [], "named": []}
        for question, answer in questions_of_both:
            assert connection.scalar(question) == answer
    with engine.begin() as connection:  # written as the older version writes
        connection.execute(insert(named).values(k="d"))
    run(engine, "CREATE TABLE other (x INT)")
    with engine.connect() as connection:
        made = orders_of(connection)
        assert made == {"numbered": [(["k"], True)], "named": [(["k"], True)], "other": []}
        assert wrong_index(connection) is None
        assert connection.scalar(select(func.max(named.c.k))) == "d"


def test_writers_keep_an_order_that_nobody_reads_yet(engine: Engine) -> None:
    metadata.create_all(engine, [named])
    with engine.begin() as connection:
        connection.execute(insert(named), [{"k": name} for name in "cab"])
    older(engine)
    with engine.connect() as connection:
        driver = driver_of(connection)
        driver.catalogue.load(driver.store)
        enter_orders(driver.store, driver.catalogue)  # and its builder dies
        assert orders_of(connection) == {"named": [(["k"], False)]}
    with engine.begin() as connection:
        connection.execute(insert(named).values(k="z"))
        connection.execute(delete(named).where(named.c.k == "a"))
        stored = driver.catalogue.schema.tables["named"]
        first = select(named.c.k).order_by(named.c.k).limit(2)
        assert connection.scalars(first).all() == ["b", "c"]
    assert len(list(driver.store.members(stored.number, stored.ordered[0].number))) == 1
    run(engine, "CREATE TABLE other (x INT)")  # the next DDL builds it
    with engine.connect() as connection:
        assert orders_of(connection)["named"] == [(["k"], True)]
        assert wrong_index(connection) is None
        assert connection.scalars(first).all() == ["b", "c"]


def test_an_older_version_cant_read_the_schema() -> None:
    """Or it would write rows past the order."""
    table = StoredTable("t", 1, "CREATE TABLE t (a TEXT PRIMARY KEY)", slots=("a",))
    table = replace(table, ordered=(OrderedIndex(1, (0,), ready=False),))
    made = to_entry(table)
    assert from_entry("t", made) == table
    with pytest.raises(ValueError, match="too many values"):
        for _number, _slots, _unique, _ready in unpackb(made)["indexes"]:  # as it does
            pass
