"""oslo.db: what ROME's errors mean."""

from __future__ import annotations

from typing import Any

from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc


@exc_filters.filters("rome", exc.OperationalError, r"^\(rome\.errors\.OutcomeUnknown\)")
def _unknown(error: Any, _match: Any, _engine: Any, _disconnect: Any) -> None:
    # As with other databases whose connection breaks during COMMIT; never a deadlock, after
    # which the transaction would be run again.
    raise exception.DBConnectionError(error)


@exc_filters.filters("rome", exc.OperationalError, r"^.*(?:ConflictError).*try again.*$")
def _conflict(error: Any, _match: Any, _engine: Any, _disconnect: Any) -> None:
    raise exception.DBDeadlock(error)


@exc_filters.filters(
    "rome", exc.IntegrityError, r"^.*UNIQUE\s+constraint\s+failed:\s+(?P<columns>.+?)\s*$"
)
def _duplicate(error: Any, match: Any, _engine: Any, _disconnect: Any) -> None:
    columns = match.group("columns").split("\n")[0].split(", ")
    raise exception.DBDuplicateEntry([c.split(".")[-1] for c in columns], error)


@exc_filters.filters("rome", exc.IntegrityError, r"(?i).*foreign key constraint failed")
def _reference(error: Any, _match: Any, _engine: Any, _disconnect: Any) -> None:
    raise exception.DBReferenceError(None, None, None, None, error)


@exc_filters.filters("rome", exc.OperationalError, r".*no such table: (?P<table>.+)")
def _no_table(error: Any, match: Any, _engine: Any, _disconnect: Any) -> None:
    raise exception.DBNonExistentTable(match.group("table").split("\n")[0], error)


@exc_filters.filters("rome", exc.OperationalError, r"^.*no answer from (?:Redis|etcd).*")
def _unreachable(error: Any, _match: Any, _engine: Any, _disconnect: Any) -> None:
    raise exception.DBConnectionError(error)
