"""What a history is: transactions with the steps that they took, when, and how they ended.

Every value that is written is unique in its history, so a value that is seen names the
transaction that wrote it.  Times are nanoseconds of the machine's monotonic clock, which all
processes share.  A history is kept as lines of JSON: a transaction's line is written before its
commit is sent, and a second line when the outcome is known, so that nothing is forgotten when a
client is killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READ_COMMITTED, SERIALIZABLE = "READ COMMITTED", "SERIALIZABLE"
COMMITTED, ABORTED, UNKNOWN = "committed", "aborted", "unknown"

# A row with a version and a detail, or no row.
Row = tuple[int, int | None] | None


@dataclass(frozen=True, slots=True)
class Append:
    """A value was put at the end of a list."""

    key: str
    value: int


@dataclass(frozen=True, slots=True)
class Insert:
    """A row came that was not there."""

    key: str
    version: int
    detail: int


@dataclass(frozen=True, slots=True)
class Swap:
    """A row's version was compared with one value and set to another; one row matched."""

    key: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Detail:
    """A row's detail, a column besides its version, was compared and set."""

    key: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Delete:
    """A row whose version was compared was deleted."""

    key: str
    before: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A comparison with this version matched no row."""

    key: str
    before: int


@dataclass(frozen=True, slots=True)
class Taken:
    """An INSERT failed because the key was there."""

    key: str


@dataclass(frozen=True, slots=True)
class Read:
    """What one SELECT saw: whole lists, and rows or their absence."""

    lists: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)


Write = Append | Insert | Swap | Detail | Delete
Action = Write | Missed | Taken | Read
WRITES = (Append, Insert, Swap, Detail, Delete)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, from before it was run until its answer was there."""

    action: Action
    began: int
    ended: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction: its steps, and what its client was told of the end.

    `committing` is when the commit was sent (None: it never was); `ended` when the client
    heard of the outcome (None: it never did).
    """

    name: str
    steps: tuple[Step, ...]
    outcome: str = COMMITTED
    level: str = READ_COMMITTED
    began: int = 0
    committing: int | None = None
    ended: int | None = None
    error: str = ""

    @property
    def writes(self) -> list[Write]:
        """What it wrote, in order."""
        return [step.action for step in self.steps if isinstance(step.action, WRITES)]


@dataclass(frozen=True, slots=True)
class History:
    """Transactions, the rows that were there before them, and what is there after them."""

    transactions: tuple[Transaction, ...]
    final: Read
    initial: Mapping[str, int] = field(default_factory=dict)
    # Whether a statement may be answered from rows that came with an earlier one.
    prefetches: bool = True
    # Times, each from a begin to an end, in which a master that was replaced without knowing it may
    # have answered SELECTs, by what it had at the begin.
    stale: tuple[tuple[int, int], ...] = ()


_ACTIONS: dict[str, Any] = {kind.__name__: kind for kind in (*WRITES, Missed, Taken)}


def encode_read(read: Read) -> list[Any]:
    """Return a Read as JSON can keep it."""
    return ["Read", dict(read.lists), dict(read.rows)]


def decode_read(parts: list[Any]) -> Read:
    """Return the Read that `encode_read` was given."""
    _, lists, rows = parts
    return Read(
        {key: tuple(values) for key, values in lists.items()},
        {key: row if row is None else (row[0], row[1]) for key, row in rows.items()},
    )


def encode_step(step: Step) -> list[Any]:
    """Return a step as JSON can keep it."""
    action = step.action
    if isinstance(action, Read):
        return [step.began, step.ended, *encode_read(action)]
    values = [getattr(action, name) for name in action.__slots__]
    return [step.began, step.ended, type(action).__name__, *values]


def decode_step(parts: list[Any]) -> Step:
    """Return the step that `encode_step` was given."""
    began, ended, name, *values = parts
    action = decode_read([name, *values]) if name == "Read" else _ACTIONS[name](*values)
    return Step(action, began, ended)


def transactions_of(files: Iterable[Path]) -> list[Transaction]:
    """Return the transactions that clients' files have, in no order.

    A file of a client that was killed may end within a line, which it had not finished to
    write: of a transaction whose commit was then not sent, or of an outcome that nobody heard.
    """
    found = []
    for file in files:
        begun: dict[str, dict[str, Any]] = {}
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            begun.setdefault(record["name"], {}).update(record)
        for name, record in begun.items():
            found.append(
                Transaction(
                    name=name,
                    steps=tuple(decode_step(step) for step in record["steps"]),
                    outcome=record.get("outcome", UNKNOWN),
                    level=record["level"],
                    began=record["began"],
                    committing=record["committing"],
                    ended=record.get("ended"),
                    error=record.get("error", ""),
                )
            )
    return found


def save(history: History, file: Path) -> None:
    """Write a whole history, so that it can be judged again."""
    data = {
        "final": encode_read(history.final),
        "initial": dict(history.initial),
        "prefetches": history.prefetches,
        "stale": history.stale,
        "transactions": [
            {
                "name": t.name,
                "steps": [encode_step(step) for step in t.steps],
                "outcome": t.outcome,
                "level": t.level,
                "began": t.began,
                "committing": t.committing,
                "ended": t.ended,
                "error": t.error,
            }
            for t in history.transactions
        ],
    }
    file.write_text(json.dumps(data))


def load(file: Path) -> History:
    """Return the history that `save` wrote."""
    data = json.loads(file.read_text())
    return History(
        transactions=tuple(
            Transaction(**{**t, "steps": tuple(decode_step(step) for step in t["steps"])})
            for t in data["transactions"]
        ),
        final=decode_read(data["final"]),
        initial=data["initial"],
        prefetches=data["prefetches"],
        stale=tuple((began, ended) for began, ended in data.get("stale", ())),
    )
