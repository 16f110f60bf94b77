"""Clients: processes with threads with connections, whose transactions go into files.

A thread with two connections goes on with one or the other after each statement.  Each thread
has a file of its own; a transaction is written there before its commit is sent.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rome.engine import row_locks, table_leases
from rome.stores.redis import store as redis_store
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from rome import errors
from tests.histories import mutations
from tests.histories.checker import CRASH
from tests.histories.model import (
    ABORTED,
    COMMITTED,
    UNKNOWN,
    Action,
    Step,
    encode_step,
)
from tests.histories.tables import LIST_S
from tests.histories.workloads import WORKLOADS, Turn, change_schema

# Values of one thread: no other thread has them, nor the setup.
_VALUES = 10_000_000


@dataclass(frozen=True, slots=True)
class Client:
    """What one process does.

    `began` is the run's begin (s, monotonic), `stop` a file that ends it; `pause` the mean of
    the seconds between a thread's transactions.  `faulty`: the servers are being disturbed, so
    that a command may fail.
    """

    number: int
    url: str
    folder: Path
    began: float
    stop: Path
    workload: str
    levels: tuple[str, ...]
    threads: int = 2
    connections: int = 1
    pause: float = 0.0
    faulty: bool = False
    mutation: str = ""
    attempt: int = 0


def run_client(client: Client) -> None:
    """Run transactions until the file that ends it is there."""
    # Threads with two connections each would wait for each other.
    row_locks.WAIT = 0.02
    # Where the URL wants leases of tables, they are asked for and given at once.
    table_leases.QUIET_S, redis_store.GUARD_MS = 0.0, 0
    if client.mutation:
        mutations.apply(client.mutation)
    engine = create_engine(client.url, poolclass=NullPool)
    threads = [_Thread(client, engine, number) for number in range(client.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()


class _Thread(threading.Thread):
    def __init__(self, client: Client, engine: Engine, number: int) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.engine = engine
        place = (client.number * 100 + client.attempt) * 10 + number
        self.label = f"P{client.number}.{client.attempt}/{number}"
        self.chance = random.Random(place)
        self.values = itertools.count((place + 1) * _VALUES)
        self.names = itertools.count(1)
        name = f"client-{client.number}-{client.attempt}-{number}.jsonl"
        self.file = os.open(client.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self) -> None:
        client = self.client
        open_ones: list[_Open] = [
            _Open(self, self._level(place)) for place in range(client.connections)
        ]
        while not client.stop.exists():
            self.chance.choice(open_ones).go_on()
        for each in open_ones:
            each.end()
        os.close(self.file)

    def _level(self, place: int) -> str:
        levels = self.client.levels
        return levels[(self.client.number + place) % len(levels)]

    def write(self, record: dict[str, Any]) -> None:
        """Add a line to the file; the kernel has it, also when this process is killed."""
        os.write(self.file, json.dumps(record).encode() + b"\n")


class _Open:
    """A connection, and its transaction if one is open."""

    def __init__(self, thread: _Thread, level: str) -> None:
        self.thread = thread
        self.level = level
        self.connection: Connection | None = None
        self.running: Iterator[Action | None] | None = None
        self.steps: list[Step] = []
        self.began = 0

    def go_on(self) -> None:
        """Run the next statement, or begin a transaction, or end it."""
        thread = self.thread
        if self.running is None:
            if thread.client.pause:
                time.sleep(thread.chance.expovariate(1 / thread.client.pause))
            self._begin()
        began = time.monotonic_ns()
        try:
            if self.running is None:
                raise AssertionError("no transaction")
            action = next(self.running)
        except StopIteration:
            self._end()
            return
        except Exception as error:
            self._failed(error)
            return
        if action is not None:
            self.steps.append(Step(action, began, time.monotonic_ns()))

    def _begin(self) -> None:
        thread = self.thread
        if self.connection is None:
            engine = thread.engine.execution_options(isolation_level=self.level)
            self.connection = engine.connect()
        stage = int((time.monotonic() - thread.client.began) / LIST_S)
        turn = Turn(self.connection, thread.chance, lambda: next(thread.values), stage)
        self.running = WORKLOADS[thread.client.workload](turn)
        self.steps = []
        self.began = time.monotonic_ns()

    def _end(self) -> None:
        name = f"{self.thread.label}-{next(self.thread.names)}"
        if self.connection is None:
            raise AssertionError("no connection")
        if self.thread.chance.random() < 0.1:
            self.connection.rollback()
            self._record(name, ABORTED, None, "")
            return
        committing = time.monotonic_ns()
        self._record(name, UNKNOWN, committing, "", done=False)
        try:
            self.connection.commit()
        except Exception as error:
            # The outcome stands in the file before anything else can fail.
            self._outcome(name, outcome_of(error), self._text(error))
            self._disconnect()
            return
        self._outcome(name, COMMITTED, "")

    def _failed(self, error: Exception) -> None:
        """Note that a statement failed: the transaction is rolled back."""
        name = f"{self.thread.label}-{next(self.thread.names)}"
        self._record(name, ABORTED, None, self._text(error))
        self._disconnect()

    def _text(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
        return text if self._may_fail(error) else CRASH + text

    def _may_fail(self, error: Exception) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, errors.ConflictError):
            return True
        if isinstance(error, IntegrityError):
            # A place of a list was taken, or a key.
            return True
        return self.thread.client.faulty and isinstance(cause, errors.OperationalError)

    def _record(
        self, name: str, outcome: str, committing: int | None, error: str, done: bool = True
    ) -> None:
        record: dict[str, Any] = {
            "name": name,
            "level": self.level,
            "began": self.began,
            "committing": committing,
            "steps": [encode_step(step) for step in self.steps],
        }
        if done:
            record |= {"outcome": outcome, "ended": time.monotonic_ns(), "error": error}
            self.running = None
        self.thread.write(record)

    def _outcome(self, name: str, outcome: str, error: str) -> None:
        ended = time.monotonic_ns()
        self.thread.write({"name": name, "outcome": outcome, "ended": ended, "error": error})
        self.running = None

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def end(self) -> None:
        """Roll back what is open."""
        self.running = None
        self._disconnect()


def outcome_of(error: Exception) -> str:
    """Return what a commit's error says of its outcome: not done, or not known."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    unknown = getattr(errors, "OutcomeUnknown", None)
    if unknown is not None and isinstance(cause, unknown):
        return UNKNOWN
    if "is not known" in str(cause) or "the commit is done" in str(cause):
        return UNKNOWN
    if not isinstance(cause, errors.Error):
        return UNKNOWN  # a defect; whatever it left behind
    return ABORTED


def run_schema_changes(url: str, stop: Path, log: Path, faulty: bool) -> None:
    """Change the schema again and again, until the file that ends it is there.

    Each statement that was done, and each error, is a line of the log.
    """
    engine = create_engine(url, poolclass=NullPool)
    for turn in itertools.count():
        if stop.exists():
            break
        try:
            with engine.connect() as connection:
                change_schema(connection, turn)
        except DBAPIError as error:
            if not faulty and not isinstance(error.orig, errors.ConflictError):
                _log(log, f"failed: {error.orig}")
            _undo(engine, turn)
        else:
            _log(log, f"done {turn}")
        time.sleep(0.05)
    engine.dispose()


def _undo(engine: Engine, turn: int) -> None:
    """Remove what a turn left that broke off; what fails, fails again in the next turn."""
    for sql in ("DROP INDEX named_by_version", "DROP INDEX texts_by_both"):
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(sql)
                connection.commit()
        except DBAPIError:
            continue


def _log(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line + "\n")
