"""Sessions in one course of events: what they have written, and what they see of a state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.interleaving.oracle import (
    Answer,
    Identity,
    Outcome,
    Row,
    Schema,
    SchemaTable,
    State,
    Values,
    state_of,
)
from tests.interleaving.statements import Statement


class Own(NamedTuple):
    """A row that a transaction has written: as it is to it now (None: deleted), as it was when
    it was first written (None: its own), columns that it set, and that it relies on."""

    table: str
    identity: Identity
    now: Values | None
    base: Values | None
    sets: frozenset[str]
    relied: frozenset[str]
    loose: bool  # it may rely on all columns


class Told(NamedTuple):
    """A statement, the number that the store chose for its row, and what it answered."""

    statement: Statement
    number: int | None
    answer: Answer


class Session(NamedTuple):
    """A session in one world."""

    seen: int = -1  # the latest moment that was seen, -1: no transaction
    begun: int = -1  # the moment when the transaction began
    schema: Schema | None = None  # of the rows in `own`
    own: tuple[Own, ...] = ()
    saves: tuple[tuple[str, tuple[Own, ...]], ...] = ()
    past: tuple[Own, ...] = ()  # written and undone
    locked: tuple[tuple[str, Identity, Values], ...] = ()
    inserted: int = 0  # rows


class World(NamedTuple):
    """One course of events: the committed states, and the sessions."""

    moments: tuple[State, ...]
    sessions: tuple[Session, ...]
    changes: tuple[int, ...] = ()  # moments before which somebody changed the schema, or tried to

    def put(self, number: int, session: Session) -> World:
        """The world with another session at a place."""
        sessions = (*self.sessions[:number], session, *self.sessions[number + 1 :])
        return self._replace(sessions=sessions)

    def changed_since(self, moment: int) -> bool:
        """Whether the schema was changed since, or somebody tried to."""
        return any(change > moment for change in self.changes)


def ended(session: Session) -> Session:
    # The rows that it inserts next are others than those of a transaction that ran again.
    return Session(inserted=session.inserted + 100)


def without_number(state: State, table: str, number: int) -> State:
    """A state without the row of another session that has a number."""
    place = state.schema.places[table]
    key = state.schema.tables[place].primary
    rows = [
        row
        for row in state.tables[place]
        if _part(state.schema.tables[place], row[1], key) != (number,)
    ]
    if len(rows) == len(state.tables[place]):
        return state
    tables: list[list[Row]] = [list(one) for one in state.tables]
    tables[place] = rows
    return state_of(state.schema, tables)


def same_row(rows: dict[Identity, Values], table: SchemaTable, own: Own) -> Identity | None:
    """The row that a transaction has written, or the one that has its key now."""
    if own.identity in rows:
        return own.identity
    if not table.primary or own.base is None:
        return None
    key = _part(table, own.base, table.primary)
    return next((i for i, v in rows.items() if _part(table, v, table.primary) == key), None)


def replaced(world: World, number: int) -> bool:
    """Whether another row has the key of one that a transaction has written."""
    now = world.moments[-1]
    for own in world.sessions[number].own:
        place = now.schema.places.get(own.table)
        if own.now is None or place is None:
            continue
        table, rows = now.schema.tables[place], now.by_identity[place]
        if table.primary and len(own.now) == len(table.columns):
            key = _part(table, own.now, table.primary)
            others = (values for identity, values in rows.items() if identity != own.identity)
            if any(_part(table, values, table.primary) == key for values in others):
                return True
    return False


def _part(table: SchemaTable, values: Values, columns: Sequence[str]) -> Values:
    return tuple(values[table.columns.index(column)] for column in columns)


def differ(table: SchemaTable, one: Values, other: Values) -> frozenset[str]:
    return frozenset(
        column for column, a, b in zip(table.columns, one, other, strict=True) if a != b
    )


def _converted(session: Session, schema: Schema) -> Session:
    """A session whose own rows fit a schema."""
    if session.schema is schema:
        return session
    old = session.schema
    if old is None or not (session.own or session.saves or session.past or session.locked):
        return session._replace(schema=schema)

    def values(name: str, row: Values | None) -> Values | None:
        assert old is not None
        if row is None:
            return None
        known = dict(zip(old.tables[old.places[name]].columns, row, strict=True))
        table = schema.tables[schema.places[name]]
        return tuple(
            known.get(column, default)
            for column, default in zip(table.columns, table.defaults, strict=True)
        )

    def rows(own: tuple[Own, ...]) -> tuple[Own, ...]:
        return tuple(
            one._replace(now=values(one.table, one.now), base=values(one.table, one.base))
            for one in own
            if one.table in schema.places
        )

    return session._replace(
        schema=schema,
        own=rows(session.own),
        saves=tuple((name, rows(own)) for name, own in session.saves),
        past=rows(session.past),
        locked=tuple(
            (name, identity, values(name, row) or ())
            for name, identity, row in session.locked
            if name in schema.places
        ),
    )


def views(state: State, session: Session) -> Iterator[State]:
    """What a session sees of a state: its own rows in place of the committed ones.

    A second view, where it differs, takes rows with a written row's key for that row.
    """
    session = _converted(session, state.schema)
    if not session.own:
        yield state
        return
    found = []
    for by in _WAYS:
        view = _view(state, session, by)
        if view not in found:
            found.append(view)
            yield view
        if all(
            one.base is None or (one.identity in known and not table.numbered)
            for one in session.own
            for place in (state.schema.places[one.table],)
            for table, known in ((state.schema.tables[place], state.by_identity[place]),)
        ):
            return


_WAYS = ("identity", "identity and key", "key")


def _view(state: State, session: Session, by: str) -> State:
    """What a session sees, if the rows that it has written are known by identity or key."""
    tables: list[list[Row]] = []
    for table, rows in zip(state.schema.tables, state.tables, strict=True):
        mine = [one for one in session.own if one.table == table.name]
        if not mine:
            tables.append(list(rows))
            continue
        key_only = by == "key" and table.numbered
        written = set() if key_only else {one.identity for one in mine}
        own_rows: list[Row] = [(one.identity, one.now) for one in mine if one.now is not None]
        taken = {
            (columns, _part(table, values, columns))
            for _, values in own_rows
            for columns in table.unique
            if None not in _part(table, values, columns)
        }
        if by != "identity" and table.primary:
            taken |= {
                (table.primary, _part(table, one.base, table.primary))
                for one in mine
                if one.base is not None
            }
        others = [
            row
            for row in rows
            if row[0] not in written
            and not any((c, _part(table, row[1], c)) in taken for c in table.unique)
        ]
        if key_only:
            # A row whose key another transaction has changed is another row than the own one.
            theirs = {one.identity: number for number, one in enumerate(mine)}
            others = [((-2, theirs[row[0]]), row[1]) if row[0] in theirs else row for row in others]
        tables.append(others + own_rows)
    return state_of(state.schema, tables)


def refreshed(session: Session, state: State) -> Session:
    """A session whose own rows show what a state has in the columns that they haven't set."""
    session = _converted(session, state.schema)
    own = []
    for one in session.own:
        place = state.schema.places[one.table]
        current = state.by_identity[place].get(one.identity)
        if current is None or one.base is None or one.now is None:
            own.append(one)
            continue
        columns = state.schema.tables[place].columns
        own.append(
            one._replace(
                now=tuple(
                    old if column in one.sets else new
                    for column, old, new in zip(columns, one.now, current, strict=True)
                ),
                base=tuple(
                    old if column in one.relied | one.sets else new
                    for column, old, new in zip(columns, one.base, current, strict=True)
                ),
            )
        )
    return session._replace(own=tuple(own))


def altered(state: State, outcome: Outcome) -> State:
    """The state after DDL: rows keep their identities."""
    tables: list[list[Row]] = []
    for table, rows in zip(outcome.schema.tables, outcome.tables, strict=True):
        place = state.schema.places.get(table.name)
        before = state.tables[place] if place is not None else ()
        tables.append([(before[at][0], values) for at, values in rows])
    return state_of(outcome.schema, tables)


def saved(session: Session, statement: Statement, now: int) -> Session:
    if session.begun < 0:
        session = session._replace(begun=now)
    name = statement.table
    if statement.kind == "savepoint":
        return session._replace(saves=(*session.saves, (name, session.own)))
    place = max(i for i, (known, _) in enumerate(session.saves) if known == name)
    if statement.kind == "release":
        return session._replace(saves=session.saves[:place])
    own = session.saves[place][1]
    undone = tuple(one for one in session.own if one not in own)
    return session._replace(
        own=own, saves=session.saves[: place + 1], past=(*session.past, *undone)
    )


def after_statement(
    session: Session,
    view: State,
    outcome: Outcome,
    statement: Statement,
    moment: int,
    number: int,
    as_text: bool,
) -> Session:
    """A session after a statement that saw a moment."""
    session = _converted(session, view.schema)._replace(seen=moment)
    if session.begun < 0:
        session = session._replace(begun=moment)
    if statement.locks and not as_text:
        session = session._replace(
            locked=session.locked + _locked(session, view, statement, outcome)
        )
    if outcome.answer[0] == "error" or statement.reads_only:
        return session
    own = {(one.table, one.identity): one for one in session.own}
    count = session.inserted
    loose = statement.relies_on_all or as_text
    for place, table in enumerate(view.schema.tables):
        after = dict(outcome.tables[place])
        for at, (identity, values) in enumerate(view.tables[place]):
            touched = frozenset(c for p, a, c in outcome.touched if p == place and a == at)
            now = after.get(at)
            if now == values and not touched:
                continue
            key = (table.name, identity)
            one = own.get(key) or Own(
                table.name, identity, values, values, frozenset(), frozenset(), False
            )
            relied = statement.relied if table.name == statement.table else touched
            one = one._replace(
                now=now,
                sets=one.sets | touched,
                relied=one.relied | (relied - one.sets),
                loose=one.loose or loose,
            )
            if now is None and one.base is None:
                own.pop(key, None)
            else:
                own[key] = one
        for at, values in sorted(outcome.tables[place], key=repr):
            if at < 0:
                count += 1
                identity = (number, count)
                nothing: frozenset[str] = frozenset()
                own[table.name, identity] = Own(
                    table.name, identity, values, None, nothing, nothing, loose
                )
    return session._replace(own=tuple(own[key] for key in sorted(own)), inserted=count)


def _locked(
    session: Session, view: State, statement: Statement, outcome: Outcome
) -> tuple[tuple[str, Identity, Values], ...]:
    place = view.schema.places[statement.table]
    shown = set(outcome.answer[1:])
    mine = {(one.table, one.identity) for one in session.own}
    return tuple(
        (statement.table, identity, values)
        for identity, values in view.tables[place]
        if values in shown and (statement.table, identity) not in mine
    )
