"""Tables with every kind of key, for tests of ordered indexes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.types import UserDefinedType

metadata = MetaData()


class Affinity(UserDefinedType[Any]):
    """Values of any kind, as SQLite keeps them with a declared type."""

    cache_ok = True

    def __init__(self, declared: str) -> None:
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        return self.declared


def _more() -> list[Any]:
    return [Column("x", Integer), Column("y", String(9)), Column("z", Integer, index=True)]


numbered = Table("numbered", metadata, Column("k", Integer, primary_key=True), *_more())
named = Table("named", metadata, Column("k", String(9), primary_key=True), *_more())
blobs = Table("blobs", metadata, Column("k", LargeBinary, primary_key=True), *_more())
reals = Table("reals", metadata, Column("k", Float, primary_key=True), *_more())
# Any kind of value, and NULL as well: SQLite allows it in a primary key.
mixed = Table(
    "mixed", metadata, Column("k", Affinity("BLOB"), primary_key=True, nullable=True), *_more()
)
numerics = Table("numerics", metadata, Column("k", Affinity("NUMERIC"), primary_key=True), *_more())
pairs = Table(
    "pairs",
    metadata,
    Column("k", String(9), primary_key=True),
    Column("l", Integer, primary_key=True, autoincrement=False),
    *_more(),
)
triples = Table(
    "triples",
    metadata,
    Column("k", Integer, primary_key=True, nullable=True, autoincrement=False),
    Column("l", String(9), primary_key=True, nullable=True),
    Column("m", Float, primary_key=True, nullable=True),
    *_more(),
)
