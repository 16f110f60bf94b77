"""Runs families of histories, makes failures small and counts."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.interleaving.databases import Database, InMemory
from tests.interleaving.families import Family, Group
from tests.interleaving.kinds import Kind
from tests.interleaving.report import cause
from tests.interleaving.runner import Failure, Runner, Step, Variant
from tests.interleaving.shrink import rerun, shrunk

# How many failures of one violation, kind and level are made small.
_SHRUNK = 3


@dataclass
class Figures:
    """What ran, by kind of key and level, and what was wrong."""

    histories: Counter[tuple[str, str]] = field(default_factory=Counter)
    complete: dict[str, bool] = field(default_factory=dict)  # by family: whether all of it ran
    violations: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: dict[tuple[str, ...], Failure] = field(default_factory=dict)
    statements: int = 0
    seconds: float = 0.0

    def add(self, other: Figures) -> None:
        """Add what another run has counted."""
        self.histories += other.histories
        self.violations += other.violations
        for name, whole in other.complete.items():
            self.complete[name] = whole and self.complete.get(name, True)
        self.failures |= other.failures
        self.statements += other.statements
        self.seconds += other.seconds


def run_family(
    family: Family,
    kind: Kind,
    variants: Sequence[Variant],
    share: float = 1.0,
    until: float | None = None,
    database: Callable[[Kind], Database] = InMemory,
    in_all: bool = False,
) -> Figures:
    """Run a family's histories over one kind.

    Each program runs in one of the variants, in turn, or `in_all` of them.  `share`: which part of
    the programs is drawn, the same ones each time; `until`: when to stop, as time.monotonic says.
    """
    figures = Figures()
    started = time.monotonic()
    groups = _drawn(list(family.groups(kind)), share)
    made = database(kind)
    runners = [Runner(made, variant, family.sessions) for variant in variants]
    jobs = [
        (group, runner)
        for place, group in enumerate(groups)
        for runner in (runners if in_all else [runners[place % len(runners)]])
    ]
    figures.complete[family.name] = share >= 1
    for (program, histories), runner in jobs:
        if until is not None and time.monotonic() > until:
            figures.complete[family.name] = False
            break
        runner.warm(program)
        for steps in histories():
            failure = runner.run(steps)
            figures.histories[kind.name, runner.variant.level] += 1
            if failure is not None:
                _note(figures, failure, lambda: database(kind), family.sessions)
    figures.statements = sum(runner.steps for runner in runners)
    for runner in runners:
        runner.close()
    made.close()
    figures.seconds = time.monotonic() - started
    return figures


def _drawn(groups: list[Group], share: float) -> list[Group]:
    # In another order than they were made in, so that a program isn't bound to a variant by its
    # first statement.
    random.Random(len(groups)).shuffle(groups)
    return groups[: max(1, round(len(groups) * share))] if groups else groups


def _note(
    figures: Figures, failure: Failure, database: Callable[[], Database], sessions: int
) -> None:
    key = (failure.violation.name, failure.kind, failure.variant.level)
    figures.violations[key] += 1
    if figures.violations[key] > _SHRUNK:
        return

    def again(steps: Sequence[Step], before: Sequence[Step]) -> Failure | None:
        return rerun(database, failure.variant, sessions, steps, before)

    small = shrunk(failure, again)
    known = figures.failures.get(cause(small))
    if known is None or len(small.steps) < len(known.steps):
        figures.failures[cause(small)] = small
