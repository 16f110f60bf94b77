"""What a server knows of the requests that it was sent: so that none is worked on twice.

A request may come again, as its sender heard nothing of it, and its answer may have to be sent
again, as it was lost.  Both are remembered for a while, within bounds.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass


@dataclass
class _Known:
    at: float
    answer: bytes | None = None


class Ledger:
    """Requests by identifier, the oldest first; thread-safe."""

    def __init__(
        self, keep_s: float = 300.0, most: int = 20_000, most_bytes: int = 32 * 2**20
    ) -> None:
        self._keep_s, self._most, self._most_bytes = keep_s, most, most_bytes
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def begin(self, identifier: str) -> bool:
        """Note a request; tells whether it is new."""
        with self._lock:
            if identifier in self._known:
                return False
            self._known[identifier] = _Known(time.monotonic())
            self._forget()
            return True

    def knows(self, identifier: str) -> bool:
        """Tell whether a request has come."""
        with self._lock:
            return identifier in self._known

    def answer(self, identifier: str, answer: bytes) -> None:
        """Keep the answer to a request; one that is too large is forgotten at once."""
        with self._lock:
            known = self._known.get(identifier)
            if known is None or known.answer is not None or len(answer) > self._most_bytes // 8:
                return
            known.answer = answer
            self._bytes += len(answer)
            self._forget()

    def answer_of(self, identifier: str) -> bytes | None:
        """Return the answer to a request, if there is one."""
        with self._lock:
            known = self._known.get(identifier)
            return None if known is None else known.answer

    def _forget(self) -> None:
        oldest = time.monotonic() - self._keep_s
        while self._known:
            identifier, known = next(iter(self._known.items()))
            is_within = len(self._known) <= self._most and self._bytes <= self._most_bytes
            if is_within and known.at > oldest:
                return
            del self._known[identifier]
            self._bytes -= len(known.answer or b"")
