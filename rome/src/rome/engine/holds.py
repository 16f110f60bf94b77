"""Rows that a transaction holds in the store while it compares and sets them.

The store has no locks: of two transactions that set one row's `generation` from 7 to 8, the slower
one hears of it at its commit, and has to begin anew.  So whoever reads a row to compare and set it
holds it, in the round trip that brings it, and lets it go with its commit, or after some seconds
(a lease).  Another one that wants to compare and set it waits, and reads the row then: as it would
in a database that locks rows.  Who waits for too long goes on without; nothing relies on a hold,
as the commit checks all that it relies on in any case.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Sequence

from rome.stores.base import Answer, Store
from rome.stores.wire import Step

# Seconds between two questions whether a row is free: the first, and the longest.
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05

_numbers = itertools.count()
_process = uuid.uuid4().hex[:12]


class Holds:
    """The rows that the transaction of one connection holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = ""
        self._pid = 0
        self._rows: dict[int, dict[str, None]] = {}

    @property
    def name(self) -> str:
        """The holder's name: its process, its thread, and a number."""
        if not self._name:
            self._pid = os.getpid()
            self._name = f"{_process}.{threading.get_ident()}.{next(_numbers)}"
        return self._name

    @property
    def rows(self) -> dict[int, list[str]]:
        """The rows, by table."""
        return {table: list(numbers) for table, numbers in self._rows.items()}

    def note(self, steps: Sequence[Step], answer: Answer) -> None:
        """Note the rows that an answer has brought, if they are held."""
        if answer.held:
            for step, rows in zip(steps, answer.rows or (), strict=False):
                numbers = (int(number) for number in rows[::2])
                self._rows.setdefault(step.table, {}).update((str(n), None) for n in numbers)

    def ended(self) -> None:
        """Note that a commit has let all of them go."""
        self._rows = {}

    def release(self) -> None:
        """Let all of them go, and take another name for what comes next."""
        if self._rows and self._pid == os.getpid():
            self._store.release(self._name, self.rows)
        self._rows = {}
        self._name = ""


def _forked() -> None:
    """Give a child names of its own."""
    global _process
    _process = uuid.uuid4().hex[:12]


os.register_at_fork(after_in_child=_forked)
