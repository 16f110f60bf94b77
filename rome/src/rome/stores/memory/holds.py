"""Rows and keys of the store in memory that transactions hold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rome.stores import base
from rome.stores.base import Answer, HeldName, Request, held_names
from rome.stores.memory.database import Database


def hold_all(
    database: Database, requests: Sequence[Request], answers: Sequence[Answer], holder: str
) -> list[Answer]:
    """Hold the rows and keys of the requests that ask for it, and return what to answer.

    Those of the first request come with none of others' that follow; of these all are held or
    none, so that nobody gets in between them.
    """
    now = time.monotonic()
    names: dict[int, list[tuple[int, HeldName]]] = {}
    for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if holder and request.holds and answer.rows is not None:
            names[place] = held_names(request, answer.rows)
    states = {place: _others(database, own, holder, now) for place, own in names.items()}
    together = all(free or (place == 0 and not wait) for place, (free, wait) in states.items())
    given = list(answers)
    for place, (free, wait) in states.items():
        if free and (place == 0 or together):
            entry = now + base.HOLD_S, holder
            database.holds.update(dict.fromkeys(names[place], entry))
            given[place] = answers[place]._replace(held=True)
        elif place or wait:
            given[place] = answers[place]._replace(rows=None, wait=wait)
    return given


def _others(
    database: Database, names: Sequence[tuple[int, HeldName]], holder: str, now: float
) -> tuple[bool, float]:
    """Tell whether nobody else holds these, and for how many seconds one may who is to be
    waited for: no other transaction of the same thread."""
    theirs = [
        (until - now, other)
        for until, other in (database.holds.get(name, (0.0, "")) for name in names)
        if until > now and other != holder
    ]
    thread = holder.rpartition(".")[0]
    waits = [left for left, other in theirs if other.rpartition(".")[0] != thread]
    return not theirs, max(waits, default=0.0)


def let_go(database: Database, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
    """Let go what a holder holds of these."""
    for table, names in held.items():
        for name in names:
            if database.holds.get((table, name), (0.0, ""))[1] == holder:
                del database.holds[table, name]
