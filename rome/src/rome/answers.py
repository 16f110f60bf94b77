"""Answers that a process keeps, to be used again while the tables that they come from stand
as they stood.

An answer is never used by itself: each time the store is asked, in the one round trip that
the statement takes anyway, whether those tables had another commit since.  So it is the
answer that the statement would have had at that very moment.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rome.stores.base import Rows

# Bytes of rows that all answers of a process to one database may have come from, and one.
CAPACITY = 4 * 2**20
_LARGEST = CAPACITY // 8
_OVERHEAD = 1000

# Functions whose value is another one each time; a column of such a name only costs time.
_CHANGING = re.compile(
    r"\b(?:random|randomblob|current_\w+|date|time|datetime|julianday|unixepoch|strftime|timediff"
    r"|changes|total_changes|last_insert_rowid)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a statement answered, the rows that it was made from, and the last commits of its
    tables."""

    result: Any
    found: list[Rows]
    commits: tuple[str, ...]
    size: int


class Answers:
    """The latest answers; connections of all threads share them."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._answers: OrderedDict[Any, Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> Kept | None:
        """The one under a key."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def put(self, key: Any, result: Any, found: list[Rows], commits: Sequence[str]) -> None:
        """Keep an answer, if it isn't too large; the oldest ones make room."""
        size = _OVERHEAD + sum(len(row) for rows in found for row in rows if row is not None)
        if size > min(_LARGEST, self.capacity):
            return
        with self._lock:
            old = self._answers.pop(key, None)
            if old is not None:
                self._size -= old.size
            self._answers[key] = Kept(result, found, tuple(commits), size)
            self._size += size
            while self._size > self.capacity:
                _, oldest = self._answers.popitem(last=False)
                self._size -= oldest.size

    def restart(self) -> None:
        """In a forked child, where the lock may be held by a thread that isn't there."""
        self._lock = threading.Lock()
        self._answers.clear()
        self._size = 0


def key_of(version: str, sql: str, parameters: Any) -> Any:
    """What names an answer under a version of the schema; None: it isn't kept.

    1, 1.0 and True are equal, but not to SQL.
    """
    if not isinstance(parameters, list | tuple):
        return None  # by name
    return version, sql, tuple(parameters), tuple(map(type, parameters))


def changes_by_itself(sql: str) -> bool:
    """Whether a statement may answer differently over the same rows."""
    return _CHANGING.search(sql) is not None
