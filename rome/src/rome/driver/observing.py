"""Observers of what connections do: statements and commits, with what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rome.engine.transaction import Transaction
from rome.errors import ConflictError
from rome.planner.plan import Plan
from rome.sqlite.statements import first_word
from rome.stores.base import Traffic

# Each is called after a statement, and after a commit that has something to write, with: its
# kind, statements (1), round trips, bytes sent, bytes received, seconds.
observers: list[Callable[[str, int, int, int, int, float], None]] = []
# Each is called after a commit of something to write, and after a statement that ends its
# transaction for those of others, with: commits (1 or 0), conflicts (1 or 0), and how often the
# transaction's statements were run again meanwhile.
commit_observers: list[Callable[[int, int, int], None]] = []

_KINDS = {"SELECT": "SELECT", "WITH": "SELECT", "VALUES": "SELECT", "REPLACE": "INSERT"}


def observed(traffic: Traffic, kind: str, statements: int, action: Callable[[], Any]) -> Any:
    """Return what an action does, and tell `observers` what it was and what it cost."""
    if not observers:
        return action()
    trips, sent, received = traffic.round_trips, traffic.sent, traffic.received
    started = time.perf_counter()
    try:
        return action()
    finally:
        seconds = time.perf_counter() - started
        for observer in observers:
            observer(
                kind,
                statements,
                traffic.round_trips - trips,
                traffic.sent - sent,
                traffic.received - received,
                seconds,
            )


def judged(transaction: Transaction, action: Callable[[], Any], commits: int = 0) -> Any:
    """Return what an action does, and tell `commit_observers` how it ended.

    `commits` is the number of transactions that it commits where it ends well.
    """
    if not commit_observers:
        return action()
    retries, done, conflicts = transaction.retries, 0, 0
    try:
        result = action()
        done = commits
    except ConflictError:
        conflicts = 1
        raise
    finally:
        retries = transaction.retries - retries
        if done or conflicts or retries:
            for observer in commit_observers:
                observer(done, conflicts, retries)
    return result


def kind_of(sql: str, plan: Plan | None) -> str:
    """Return the description of a statement that observers get."""
    if plan is not None and plan.kind:
        return plan.kind.upper()
    word = first_word(sql)
    return _KINDS.get(word, word if word in ("INSERT", "UPDATE", "DELETE") else "OTHER")
