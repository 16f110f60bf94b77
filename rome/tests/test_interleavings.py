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

from tests.etcd_servers import EtcdServer
from tests.interleaving.alphabet import FIRST_NUMBER, SECOND_NUMBER, Alphabet
from tests.interleaving.campaign import run_family
from tests.interleaving.committed import Model, Rules, Violation
from tests.interleaving.databases import Database, InMemory, in_etcd, on_cluster, on_server
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
from tests.interleaving.runner import Course, Failure, Runner, Variant
from tests.interleaving.schedules import Program
from tests.interleaving.serial import Transaction, serial_order
from tests.interleaving.sessions import Told
from tests.interleaving.shrink import shrunk
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
    family: Family,
    name: str,
    about: int | None = None,
    database: Callable[[Kind], Database] = InMemory,
) -> int:
    """Run a family's histories over a kind, or about so many of them; at night all, in all
    variants.  How many ran."""
    share = 1.0 if NIGHT or about is None else _share(family, name, about)
    figures = run_family(family, KINDS[name], family.variants, share, None, database, in_all=NIGHT)
    if figures.failures:
        smallest = sorted(figures.failures.values(), key=lambda failure: len(failure.steps))
        wrong = "\n".join(f"{count} x {what}" for what, count in figures.violations.items())
        pytest.fail("\n\n".join([wrong, *map(shown, smallest[:8])]), pytrace=False)
    return figures.histories.total()


# ------------------------------------------------------------ all short histories


@every_kind
def test_every_pair_of_statements(name: str) -> None:
    assert judge(pairs(1, 1, 3, 2), name) > 500


@every_kind
def test_two_statements_beside_one(name: str) -> None:
    assert judge(pairs(2, 1, 1), name) > 500


@every_kind
def test_two_statements_beside_two(name: str) -> None:
    assert judge(pairs(2, 2, 1), name, 80) > 50


@every_kind
def test_any_two_statements_beside_any_other(name: str) -> None:
    assert judge(pairs(2, 1, 3), name, 80) > 50


@every_kind
def test_reads_around_a_write(name: str) -> None:
    assert judge(read_again(), name, 80) > 50


@every_kind
def test_savepoints(name: str) -> None:
    assert judge(alone(4), name, 80) > 50


@every_kind
def test_one_transaction_after_the_other(name: str) -> None:
    assert judge(sequences(), name, 80) > 50


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.family != "family"])
def test_changes_of_the_schema_by_another_session(name: str) -> None:
    assert judge(schema_changes(), name, 80) > 50


@every_kind
def test_three_sessions(name: str) -> None:
    assert judge(three_sessions(), name, 80) > 50


# ------------------------------------------------------------ on servers

_SAMPLES = (pairs(1, 1, 3, 2), pairs(2, 1, 1), alone(4), schema_changes(), read_again())


@every_kind
def test_a_sample_on_redis(name: str, redis_server: RedisServer) -> None:
    ran = [judge(family, name, 15, on_server(redis_server))
           for family in _SAMPLES]  # fmt: skip
    assert sum(ran) > 50


@every_kind
def test_a_sample_in_etcd(name: str, etcd_server: EtcdServer) -> None:
    ran = [judge(family, name, 15, in_etcd(etcd_server)) for family in _SAMPLES]
    assert sum(ran) > 50


@pytest.fixture(scope="module")
def on_a_cluster() -> Iterator[Callable[[Kind], Database]]:
    """Make databases on a Redis Cluster of the module's own."""
    with redis_cluster() as cluster:
        yield on_cluster(cluster)


@every_kind
def test_a_sample_on_a_cluster(name: str, on_a_cluster: Callable[[Kind], Database]) -> None:
    ran = [judge(family, name, 15, on_a_cluster) for family in _SAMPLES]
    assert sum(ran) > 50


def _share(family: Family, name: str, about: int) -> float:
    """The part of a family that has about so many histories."""
    groups = list(family.groups(KINDS[name]))
    return min(1.0, about / (len(groups) * len(groups[0][1]()))) if groups else 1.0


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


# ------------------------------------------------------------ the judges themselves

DONE = ("done",)
ONE = ("count", 1)
CONFLICT = ("error", "ConflictError")

# Answers that a database which loses writes, or mixes moments, would give: kind of key, how the
# sessions run, steps with their answers, the rows at the end where these are what is wrong, and the
# violation that they are.
WRONG: dict[str, Any] = {
    "a row of another session is overwritten": (
        "text", Rules(one_process=True),
        [(0, "insert C", ONE), (1, "insert C", ONE), (1, "commit", DONE),
         (0, "insert D from count", ONE), (0, "commit", DONE)],
        None, "a commit that should have failed",
    ),
    "a session's own row is lost": (
        "text", Rules(),
        [(0, "insert C", ONE), (0, "insert D", ONE), (0, "savepoint s", DONE),
         (0, "delete D", ONE), (0, "insert D", ONE), (0, "rollback to s", DONE),
         (0, "commit", DONE)],
        [("a", 1, 5), ("b", 2, 5), ("c", 11, 5)], "the rows at the end",
    ),
    "a new row has a column that another session gave the old one": (
        "text", Rules(),
        [(0, "delete A", ONE), (1, "set y of A", ONE), (1, "commit", DONE),
         (0, "insert A", ONE), (0, "commit", DONE)],
        [("a", 11, 20), ("b", 2, 5)], "the rows at the end",
    ),
    "a column that no row may lack": (
        "text", Rules(), [(1, "add z not null", DONE)], None, "DDL is accepted",
    ),
    "a stale schema": (
        "text", Rules(),
        [(1, "add z", DONE), (0, "insert C with z", ("error", "refused"))],
        None, "a statement fails with refused",
    ),
    "a later statement sees an earlier moment": (
        "cascade", Rules(),
        [(0, "read children", ("rows", (1, "a", 1))), (1, "insert parent C", ONE),
         (1, "commit", DONE), (0, "insert child C of C", ONE), (0, "read parent C", ("rows",))],
        None, "an answer goes back in time",
    ),
    "what the thread has committed isn't seen": (
        "text", Rules(one_process=True),
        [(0, "count", ("rows", (2,))), (1, "delete A", ONE), (1, "commit", DONE),
         (0, "read A", ("rows", ("a", 1, 5)))],
        None, "an answer is too old",
    ),
    "nobody is there to conflict with": (
        "text to integer", Rules(),
        [(0, "insert parent C", ONE), (0, "insert child C of C", ONE), (0, "commit", CONFLICT)],
        None, "needless conflict",
    ),
    "no error of a database": (
        "text", Rules(), [(0, "insert A", ("crash", "KeyError", "(1, 102)"))],
        None, "crash: KeyError",
    ),
    "an update is lost by a change of the key": (
        "integer", Rules(),
        [(0, "key of A to C", ONE), (1, "set x of A", ONE), (1, "commit", DONE),
         (0, "commit", DONE)],
        [(2, 2, 5), (3, 1, 5)], "the rows at the end",
    ),
    "a count of rows that wasn't true": (
        "text", Rules(),
        [(0, "compare and set x of A", ONE), (1, "compare and set x of A", ONE),
         (1, "commit", DONE), (0, "commit", DONE)],
        None, "a commit that should have failed",
    ),
    "a session doesn't see what it has written": (
        "text", Rules(),
        [(0, "set x of A", ONE), (0, "read A", ("rows", ("a", 1, 5)))],
        None, "a session doesn't see its own write",
    ),
    "read skew at SERIALIZABLE": (
        "text", Rules(serializable=True),
        [(0, "read A", ("rows", ("a", 1, 5))), (1, "add to all x", ("count", 2)),
         (1, "commit", DONE), (0, "read x >= 2", ("rows", ("a", 21, 5), ("b", 22, 5))),
         (0, "commit", DONE)],
        None, "a commit that should have failed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_model_finds(case: str) -> None:
    name, rules, steps, rows, violation = WRONG[case]
    model = Model(KINDS[name], 2, rules)
    marks = {one.name: one for one in (COMMIT, savepoint(), rollback_to())}
    alphabets = [Alphabet(KINDS[name], session) for session in range(2)]
    with pytest.raises(Violation) as found:
        for place, (session, step, answer) in enumerate(steps):
            if place == len(steps) - 1 and rows is None:
                assert model.worlds  # all before was right
            model.step(session, marks.get(step) or alphabets[session][step], answer, None)
        model.final({"t": rows or []})
    assert found.value.name == violation


def test_the_serial_judge_finds_a_cycle() -> None:
    """Each of two transactions counts before it inserts, and neither sees the other's row."""
    kind = KINDS["text"]
    told = [
        (
            Told(Alphabet(kind, session)["count"], None, ("rows", (2,))),
            Told(Alphabet(kind, session)[f"insert {key}"], None, ONE),
        )
        for session, key in enumerate("CD")
    ]
    both = [Transaction(0, 0, 4, told[0]), Transaction(1, 1, 5, told[1])]
    rows = [("a", 1, 5), ("b", 2, 5), ("c", 11, 5), ("d", 21, 5)]
    assert serial_order(kind, both, {"t": rows}) is None
    one_after_the_other = Transaction(1, 5, 6, (told[1][1],))
    assert serial_order(kind, [both[0], one_after_the_other], {"t": rows}) is not None


def test_a_failure_is_made_small() -> None:
    """What has nothing to do with it goes, as long as it fails in the same way."""
    kind = KINDS["text"]
    mine, other = Alphabet(kind, 0), Alphabet(kind, 1)
    steps = [
        (0, mine["read all"]), (0, mine["insert C"]), (1, other["set x of A"]), (1, COMMIT),
        (0, savepoint()), (0, mine["delete A"]), (0, rollback_to()), (0, COMMIT),
    ]  # fmt: skip

    def again(some: Sequence[Any], before: Sequence[Any]) -> Failure | None:
        names = [(session, one.name) for session, one in some]
        if not {(0, "insert C"), (0, "commit"), (1, "set x of A")} <= set(names):
            return None
        return Failure(
            "text", VARIANTS[0], (), tuple(some), (None,) * len(some), Violation("lost")
        )  # fmt: skip

    first = again(steps, ())
    assert first is not None
    small = shrunk(first, again)
    assert [one.name for _, one in small.steps] == ["insert C", "set x of A", "commit", "commit"]
    assert "T2: UPDATE t SET x=?" in shown(small)


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
    names = [tuple(one.name for one in program) for program in programs]
    assert len(names) == len(set(names)) > 30
