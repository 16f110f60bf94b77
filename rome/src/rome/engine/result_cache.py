"""Answers that a process keeps, to be used again while the tables that they come from stand
as they stood.

An answer is never used by itself: each time the store is asked, in the one round trip that
the statement takes anyway, whether those tables had another commit since.  So it is the
answer that the statement would have had at that very moment.

All databases of a process share one bound, in bytes of memory that the answers, the rows that
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

# Bytes of memory that all answers of a process may take.  One may take an eighth of it.
CAPACITY = 16 * 2**20
# Of one answer: its key and types, the places in dictionaries and lists, the objects around.
_OVERHEAD = 700


@dataclass(frozen=True, slots=True)
class CachedResult:
    """What a statement answered, the rows that it was made from, and the last commits of its
    tables; and the bytes of memory that all this takes."""

    result: Any
    found: list[Rows]
    commits: tuple[str, ...]
    size: int


class CacheMemory:
    """The answers of all databases of a process, up to a number of bytes: the latest ones."""

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
        """A number for an object whose answers go with it."""
        number = next(self._owners)
        weakref.finalize(of, self._gone.append, number)
        return number

    def get(self, key: tuple[int, Any]) -> CachedResult | None:
        """The answer under an owner's key."""
        with self._lock:
            answer = self._results.get(key)
            if answer is not None:
                self._results.move_to_end(key)
            return answer

    def put(self, key: tuple[int, Any], answer: CachedResult) -> None:
        """Keep an answer; the ones that weren't used for longest make room."""
        with self._lock:
            while self._gone:
                self._forget(self._gone.popleft())
            old = self._results.pop(key, None)
            if old is not None:
                self.size -= old.size
            self._results[key] = answer
            self.size += answer.size
            while self.size > self.capacity:
                _, oldest = self._results.popitem(last=False)
                self.size -= oldest.size

    def _forget(self, owner: int) -> None:
        for key in [key for key in self._results if key[0] == owner]:
            self.size -= self._results.pop(key).size

    def restart(self) -> None:
        """In a forked child, where the lock may be held by a thread that isn't there."""
        self._lock = threading.Lock()
        self._results.clear()
        self.size = 0


# The bound is the process's, so this is, too.
PROCESS = CacheMemory()


class ResultCache:
    """The latest answers of one database; connections of all threads share them."""

    def __init__(self, memory: CacheMemory = PROCESS) -> None:
        self._memory = memory
        self._owner = memory.owner(self)

    def get(self, key: Any) -> CachedResult | None:
        """The one under a key."""
        return self._memory.get((self._owner, key))

    def put(self, key: Any, result: Any, found: list[Rows], commits: Sequence[str]) -> None:
        """Keep an answer, if it isn't too large; `result` has `rows`."""
        size = _size(key, result.rows, found, commits, self._memory.capacity // 8)
        if size is not None:
            self._memory.put((self._owner, key), CachedResult(result, found, tuple(commits), size))

    def restart(self) -> None:
        """In a forked child."""
        self._memory.restart()


def _size(
    key: Any, rows: Sequence[Any], found: Sequence[Rows], commits: Iterable[str], most: int
) -> int | None:
    """Bytes of memory of an answer; None: more than so many.

    A value that several rows share counts each time.
    """
    _, sql, parameters, _ = key
    size = _OVERHEAD + getsizeof(sql) + sum(map(getsizeof, commits))
    size += 2 * getsizeof(parameters) + sum(map(getsizeof, parameters)) + getsizeof(rows)
    for row in rows:
        size += getsizeof(row) + sum(map(getsizeof, row))
        if size > most:
            return None
    for pairs in found:
        size += getsizeof(pairs)
        for start in range(0, len(pairs), 1000):
            size += sum(map(getsizeof, pairs[start : start + 1000]))
            if size > most:
                return None
    return size if size <= most else None


def cache_key(version: str, sql: str, parameters: Any) -> Any:
    """What names an answer under a version of the schema; None: it isn't kept.

    1, 1.0 and True are equal, but not to SQL.
    """
    if not isinstance(parameters, list | tuple):
        return None  # by name
    return version, sql, tuple(parameters), tuple(map(type, parameters))
