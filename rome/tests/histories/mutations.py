"""Defects that are put into ROME on purpose, to show that the checker finds them.

Each takes the place of a method of the store, or of table leases, in the clients' processes only.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rome.engine.table_leases import TableLeases
from rome.errors import ConflictError
from rome.stores.base import Answer, Commit, Request
from rome.stores.redis.store import RedisStore

# How often one happens, of all calls.
_SHARE = 0.1
_chance = random.Random(1)
_commit = RedisStore.commit
_read = RedisStore.read
_granted = TableLeases.granted
# Seconds for which the stale store gives an old answer again, and by which the early one acts
# too late.
_DELAY_S = 0.05


def _rarely() -> bool:
    return _chance.random() < _SHARE


def acknowledges_without_committing(store: RedisStore, commit: Commit) -> None:
    """Say that a commit is done without sending it."""
    if not _rarely():
        _commit(store, commit)


def commits_and_says_conflict(store: RedisStore, commit: Commit) -> None:
    """Do a commit, and say that it was not done."""
    _commit(store, commit)
    if _rarely():
        raise ConflictError("by the test's mutation")


def drops_a_write(store: RedisStore, commit: Commit) -> None:
    """Do a part of a commit."""
    if len(commit.writes) > 1 and _rarely():
        commit = replace(commit, writes=commit.writes[1:])
    _commit(store, commit)


def drops_deletes(store: RedisStore, commit: Commit) -> None:
    """Leave rows where they are that should go."""
    if _rarely():
        commit = replace(commit, writes=[w for w in commit.writes if w["op"] != "delete"])
    _commit(store, commit)


def drops_row_checks(store: RedisStore, commit: Commit) -> None:
    """Commit whatever others wrote to the same rows meanwhile."""
    _commit(store, replace(commit, writes=[w | {"checks": []} for w in commit.writes]))


def drops_read_checks(store: RedisStore, commit: Commit) -> None:
    """Commit at SERIALIZABLE whatever others wrote to the tables that were read."""
    _commit(store, replace(commit, reads=[]))


def acknowledges_early(store: RedisStore, commit: Commit) -> None:
    """Say that a commit is done before it is."""
    if not _rarely():
        _commit(store, commit)
        return

    def later() -> None:
        time.sleep(_DELAY_S)
        other = RedisStore(store._wire.server, "", None)
        other.prefix = store.prefix
        try:
            _commit(other, commit)
        except Exception:  # a conflict: then it is lost
            return
        finally:
            other.close()

    threading.Thread(target=later).start()


_old: dict[Any, tuple[float, list[Answer]]] = {}


def reads_stale_rows(
    store: RedisStore, version: str, requests: Sequence[Request], holder: str = ""
) -> list[Answer]:
    """Give for a while the answer that was given before."""
    name = (version, repr(requests))
    found = _old.get(name)
    if found is not None and time.monotonic() - found[0] < _DELAY_S:
        return found[1]
    answers = _read(store, version, requests, holder)
    _old[name] = time.monotonic(), answers
    return answers


def mixes_moments(
    store: RedisStore, version: str, requests: Sequence[Request], holder: str = ""
) -> list[Answer]:
    """Answer a statement with rows of two moments."""
    first = _read(store, version, requests, holder)
    time.sleep(_DELAY_S / 10)
    second = _read(store, version, requests, holder)
    mixed = []
    for old, new in zip(first, second, strict=False):
        if old.rows is None or new.rows is None:
            mixed.append(new)
            continue
        rows: list[Any] = []
        for before, after in zip(old.rows, new.rows, strict=True):
            half = len(after) // 4 * 2  # rows are numbers and bytes by turns
            same = len(before) == len(after) and before[::2] == after[::2]
            rows.append([*before[:half], *after[half:]] if same else after)
        mixed.append(new._replace(rows=rows))
    return mixed


def believes_leases_for_long(
    leases: TableLeases, tables: Sequence[int], commits: Sequence[str], asked: float, seconds: float
) -> None:
    """Take a lease for one that lasts ten times as long."""
    _granted(leases, tables, commits, asked, 10 * seconds)


MUTATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        acknowledges_without_committing,
        commits_and_says_conflict,
        drops_a_write,
        drops_deletes,
        drops_row_checks,
        drops_read_checks,
        acknowledges_early,
        reads_stale_rows,
        mixes_moments,
        believes_leases_for_long,
    )
}


def apply(name: str) -> None:
    """Put one into this process."""
    function = MUTATIONS[name]
    if function is believes_leases_for_long:
        TableLeases.granted = function  # type: ignore[method-assign]
        return
    is_read = function in (reads_stale_rows, mixes_moments)
    setattr(RedisStore, "read" if is_read else "commit", function)
