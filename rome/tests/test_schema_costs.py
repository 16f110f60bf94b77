"""What work on the schema costs: a few round trips, whatever the number of tables."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.cli import main
from rome.stores.base import Traffic
from rome.stores.redis_store import RedisStore
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
)
from sqlalchemy.pool import NullPool

from tests.servers import RedisServer

FEW, MANY = 40, 80
ROWS = 20  # in each table


def tables(count: int) -> MetaData:
    """Tables with indexes of each kind; each but the first refers to one before it."""
    metadata = MetaData()
    for number in range(count):
        Table(
            f"t{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("name", String(40), nullable=False, index=number > 0),
            Column("code", String(40)),
            Column("parent", Integer, *([ForeignKey(f"t{number // 2}.id")] if number else [])),
            UniqueConstraint("code", "name", name=f"one{number}"),
        )
    return metadata


class Meter:
    """Round trips and bytes of all stores that are opened meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stores: list[Traffic] = []
        opened = RedisStore.__init__

        def opening(store: RedisStore, *arguments: Any, **named: Any) -> None:
            opened(store, *arguments, **named)
            self._stores.append(store.traffic)

        monkeypatch.setattr(RedisStore, "__init__", opening)

    def of(self, action: Callable[[], Any]) -> tuple[int, int]:
        """Round trips, and bytes both ways, of an action."""
        before = self._total()
        action()
        after = self._total()
        return after[0] - before[0], after[1] - before[1]

    def _total(self) -> tuple[int, int]:
        return (
            sum(traffic.round_trips for traffic in self._stores),
            sum(traffic.sent + traffic.received for traffic in self._stores),
        )


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    return Meter(monkeypatch)


def command(*arguments: str, given: str = "") -> str:
    """What the command `rome` prints; it must end with 0."""
    said = io.StringIO()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    try:
        with contextlib.redirect_stdout(said):
            assert main(arguments) == 0
    finally:
        sys.stdin = before
    return said.getvalue()


def costs(url: str, meter: Meter, count: int) -> dict[str, int]:
    """Round trips of each kind of work, on a database of so many tables."""
    metadata = tables(count)
    engine = create_engine(url, poolclass=NullPool)
    found: dict[str, int] = {}
    found["create_all"], _ = meter.of(lambda: metadata.create_all(engine))
    found["create_all again"], _ = meter.of(lambda: metadata.create_all(engine))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            values = [
                {"id": n, "name": f"n{n}", "code": f"c{n}", "parent": n} for n in range(1, ROWS)
            ]
            connection.execute(insert(table), values)
    found["reflection"], size = meter.of(lambda: MetaData().reflect(engine))
    assert size < 4000 * count  # the schema comes once at most
    dumped: list[str] = []
    found["dump"], _ = meter.of(lambda: dumped.append(command("dump", url)))
    found["check"], _ = meter.of(lambda: command("check", url))
    found["inspect"], _ = meter.of(lambda: command("inspect", url))
    copy = url + "-copy"
    found["load"], _ = meter.of(lambda: command("load", copy, given=dumped[0]))
    assert command("dump", copy) == dumped[0]
    found["drop"], _ = meter.of(lambda: command("drop", copy, "--yes"))
    found["drop_all"], _ = meter.of(lambda: metadata.drop_all(engine))
    engine.dispose()
    return found


def test_round_trips_do_not_grow_with_the_tables(redis_server: RedisServer, meter: Meter) -> None:
    few = costs(redis_server.url("few"), meter, FEW)
    many = costs(redis_server.url("many"), meter, MANY)
    for kind, trips in few.items():
        assert trips <= 12, (kind, few)
        assert many[kind] <= trips + 6, (kind, few, many)


def test_questions_of_one_transaction_are_answered_from_one_schema(
    redis_server: RedisServer, meter: Meter
) -> None:
    url = redis_server.url("questions")
    engine = create_engine(url)
    tables(2).create_all(engine)
    with engine.connect() as connection:
        look: Callable[[], Any] = lambda: connection.exec_driver_sql("PRAGMA table_info(t1)").all()  # noqa: E731
        assert meter.of(look)[0] == 1
        trips, size = meter.of(lambda: [look() for _ in range(50)])
        assert (trips, size) == (0, 0)
        connection.rollback()
        trips, size = meter.of(look)
        assert trips == 1
        assert size < 500  # the version, as it is known
        connection.exec_driver_sql("ALTER TABLE t1 ADD COLUMN more INTEGER")
        assert [row[1] for row in look()][-1] == "more"
    engine.dispose()


@pytest.fixture
def engine(redis_server: RedisServer) -> Iterator[Engine]:
    made = create_engine(redis_server.url("statements"))
    yield made
    made.dispose()


def test_what_waits_is_seen_by_those_who_listen(engine: Engine) -> None:
    """SQLAlchemy's own events come at the time of the statement."""
    seen: list[str] = []

    @event.listens_for(engine, "after_cursor_execute")
    def _note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(" ".join(statement.split()[:2]))

    tables(2).create_all(engine)
    assert [words for words in seen if not words.startswith("PRAGMA")] == [
        "CREATE TABLE",
        "CREATE TABLE",
        "CREATE INDEX",
    ]
