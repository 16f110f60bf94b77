"""Rows that a transaction of this process compares and sets: others of the process wait.

Between processes the store is asked who holds a row (holds.py); within a process the slower one
waits here, without asking, until the faster one has ended, and reads the row then.  Who waits for
too long goes on without the lock, and the commit decides as it always does.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

# Seconds, as InnoDB waits for a lock.  Of two transactions that wait for each other one goes on
# when the other's hold has lapsed.
WAIT = 50.0


class RowLocks:
    """Who holds which row, of one database."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        # Which thread holds a row, and since when, by its key.
        self._threads: dict[Any, tuple[int, float]] = {}

    def take(self, holder: Any, keys: Iterable[Any], seconds: float, hold_s: float) -> None:
        """Wait for these, but no longer than `seconds`, and hold them until `release`.

        Whoever holds a row for more than `hold_s` has it no more, as in the store.  A thread that
        holds one through another connection doesn't wait for itself.
        """
        deadline = time.monotonic() + seconds
        me = threading.get_ident()
        with self._changed:
            for key in keys:
                while self._holders.get(key, holder) is not holder:
                    now = time.monotonic()
                    thread, since = self._threads.get(key, (0, now))
                    if thread == me or now >= deadline:
                        return
                    if now >= since + hold_s:
                        break
                    self._changed.wait(min(deadline, since + hold_s) - now)
                if self._holders.get(key) is not holder:
                    self._holders[key] = holder
                    self._threads[key] = me, time.monotonic()

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
