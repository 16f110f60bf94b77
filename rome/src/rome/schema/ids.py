"""Row numbers, taken from the store in blocks: one round trip for many rows.

All connections of a process to one database share the blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

BLOCK = 100
# reserve(name, count) -> the first number
Reserve = Callable[[str, int], int]


class Ids:
    """Numbers by table, of one database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[int, tuple[int, int]] = {}  # the next number, the last one

    def take(self, table: int, count: int, above: int, reserve: Reserve) -> int:
        """The first of `count` numbers in a row, all greater than `above`."""
        with self._lock:
            first, last = self._blocks.get(table, (1, 0))
            if first <= above:
                first = above + 1
            if first + count - 1 > last:
                size = max(BLOCK, count)
                first = reserve(str(table), size)
                last = first + size - 1
                if first <= above:
                    # Somebody chose a number far beyond; it counts once it is committed.
                    reserve(str(table), above - first + 1)
                    first, last = above + 1, above + size
            self._blocks[table] = (first + count, last)
            return first

    def forget(self, table: int) -> None:
        """Somebody else has numbers of our block: take another one next time."""
        with self._lock:
            self._blocks.pop(table, None)

    def forget_all(self) -> None:
        """The database was dropped: what was reserved is void."""
        with self._lock:
            self._blocks.clear()

    def give_back(self, table: int, first: int, count: int) -> None:
        """Numbers that were taken and not used, if nobody took others since."""
        with self._lock:
            next_one, last = self._blocks.get(table, (1, 0))
            if next_one == first + count:
                self._blocks[table] = (first, last)

    def passed(self, table: int, number: int) -> None:
        """An application chose this number itself."""
        with self._lock:
            first, last = self._blocks.get(table, (1, 0))
            if number >= first:
                if number < last:
                    self._blocks[table] = (number + 1, last)
                else:
                    self._blocks.pop(table, None)

    def restart(self) -> None:
        """Start without any blocks, in a forked child."""
        self._lock = threading.Lock()
        self._blocks = {}
