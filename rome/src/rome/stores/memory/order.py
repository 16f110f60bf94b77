"""An ordered index of the store in memory."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

from rome.stores.sort_bytes import number_in
from rome.stores.wire import RangeLookup


def as_bytes(text: str | bytes) -> bytes:
    """Return a key as bytes."""
    return text.encode() if isinstance(text, str) else text


class Order:
    """Scores and members (base.py), in order."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, bytes]] = []

    def add(self, score: str | bytes, member: str | bytes) -> None:
        """Put an entry in, once."""
        entry = int(score), as_bytes(member)
        place = bisect.bisect_left(self._entries, entry)
        if self._entries[place : place + 1] != [entry]:
            self._entries.insert(place, entry)

    def remove(self, member: str | bytes) -> None:
        """Take an entry out, if it is there."""
        gone = as_bytes(member)
        for place, (_, member_here) in enumerate(self._entries):
            if member_here == gone:
                del self._entries[place]
                return

    def span(self, lookup: RangeLookup) -> list[bytes]:
        """Return row numbers from the low to the high end of a look-up."""
        low, high = as_bytes(lookup.low), as_bytes(lookup.high)
        if lookup.by_number:
            return [m for score, m in self._entries if _within(score, low, high, float)]
        return [number_in(m) for _, m in self._entries if _within(m, low, high, bytes)]

    def members(self) -> list[bytes]:
        """Give all members."""
        return [member for _, member in self._entries]


def _within(place: Any, low: bytes, high: bytes, parsed: Callable[[bytes], Any]) -> bool:
    """Tell whether an entry lies between two ends, written as Redis has them."""
    for end, is_low in ((low, True), (high, False)):
        if end in (b"-", b"+", b"-inf", b"+inf"):
            if end.startswith(b"-") != is_low:
                return False
            continue
        without = end.startswith(b"(")
        bound = parsed(end[1:] if end[:1] in (b"(", b"[") else end)
        if (without and place == bound) or (place < bound if is_low else place > bound):
            return False
    return True
