"""The result cache of a process: results are used again while their tables have no later commit.

A cached result is validated each time: the store is asked, in the one round trip that the
statement takes anyway, whether those tables had another commit since.  So it is the result that
the statement would have had at that very moment.

All databases of a process share one bound, in bytes of memory that the results, the rows that
they were made from and their keys really take.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

from rome.stores.base import Rows

# Bytes of memory that all results of a process may take.  One may take an eighth of it.
CAPACITY = 16 * 2**20
# Of one result: its key and types, the places in dictionaries and lists, the objects around.
_OVERHEAD = 700


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A statement's result, the rows that it was made from, and the last commits of its
    tables; and the bytes of memory that all this takes."""

    result: Any
    found: list[Rows]
    commits: tuple[str, ...]
    size: int


class CacheMemory:
    """The cached results of all databases of a process: the latest, up to a number of bytes."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.size = 0
        self._results: OrderedDict[tuple[int, Any], CachedResult] = OrderedDict()
        self._lock = threading.Lock()
        self._owners = itertools.count()
        # Owners that are gone.  Nothing waits for the lock when an object is collected: the
        # thread may have it.
        self._gone: deque[int] = deque()

    def owner(self, of: Any) -> int:
        """Return a number for an object whose results go with it."""
        number = next(self._owners)
        weakref.finalize(of, self._gone.append, number)
        return number

    def get(self, key: tuple[int, Any]) -> CachedResult | None:
        """Return the result under an owner's key."""
        with self._lock:
            result = self._results.get(key)
            if result is not None:
                self._results.move_to_end(key)
            return result

    def put(self, key: tuple[int, Any], result: CachedResult) -> None:
        """Cache a result; those that weren't used for longest make room."""
        with self._lock:
            while self._gone:
                self._forget(self._gone.popleft())
            old = self._results.pop(key, None)
            if old is not None:
                self.size -= old.size
            self._results[key] = result
            self.size += result.size
            while self.size > self.capacity:
                _, oldest = self._results.popitem(last=False)
                self.size -= oldest.size

    def _forget(self, owner: int) -> None:
        for key in [key for key in self._results if key[0] == owner]:
            self.size -= self._results.pop(key).size

    def restart(self) -> None:
        """Start anew in a forked child, where a thread that isn't there may hold the lock."""
        self._lock = threading.Lock()
        self._results.clear()
        self.size = 0


# The bound is the process's, so this is, too.
PROCESS = CacheMemory()


class ResultCache:
    """The result cache of one database; connections of all threads share it."""

    def __init__(self, memory: CacheMemory = PROCESS) -> None:
        self._memory = memory
        self._owner = memory.owner(self)

    def get(self, key: Any) -> CachedResult | None:
        """Return the one under a key."""
        return self._memory.get((self._owner, key))

    def put(self, key: Any, result: Any, rows: list[Rows], commits: Sequence[str]) -> None:
        """Cache a result, if it isn't too large; `result` has `rows`."""
        size = _size(key, result.rows, rows, commits, self._memory.capacity // 8)
        if size is not None:
            self._memory.put((self._owner, key), CachedResult(result, rows, tuple(commits), size))

    def restart(self) -> None:
        """Start anew in a forked child, where a thread that isn't there may hold the lock."""
        self._memory.restart()


def _size(
    key: Any, rows: Sequence[Any], row_lists: Sequence[Rows], commits: Iterable[str], most: int
) -> int | None:
    """Return the bytes of memory of a result; None: more than so many.

    A value that several rows share counts each time.
    """
    _, sql, parameters, _ = key
    size = _OVERHEAD + getsizeof(sql) + sum(map(getsizeof, commits))
    size += 2 * getsizeof(parameters) + sum(map(getsizeof, parameters)) + getsizeof(rows)
    for row in rows:
        size += getsizeof(row) + sum(map(getsizeof, row))
        if size > most:
            return None
    for pairs in row_lists:
        size += getsizeof(pairs)
        for start in range(0, len(pairs), 1000):
            size += sum(map(getsizeof, pairs[start : start + 1000]))
            if size > most:
                return None
    return size if size <= most else None


def cache_key(version: str, sql: str, parameters: Any) -> Any:
    """Return the key of a result under a version of the schema; None: it isn't cached.

    1, 1.0 and True are equal, but not to SQL.
    """
    if not isinstance(parameters, list | tuple):
        return None  # by name
    return version, sql, tuple(parameters), tuple(map(type, parameters))
