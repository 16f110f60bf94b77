"""The databases of this process, by name: what all connections to one share."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rome.stores.base import HeldName
from rome.stores.memory.order import Order, as_bytes
from rome.stores.wire import IndexKey


class Database:
    """What all connections to one database share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 0
        self.schema: dict[str, bytes] = {}
        self.rows: dict[int, dict[bytes, bytes]] = {}
        self.unique: dict[tuple[int, int], dict[bytes, bytes]] = {}
        self.sets: dict[tuple[int, int], dict[bytes, set[bytes]]] = {}
        self.ordered: dict[tuple[int, int], Order] = {}
        self.ids: dict[str, int] = {}
        self.writes: dict[int, str] = {}
        self.tokens: set[str] = set()
        self.holds: dict[tuple[int, HeldName], tuple[float, str]] = {}  # until when, and who

    def numbers(self, table: int, kind: str, index: int, keys: Sequence[IndexKey]) -> list[bytes]:
        """Return the numbers of the rows that keys lead to."""
        if kind == "row":
            numbers = list(map(as_bytes, keys))
        elif kind == "unique":
            entries = self.unique.get((table, index), {})
            numbers = [entries[key] for key in map(as_bytes, keys) if key in entries]
        else:
            sets = self.sets.get((table, index), {})
            numbers = [
                number for key in map(as_bytes, keys) for number in sorted(sets.get(key, ()))
            ]
        return list(dict.fromkeys(numbers))


databases: dict[str, Database] = {}


def forget(name: str) -> None:
    """Drop a database."""
    databases.pop(name, None)
