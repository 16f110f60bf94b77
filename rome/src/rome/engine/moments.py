"""What the threads of a process have last heard of one database.

Rows that were read ahead of their statement may be used only while the application can't know
better: it does once the same thread has read or committed through another connection, or any
thread of the process has committed to the tables that the rows come from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable


class Moments:
    """Of all connections of a process to one database."""

    def __init__(self) -> None:
        self._thread = threading.local()
        self._commits: dict[int, float] = {}  # table number -> seconds of the monotonic clock

    def heard(self, connection: object) -> None:
        """Note that this thread has an answer of the store through a connection."""
        self._thread.connection = connection

    def heard_last(self, connection: object) -> bool:
        """Whether this thread's last answer of the store came through this connection."""
        return getattr(self._thread, "connection", None) is connection

    def committed(self, tables: Iterable[int]) -> None:
        """Note that a commit of this process, which has just ended, has written these tables."""
        now = time.monotonic()
        for table in tables:
            self._commits[table] = now

    def written_since(self, tables: Iterable[int], moment: float) -> bool:
        """Whether a commit of this process has ended later than a moment."""
        commits = self._commits
        return any(commits.get(table, 0.0) >= moment for table in tables)
