"""The words of a plan: conditions on columns, and what a statement makes of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

# Where the values of a bind parameter are among the positional ones.
Layout = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Bind:
    """The value of a bind parameter, or the values of an expanding one."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A value that stands in the statement."""

    value: Any


@dataclass(frozen=True)
class Condition:
    """What holds for all rows of one occurrence of a table that are wanted.

    `op` is one of wire.py's filters, with `values`; or `join`: the column equals column
    `other` of occurrence `source`; or `any`: all conditions of one of `branches` hold.
    """

    occurrence: int
    column: str
    op: str
    values: tuple[Bind | Constant, ...] = ()
    source: int = -1
    other: str = ""
    branches: tuple[tuple[Condition, ...], ...] = ()


@dataclass(frozen=True)
class TopNCandidate:
    """A request for the first rows of an occurrence in an order (top-N).

    It holds where the store can test all `conditions`.
    """

    occurrence: int
    conditions: tuple[int, ...]
    order: tuple[tuple[str, bool], ...]
    counts: tuple[Bind | Constant, ...]


@dataclass(frozen=True)
class Aggregate:
    """A SELECT of one occurrence that the store computes where it can test all `conditions`.

    columns: function (count, sum, min, max, or empty: a column of GROUP BY) and column
    (None: count of rows).  groups: the columns of GROUP BY.  limit: of the one row.
    """

    conditions: tuple[int, ...]
    columns: tuple[tuple[str, str | None], ...]
    groups: tuple[str, ...]
    limit: Bind | Constant | None = None


@dataclass(frozen=True)
class SimpleSelect:
    """A SELECT of one occurrence's columns whose rows are at most sorted and cut.

    It needs no SQLite where the store can test all `conditions`.

    counts: of LIMIT, and of OFFSET.
    """

    conditions: tuple[int, ...]
    columns: tuple[str, ...]
    order: tuple[tuple[str, bool], ...]
    counts: tuple[Bind | Constant, ...]


@dataclass
class StatementPlan:
    """What a statement reads and writes.

    occurrences: names of tables, one for each place in the statement.
    target: the table that is written.  relied: its columns in conditions and expressions;
    None: any.  locks: SELECT ... FOR UPDATE.
    """

    text_only: ClassVar[bool] = False
    kind: str = ""  # select, insert, update, delete; empty: parsed from the text
    occurrences: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    top_n_candidates: tuple[TopNCandidate, ...] = ()
    target: str | None = None
    relied: frozenset[str] | None = None
    locks: bool = False
    aggregate: Aggregate | None = None
    simple_select: SimpleSelect | None = None
    # Tables that the statement names at places without an occurrence as well; and whether
    # it has text that may name any.
    partly_known: frozenset[str] = frozenset()
    text_inside: bool = False
    refused: str = ""  # a construct that isn't carried


def plain_values(value: Bind | Constant, parameters: Sequence[Any], layout: Layout) -> list[Any]:
    """Give the values that a bind parameter or a constant has."""
    if isinstance(value, Constant):
        return [value.value]
    return [parameters[place] for place in layout.get(value.name, ())]
