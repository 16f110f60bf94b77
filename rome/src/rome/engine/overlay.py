"""What one transaction has read and written: a value that knows nothing of who changes it.

The rows that it has written lie over those of the store.  A mark is a moment inside the
transaction: the beginning of a statement, or a savepoint.  Going back to it undoes exactly what was
noted after it, whatever that was: each entry of the journal holds what stood in its place before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rome.errors import ConflictError
from rome.schema.changes import Change, Key
from rome.schema.tables import Table
from rome.stores.wire import Step


class Overlay:
    """One transaction's reads and writes.

    Written rows:
    changes     by table number and row number; only written by `put`, `put_all`, `back_to`
    pending     inserted rows that aren't in the work area; fresh_keys: their unique keys;
                reworked: tables whose rows were written in another way
    savepoints  names and marks
    used        by table the highest row number that the application chose
    relied      by table the slots whose old values the statements relied on (None: all of them);
                assigned: those that they set

    Read rows:
    loaded      rows of the store in the work area, by table and row number; partial: tables whose
                loaded rows lack columns; ever_loaded: tables that had any;
                statement_loaded: those that came while a statement ran
    aside       what the last statement has read, where the work area doesn't have it
    locked      rows that the commit checks to be as they were read
    reading_calls   statements that have read

    Of a serializable transaction:
    seen_writes     the last commit of each table when it was read
    free_then       the last commits of tables where keys of new rows were free then
    """

    __slots__ = (
        *("_journal", "changes", "pending", "fresh_keys", "reworked", "savepoints", "used"),
        *("relied", "assigned", "loaded", "partial", "ever_loaded", "statement_loaded", "aside"),
        *("locked", "reading_calls", "seen_writes", "free_then"),
    )

    def __init__(self) -> None:
        self.changes: dict[Key, Change] = {}
        self._journal: list[tuple[Key, Change | None]] = []
        self.pending: list[Change] = []
        self.fresh_keys: set[tuple[int, int, bytes]] = set()
        self.reworked: set[int] = set()
        self.savepoints: list[tuple[str, int]] = []
        self.used: dict[int, int] = {}
        self.relied: dict[int, set[int] | None] = {}
        self.assigned: dict[int, set[int]] = {}
        self.loaded: dict[int, dict[int, bytes]] = {}
        self.partial: set[int] = set()
        self.ever_loaded: set[int] = set()
        self.statement_loaded: list[Key] = []
        self.aside: tuple[Sequence[Step], list[list[bytes]]] | None = None
        self.locked: dict[Key, tuple[Table, bytes]] = {}
        self.reading_calls = 0
        self.seen_writes: dict[int, str] = {}
        self.free_then: dict[int, str] = {}

    @property
    def clean(self) -> bool:
        """Whether nothing in the work area needs to stay."""
        return not self.changes and not self.savepoints

    # ------------------------------------------------------------ written rows

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

    def rely(self, table: int, slots: set[int] | None, assigned: Iterable[int]) -> None:
        """Note what a statement relied on in the rows of a table, and which slots it set."""
        before = self.relied.get(table, set())
        if before is not None:
            self.relied[table] = None if slots is None else before | slots
        self.assigned.setdefault(table, set()).update(assigned)

    # ------------------------------------------------------------ read rows

    def nothing_loaded(self) -> None:
        """Note that no row of the store is in the work area, or aside, any more."""
        self.loaded = {}
        self.partial.clear()
        self.aside = None

    def lock(self, table: Table, number: int) -> None:
        """Let the commit check that a row of the store is as it was read."""
        row = self.loaded.get(table.number, {}).get(number)
        if row is not None:
            self.locked.setdefault((table.number, number), (table, row))

    # ------------------------------------------------------------ serializable

    def saw_all(self, steps: Sequence[Step], commits: Sequence[str]) -> None:
        """Note that these tables were read, as these commits had left them."""
        for step, commit in zip(steps, commits, strict=True):
            self.saw(step.table, commit)

    def saw(self, table: int, commit: str) -> None:
        """Note that a table was read as this commit had left it.

        Raises ConflictError if another commit has written it since it was read first.
        """
        if self.seen_writes.setdefault(table, commit) != commit:
            raise ConflictError(
                "a table was changed since this serializable transaction read it; try again"
            )

    def keys_given_back(self, tables: Iterable[int]) -> None:
        """Take for read what said that keys of new rows were free: the commit checks that only for
        rows that it inserts."""
        for table in tables:
            if table in self.free_then:
                self.reading_calls += 1
                self.saw(table, self.free_then[table])
