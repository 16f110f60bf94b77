"""Tables that are leased: nobody writes them for a while, so what is cached of them is right.

A process asks for a lease along with a SELECT that it sends anyway, of tables that have had no
commit for a while; commits to a leased table wait for the end of its leases.  Until then its
SELECTs are answered from the result cache without asking anybody.  A lease counts from the moment
before it was asked for, and is believed for a little less than it was given for, so it has ended
here when it ends at the server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

# Seconds for which a table must have had no commit before its lease is asked for: longer than
# services take between two of their reports.
QUIET_S = 15.0
# The share of a lease in which it is believed: clocks don't run alike to the last bit.
_BELIEVED = 0.9


@dataclass(frozen=True, slots=True)
class _Lease:
    """The last commit of a table, since when it is known that there was no later one, and until
    when there will be none."""

    commit: str
    since: float
    until: float


class TableLeases:
    """What a process knows of the tables of one database.  Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._quiet: dict[int, tuple[str, float]] = {}  # last commit, and when it was met first
        self._leases: dict[int, _Lease] = {}

    def saw(self, tables: Sequence[int], commits: Sequence[str]) -> None:
        """Note the last commits of tables."""
        for table, commit in zip(tables, commits, strict=False):
            if self._quiet.get(table, ("", 0.0))[0] != commit:
                self._quiet[table] = commit, time.monotonic()

    def are_quiet(self, tables: Sequence[int]) -> bool:
        """Tell whether tables have had no commit for so long that their lease is worth while."""
        latest = time.monotonic() - QUIET_S
        return all(self._quiet.get(table, ("", latest + 1))[1] <= latest for table in tables)

    def granted(
        self, tables: Sequence[int], commits: Sequence[str], asked: float, seconds: float
    ) -> None:
        """Note that tables are leased for so many seconds from when that was asked for."""
        for table, commit in zip(tables, commits, strict=True):
            before = self._leases.get(table)
            since = asked
            if before is not None and before.commit == commit and asked <= before.until:
                since = before.since
            self._leases[table] = _Lease(commit, since, asked + _BELIEVED * seconds)

    def known_since(self, tables: Sequence[int], commits: Sequence[str]) -> float | None:
        """Return since when these have surely been the last commits of the tables, which they are
        still; None: that isn't known."""
        now = time.monotonic()
        since = 0.0
        for table, commit in zip(tables, commits, strict=True):
            lease = self._leases.get(table)
            if lease is None or lease.commit != commit or now >= lease.until:
                return None
            since = max(since, lease.since)
        return since
