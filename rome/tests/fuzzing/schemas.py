"""Random small schemas, and values for their columns."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)


class Colour(enum.Enum):
    """Values of an Enum column."""

    RED = 1
    GREEN = 2
    BLUE = 3


# Few values, so that rows meet.  Floats whose sums are exact: versions of SQLite add in
# different ways.
POOLS: dict[str, list[Any]] = {
    "int": [0, 1, 2, 3, 4, 5, -1],
    "big": [0, 1, 2**31, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63)],
    "text": ["", "a", "b", "A", "ab", "é", "5", "1.0", " a", "日本"],
    "float": [0.0, 1.0, 1.5, 2.0, 5.0, -1.25, 0.125, 1e15],
    "bool": [True, False],
    "time": [
        datetime.datetime(2020, 1, 1),
        datetime.datetime(2020, 1, 1, 12, 30, 0, 1),
        datetime.datetime(2021, 6, 1, 1, 2, 3),
    ],
    "bytes": [b"", b"\x00", b"ab", b"\x00\x80\xff", b"5"],
    "json": [{}, [], {"a": 1}, [1, None], "x", 5],
    "enum": list(Colour),
}
# Comparable, and fit for keys.
KEY_KINDS = ("int", "text", "float")
KINDS = ("int", "int", "text", "text", "float", "bool", "time", "bytes", "json", "enum", "big")


def type_of(kind: str) -> Any:
    """SQLAlchemy's type of a kind."""
    types: dict[str, Any] = {
        "int": Integer(),
        "big": BigInteger(),
        "text": String(20),
        "float": Float(),
        "bool": Boolean(),
        "time": DateTime(),
        "bytes": LargeBinary(),
        "json": JSON(),
        "enum": Enum(Colour),
    }
    return types[kind]


@dataclass
class Made:
    """A table with what the generator must know of it."""

    table: Table
    kinds: dict[str, str]
    auto: bool  # its key is a number that the database gives
    references: dict[str, Column[Any]] = field(default_factory=dict)

    @property
    def several_keys(self) -> bool:
        """Whether something else than the primary key is unique."""
        unique = any(isinstance(c, UniqueConstraint) for c in self.table.constraints)
        return unique or any(column.unique for column in self.table.columns)

    @property
    def keys(self) -> list[Column[Any]]:
        """The columns of the primary key."""
        return list(self.table.primary_key.columns)


@dataclass
class Schema:
    """All tables of an example."""

    metadata: MetaData
    tables: list[Made]


def random_schema(rng: Random) -> Schema:
    """Two to four tables, which may refer to those before them and to themselves."""
    metadata = MetaData()
    made: list[Made] = []
    for number in range(rng.randint(2, 4)):
        made.append(_table(rng, metadata, f"t{number}", made))
    return Schema(metadata, made)


def _table(rng: Random, metadata: MetaData, name: str, before: list[Made]) -> Made:
    kinds: dict[str, str] = {}
    items: list[Any] = []
    references: dict[str, Column[Any]] = {}
    auto = False
    itself = False
    shape = rng.randrange(10)
    if shape < 6:
        auto = True
        kinds["id"] = "int"
    elif shape < 8:
        kinds["k"] = "text"
    else:
        kinds["k"], kinds["l"] = rng.choice(KEY_KINDS), "int"
    key = list(kinds)
    if len(key) == 1 and before and rng.randrange(8) == 0:
        parent = rng.choice(before)
        wanted = parent.keys[0]
        if len(parent.keys) == 1 and parent.kinds[wanted.name] == kinds[key[0]]:
            # The key is a reference itself: one child at most for each parent.
            references[key[0]] = wanted
            auto = False
    for place in range(rng.randint(2, 6)):
        kinds[f"c{place}"] = rng.choice(KINDS)
    for column_name in list(kinds):
        if column_name not in key and kinds[column_name] in KEY_KINDS and rng.randrange(3) == 0:
            target = _target(rng, before, kinds[column_name])
            if target is not None:
                references[column_name] = target
    if len(key) == 1 and rng.randrange(4) == 0:
        kinds["up"] = kinds[key[0]]
        itself = True
    for column_name, kind in kinds.items():
        options: dict[str, Any] = {}
        rules: list[Any] = []
        nullable = column_name not in key and rng.randrange(10) < 7
        if column_name in references:
            nullable = nullable or rng.randrange(2) == 0
            rules = [_reference(rng, references[column_name], nullable and column_name not in key)]
        if column_name == "up":
            nullable = True
            rules = [_reference(rng, f"{name}.{key[0]}", True)]
        if column_name in key:
            options["primary_key"] = True
            if len(key) > 1 or not auto:
                options["autoincrement"] = False
        else:
            options["nullable"] = nullable
            if kind not in ("json",):
                options["unique"] = kind != "bool" and rng.randrange(7) == 0
                options["index"] = not options["unique"] and rng.randrange(4) == 0
        items.append(Column(column_name, type_of(kind), *rules, **options))
    plain = [c for c in kinds if kinds[c] not in ("json", "bytes")]
    for suffix in range(rng.choice([0, 0, 1, 1, 2])):
        several = rng.sample(plain, min(len(plain), rng.choice([2, 2, 3])))
        if len(several) < 2 or set(several) == set(key):
            continue
        if rng.randrange(2):
            items.append(UniqueConstraint(*several, name=f"uq_{name}_{suffix}"))
        else:
            items.append(Index(f"ix_{name}_{suffix}", *several))
    wide = _wide_parent(before)
    if wide is not None and rng.randrange(3) == 0:
        columns = [Column(f"w{i}", type_of(wide.kinds[c.name])) for i, c in enumerate(wide.keys)]
        for i, c in enumerate(wide.keys):
            kinds[f"w{i}"] = wide.kinds[c.name]
            references[f"w{i}"] = c
        rule = rng.choice(["CASCADE", "SET NULL", None])
        items += columns
        items.append(ForeignKeyConstraint([c.name for c in columns], wide.keys, ondelete=rule))
    automatic = itself or rng.randrange(2) == 0
    table = Table(name, metadata, *items, sqlite_autoincrement=auto and automatic)
    if itself:
        references["up"] = table.c[key[0]]
    return Made(table, kinds, auto, references)


def _target(rng: Random, before: list[Made], kind: str) -> Column[Any] | None:
    """A column that may be referred to: a key, or a unique one."""
    fitting = [
        column
        for made in before
        for column in made.table.columns
        if made.kinds[column.name] == kind
        and (column.unique or (column.primary_key and len(made.keys) == 1))
    ]
    return rng.choice(fitting) if fitting else None


def _wide_parent(before: list[Made]) -> Made | None:
    return next((made for made in reversed(before) if len(made.keys) > 1), None)


def _reference(rng: Random, target: Any, nullable: bool) -> ForeignKey:
    # RESTRICT within one table depends on the order in which SQLite comes to the rows.
    actions = ["CASCADE", None, None, None if isinstance(target, str) else "RESTRICT"]
    actions += ["SET NULL"] * 2 if nullable else []
    return ForeignKey(
        target,
        ondelete=rng.choice(actions),
        onupdate=rng.choice(["CASCADE", None, "SET NULL" if nullable else None]),
    )
