"""Which histories are run together: families of programs, and the variants that they run in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.interleaving.alphabet import Alphabet
from tests.interleaving.kinds import Kind
from tests.interleaving.runner import Step, Variant
from tests.interleaving.schedules import (
    Program,
    by_effect,
    committed,
    orders,
    orders_of_three,
    programs,
    with_savepoints,
    writers,
)
from tests.interleaving.statements import COMMIT, savepoint

# The first session's program, and what makes the histories in which it runs: most groups are
# only drawn from.
Group = tuple[Program, Callable[[], list[list[Step]]]]
Groups = Callable[[Kind], Iterator[Group]]

LEVELS = ("READ COMMITTED", "SERIALIZABLE")
_WAYS = (
    ("plans", "off", "one thread"),
    ("plans", "warmed", "processes"),
    ("text", "off", "processes"),
    ("plans", "warmed", "one thread"),
    ("plans", "cold", "processes"),
    ("text", "warmed", "threads"),
    ("plans", "warmed", "threads"),
)
VARIANTS = tuple(Variant(level, *way) for way in _WAYS for level in LEVELS)

# A process for each history takes three times as long: only the short ones have it.
_KNOWING = tuple(one for one in VARIANTS if one.reuse != "cold")


@dataclass(frozen=True)
class Family:
    """Histories of one shape.  `variants`: those that it makes sense in."""

    name: str
    groups: Groups
    variants: tuple[Variant, ...] = VARIANTS
    sessions: int = 2


def pairs(later: int, first: int, rank: int, first_rank: int | None = None) -> Family:
    """Build histories of two transactions of so many statements, in every order.

    `rank`, `first_rank`: of their statements; the second one, of that which commits first, is
    the same if it isn't given.
    """

    def groups(kind: Kind) -> Iterator[Group]:
        mine, others = Alphabet(kind, 0).upto(rank), Alphabet(kind, 1).upto(first_rank or rank)
        committing = list(by_effect(kind, writers(others, first)))
        begin = 0 if later == first == 1 else 1
        for program in programs(mine, later):
            yield program, partial(_orders, program, committing, begin)

    variants = VARIANTS if later == first == 1 else _KNOWING
    return Family(f"{later} + {first} statements, to rank {rank}", groups, variants)


def _orders(later: Program, committing: list[Program], begin: int = 1) -> list[list[Step]]:
    return [order for other in committing for order in orders(later, other, begin=begin)]


def _alone(program: Program) -> list[list[Step]]:
    return [[(0, one) for one in program]]


def read_again(rank: int = 2) -> Family:
    """Build histories in which a transaction reads, writes and reads again, beside a writer."""

    def groups(kind: Kind) -> Iterator[Group]:
        mine, others = Alphabet(kind, 0).upto(rank), Alphabet(kind, 1).upto(1)
        reads = [one for one in mine if one.reads_only and not one.locks]
        writes = [one for one in mine if not one.reads_only and one.rank == 1]
        committing = list(writers(others, 1))
        for before, write, after in itertools.product(reads, writes, reads):
            program = committed((before, write, after))
            yield program, partial(_orders, program, committing)

    variants = tuple(one for one in VARIANTS if one.reuse == "warmed" and one.form == "plans")
    return Family("read, write, read + 1 statement", groups, variants)


def alone(length: int) -> Family:
    """Build transactions with a savepoint and so many writes, and nobody beside."""

    def groups(kind: Kind) -> Iterator[Group]:
        alphabet = Alphabet(kind, 0)
        names = _OF_PARENTS if kind.family == "family" else _OF_SAVEPOINTS
        letters = [alphabet[name] for name in names]
        for statements in itertools.product(letters, repeat=length):
            if not _in_turn([one.name for one in statements]):
                continue
            for program in with_savepoints(statements):
                yield program, partial(_alone, program)

    variants = tuple(one for one in VARIANTS if one.reuse == "off")  # nobody has run it before
    return Family(f"a savepoint and {length} writes", groups, variants)


_OF_SAVEPOINTS = ("insert C", "insert D", "insert A", "delete A", "delete D")
_OF_PARENTS = (
    "insert parent C", "insert child C of C", "insert child B of A", "delete parent A",
    "delete child A",
)  # fmt: skip


def _in_turn(names: list[str]) -> bool:
    """Whether D comes after C: they are alike until then."""
    first = [name for name in names if name in ("insert C", "insert D")]
    return not first or first[0] == "insert C"


def sequences(rank: int = 2) -> Family:
    """Build histories in which one session has two transactions, beside another's one."""

    def groups(kind: Kind) -> Iterator[Group]:
        mine, others = Alphabet(kind, 0), Alphabet(kind, 1)
        letters = [one for one in mine.upto(rank) if not one.locks]
        committing = list(writers(others.upto(1), 1))
        if kind.numbered:
            committing.append(committed([others["insert second number"]]))
        for one, two in itertools.product(letters, repeat=2):
            program = (one, COMMIT, two, COMMIT)
            yield program, partial(_orders, program, committing)

    return Family("1, 1 + 1 statements", groups)


def schema_changes() -> Family:
    """Build histories in which another session changes the schema, and may insert then."""

    def groups(kind: Kind) -> Iterator[Group]:
        if kind.family == "family":
            return
        mine, others = Alphabet(kind, 0), Alphabet(kind, 1)
        letters = [
            *mine.upto(1), mine["insert C with z"], mine["read z"], mine["set z"],
            mine["read x + 0"],
        ]  # fmt: skip
        changes: list[Program] = [(one,) for one in others.ddl()]
        changes.append((others["add z"], others["insert C with z"], COMMIT))
        changes.append((others["unique y"], others["insert C"], COMMIT))
        for first, second in itertools.product([savepoint(), *letters], letters):
            program = committed((first, second))
            yield program, partial(_orders, program, changes, 0)

    return Family("2 statements + DDL", groups)


def three_sessions(rank: int = 1) -> Family:
    """Build histories of three sessions: two statements beside two writers, in every order."""

    def groups(kind: Kind) -> Iterator[Group]:
        mine, second, third = (Alphabet(kind, session).upto(rank) for session in range(3))
        ones, twos = (list(by_effect(kind, writers(one, 1))) for one in (second, third))

        def histories(program: Program) -> list[list[Step]]:
            return [o for one in ones for two in twos for o in orders_of_three(program, one, two)]

        for program in programs(mine, 2):
            yield program, partial(histories, program)

    return Family("2 + 1 + 1 statements", groups, _KNOWING, sessions=3)


FAMILIES = {
    family.name: family
    for family in (
        pairs(1, 1, 3),
        pairs(2, 1, 1),
        pairs(2, 1, 3),
        pairs(2, 2, 1),
        pairs(3, 1, 1),
        read_again(),
        alone(3),
        alone(4),
        sequences(),
        schema_changes(),
        three_sessions(),
    )
}
