"""What the connections of a process to one database share, and what each may choose."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from rome.engine.moments import Moments
from rome.engine.prefetch import PrefetchHistory
from rome.engine.recent import Recent
from rome.engine.result_cache import ResultCache
from rome.engine.row_locks import RowLocks
from rome.engine.table_leases import TableLeases
from rome.planner.plan import Plan
from rome.schema.catalogue import Catalogue
from rome.schema.ids import Ids


class Shared:
    """What all connections of this process to one database share."""

    def __init__(self) -> None:
        self.ids = Ids()
        self.catalogue = Catalogue(self.ids)
        self.result_cache = ResultCache()
        self.prefetch_history = PrefetchHistory()
        self.row_locks = RowLocks()
        self.moments = Moments()
        self.recent = Recent()
        self.table_leases = TableLeases()
        self.texts: dict[str, Plan] = {}  # of statements that are only known as text


@dataclass(frozen=True)
class Options:
    """A connection's own: whether it checks foreign keys, commits only what could have
    happened one after the other, uses the result cache, and prefetches; the seconds for which the
    store leases tables, 0 if no leases are asked for.
    """

    foreign_keys: bool = True
    serializable: bool = False
    result_cache: bool = True
    prefetch: bool = True
    table_lease: float = 0.0


_shared: weakref.WeakValueDictionary[Any, Shared] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def shared(name: Any) -> Shared:
    """Return what a database's connections share; it lives as long as somebody holds it."""
    with _lock:
        state = _shared.get(name)
        if state is None:
            state = _shared[name] = Shared()
        return state


def _forked() -> None:
    """Start anew in a child: the parent goes on to use the numbers that it has reserved."""
    global _lock
    _lock = threading.Lock()
    for state in list(_shared.values()):
        state.ids.restart()
        state.catalogue.restart()
        state.result_cache.restart()
        state.row_locks.restart()


os.register_at_fork(after_in_child=_forked)
