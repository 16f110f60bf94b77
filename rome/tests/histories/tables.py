"""The tables that clients read and write, how they are filled, and how they are read at the end."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    insert,
    select,
)
from sqlalchemy.engine import Connection

from tests.histories.model import Read, Row

metadata = MetaData()
# A list as one text, under a key of text.
texts = Table(
    "texts",
    metadata,
    Column("name", String, primary_key=True),
    Column("members", String, nullable=False),
)
# A list as rows with places.
entries = Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("list", Integer, nullable=False),
    Column("place", Integer, nullable=False),
    Column("value", Integer, nullable=False),
    UniqueConstraint("list", "place"),
)
# Rows that come and go, under keys of text.
named = Table(
    "named",
    metadata,
    Column("name", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("detail", Integer, nullable=False),
)
# Rows that stay, each with a generation that is compared and set.
generations = Table(
    "generations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
)

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
COUNTERS = 4
# A list is one for so long, and then the next one is used: long ones cost a lot to read.
LISTS, LIST_S = 4, 2.0


def list_text(name: str) -> str:
    """Return what a history calls a list that is kept as one text."""
    return f"text list {name}"


def list_rows(number: int) -> str:
    """Return what a history calls a list that is kept as rows."""
    return f"row list {number}"


def row_key(name: str) -> str:
    """Return what a history calls a row of `named`."""
    return f"row {name}"


def counter_key(number: int) -> str:
    """Return what a history calls a row of `generations`."""
    return f"generation {number}"


def fill(engine: Engine, seconds: float) -> dict[str, int]:
    """Make the tables with the rows for a run of so long; return initial versions by key."""
    metadata.create_all(engine)
    rounds = int(seconds / LIST_S) + 1
    first = {number: number + 1 for number in range(COUNTERS)}
    with engine.begin() as connection:
        connection.execute(
            insert(texts), [{"name": f"list-{n}", "members": ""} for n in range(LISTS * rounds)]
        )
        connection.execute(
            insert(generations), [{"id": n, "generation": g} for n, g in first.items()]
        )
    return {counter_key(number): generation for number, generation in first.items()}


def members(text: str) -> tuple[int, ...]:
    """Return the values of a list that is kept as a text."""
    return tuple(int(item) for item in text.split(",") if item)


def read_everything(connection: Connection) -> Read:
    """Return all lists and rows, each table by one SELECT."""
    lists = {
        list_text(name): members(text)
        for name, text in connection.execute(select(texts.c.name, texts.c.members))
    }
    by_list: dict[int, list[tuple[int, int]]] = {}
    for number, place, value in connection.execute(
        select(entries.c["list"], entries.c.place, entries.c.value)
    ):
        by_list.setdefault(number, []).append((place, value))
    for number, values in by_list.items():
        lists[list_rows(number)] = tuple(value for _, value in sorted(values))
    return Read(lists, read_rows(connection) | read_counters(connection))


def read_rows(connection: Connection) -> dict[str, Row]:
    """Return all rows of `named`, and None for the names that have none."""
    found: Mapping[str, tuple[int, int]] = {
        name: (version, detail)
        for name, version, detail in connection.execute(
            select(named.c.name, named.c.version, named.c.detail)
        )
    }
    return {row_key(name): found.get(name) for name in NAMES}


def read_counters(connection: Connection) -> dict[str, Row]:
    """Return all rows of `generations`."""
    found = dict(
        connection.execute(select(generations.c.id, generations.c.generation)).tuples().all()
    )
    return {counter_key(n): (found[n], None) if n in found else None for n in range(COUNTERS)}
