"""Rows of the store in memory that transactions hold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rome.stores import base
from rome.stores.base import Answer, Request
from rome.stores.memory.database import Database


def hold_all(
    database: Database, requests: Sequence[Request], answers: Sequence[Answer], holder: str
) -> list[Answer]:
    """Hold the rows of the requests that ask for it, and return what to answer.

    Those of the first request come with none of others' that follow; of these all are held or
    none, so that nobody gets in between them.
    """
    now = time.monotonic()
    rows: dict[int, list[tuple[int, bytes]]] = {}
    for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if request.hold and answer.rows is not None:
            steps = zip(request.steps, answer.rows, strict=True)
            rows[place] = [(step.table, number) for step, found in steps for number in found[::2]]
    states = {place: _others(database, own, holder, now) for place, own in rows.items()}
    together = all(free or (place == 0 and not wait) for place, (free, wait) in states.items())
    given = list(answers)
    for place, (free, wait) in states.items():
        if free and (place == 0 or together):
            entry = now + base.HOLD_S, holder
            database.holds.update(dict.fromkeys(rows[place], entry))
            given[place] = answers[place]._replace(held=True)
        elif place or wait:
            given[place] = answers[place]._replace(rows=None, wait=wait)
    return given


def _others(
    database: Database, rows: Sequence[tuple[int, bytes]], holder: str, now: float
) -> tuple[bool, float]:
    """Tell whether nobody else holds these rows, and for how many seconds one may who is to be
    waited for: no other transaction of the same thread."""
    theirs = [
        (until - now, other)
        for until, other in (database.holds.get(row, (0.0, "")) for row in rows)
        if until > now and other != holder
    ]
    thread = holder.rpartition(".")[0]
    waits = [left for left, other in theirs if other.rpartition(".")[0] != thread]
    return not theirs, max(waits, default=0.0)


def let_go(database: Database, holder: str, held: Mapping[int, Sequence[str]]) -> None:
    """Let go what a holder holds of these rows."""
    for table, numbers in held.items():
        for number in numbers:
            row = table, number.encode()
            if database.holds.get(row, (0.0, ""))[1] == holder:
                del database.holds[row]
