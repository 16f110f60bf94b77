"""Histories made by hand, for the tests of the checker; times are small numbers."""

from __future__ import annotations

from tests.histories.checker import check
from tests.histories.model import (
    ABORTED,
    COMMITTED,
    READ_COMMITTED,
    SERIALIZABLE,
    UNKNOWN,
    Action,
    History,
    Read,
    Row,
    Step,
    Transaction,
)

BOTH = (READ_COMMITTED, SERIALIZABLE)


def did(
    name: str,
    *actions: Action,
    at: tuple[int, int] = (0, 100),
    outcome: str = COMMITTED,
    level: str = SERIALIZABLE,
    committing: int | None = None,
    error: str = "",
) -> Transaction:
    """A transaction whose statements all took from its begin to just before its commit."""
    began, ended = at
    sent = ended - 1 if committing is None else committing
    return Transaction(
        name=name,
        steps=tuple(Step(action, began, sent) for action in actions),
        outcome=outcome,
        level=level,
        began=began,
        committing=None if outcome == ABORTED else sent,
        ended=None if outcome == UNKNOWN else ended,
        error=error,
    )


def saw(*lists: tuple[str, tuple[int, ...]], **rows: Row) -> Read:
    """What a SELECT saw."""
    return Read(dict(lists), rows)


def found(
    *transactions: Transaction,
    lists: dict[str, tuple[int, ...]] | None = None,
    rows: dict[str, Row] | None = None,
    initial: dict[str, int] | None = None,
    prefetches: bool = True,
    stale: tuple[tuple[int, int], ...] = (),
) -> set[str]:
    """The names of what is wrong."""
    final = Read(lists or {}, rows or {})
    return set(check(History(transactions, final, initial or {}, prefetches, stale)).anomalies)
