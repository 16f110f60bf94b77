"""A statement as the application made it, and what it has seen of it."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rome.errors import Error
from rome.planner.plan import Layout, Plan
from rome.schema.changes import Row


class Result(NamedTuple):
    """What a statement answered; rowcount -1: it has none."""

    rows: list[Row]
    description: tuple[Row, ...] | None
    rowcount: int
    lastrowid: int | None


class Digest(NamedTuple):
    """What stays of a large result: enough to tell it from another one."""

    rows: bytes
    rowcount: int
    lastrowid: int | None

    @classmethod
    def of(cls, result: Result) -> Digest:
        """Return the digest of a result."""
        # Version 2 of the format has no references, so equal rows have equal bytes.
        rows = hashlib.blake2b(marshal.dumps(result.rows, 2), digest_size=16).digest()
        return cls(rows, result.rowcount, result.lastrowid)


@dataclass(slots=True)
class Call:
    """A statement as the application made it, for running it again.

    parameters: one set, or many.  taken: row numbers that it was given: table, first, count;
    given: how many of these a retry has used.  read: whether it needed rows of the store; asked:
    whether it had to ask for them itself.  row: the row that it read to write it.  keys: those
    that it looked up; asked_keys: whether it had to ask for them itself.  before: what its thread
    had executed when it asked.
    """

    sql: str
    parameters: Sequence[Sequence[Any]]
    many: bool
    plan: Plan
    layout: Layout
    taken: list[tuple[int, int, int]] = field(default_factory=list)
    retrying: bool = False
    read: bool = False
    asked: bool = False
    keys: Any = None  # KeysRead of prefetch.py
    row: Any = None  # RowRead of prefetch.py
    asked_keys: bool = False
    before: tuple[Any, ...] = ()
    given: int = 0
    savepoint: tuple[str, str] | None = None
    outcome: Result | Digest | type[Error] | None = None

    @property
    def first_parameters(self) -> Sequence[Any]:
        """The first set of parameters."""
        return self.parameters[0] if self.parameters else ()

    def answered(self, outcome: Result | type[Error]) -> bool:
        """Tell whether an outcome is the one that the application has seen."""
        seen = self.outcome
        if isinstance(outcome, Result):
            if isinstance(seen, Digest):
                return Digest.of(outcome) == seen
            if isinstance(seen, Result):
                mine = outcome.rows, outcome.rowcount, outcome.lastrowid
                return mine == (seen.rows, seen.rowcount, seen.lastrowid)
        return outcome is seen
