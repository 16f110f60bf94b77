"""Runs a history on ROME, step by step, and puts each answer to the judges."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, cast

from rome.engine import row_locks
from rome.engine.shared import Shared
from rome.stores.rows import NULL, split, unpack_value
from sqlalchemy import Connection

from rome import errors
from tests.fuzzing.pairs import wrong_index
from tests.interleaving.committed import CONFLICT, DONE, Model, Rules, Violation
from tests.interleaving.databases import Database, InMemory
from tests.interleaving.oracle import Answer, Values
from tests.interleaving.serial import Transaction, serial_order
from tests.interleaving.sessions import Told
from tests.interleaving.statements import Statement

# A step: the session, and its statement.
Step = tuple[int, Statement]
# Times that a program is run to be known to the process.
_LESSONS = 3


@dataclass(frozen=True)
class Variant:
    """How sessions run.

    level: READ COMMITTED or SERIALIZABLE.  form: `plans` (compiled) or `text`.  reuse: `off`
    (no result cache, no prefetching), `cold` (on, a process that has run nothing), `warmed` (on,
    the process knows the first session's program).  place: `one thread`, `threads` (one for
    each session, in one process) or `processes` (each session has its own caches and numbers).
    """

    level: str = "READ COMMITTED"
    form: str = "plans"
    reuse: str = "warmed"
    place: str = "processes"

    @property
    def rules(self) -> Rules:
        """What the model has to know of it."""
        return Rules(
            serializable=self.level == "SERIALIZABLE",
            prefetch=self.reuse != "off",
            one_process=self.place != "processes",
            as_text=self.form == "text",
        )

    def __str__(self) -> str:
        return ", ".join((self.level, self.form, self.reuse, self.place))


@dataclass(frozen=True)
class Failure:
    """A history that violates what the page promises."""

    kind: str
    variant: Variant
    warming: tuple[Statement, ...]
    steps: tuple[Step, ...]
    answers: tuple[Answer | None, ...]  # None: not run, its transaction had failed
    violation: Violation
    store: str = "memory"
    before: tuple[Step, ...] = ()  # the history that ran before on the same connections


def _pass(_seconds: SupportsIndex | float) -> None:
    """Sleep no time."""


class _Thread:
    """Runs calls in a thread of its own, one at a time."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            self._results.put(call())

    def call(self, function: Callable[[], Any]) -> Any:
        self._calls.put(function)
        return self._results.get()

    def end(self) -> None:
        self._calls.put(None)
        self._thread.join()


@dataclass
class Course:
    """A history while it runs."""

    model: Model
    steps: list[Step] = field(default_factory=list)
    answers: list[Answer | None] = field(default_factory=list)
    committed: list[Transaction] = field(default_factory=list)
    begun: dict[int, int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # sessions whose transaction has failed


class Runner:
    """Runs histories over one database in one variant."""

    def __init__(self, database: Database, variant: Variant, sessions: int = 2) -> None:
        self.database = database
        self.kind = database.kind
        self.variant = variant
        self.sessions = sessions
        self._warmed: tuple[Statement, ...] = ()
        self._threads: list[_Thread] = []
        if variant.place == "threads":
            self._threads = [_Thread() for _ in range(sessions)]
        self._observer = database.connect(Shared(), result_cache=False, prefetch=False)
        self._seen: dict[Any, dict[str, list[Values]]] = {}
        self._shared: list[Shared] = []
        self._connections: list[Any] = []
        self._alone = isinstance(database, InMemory)  # no server that may need time
        self.steps = 0
        self._before: tuple[Step, ...] = ()
        self._open()

    def _open(self) -> None:
        """Begin processes that know nothing."""
        for connection in self._connections:
            connection.close()
        count = self.sessions if self.variant.place == "processes" else 1
        self._before = ()
        self._shared = [Shared() for _ in range(count)]
        on = self.variant.reuse != "off"
        self._connections = [
            self.database.connect(
                self._shared[session % count],
                serializable=self.variant.level == "SERIALIZABLE",
                result_cache=on,
                prefetch=on,
            )
            for session in range(self.sessions)
        ]
        self._load()

    def _load(self) -> None:
        for connection in self._connections:
            connection.catalogue.load(connection.store)

    def close(self) -> None:
        """End connections and threads; the database stays."""
        for connection in (*self._connections, self._observer):
            connection.close()
        for thread in self._threads:
            thread.end()

    # ------------------------------------------------------------ histories

    def warm(self, program: Iterable[Statement]) -> None:
        """Let the first session's process know a program, if the variant says so."""
        program = tuple(program)
        if self.variant.reuse != "warmed" or program == self._warmed:
            return
        self._open()
        self._warmed = program
        for _ in range(_LESSONS):
            self._begin()
            for statement in program:
                if self.answer(0, statement)[0] == CONFLICT:
                    break

    def _begin(self) -> None:
        changed = self.database.restore()
        for shared in self._shared:
            shared.ids.forget_all()
        if changed:
            self._load()
        for connection in self._connections:
            connection.rollback()

    def begin(self) -> Course:
        """Put the database back and begin a history."""
        if self.variant.reuse == "cold":
            for connection in self._connections:
                connection.rollback()
            self.database.restore()
            self._open()
        else:
            self._begin()
        return Course(Model(self.kind, self.sessions, self.variant.rules))

    def run(self, steps: Sequence[Step]) -> Failure | None:
        """Run a history and judge it."""
        course = self.begin()
        before, self._before = self._before, tuple(steps)
        try:
            for session, statement in steps:
                self.step(course, session, statement)
            self.end(course)
        except Violation as violation:
            return self.failure(course, steps, violation, before)
        return None

    def failure(
        self,
        course: Course,
        steps: Sequence[Step],
        violation: Violation,
        before: tuple[Step, ...] = (),
    ) -> Failure:
        """Put together what is known of a failed history."""
        return Failure(
            self.kind.name,
            self.variant,
            self._warmed,
            tuple(steps),
            tuple(course.answers),
            violation,
            type(self.database).__name__,
            before,
        )

    def step(self, course: Course, session: int, statement: Statement) -> None:
        """Run a step; raises Violation."""
        ends = statement.kind in ("commit", "rollback")
        if session in course.failed:
            course.steps.append((session, statement))
            course.answers.append(None)
            if ends:
                course.failed.discard(session)
            return
        place = len(course.steps)
        course.begun.setdefault(session, place)
        self.steps += 1
        answer, number = self.answer(session, statement)
        course.steps.append((session, statement))
        course.answers.append(answer)
        told = tuple(course.model.told[session])
        course.model.step(session, statement, answer, number)
        if statement.kind == "ddl":
            told = (Told(statement, None, answer),)
        if answer == CONFLICT and not ends:
            course.failed.add(session)
        if ends or answer == CONFLICT or statement.kind == "ddl":
            first = course.begun.pop(session)
            if answer == DONE and statement.kind != "rollback":
                course.committed.append(Transaction(session, first, place, told))

    def end(self, course: Course) -> None:
        """Judge what is there at the end; raises Violation."""
        for connection in self._connections:
            connection.rollback()
        tables = self._tables()
        course.model.final(tables)
        serializable = self.variant.level == "SERIALIZABLE"
        if serializable and serial_order(self.kind, course.committed, tables) is None:
            raise Violation("no serial order")

    # ------------------------------------------------------------ steps on ROME

    def answer(self, session: int, statement: Statement) -> tuple[Answer, int | None]:
        """Run a statement outside of any history; its answer, and the number of its row."""
        if self._threads:
            found: tuple[Answer, int | None] = self._threads[session].call(
                lambda: self._execute(session, statement)
            )
            return found
        return self._execute(session, statement)

    def _execute(self, session: int, statement: Statement) -> tuple[Answer, int | None]:
        connection = self._connections[session]
        # Nobody else goes on while this one waits: for a row, or before it runs again.
        waited, row_locks.WAIT = row_locks.WAIT, 0.0
        slept = time.sleep
        if self._alone:
            time.sleep = _pass
        try:
            return self._executed(connection, statement)
        except errors.ConflictError:
            connection.rollback()
            return CONFLICT, None
        except errors.IntegrityError:
            if statement.kind == "commit":
                connection.rollback()
            return ("error", "IntegrityError"), None
        except errors.InternalError as error:
            return ("crash", type(error).__name__, str(error)), None
        except errors.Error:
            if statement.kind == "commit":
                connection.rollback()
            return ("error", "refused"), None
        except Exception as error:
            return ("crash", type(error).__name__, str(error)), None
        finally:
            row_locks.WAIT = waited
            time.sleep = slept

    def _executed(self, connection: Any, statement: Statement) -> tuple[Answer, int | None]:
        if statement.kind == "commit":
            connection.commit()
            return DONE, None
        if statement.kind == "rollback":
            connection.rollback()
            return DONE, None
        cursor = connection.cursor()
        statement.run(cursor, self.variant.form == "text")
        if statement.kind in ("savepoint", "rollback to", "release", "ddl"):
            return DONE, None
        if cursor.description is not None:
            return ("rows", *sorted(map(tuple, cursor.fetchall()), key=repr)), None
        return ("count", cursor.rowcount), cursor.lastrowid if statement.numbered else None

    # ------------------------------------------------------------ the end

    def _tables(self) -> dict[str, list[Values]]:
        """All rows, as each way of reading them tells; raises Violation where they differ."""
        content = self.database.fingerprint()
        known = self._seen.get(content) if content is not None else None
        if known is None:
            known = self._looked()
            if content is not None:
                self._seen[content] = known
        return known

    def _looked(self) -> dict[str, list[Values]]:
        connection = self._observer
        connection.rollback()
        schema = connection.catalogue.load(connection.store)
        problem = wrong_index(cast(Connection, _Pooled(connection)))
        if problem:
            raise Violation("index", detail=problem)
        found = {}
        for table in schema.tables.values():
            raw = sorted(_stored(connection.store, table), key=repr)
            cursor = connection.cursor()
            names = ", ".join(column.name for column in table.columns)
            cursor.execute(f"SELECT {names} FROM {table.name}")
            shown = sorted(map(tuple, cursor.fetchall()), key=repr)
            if raw != shown:
                raise Violation("rows that a SELECT doesn't show", [("rows", *raw)], str(shown))
            found[table.name] = shown
        return found


class _Pooled:
    """A connection of the driver where one of SQLAlchemy is expected."""

    def __init__(self, connection: Any) -> None:
        self.dbapi_connection = connection
        self.connection = self


def _stored(store: Any, table: Any) -> list[Values]:
    """All rows as they are in the store, whatever statements say of them."""
    fills = dict(map(tuple, table.packed_defaults))
    found = []
    for _, row in store.scan(table.number):
        parts = split(row)
        parts += [fills.get(slot, NULL) for slot in range(len(parts), table.full_width)]
        found.append(tuple(unpack_value(parts[slot]) for slot in table.column_slots))
    return found
