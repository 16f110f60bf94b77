"""Rows that a transaction holds in the store while it compares and sets them, and new keys.

The store has no locks: of two transactions that set one row's `generation` from 7 to 8, the slower
one hears of it at its commit, and has to begin anew.  So whoever reads a row to compare and set it
holds it, in the round trip that brings it, and lets it go with its commit, or after some seconds
(a lease).  Another one that wants to compare and set it waits, and reads the row then: as it would
in a database that locks rows.  Who waits for too long goes on without; nothing relies on a hold,
as the commit checks all that it relies on in any case.

So are unique keys that lead to no row held by who inserts one: of two INSERTs of one key the
slower one waits, and fails by itself once the row is there.  Otherwise its commit would fail, of
which an application doesn't expect that a key is taken.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid

from rome.stores.base import Answer, HeldName, Request, Store, held_names

# Seconds between two questions whether a row is free: the first, and the longest.
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05

_numbers = itertools.count()
_process = uuid.uuid4().hex[:12]


class Holds:
    """The rows and keys that the transaction of one connection holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = ""
        self._pid = 0
        self._names: dict[int, dict[HeldName, None]] = {}

    @property
    def name(self) -> str:
        """The holder's name: its process, its thread, and a number."""
        if not self._name:
            self._pid = os.getpid()
            self._name = f"{_process}.{threading.get_ident()}.{next(_numbers)}"
        return self._name

    @property
    def names(self) -> dict[int, list[HeldName]]:
        """The names of the rows and keys, by table."""
        return {table: list(names) for table, names in self._names.items()}

    def note(self, request: Request, answer: Answer) -> None:
        """Note what an answer says is held now."""
        if answer.held and answer.rows is not None:
            for table, name in held_names(request, answer.rows):
                self._names.setdefault(table, {})[name] = None

    def ended(self) -> None:
        """Note that a commit has let all of them go."""
        self._names = {}

    def release(self) -> None:
        """Let all of them go, and take another name for what comes next."""
        if self._names and self._pid == os.getpid():
            self._store.release(self._name, self.names)
        self._names = {}
        self._name = ""


def _forked() -> None:
    """Give a child names of its own."""
    global _process
    _process = uuid.uuid4().hex[:12]


os.register_at_fork(after_in_child=_forked)
