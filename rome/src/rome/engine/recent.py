"""The latest statements of each thread: where parameters of the next ones come from.

An application reads a provider by its uuid in one transaction, and writes it by its number and
its generation in the next.  These values stand in what the thread has sent and got before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

# Statements that are remembered of each thread, and columns of an answer's first row.
_REMEMBERED = 24
_COLUMNS = 60


class Executed(NamedTuple):
    """A statement, its parameters, and the first row of its answer."""

    sql: str
    parameters: Sequence[Any]
    row: Sequence[Any]


class Recent:
    """What the threads of a process have executed of late in one database."""

    def __init__(self) -> None:
        self._local = threading.local()

    def note(self, sql: str, parameters: Sequence[Any], row: Sequence[Any]) -> None:
        """Note a statement of this thread."""
        latest = getattr(self._local, "latest", None)
        if latest is None:
            latest = self._local.latest = deque(maxlen=_REMEMBERED)
        latest.append(Executed(sql, parameters, row[:_COLUMNS]))

    def all(self) -> tuple[Executed, ...]:
        """Return this thread's latest statements, the last one last."""
        return tuple(getattr(self._local, "latest", ()))
