"""Whether some serial order of committed transactions explains their answers and the end.

A plain judge beside the model: it knows nothing of moments, rows' identities or checks, only
plain SQLite, and the order of transactions that didn't overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.interleaving.committed import REFUSED
from tests.interleaving.kinds import Kind
from tests.interleaving.oracle import Outcome, State, Values, state_of
from tests.interleaving.sessions import Told

_NO_NUMBER = 800_000


@dataclass(frozen=True)
class Transaction:
    """A committed transaction: places of its first and last step in the history, and what it
    was told."""

    session: int
    first: int
    last: int
    told: tuple[Told, ...]


def serial_order(
    kind: Kind, transactions: Sequence[Transaction], final: dict[str, list[Values]]
) -> tuple[Transaction, ...] | None:
    """The first serial order that explains all; None if there is none."""
    actual = {name: sorted(rows, key=repr) for name, rows in final.items()}
    for order in _orders(transactions):
        state: State | None = kind.start
        for transaction in order:
            if state is not None:
                state = _run(kind, state, transaction.told)
        if state is not None and actual == {
            table.name: list(values)
            for table, values in zip(state.schema.tables, state.values, strict=True)
        }:
            return order
    return None


def _orders(transactions: Sequence[Transaction]) -> Iterator[tuple[Transaction, ...]]:
    """All orders in which none stands before one that had ended when it began."""
    for order in itertools.permutations(transactions):
        if all(a.first < b.last for a, b in itertools.combinations(order, 2)):
            yield order


def _run(kind: Kind, state: State, told: Sequence[Told]) -> State | None:
    """The state after a transaction; None if it answers differently over this one."""
    saves: list[tuple[str, State]] = []
    for one in told:
        statement = one.statement
        if one.answer == REFUSED and statement.kind != "ddl":
            continue
        if statement.kind == "savepoint":
            saves.append((statement.table, state))
        elif statement.kind in ("rollback to", "release"):
            place = max(i for i, (name, _) in enumerate(saves) if name == statement.table)
            if statement.kind == "rollback to":
                state = saves[place][1]
                del saves[place + 1 :]
            else:
                del saves[place:]
        else:
            number = one.number
            if statement.numbered and number is None:
                number = _NO_NUMBER
            outcome = kind.oracle.apply(state, statement, number)
            same = outcome.answer == one.answer
            if statement.kind == "ddl":
                same = outcome.answer[0] == one.answer[0]
            if not same:
                return None
            if outcome.answer[0] != "error":
                state = _following(outcome)
    return state


def _following(outcome: Outcome) -> State:
    return state_of(
        outcome.schema,
        [
            [((0, place), values) for place, (_, values) in enumerate(rows)]
            for rows in outcome.tables
        ],
    )


__all__ = ["Transaction", "serial_order"]
