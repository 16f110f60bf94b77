"""A transaction's commit: its writes, and what has to be true for them."""

from __future__ import annotations

from typing import Any

from rome.engine.cascades import Cascades
from rome.engine.foreign_keys import ForeignKeys
from rome.engine.session import Session
from rome.schema.changes import blank_write, whole_row, write_of
from rome.stores.base import Commit


def commit_request(session: Session, foreign: ForeignKeys, token: str) -> Commit | None:
    """Return what a transaction asks the store to check and to write; None: nothing."""
    overlay = session.overlay
    writes = []
    for key, change in overlay.changes.items():
        number = change.table.number
        write = write_of(
            change, overlay.relied.get(number, set()), overlay.assigned.get(number, set())
        )
        if write is not None:
            if key in overlay.locked and write["op"] != "insert":
                write["checks"] += whole_row(overlay.locked[key][1])
            writes.append(write)
    needed = bool(writes) or bool(overlay.locked)
    reads: list[list[Any]] = []
    if session.serializable and (needed or overlay.reading_calls > 1):
        reads = [[table, count] for table, count in overlay.seen_writes.items()]
    if not needed and not reads:
        return None
    exists: list[list[Any]] = []
    childless: list[list[Any]] = []
    if session.check_foreign_keys:
        exists = foreign.exists(overlay.changes.values())
        childless = Cascades(session, foreign).childless(overlay.changes.values())
    for key, (table, row) in overlay.locked.items():
        if key not in overlay.changes:
            writes.append(blank_write("update", table, key[1], whole_row(row)))
    return Commit(
        version=session.schema.version,
        token=token,
        writes=writes,
        exists=exists,
        childless=childless,
        reads=reads,
        used=[[table, number] for table, number in overlay.used.items()],
        holder=session.holds.name,
        held=session.holds.names,
    )
