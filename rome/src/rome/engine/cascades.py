"""The children of rows that go or get another key: they follow, or hold their parent back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rome.engine.foreign_keys import FAILED, ForeignKeys, Require, values_at
from rome.engine.session import Session
from rome.errors import IntegrityError, NotSupportedError
from rome.planner.workspace import Touch
from rome.schema.changes import Change
from rome.schema.tables import ForeignKey, Table, fold, quote


class Cascades:
    """The referential actions of the tables that a transaction writes."""

    def __init__(self, session: Session, keys: ForeignKeys) -> None:
        self._session = session
        self._keys = keys

    def childless(self, changes: Iterable[Change]) -> list[list[Any]]:
        """Return keys of parents that go, which no child may have but those that go as well."""
        schema = self._session.schema
        keys: list[list[Any]] = []
        for change in changes:
            children = schema.children.get(fold(change.table.name), ())
            if change.base is None or not children:
                continue
            before = change.values_before
            for name, place in children:
                child = schema.tables[name]
                foreign = child.foreign_keys[place]
                _, slots = self._keys.parent(foreign)
                old = [before[slot] for slot in slots]
                if None in old or self._has(change.table, slots, old):
                    continue
                lookup = self._keys.lookup(child, foreign.slots, old)
                if lookup is not None:
                    own = [
                        str(c.number)
                        for c in self._session.overlay.changes.values()
                        if c.table is child and c.base is not None
                    ]
                    keys.append([lookup.kind, child.number, lookup.index, own, lookup.keys[0]])
        return keys

    def _has(self, table: Table, slots: Sequence[int], values: list[Any]) -> bool:
        """Tell whether a row that the transaction wrote has these values."""
        return any(
            change.table is table
            and change.row is not None
            and values_at(table, change.row, slots) == values
            for change in self._session.overlay.changes.values()
        )

    def follow(self, touches: list[Touch], require: Require) -> list[Touch]:
        """Return what happens to the children of parents that went or got another key.

        Returns what that wrote.  Raises IntegrityError where a child holds a parent back.
        """
        work = self._session.work
        written: list[Touch] = []
        refusing: list[tuple[Table, ForeignKey, list[Any]]] = []
        todo = touches
        for _ in range(50):
            lost = list(self._lost(todo))
            if not lost:
                break
            steps = [self._keys.step(child, foreign.slots, old) for child, foreign, old, _ in lost]
            require(steps)
            work.ensure([child for child, _, _, _ in lost], clean=False)
            todo = []
            for child, foreign, old, new in lost:
                action = foreign.on_delete if new is None else foreign.on_update
                names = child.names(foreign.slots)
                tests = " AND ".join(f"{quote(name)} = ?" for name in names)
                if action == "CASCADE" and new is None:
                    sql, values = f"DELETE FROM {quote(child.name)} WHERE {tests}", old
                elif action in ("CASCADE", "SET NULL"):
                    new_values = new if action == "CASCADE" and new else [None] * len(names)
                    sets = ", ".join(f"{quote(name)} = ?" for name in names)
                    sql = f"UPDATE {quote(child.name)} SET {sets} WHERE {tests}"
                    values = [*new_values, *old]
                elif action == "SET DEFAULT":
                    raise NotSupportedError("ON DELETE or ON UPDATE SET DEFAULT")
                else:
                    refusing.append((child, foreign, old))
                    continue
                todo += work.write(sql, values)[3]
            written += todo
        for child, foreign, old in refusing:
            tests = " AND ".join(f"{quote(name)} = ?" for name in child.names(foreign.slots))
            sql = f"SELECT 1 FROM {quote(child.name)} WHERE {tests} LIMIT 1"
            parent, slots = self._keys.parent(foreign)
            if work.database.execute(sql, old).fetchall():
                same = " AND ".join(f"{quote(name)} = ?" for name in parent.names(slots))
                again = f"SELECT 1 FROM {quote(parent.name)} WHERE {same} LIMIT 1"
                if not work.database.execute(again, old).fetchall():
                    raise IntegrityError(FAILED)
        return written

    def _lost(
        self, touches: Iterable[Touch]
    ) -> Iterable[tuple[Table, ForeignKey, list[Any], list[Any] | None]]:
        """Yield child table, its foreign key, the old values, and the new ones."""
        schema = self._session.schema
        for touch in touches:
            if touch.old is None:
                continue
            children = schema.children.get(fold(touch.table), ())
            for name, place in children:
                child = schema.tables[name]
                foreign = child.foreign_keys[place]
                parent, slots = self._keys.parent(foreign)
                old = values_at(parent, touch.old, slots)
                new = None if touch.row is None else values_at(parent, touch.row, slots)
                if None not in old and old != new:
                    yield child, foreign, old, new
