"""Tables with columns of every affinity, and values of every class for them."""

from __future__ import annotations

from random import Random
from typing import Any

from sqlalchemy import Column, Index, MetaData, Table
from sqlalchemy.types import UserDefinedType

LARGE = [2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
# Not the double -2^63: see docs/limits.md.
NUMBERS: list[Any] = [
    *(0, 1, 2, 5, -1, *LARGE),
    *(0.0, -0.0, 1.0, 1.5, 2.0, -1.0, 0.1, 2.0**53, 2.0**53 + 2, 2.0**63, 1e300),
    *(float("inf"), float("-inf"), float("nan")),
]
TEXTS: list[Any] = [
    *("", "a", "A", "ab", "b", "é", "É", "%", "a_", "a\0b", "null"),
    *("1", "1.0", "01", " 1", "1 ", "1e0", "0x1", "5", "1.5", "-0", "+1", "1a", ".5", "inf", "nan"),
    *("9007199254740993", "9223372036854775808", "1e400"),
]
BLOBS: list[Any] = [b"", b"a", b"1", b"\x00", b"\xff\xfe", b"ab"]
# Sums of these are exact in any order.
SMALL: list[Any] = [0, 1, 2, 3, 5, -1, None]
HALVES: list[Any] = [*SMALL, 0.5, 1.5, -2.25, 4.0]


class Affine(UserDefinedType[Any]):
    """A column of an affinity; values pass as they are."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: Any) -> str:
        """Return the type's name in DDL."""
        return self.name


AFFINITIES = {"i": "INTEGER", "t": "TEXT", "r": "REAL", "b": "BLOB", "n": "NUMERIC"}
# Columns that may be summed up.
SUMMED = ("q", "h")


def anything(rng: Random) -> Any:
    """A value of any class."""
    pick = rng.randrange(10)
    if pick < 1:
        return None
    if pick < 6:
        return rng.choice(NUMBERS)
    return rng.choice(TEXTS) if pick < 9 else rng.choice(BLOBS)


def fitting(rng: Random, name: str) -> Any:
    """A value for a column: mostly of its own class, from a few, so that rows meet."""
    if name == "q":
        return rng.choice(SMALL)
    if name == "h":
        return rng.choice(HALVES)
    if rng.randrange(3) == 0:
        return anything(rng)
    pools: dict[str, list[Any]] = {
        "i": [0, 1, 2, 5, *LARGE],
        "t": ["", "a", "A", "ab", "1", "1.0", "5"],
        "r": [0.0, 1.0, 1.5, 5.0, 2.0**53],
        "b": [*BLOBS, 1, 1.0, "1", "a"],
        "n": [0, 1, 1.5, "1.5", 5, "a", 2**53 + 1],
    }
    return rng.choice([*pools[name], None])


def schema(rng: Random) -> list[Table]:
    """Three tables: keys that are row numbers, a text, and two columns; indexes by chance."""
    metadata = MetaData()
    tables = []
    for number, keys in enumerate((["id"], ["k"], ["k", "l"])):
        kinds = {"id": "INTEGER", "k": "TEXT", "l": "INTEGER"}
        columns = [Column(key, Affine(kinds[key]), primary_key=True) for key in keys]
        columns += [Column(name, Affine(kind)) for name, kind in AFFINITIES.items()]
        columns += [Column("q", Affine("INTEGER")), Column("h", Affine("NUMERIC"))]
        table = Table(f"t{number}", metadata, *columns)
        for name in (*AFFINITIES, "q"):
            if rng.randrange(5) < 2:
                Index(f"x{number}{name}", table.c[name])
        if rng.randrange(4) == 0:
            Index(f"y{number}", *rng.sample([table.c[name] for name in AFFINITIES], 2))
        tables.append(table)
    return tables


def key(rng: Random, name: str) -> Any:
    """A key; a few collide."""
    if name == "k":
        return rng.choice(["a", "b", "1", "", "x"]) + str(rng.randrange(40))
    return rng.choice([0, 1, 2, 5, -3, 2**31, 2**53]) + rng.randrange(-9, 0)


def row(rng: Random, table: Table) -> dict[str, Any]:
    """Values for a whole row, keys among them."""
    return {
        column.name: key(rng, column.name) if column.primary_key else fitting(rng, column.name)
        for column in table.columns
    }
