"""Small databases: two or three rows in tables with every kind of key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.interleaving.oracle import Oracle, State


@dataclass(eq=False)
class Kind:
    """A database: tables, first rows, and what the keys A to D are in its main table.

    A and B are there at the beginning; C and D are free.  `parent` is the table that the main
    one's foreign key refers to, `family` what kind of alphabet fits.
    """

    name: str
    metadata: MetaData
    main: Table
    keys: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, list[dict[str, Any]]]
    family: str = "plain"
    numbered: bool = False  # the store chooses keys where none is given
    oracle: Oracle = field(init=False)
    start: State = field(init=False)

    def __post_init__(self) -> None:
        self.oracle = Oracle(self.create)
        values = {
            table.name: [
                tuple(row.get(c.name) for c in table.columns) for row in self.rows[table.name]
            ]
            for table in self.metadata.sorted_tables
        }
        self.start = self.oracle.start(values)

    @property
    def create(self) -> list[str]:
        """SQL that makes the tables on plain SQLite."""
        dialect = sqlite.dialect()
        found = []
        for table in self.metadata.sorted_tables:
            found.append(str(CreateTable(table).compile(dialect=dialect)).strip())
            found += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
        return found


_AB = {"A": (1, 5), "B": (2, 5)}


def _rows(keys: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**keys[name], "x": x, "y": y} for name, (x, y) in _AB.items()]


def _xy() -> list[Column[Any]]:
    return [Column("x", Integer), Column("y", Integer)]


def _single(
    name: str,
    keys: Mapping[str, Mapping[str, Any]],
    *parts: Any,
    family: str = "plain",
    numbered: bool = False,
) -> Kind:
    metadata = MetaData()
    main = Table("t", metadata, *parts)
    return Kind(name, metadata, main, keys, {"t": _rows(keys)}, family, numbered)


def integer() -> Kind:
    """Build a table whose key is the row number."""
    keys = {name: {"k": number} for number, name in enumerate("ABCD", 1)}
    return _single(
        "integer", keys, Column("k", Integer, primary_key=True), *_xy(), numbered=True
    )  # fmt: skip


def text() -> Kind:
    """Build a table with a text key and an index besides."""
    keys = {name: {"k": name.lower()} for name in "ABCD"}
    return _single(
        "text", keys, Column("k", String(9), primary_key=True), *_xy(), Index("t_x", "x")
    )


def composite() -> Kind:
    """Build a table whose key has two columns."""
    keys = {name: {"k": "k", "m": number} for number, name in enumerate("ABCD", 1)}
    parts = [Column("k", String(9)), Column("m", Integer), *_xy()]
    return _single("composite", keys, *parts, PrimaryKeyConstraint("k", "m"))


def keyless() -> Kind:
    """Build a table without any key: equal rows may stand in it twice."""
    keys = {name: {"k": name.lower()} for name in "ABCD"}
    return _single("none", keys, Column("k", String(9)), *_xy(), family="none")


def unique() -> Kind:
    """Build a table with an integer key and a unique text besides."""
    keys = {name: {"k": number, "u": name.lower()} for number, name in enumerate("ABCD", 1)}
    parts = [Column("k", Integer, primary_key=True), Column("u", String(9)), *_xy()]
    return _single(
        "unique", keys, *parts, UniqueConstraint("u"), family="unique", numbered=True
    )  # fmt: skip


def unique_pair() -> Kind:
    """Build a table with a text key and a unique pair, of which one part may be NULL."""
    keys = {name: {"k": name.lower(), "u": number} for number, name in enumerate("ABCD", 1)}
    parts = [Column("k", String(9), primary_key=True), Column("u", Integer), *_xy()]
    return _single("unique pair", keys, *parts, UniqueConstraint("u", "y"), family="unique")


def _family(name: str, parent_key: Any, key: Any, child_key: Any, **rule: Any) -> Kind:
    """Build parent p and child t: parents A and B, children 1 of A and 2 of B."""
    metadata = MetaData()
    Table("p", metadata, Column("k", parent_key[0], primary_key=True), Column("x", Integer))
    main = Table(
        "t",
        metadata,
        Column("k", key[0], primary_key=True),
        Column("p", child_key[0], ForeignKey("p.k", **rule)),
        Column("x", Integer),
    )
    letters = "ABCD"
    keys = {
        letter: {"k": key[1](place), "p": child_key[1](place), "parent": parent_key[1](place)}
        for place, letter in enumerate(letters, 1)
    }
    rows = {
        "p": [{"k": keys[letter]["parent"], "x": 1} for letter in "AB"],
        "t": [{"k": keys["A"]["k"], "p": keys["A"]["p"], "x": 1}],
    }
    return Kind(name, metadata, main, keys, rows, "family")


_NUMBER = (Integer(), int)
_TEXT = (String(9), lambda place: "abcd"[place - 1])
_DIGIT = (String(9), str)


def cascade() -> Kind:
    """Build a text parent whose key and end cascade to children with integer keys."""
    return _family("cascade", _TEXT, _NUMBER, _TEXT, ondelete="CASCADE", onupdate="CASCADE")


def cascade_text() -> Kind:
    """Build an integer parent whose end cascades to children with text keys."""
    return _family("cascade, text child", _NUMBER, _TEXT, _NUMBER, ondelete="CASCADE")


def set_null() -> Kind:
    """Build an integer parent whose end sets its children's column to NULL."""
    return _family("set null", _NUMBER, _TEXT, _NUMBER, ondelete="SET NULL")


def no_action() -> Kind:
    """Build a text parent that can't go while it has children."""
    return _family("no action", _TEXT, _TEXT, _TEXT)


def text_to_integer() -> Kind:
    """Build children whose text column refers to an integer key."""
    return _family("text to integer", _NUMBER, _TEXT, _DIGIT)


KINDS = {
    kind.name: kind
    for kind in (
        integer(),
        text(),
        composite(),
        keyless(),
        unique(),
        unique_pair(),
        cascade(),
        cascade_text(),
        set_null(),
        no_action(),
        text_to_integer(),
    )
}
