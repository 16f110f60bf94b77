"""Time on a load host: moments as Nova writes them, and the end of a run's time."""

from __future__ import annotations

import calendar
import time

# Deletions are waited for no longer when no VM has gone for so long.
STOOD_STILL_S = 120.0


class RunTime:
    """A load's own time, which begins with its first request and may be up before its end."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.deadline = float("inf")
        self.is_up = False

    def begin(self) -> None:
        """Begin it now."""
        self.deadline = time.time() + self.timeout_s

    def end(self) -> None:
        """Let what follows take its time."""
        self.deadline = float("inf")

    def check(self) -> bool:
        """Tell whether the time is up, and note it."""
        if time.time() > self.deadline:
            self.is_up = True
            return True
        return False


def left_s(latest: float) -> float:
    """Return how many seconds are left, a moment at least."""
    return max(0.001, latest - time.time())


def as_utc(at: float) -> str:
    """Return a moment as Nova takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def from_utc(text: str | None) -> float | None:
    """Return seconds since 1970 of Nova's '2026-11-23T16:05:01.000000'."""
    if not text:
        return None
    return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
