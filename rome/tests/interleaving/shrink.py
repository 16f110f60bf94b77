"""Make a failing history smaller while it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.interleaving.databases import Database
from tests.interleaving.runner import Failure, Runner, Step, Variant

_ENDS = ("commit", "rollback")


# Runs a history after another one (which may be empty), from the beginning.
Again = Callable[[Sequence[Step], Sequence[Step]], Failure | None]


def shrunk(failure: Failure, again: Again) -> Failure:
    """The smallest history found by leaving out steps.

    Steps behind the one that fails go first, then whole transactions, then single steps.  Where
    it fails only after the history before it, that one is made small as well.
    """
    before: Sequence[Step] = ()
    if not _same(again(failure.steps, before), failure):
        before = failure.before
        if not _same(again(failure.steps, before), failure):
            return failure  # it takes more than one history before it
    small = _smallest(failure, failure.steps[: len(failure.answers)], lambda s: again(s, before))
    if before:
        steps = small.steps
        small = _smallest(small, before, lambda earlier: again(steps, earlier))
    return small


def _smallest(
    failure: Failure, steps: Sequence[Step], run: Callable[[Sequence[Step]], Failure | None]
) -> Failure:
    smallest = failure
    candidates: list[Sequence[Step]] = [steps]
    while candidates:
        for candidate in candidates:
            found = run(candidate)
            if found is not None and _same(found, failure):
                smallest, steps = found, candidate
                break
        else:
            break
        candidates = [*_smaller(steps)]
    return smallest


def rerun(
    database: Callable[[], Database],
    variant: Variant,
    sessions: int,
    steps: Sequence[Step],
    before: Sequence[Step] = (),
) -> Failure | None:
    """Run a history in a new database by new processes, which know its first program if the
    variant says so, and have run another history before."""
    made = database()
    runner = Runner(made, variant, sessions)
    try:
        runner.warm(statement for session, statement in steps if session == 0)
        if before:
            runner.run(before)
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
