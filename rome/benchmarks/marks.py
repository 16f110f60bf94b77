"""What a process asks its database, statement by statement, with time and round trips."""

from __future__ import annotations

import functools
import itertools
import time
from typing import Any

import sqlalchemy as sa

from . import proxy


class Marks:
    """Marks made at what SQLAlchemy tells of; each lasts until the next."""

    def __init__(self, control: int) -> None:
        self._counts = proxy.Control(control)
        self._made: list[tuple[str, float, float, int]] = []  # words, ended, began, turns

    def __enter__(self) -> Marks:
        """Begin to listen."""
        self._listeners = [
            ("before_cursor_execute", self._statement),
            ("after_cursor_execute", self._executed),
        ]
        for name in ("commit", "rollback"):
            self._listeners.append((name, functools.partial(self._end, name.upper())))
        for listener in self._listeners:
            sa.event.listen(sa.engine.Engine, *listener)
        self._mark("(before)")
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._mark("(after)")
        for listener in self._listeners:
            sa.event.remove(sa.engine.Engine, *listener)

    def _statement(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._mark(statement)

    def _executed(self, *_: Any) -> None:
        self._mark("  (rows are read, objects made)")

    def _end(self, word: str, _connection: Any) -> None:
        self._mark(word)

    def _mark(self, words: str) -> None:
        ended = time.perf_counter()
        turns = self._counts.counts().turns
        self._made.append((words, ended, time.perf_counter(), turns))

    def segments(self) -> list[list[Any]]:
        """Words, milliseconds, turns."""
        return [
            [words, (ended - began) * 1000, later - turns]
            for (words, _, began, turns), (_, ended, _, later) in itertools.pairwise(self._made)
        ]
