"""Short histories of concurrent transactions, in every order of their steps that differs, over
tables with every kind of key: each answer and what is committed is what docs/isolation.md allows.

The model of the page, with the readings that it chose, is `interleaving/committed.py`.  A failure
shows a history that was made as small as possible.  `ROME_TESTS=night` runs for hours;
`python -m tests.interleaving` runs for as long as one likes and writes figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.interleaving.alphabet import FIRST_NUMBER, SECOND_NUMBER, Alphabet
from tests.interleaving.campaign import run_family
from tests.interleaving.committed import Violation
from tests.interleaving.databases import Database, InMemory, on_cluster, on_server
from tests.interleaving.families import (
    LEVELS,
    VARIANTS,
    Family,
    alone,
    pairs,
    read_again,
    schema_changes,
    sequences,
    three_sessions,
)
from tests.interleaving.kinds import KINDS, Kind
from tests.interleaving.report import shown
from tests.interleaving.runner import Course, Runner, Variant
from tests.interleaving.schedules import Program
from tests.interleaving.statements import (
    COMMIT,
    ROLLBACK,
    Statement,
    release,
    rollback_to,
    savepoint,
)
from tests.servers import RedisServer, redis_cluster

NIGHT = os.environ.get("ROME_TESTS") == "night"

every_kind = pytest.mark.parametrize("name", KINDS)


def judge(
    family: Family, name: str, share: float, database: Callable[[Kind], Database] = InMemory
) -> int:
    """Run a family's histories over a kind, all of them at night; how many ran."""
    variants = family.variants
    figures = run_family(
        family, KINDS[name], variants, 1.0 if NIGHT else share, None, database, in_all=NIGHT
    )
    if figures.failures:
        smallest = sorted(figures.failures.values(), key=lambda failure: len(failure.steps))
        wrong = "\n".join(f"{count} x {what}" for what, count in figures.violations.items())
        pytest.fail("\n\n".join([wrong, *map(shown, smallest[:8])]), pytrace=False)
    return figures.histories.total()


# ------------------------------------------------------------ all short histories


@every_kind
def test_every_pair_of_statements(name: str) -> None:
    assert judge(pairs(1, 1, 3), name, 1.0) > 1000


@every_kind
def test_two_statements_beside_one(name: str) -> None:
    assert judge(pairs(2, 1, 1), name, 1.0) > 1000


@every_kind
def test_two_statements_beside_two(name: str) -> None:
    assert judge(pairs(2, 2, 1), name, 0.02) > 100


@every_kind
def test_any_two_statements_beside_any_other(name: str) -> None:
    assert judge(pairs(2, 1, 3), name, 0.01) > 100


@every_kind
def test_reads_around_a_write(name: str) -> None:
    assert judge(read_again(), name, 0.1) > 100


@every_kind
def test_savepoints(name: str) -> None:
    assert judge(alone(4), name, 0.1) > 100


@every_kind
def test_one_transaction_after_the_other(name: str) -> None:
    assert judge(sequences(), name, 0.05) > 100


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.family != "family"])
def test_changes_of_the_schema_by_another_session(name: str) -> None:
    assert judge(schema_changes(), name, 0.05) > 100


@every_kind
def test_three_sessions(name: str) -> None:
    assert judge(three_sessions(), name, 0.02) > 100


# ------------------------------------------------------------ on servers

_SAMPLES = (pairs(1, 1, 3), pairs(2, 1, 1), alone(4), schema_changes(), read_again())


@every_kind
def test_a_sample_on_redis(name: str, redis_server: RedisServer) -> None:
    ran = [judge(family, name, _share(family, name), on_server(redis_server))
           for family in _SAMPLES]  # fmt: skip
    assert sum(ran) > 50


@pytest.fixture(scope="module")
def on_a_cluster() -> Iterator[Callable[[Kind], Database]]:
    """Make databases on a Redis Cluster of the module's own."""
    with redis_cluster() as cluster:
        yield on_cluster(cluster)


@every_kind
def test_a_sample_on_a_cluster(name: str, on_a_cluster: Callable[[Kind], Database]) -> None:
    ran = [judge(family, name, _share(family, name), on_a_cluster) for family in _SAMPLES]
    assert sum(ran) > 50


def _share(family: Family, name: str) -> float:
    """So much that about 30 histories run."""
    histories = [len(histories) for _, histories in family.groups(KINDS[name])]
    return 30 / sum(histories) if histories else 1.0


# ------------------------------------------------------------ longer ones


class Sessions(RuleBasedStateMachine):
    """Three sessions that do anything, one step after the other."""

    runners: dict[tuple[str, Variant], Runner] = {}  # noqa: RUF012 - shared by all examples

    @initialize(kind=st.sampled_from(sorted(KINDS)), variant=st.sampled_from(VARIANTS))
    def begin(self, kind: str, variant: Variant) -> None:
        """Put a database back to its beginning."""
        if (kind, variant) not in self.runners:
            self.runners[kind, variant] = Runner(InMemory(KINDS[kind]), variant, 3)
        self.runner = self.runners[kind, variant]
        self.course: Course | None = self.runner.begin()
        alphabets = [Alphabet(KINDS[kind], session) for session in range(3)]
        self.letters: list[list[Statement]] = [[*one.upto(3), *one.ddl()] for one in alphabets]
        self.saved: list[list[str]] = [[], [], []]

    def _step(self, session: int, statement: Statement) -> None:
        assert self.course is not None
        course, self.course = self.course, None
        try:
            self.runner.step(course, session, statement)
        except Violation as violation:
            raise AssertionError(
                shown(self.runner.failure(course, course.steps, violation))
            ) from None
        self.course = course
        if course.answers[-1] == ("error", "ConflictError") or session in course.failed:
            self.saved[session].clear()

    @rule(session=st.integers(0, 2), number=st.integers(0, 10**6))
    def statement(self, session: int, number: int) -> None:
        """Run any statement; a change of the schema seldom, and after a commit."""
        letters = self.letters[session]
        statement = letters[number % len(letters)]
        if statement.kind == "ddl":
            self.end(session, COMMIT)
        self._step(session, statement)

    @rule(session=st.integers(0, 2), statement=st.sampled_from([COMMIT, COMMIT, ROLLBACK]))
    def end(self, session: int, statement: Statement) -> None:
        """End a transaction."""
        self._step(session, statement)
        self.saved[session].clear()

    @rule(session=st.integers(0, 2), name=st.sampled_from("rs"))
    def save(self, session: int, name: str) -> None:
        """Begin a savepoint."""
        assert self.course is not None
        if session not in self.course.failed:
            self._step(session, savepoint(name))
            self.saved[session].append(name)

    @precondition(lambda self: any(self.saved))
    @rule(session=st.integers(0, 2), back=st.booleans())
    def end_savepoint(self, session: int, back: bool) -> None:
        """Go back to the latest savepoint, or forget it."""
        names = self.saved[session]
        if names:
            self._step(session, rollback_to(names[-1]) if back else release(names[-1]))
            if not back:
                names.pop()

    def teardown(self) -> None:
        """Judge what is there at the end."""
        course = getattr(self, "course", None)
        if course is None:
            return
        for session in range(3):
            self._step(session, COMMIT)
        try:
            self.runner.end(course)
        except Violation as violation:
            raise AssertionError(
                shown(self.runner.failure(course, course.steps, violation))
            ) from None


def test_longer_histories() -> None:
    try:
        run_state_machine_as_test(
            Sessions, settings=settings(stateful_step_count=40 if NIGHT else 20)
        )
    finally:
        for runner in Sessions.runners.values():
            runner.close()
        Sessions.runners.clear()


# ------------------------------------------------------------ the machinery itself


def run(name: str, variant: Variant, *steps: tuple[int, str]) -> Any:
    """Run a history, named step by step, over a kind: its failure, or None."""
    marks = {one.name: one for one in (COMMIT, savepoint(), rollback_to(), release())}
    alphabets = [Alphabet(KINDS[name], session) for session in range(2)]
    made = [
        (session, marks.get(one) or alphabets[session][one]) for session, one in steps
    ]  # fmt: skip
    runner = Runner(InMemory(KINDS[name]), variant)
    program: Sequence[Statement] = [one for session, one in made if session == 0]
    runner.warm(program)
    failure = runner.run(made)
    runner.close()
    return failure


def test_the_first_numbers_of_a_process_are_known() -> None:
    """A process' second number is one that the alphabet lets another session choose."""
    kind = KINDS["integer"]
    runner = Runner(InMemory(kind), VARIANTS[0])
    numbered = Alphabet(kind, 0)["insert numbered"]
    numbers = [runner.answer(0, numbered)[1] for _ in range(2)]
    runner.close()
    assert numbers == [FIRST_NUMBER, SECOND_NUMBER]


def test_programs_cover_what_they_say() -> None:
    for level in LEVELS:
        assert {variant.place for variant in VARIANTS if variant.level == level} == {
            "one thread", "threads", "processes",
        }  # fmt: skip
    programs: list[Program] = [program for program, _ in alone(2).groups(KINDS["text"])]
    assert len(programs) == len(set(programs)) > 50
