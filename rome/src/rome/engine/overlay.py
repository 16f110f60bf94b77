"""The rows that a transaction has written, as they are now and as they were at each mark.

A mark is a moment inside the transaction: the beginning of a statement, or a savepoint.  Going
back to it undoes exactly what was noted after it, whatever that was: each entry of the journal
holds what stood in its place before.
"""

from __future__ import annotations

from collections.abc import Iterable

from rome.schema.changes import Change, Key


class Overlay:
    """Changes by table number and row number; `changes` is only written by the methods here."""

    __slots__ = ("_journal", "changes")

    def __init__(self) -> None:
        self.changes: dict[Key, Change] = {}
        self._journal: list[tuple[Key, Change | None]] = []

    def put(self, change: Change) -> None:
        """Note a row's latest state."""
        key = change.table.number, change.number
        self._journal.append((key, self.changes.get(key)))
        self.changes[key] = change

    def put_all(self, changes: Iterable[Change]) -> None:
        """Note the latest states of several rows."""
        for change in changes:
            self.put(change)

    def mark(self) -> int:
        """Return the present moment, for `back_to`."""
        return len(self._journal)

    def back_to(self, mark: int) -> None:
        """Undo what was noted since a mark."""
        journal, changes = self._journal, self.changes
        while len(journal) > mark:
            key, before = journal.pop()
            if before is None:
                del changes[key]
            else:
                changes[key] = before

    def forget_marks(self) -> None:
        """Drop the journal: nobody will go back any more."""
        self._journal.clear()

    def noted_since(self, mark: int) -> set[Key]:
        """Return the rows that were noted since a mark and had not been written before it."""
        first: dict[Key, Change | None] = {}
        for key, before in self._journal[mark:]:
            first.setdefault(key, before)
        return {key for key, before in first.items() if before is None}
