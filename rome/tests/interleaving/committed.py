"""A reference model of docs/isolation.md: which answers and outcomes the page allows.

The model keeps every course of events ("world") that explains the answers so far: where the page
leaves a choice, such as the moment that a statement sees, the worlds part; an answer that no world
explains is a violation.  Where the page says nothing or more than one thing, the model reads it
as a user of READ COMMITTED databases would:

1.  A row is the same row from its insertion to its deletion.  Who deletes a row and inserts
    another one with its key makes a new row.  Another transaction that has written the old one
    may take either for "the row that it has written", as their keys are equal.  Where the key is
    the row's number (docs/layout.md), it may take a row whose key was changed for another one.
2.  "A row of another transaction that has a key of a row that this one has written (has inserted,
    moved to that key, or changed while the other one put a new row in its place) can't be shown
    beside it: the statement that meets it fails with ConflictError."
    Which statements meet it is left open: one that doesn't fail answers without that row.
3.  Other than that, a statement fails with ConflictError only where the commit would fail at that
    moment.
4.  What ROLLBACK TO undoes isn't written: its rows are seen as others have them, at a moment not
    before that of the statements before.  A commit may still fail where such rows were changed,
    because their statements have answered.  SAVEPOINT itself sees nothing.
5.  A statement sees the moment of the latest statement of its transaction that asked the store,
    or that when it runs.  A SELECT that the transaction has run before sees that when it runs.
6.  With `prefetch=off` each SELECT and INSERT sees the moment when it runs.  UPDATE and DELETE
    may see rows that the transaction has read (docs/query.md, "Writes"), and an INSERT that has
    no key to check needs to see nothing: not even that its table has been changed.
7.  "Prefetched rows are not used either once the application could know better through this
    process": with sessions in one process each SELECT and INSERT sees the moment when it runs.
8.  "A row that the transaction has written it sees as it was when the transaction last read it, in
    all columns that it hasn't set": each statement may or may not have read it anew.
9.  An UPDATE relies, in each row that it writes, on the columns that its WHERE and expressions
    use, unless the transaction had set them before.  One that isn't compiled, or changes an
    INTEGER PRIMARY KEY, may rely on all.  An upsert relies on the columns of its key and may
    rely on all.
10. A commit fails with ConflictError only if the transaction relied on something that was
    changed, and its statements, run again, answer differently.  It never fails with another
    error.
11. A number that the store chose for a row stays when the statements are run again.
12. Limit "a number of its own choice": "If another process inserts a row with a number of its own
    choice, and that number lies in a block that was handed out before, the transaction which has
    given the same number to a new row fails at its commit with ConflictError, also if nobody
    wrote at the same time".  The row is seen in place of the other's until then.
13. At SERIALIZABLE a commit that writes, and one after several SELECTs, is as if all statements
    had run at the moment of the commit; one SELECT alone is as of its own moment, and one with a
    savepoint, or one other statement that wrote nothing, is either.  Answers of a transaction
    that fails are those of READ COMMITTED.  Beside a change of the schema it is enough that some
    serial order explains all answers.
14. At SERIALIZABLE a statement may fail with ConflictError as soon as another transaction has
    committed a write since the transaction began.
15. An upsert's row number is one of its answers, though the application seldom asks for it: a
    commit may fail because the upsert would insert now where it has updated, or the other way.
16. That a statement is refused for its text (no such column) is no answer about rows: it may, but
    need not be, what another answer is when the statements are run again.
17. "A transaction that has written when somebody else changes the schema is run again over the new
    one, at its next statement or its commit": so it is also where somebody has only tried to
    change the schema.  Then its rows are those of the second time.
18. Limit "a change that is older": "a transaction that has only inserted rows, which asks nothing,
    may hear only at its commit of a change that is older than it", of another process.
19. A transaction that only reads commits at READ COMMITTED whatever others did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.interleaving.kinds import Kind
from tests.interleaving.oracle import Answer, State, Values, state_of
from tests.interleaving.sessions import (
    Session,
    Told,
    World,
    after_statement,
    altered,
    differ,
    ended,
    refreshed,
    replaced,
    same_row,
    saved,
    views,
    without_number,
)
from tests.interleaving.statements import Statement

DONE: Answer = ("done",)
CONFLICT: Answer = ("error", "ConflictError")
REFUSED: Answer = ("error", "refused")
# For an INSERT that failed before its row got a number.
_NO_NUMBER = 800_000


class Violation(Exception):
    """An answer or outcome that the page doesn't allow: its class, and what it allows."""

    def __init__(self, name: str, expected: Sequence[Answer] = (), detail: str = "") -> None:
        self.name = name
        self.expected = tuple(expected)
        self.detail = detail
        super().__init__(name)


@dataclass(frozen=True)
class Rules:
    """How the sessions of a history run."""

    serializable: bool = False
    prefetch: bool = True
    one_process: bool = False
    as_text: bool = False


class Model:
    """Judges a history step by step."""

    def __init__(self, kind: Kind, sessions: int, rules: Rules) -> None:
        self.oracle = kind.oracle
        self.rules = rules
        self.worlds = {World((kind.start,), (Session(),) * sessions)}
        self.told: list[list[Told]] = [[] for _ in range(sessions)]

    # ------------------------------------------------------------ steps

    def step(self, session: int, statement: Statement, answer: Answer, number: int | None) -> None:
        """Take an answer; raises Violation if no course of events explains it."""
        if answer[0] == "crash":
            raise Violation(f"crash: {answer[1]}", detail=str(answer[2]))
        kind = statement.kind
        if kind == "commit":
            self._commit(session, answer)
        elif kind == "rollback":
            self._end(session)
        elif kind == "ddl":
            self._ddl(session, statement, answer)
        elif kind in ("savepoint", "rollback to", "release"):
            self._savepoint(session, statement, answer)
        else:
            self._statement(session, statement, answer, number)

    def final(self, tables: dict[str, list[Values]]) -> None:
        """Compare the rows at the end."""
        actual = {name: sorted(rows, key=repr) for name, rows in tables.items()}
        possible = []
        for world in self.worlds:
            state = world.moments[-1]
            rows = {
                table.name: list(values)
                for table, values in zip(state.schema.tables, state.values, strict=True)
            }
            if rows == actual:
                return
            possible.append(("rows", rows))
        raise Violation("the rows at the end", possible, f"found: {actual}")

    def _statement(
        self, number_of: int, statement: Statement, answer: Answer, number: int | None
    ) -> None:
        if answer == CONFLICT:
            self._refused(number_of)
            return
        told = Told(statement, number, answer)
        loose = self.rules.as_text
        found: set[World] = set()
        expected: set[Answer] = set()
        for world in self.worlds:
            for moment in self._moments(world, number_of, statement):
                for reader, view in self._seen(world, moment, number_of, told):
                    outcome = self.oracle.apply(view, statement, _chosen(told))
                    expected.add(outcome.answer)
                    if outcome.answer == answer:
                        after = after_statement(
                            reader, view, outcome, statement, moment, number_of, loose
                        )
                        found.add(world.put(number_of, after))
        if not found:
            raise Violation(self._wrong(number_of, told), sorted(expected))
        self.worlds = found
        self.told[number_of].append(told)

    def _moments(self, world: World, number: int, statement: Statement) -> set[int]:
        seen, now = world.sessions[number].seen, len(world.moments) - 1
        if seen < 0:
            return {now, *self._before_changes(world, statement)}
        asks = not self.rules.prefetch or self.rules.one_process
        if asks and statement.kind == "select":
            return {now}
        if asks and statement.kind == "insert":
            schema = world.moments[now].schema
            place = schema.places.get(statement.table)
            checks = place is not None and schema.tables[place].unique
            return {now} if checks and schema is world.moments[seen].schema else {seen, now}
        if statement.kind == "select" and any(
            told.statement.key == statement.key for told in self.told[number]
        ):
            return {now}
        return {seen, now}

    def _before_changes(self, world: World, statement: Statement) -> set[int]:
        """Moments before changes of the schema that another process may not have heard of."""
        if statement.kind != "insert" or self.rules.one_process:
            return set()
        return {
            change - 1
            for change in world.changes
            for schema in (world.moments[change - 1].schema,)
            if statement.table in schema.places
            if not schema.tables[schema.places[statement.table]].unique
        }

    def _seen(
        self, world: World, moment: int, number: int, told: Told
    ) -> Iterator[tuple[Session, State]]:
        """What a session may see of a moment, and the session as it is then."""
        state, session = world.moments[moment], world.sessions[number]
        readers = {session}
        if session.own:
            readers.add(refreshed(session, state))
            if moment == len(world.moments) - 1 and world.changed_since(session.begun):
                again = self._again(state, number, session.inserted, self.told[number])
                if again is not None:
                    readers.add(again._replace(begun=moment))
        for reader in readers:
            for view in views(state, reader):
                if told.statement.numbered and told.number is not None:
                    view = without_number(view, told.statement.table, told.number)
                yield reader, view

    def _savepoint(self, number: int, statement: Statement, answer: Answer) -> None:
        if answer != DONE:
            raise Violation("a savepoint's statement fails", [DONE])
        self.worlds = {
            world.put(number, saved(world.sessions[number], statement, len(world.moments) - 1))
            for world in self.worlds
        }
        self.told[number].append(Told(statement, None, answer))

    def _ddl(self, number: int, statement: Statement, answer: Answer) -> None:
        """A change of the schema, which takes effect at once."""
        found: set[World] = set()
        expected = set()
        for world in self.worlds:
            outcome = self.oracle.apply(world.moments[-1], statement)
            expected.add(outcome.answer)
            if answer[0] != outcome.answer[0]:
                continue
            state = world.moments[-1]
            after = state if answer[0] == "error" else altered(state, outcome)
            place = len(world.moments)
            found.add(World((*world.moments, after), world.sessions, (*world.changes, place)))
        if not found:
            name = "DDL is accepted" if answer == DONE else "DDL is refused"
            raise Violation(name, sorted(expected))
        self.worlds = found

    # ------------------------------------------------------------ commit

    def _commit(self, number: int, answer: Answer) -> None:
        found: set[World] = set()
        expected: set[Answer] = set()
        for world in self.worlds:
            for outcome, state in self._outcomes(world, number):
                expected.add(outcome)
                if outcome == answer:
                    after = world.put(number, ended(world.sessions[number]))
                    if state is not None:
                        after = after._replace(moments=(*after.moments, state))
                    found.add(after)
        if not found:
            if answer == CONFLICT:
                name = "needless conflict"
            elif answer == DONE:
                name = "a commit that should have failed"
            else:
                name = f"a commit fails with {answer[1]}"
            raise Violation(name, sorted(expected))
        self.worlds = found
        self.told[number] = []

    def _outcomes(self, world: World, number: int) -> Iterator[tuple[Answer, State | None]]:
        """Answers that a commit may give, and the state after each (None: as before)."""
        session, now = world.sessions[number], world.moments[-1]
        told = self.told[number]
        if not told:
            yield DONE, None
            return
        replayed = self._replayed(now, number, session.inserted, told)
        wrote = bool(session.own) or bool(session.locked)
        if self.rules.serializable:
            reads = sum(one.statement.kind not in _MARKS and one.answer != REFUSED for one in told)
            if replayed is not None:
                yield DONE, replayed if session.own else None
            validated = wrote or reads > 1 or any(not one.statement.reads_only for one in told)
            changed = session.begun < len(world.moments) - 1
            if (replayed is None and validated) or (changed and self._unsure(told)):
                yield CONFLICT, None
            if not wrote and reads <= 1:
                yield DONE, None
            elif world.changed_since(session.begun):
                # Whether there is a serial order is left to the other judge.
                merged = self._merged(now, session)
                if merged is not None:
                    yield DONE, merged if session.own else None
            return
        if not wrote:
            yield DONE, None
            if session.past and replayed is None and self._may_fail(world, session):
                yield CONFLICT, None
            return
        merged = self._merged(now, session)
        if merged is not None:
            yield DONE, merged if session.own else None
        if merged is None or self._may_fail(world, session):
            if replayed is not None:
                yield DONE, replayed if session.own else None
            if replayed is None or self._unsure(told):
                yield CONFLICT, None

    def _unsure(self, told: Sequence[Told]) -> bool:
        """Whether there are answers of which it is open whether they count."""
        return any(one.statement.relies_on_all or one.answer == REFUSED for one in told)

    def _refused(self, number: int) -> None:
        """A statement failed with ConflictError: its transaction could not have committed."""
        found = {
            world.put(number, ended(world.sessions[number]))
            for world in self.worlds
            if any(outcome == CONFLICT for outcome, _ in self._outcomes(world, number))
            or self._overlapped(world, number)
            or replaced(world, number)
        }
        if not found:
            raise Violation("needless conflict of a statement", [])
        self.worlds = found
        self.told[number] = []

    def _overlapped(self, world: World, number: int) -> bool:
        """Whether somebody has committed beside a transaction at SERIALIZABLE."""
        begun = world.sessions[number].begun
        return self.rules.serializable and -1 < begun < len(world.moments) - 1

    def _end(self, number: int) -> None:
        self.worlds = {world.put(number, ended(world.sessions[number])) for world in self.worlds}
        self.told[number] = []

    def _replayed(
        self, state: State, number: int, count: int, told: Sequence[Told]
    ) -> State | None:
        """The state if all statements ran now; None if one answers differently."""
        session = self._again(state, number, count, told)
        return None if session is None else next(views(state, session))

    def _again(self, state: State, number: int, count: int, told: Sequence[Told]) -> Session | None:
        """The session if all statements ran now; None if one answers differently."""
        session = Session(seen=0, schema=state.schema, inserted=count)
        for one in told:
            if one.answer == REFUSED:
                continue
            if one.statement.kind in _MARKS:
                session = saved(session, one.statement, 0)
                continue
            view = next(views(state, session))
            outcome = self.oracle.apply(view, one.statement, _chosen(one))
            if outcome.answer != one.answer:
                return None
            session = after_statement(
                session, view, outcome, one.statement, 0, number, self.rules.as_text
            )
        return session

    def _merged(self, state: State, session: Session) -> State | None:
        """The state with what the transaction wrote; None if a check fails."""
        if session.schema is not state.schema and session.own:
            return None
        tables = [dict(rows) for rows in state.tables]
        for own in session.own:
            place = state.schema.places[own.table]
            table = state.schema.tables[place]
            if own.base is None:
                assert own.now is not None
                tables[place][own.identity] = own.now
                continue
            identity = same_row(state.by_identity[place], table, own)
            if identity is None:
                return None
            current = state.by_identity[place][identity]
            if differ(table, current, own.base) & own.relied:
                return None
            if own.now is None:
                tables[place].pop(identity, None)
                continue
            tables[place][identity] = tuple(
                new if column in own.sets else old
                for column, new, old in zip(table.columns, own.now, current, strict=True)
            )
        for name, identity, values in session.locked:
            if state.by_identity[state.schema.places[name]].get(identity) != values:
                return None
        merged = state_of(state.schema, [list(rows.items()) for rows in tables])
        return merged if self.oracle.valid(merged) else None

    def _may_fail(self, world: World, session: Session) -> bool:
        """Whether something changed that the transaction may have relied on."""
        state = world.moments[-1]
        if world.changed_since(session.begun):
            return True
        for own in (*session.own, *session.past):
            if own.base is None:
                continue
            place = state.schema.places[own.table]
            table = state.schema.tables[place]
            current = state.by_identity[place].get(own.identity)
            if current is None:
                return True
            changed = differ(table, current, own.base)
            may = set(own.relied)
            if own.now is not None:
                may |= own.sets - differ(table, own.now, own.base)
            for index in table.indexed:
                if own.now is None or index & own.sets:
                    may |= index
            moved = table.numbered and bool(own.sets & set(table.primary))
            if changed and (own.loose or moved or changed & may):
                return True
        return False

    def _wrong(self, number: int, told: Told) -> str:
        """A name for an answer that nothing explains."""
        if told.answer[0] == "error":
            return f"a statement fails with {told.answer[1]}"
        for world in self.worlds:
            session = world.sessions[number]
            older = range(max(session.seen, 0))
            for moment in range(len(world.moments)):
                view = next(views(world.moments[moment], session))
                outcome = self.oracle.apply(view, told.statement, _chosen(told))
                if outcome.answer == told.answer:
                    return (
                        "an answer goes back in time" if moment in older else "an answer is too old"
                    )
            if session.own:
                outcome = self.oracle.apply(world.moments[-1], told.statement, _chosen(told))
                if outcome.answer == told.answer:
                    return "a session doesn't see its own write"
        return "a wrong answer"


_MARKS = ("savepoint", "rollback to", "release")


def _chosen(told: Told) -> int | None:
    if told.statement.numbered and told.number is None:
        return _NO_NUMBER
    return told.number
