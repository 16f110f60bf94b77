"""The PEP 249 driver: connections, cursors, and what a statement is.

Connections may be handed from thread to thread, but serve one at a time.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import apsw

from rome.driver.connections import Connection
from rome.driver.cursors import Cursor
from rome.driver.observing import commit_observers, observers
from rome.engine.shared import Options, Shared
from rome.errors import (
    ConflictError,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ProgrammingError,
    Warning,  # noqa: A004 - the name is PEP 249's
)
from rome.stores.base import Store

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "ConflictError",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "OutcomeUnknown",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "commit_observers",
    "connect",
    "observers",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"
# SQLAlchemy's SQLite dialect asks which SQL it may write.
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))

# PEP 249's constructors and types of values.
Binary = bytes
Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
DateFromTicks = datetime.date.fromtimestamp
TimestampFromTicks = datetime.datetime.fromtimestamp


def TimeFromTicks(ticks: float) -> datetime.time:  # noqa: N802 - the name is PEP 249's
    """Return the time of day of a number of seconds since the epoch."""
    return datetime.datetime.fromtimestamp(ticks).time()


STRING, BINARY, NUMBER, DATETIME, ROWID = str, bytes, float, str, int


def connect(
    store: Callable[[], Store],
    shared: Shared,
    foreign_keys: bool = True,
    serializable: bool = False,
    result_cache: bool = True,
    prefetch: bool = True,
    table_lease: float = 0.0,
) -> Connection:
    """Return a connection to a database.

    `store` makes its connection to the key/value store; `shared` is the same for all
    connections to one database.  `result_cache`: use results that the process has cached while
    they are right; `prefetch`: read what will follow together with a statement; `table_lease`: the
    seconds for which the store leases tables, if it shall.
    """
    options = Options(foreign_keys, serializable, result_cache, prefetch, table_lease)
    return Connection(store(), shared, options)
