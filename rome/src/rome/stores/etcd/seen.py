"""The rows that a process has read or written lately, and the revisions that wrote them.

A commit guesses that they are what etcd has, and makes that a condition: then it needs no round
trip to look.  Where it was wrong, nothing was done and it looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from rome.stores.etcd.operations import KeyValue

# What is remembered: rows, their bytes; and rows of one answer, as no transaction changes more.
_ROWS, _BYTES, _AT_ONCE = 20000, 16 * 2**20, 500


class Seen:
    """Rows by their keys, for all connections of an engine; all are forgotten when they get too
    many.

    Threads may meet here: what is lost by that is only looked at once more.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, KeyValue] = {}
        self._bytes = 0

    def note(self, rows: Sequence[KeyValue]) -> None:
        """Remember rows."""
        if len(rows) > _AT_ONCE:
            return
        for row in rows:
            known = self._rows.get(row.key)
            if known is None or known.revision < row.revision:
                self._bytes += len(row.key) + len(row.value)
                self._rows[row.key] = row
        if len(self._rows) > _ROWS or self._bytes > _BYTES:
            self.forget()

    def get(self, key: bytes) -> KeyValue | None:
        """Return a row as it was when it was last seen."""
        return self._rows.get(key)

    def gone(self, key: bytes) -> None:
        """Forget one row."""
        self._rows.pop(key, None)

    def forget(self) -> None:
        """Forget all."""
        self._rows.clear()
        self._bytes = 0
