"""Programs of several sessions, and those orders of their steps that differ.

Writes stay with the client until COMMIT.  So what one session sees of another depends only on
which of its own steps come before the other's commit: a statement of one session and one of
another can change places.  Of two transactions one commits first, and does so at the latest
right after its last statement; its statements can all stand right before its commit.  What is left
of all orders of n statements and m others are the places of that commit among the n + 1 steps of
the transaction that commits later, and both roles are taken by every program.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from tests.interleaving.alphabet import FIRST_NUMBER, Alphabet
from tests.interleaving.kinds import Kind
from tests.interleaving.oracle import State
from tests.interleaving.runner import Step
from tests.interleaving.sessions import Session, after_statement, views
from tests.interleaving.statements import COMMIT, Statement, release, rollback_to, savepoint

Program = tuple[Statement, ...]


def committed(statements: Iterable[Statement]) -> Program:
    """A transaction of these statements."""
    return (*statements, COMMIT)


def programs(letters: Sequence[Statement], length: int) -> Iterator[Program]:
    """Every transaction of so many statements."""
    for statements in itertools.product(letters, repeat=length):
        yield committed(statements)


def writers(letters: Sequence[Statement], length: int) -> Iterator[Program]:
    """Every transaction of so many statements that each write."""
    return programs([one for one in letters if not one.reads_only], length)


def by_effect(kind: Kind, programs_: Iterable[Program]) -> Iterator[Program]:
    """One of the programs for each state that they lead to, run alone.

    That is all that a transaction sees of another one which commits before it does.  A row that
    was deleted and inserted again counts as another state than one that was updated.
    """
    known: set[State] = set()
    for program in programs_:
        session = Session(schema=kind.start.schema)
        for statement in program[:-1]:
            view = next(views(kind.start, session))
            outcome = kind.oracle.apply(view, statement, FIRST_NUMBER)
            session = after_statement(session, view, outcome, statement, 0, 1, False)
        state = next(views(kind.start, session))
        if state not in known:
            known.add(state)
            yield program


def orders(
    later: Program, first: Program, session: int = 1, begin: int = 1
) -> Iterator[list[Step]]:
    """The orders in which `first` commits before `later` does.

    With `begin` 0 also that in which it has committed when `later` begins.
    """
    for place in range(begin, len(later)):
        yield [
            *((0, one) for one in later[:place]),
            *((session, one) for one in first),
            *((0, one) for one in later[place:]),
        ]


def orders_of_three(later: Program, first: Program, second: Program) -> Iterator[list[Step]]:
    """The orders in which two others commit, one after the other, before `later` does."""
    for one, other in itertools.combinations_with_replacement(range(1, len(later)), 2):
        yield [
            *((0, s) for s in later[:one]),
            *((1, s) for s in first),
            *((0, s) for s in later[one:other]),
            *((2, s) for s in second),
            *((0, s) for s in later[other:]),
        ]


def with_savepoints(statements: Sequence[Statement]) -> Iterator[Program]:
    """A transaction with a savepoint at every place that is gone back to or released later."""
    count = len(statements)
    for start in range(count):
        for stop in range(start + 1, count + 1):
            for end in (rollback_to(), release()):
                if end.kind == "release" and stop == count:
                    continue  # nothing comes after it
                yield committed((
                    *statements[:start], savepoint(), *statements[start:stop], end,
                    *statements[stop:],
                ))  # fmt: skip


def alone(alphabet: Alphabet, length: int, rank: int) -> Iterator[Program]:
    """Transactions with savepoints and so many writes."""
    letters = [one for one in alphabet.upto(rank) if not one.reads_only]
    for statements in itertools.product(letters, repeat=length):
        yield from with_savepoints(statements)
