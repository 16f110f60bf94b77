"""Rows that a transaction of this process compares and sets: others of the process wait.

Between processes the store is asked who holds a row (holds.py); within a process the slower one
waits here, without asking, until the faster one has ended, and reads the row then.  Who waits for
too long goes on without the lock, so no two transactions can wait for each other for ever, and
the commit decides as it always does.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

WAIT = 4.0  # seconds


class RowLocks:
    """Who holds which row, of one database."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        self._threads: dict[Any, int] = {}  # which thread holds a row, by its key

    def take(self, holder: Any, keys: Iterable[Any], seconds: float | None = None) -> None:
        """Wait for these, for `WAIT` unless it is said, and hold them until `release`.

        A thread that holds a row through another connection doesn't wait for itself.
        """
        deadline = time.monotonic() + (WAIT if seconds is None else seconds)
        me = threading.get_ident()
        with self._changed:
            for key in keys:
                while self._holders.get(key, holder) is not holder:
                    left = deadline - time.monotonic()
                    if self._threads.get(key) == me or left <= 0 or not self._changed.wait(left):
                        return
                self._holders[key] = holder
                self._threads[key] = me

    def release(self, holder: Any) -> None:
        """Release all that a holder has."""
        with self._changed:
            mine = [key for key, own in self._holders.items() if own is holder]
            for key in mine:
                del self._holders[key]
                self._threads.pop(key, None)
            if mine:
                self._changed.notify_all()

    def restart(self) -> None:
        """Start anew in a forked child, where the parent's transactions aren't."""
        self._changed = threading.Condition()
        self._holders = weakref.WeakValueDictionary()
        self._threads = {}
