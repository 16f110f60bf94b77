"""One statement of an alphabet: how ROME runs it and how plain SQLite runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rome.dialect import RomeDialect, RomeExecutionContext
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import sqlite

_ROME = RomeDialect()
_SQLITE = sqlite.dialect()
# Bound to the number that ROME gave a row, where SQLite is told which one to take.
NUMBER = "given_number"


class _Context(RomeExecutionContext):
    """Carries a compiled statement to the dialect as an execution would, without its costs."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.isddl = False
        self._expanded_parameters = {}


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement of one session; two with the same name and text are the same.

    `relied`: columns that its WHERE and its expressions use; a commit relies on them in each row
    that the statement writes.  `relies_on_all`: the page leaves open on which (upserts).
    `locks`: SELECT … FOR UPDATE.  `numbered`: the store chooses the row's key; `for_sqlite` then
    has a parameter NUMBER for it.  `sets` are parameter sets of one executemany.
    """

    name: str
    kind: str  # select, insert, update, delete, ddl, savepoint, rollback to, release, commit, …
    clause: ClauseElement | str
    table: str = ""
    relied: frozenset[str] = frozenset()
    relies_on_all: bool = False
    locks: bool = False
    numbered: bool = False
    for_sqlite: ClauseElement | None = None
    sets: tuple[dict[str, Any], ...] = ()
    rank: int = 1  # 1: in the shortest enumerations, 2: in longer ones too, 3: only sampled
    _compiled: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def reads_only(self) -> bool:
        """Whether it writes nothing."""
        return self.kind == "select"

    @property
    def key(self) -> tuple[str, tuple[Any, ...]]:
        """Text and parameters, by which equal statements are found equal."""
        found: tuple[str, tuple[Any, ...]] | None = self._compiled.get("key")
        if found is None:
            sql, parameters = self.sqlite_sql()
            found = self._compiled["key"] = (sql, tuple(map(repr, parameters)))
        return found

    def sqlite_sql(self, number: int | None = None) -> tuple[str, list[tuple[Any, ...]]]:
        """The SQL for plain SQLite with its sets of parameters."""
        if isinstance(self.clause, str):
            return self.clause, [()]
        known = self._compiled.get("sqlite")
        if known is None:
            clause: Any = self.for_sqlite if self.for_sqlite is not None else self.clause
            known = self._compiled["sqlite"] = _compile(clause, _SQLITE, self.sets)
        given = [known.params, *()] if not self.sets else [
            known.construct_params(one) for one in self.sets
        ]  # fmt: skip
        names = known.positiontup or ()
        parameters = [
            tuple(number if name == NUMBER else one[name] for name in names) for one in given
        ]
        return str(known), parameters

    def run(self, cursor: Any, as_text: bool) -> None:
        """Execute on a cursor of ROME's driver, with its plan or as text."""
        if isinstance(self.clause, str):
            cursor.execute(self.clause)
            return
        known = self._compiled.get("rome")
        if known is None:
            known = self._compiled["rome"] = _rome(self.clause, self.sets)
        sql, parameters, context = known
        if as_text:
            context = None
        if self.sets:
            _ROME.do_executemany(cursor, sql, parameters, context)
        else:
            _ROME.do_execute(cursor, sql, parameters[0], context)

    def __str__(self) -> str:
        sql, parameters = self.sqlite_sql()
        shown = " ".join(sql.split())
        if parameters != [()]:
            shown += " " + ", ".join(map(repr, parameters))
        return shown


def _compile(clause: Any, dialect: Any, sets: tuple[dict[str, Any], ...]) -> Any:
    names = list(sets[0]) if sets else None
    return clause.compile(dialect=dialect, column_keys=names)


def _rome(clause: Any, sets: tuple[dict[str, Any], ...]) -> tuple[str, list[Any], Any]:
    compiled = _compile(clause, _ROME, sets)
    names = compiled.positiontup or ()
    given = [compiled.construct_params(one) for one in sets] or [compiled.params]
    parameters = [tuple(one[name] for name in names) for one in given]
    return str(compiled), parameters, _Context(compiled)


def savepoint(name: str = "s") -> Statement:
    """Begin a savepoint."""
    return Statement(f"savepoint {name}", "savepoint", f"SAVEPOINT {name}", table=name)


def rollback_to(name: str = "s") -> Statement:
    """Undo what came after a savepoint."""
    return Statement(f"rollback to {name}", "rollback to", f"ROLLBACK TO SAVEPOINT {name}", name)


def release(name: str = "s") -> Statement:
    """Forget a savepoint."""
    return Statement(f"release {name}", "release", f"RELEASE SAVEPOINT {name}", name)


COMMIT = Statement("commit", "commit", "COMMIT")
ROLLBACK = Statement("rollback", "rollback", "ROLLBACK")
