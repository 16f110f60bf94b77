"""Make a failing history smaller while it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.interleaving.databases import Database
from tests.interleaving.runner import Failure, Runner, Step, Variant

_ENDS = ("commit", "rollback")


def shrunk(failure: Failure, again: Callable[[Sequence[Step]], Failure | None]) -> Failure:
    """The smallest history found by leaving out steps; `again` runs one from the beginning.

    Steps behind the one that fails go first, then whole transactions, then single steps.
    """
    smallest = failure
    ran = len(failure.answers)
    candidate = again(failure.steps[:ran])
    if _same(candidate, failure):
        assert candidate is not None
        smallest = candidate
    improved = True
    while improved:
        improved = False
        for steps in _smaller(smallest.steps):
            candidate = again(steps)
            if _same(candidate, failure):
                assert candidate is not None
                smallest = candidate
                improved = True
                break
    return smallest


def rerun(
    database: Callable[[], Database], variant: Variant, sessions: int, steps: Sequence[Step]
) -> Failure | None:
    """Run a history in a new database by new processes, which know its first program if the
    variant says so."""
    made = database()
    runner = Runner(made, variant, sessions)
    try:
        runner.warm(statement for session, statement in steps if session == 0)
        return runner.run(steps)
    finally:
        runner.close()
        made.close()


def _same(candidate: Failure | None, failure: Failure) -> bool:
    return candidate is not None and candidate.violation.name == failure.violation.name


def _smaller(steps: Sequence[Step]) -> list[list[Step]]:
    found = []
    for session in sorted({session for session, _ in steps}):
        for first, last in _transactions(steps, session):
            found.append([
                step for place, step in enumerate(steps)
                if step[0] != session or not first <= place <= last
            ])  # fmt: skip
    for place, (_, statement) in enumerate(steps):
        if statement.kind in _ENDS:
            continue
        rest = [*steps[:place], *steps[place + 1 :]]
        if _well_formed(rest):
            found.append(rest)
    return [rest for rest in found if rest and len(rest) < len(steps)]


def _transactions(steps: Sequence[Step], session: int) -> list[tuple[int, int]]:
    places = []
    first = None
    last = 0
    for place, (number, statement) in enumerate(steps):
        if number != session:
            continue
        first = place if first is None else first
        last = place
        if statement.kind in _ENDS:
            places.append((first, place))
            first = None
    if first is not None:
        places.append((first, last))
    return places


def _well_formed(steps: Sequence[Step]) -> bool:
    """Whether savepoints are there that are gone back to."""
    open_: dict[int, list[str]] = {}
    for session, statement in steps:
        names = open_.setdefault(session, [])
        if statement.kind in _ENDS:
            names.clear()
        elif statement.kind == "savepoint":
            names.append(statement.table)
        elif statement.kind in ("rollback to", "release"):
            if statement.table not in names:
                return False
            place = max(i for i, name in enumerate(names) if name == statement.table)
            del names[place + (statement.kind == "rollback to") :]
    return True
