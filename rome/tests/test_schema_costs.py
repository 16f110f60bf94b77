"""What work on the schema costs: a few round trips, whatever the number of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from benchmarks.schema_costs import Meter, costs, run_command, schema
from sqlalchemy import Engine, create_engine, event, insert

from tests.servers import RedisServer

FEW, MANY = 40, 80


def test_round_trips_do_not_grow_with_the_tables(redis_server: RedisServer) -> None:
    few = costs(redis_server.url("few"), FEW)
    many = costs(redis_server.url("many"), MANY)
    for kind, (trips, _) in few.items():
        # Seldom over 12; large reads take more trips where the server is slow.
        assert trips <= 20, (kind, few)
        assert many[kind][0] <= trips + 6, (kind, few, many)
    # The schema comes once, and not at all where it is known.
    assert few["reflection"][1] < 1500 * FEW
    assert few["create_all, all there"][1] < 500


def test_a_dump_of_many_tables_is_the_same_once_loaded(redis_server: RedisServer) -> None:
    metadata = schema(FEW)
    engine = create_engine(redis_server.url("dumped"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            values = [{"id": n, "name": f"n{n}", "parent": n} for n in range(1, 4)]
            connection.execute(insert(table), values)
    dumped = run_command("dump", redis_server.url("dumped"))
    said = run_command("load", redis_server.url("loaded"), given=dumped)
    assert said == f"tables: {FEW}, rows: {3 * FEW}\n"
    assert run_command("dump", redis_server.url("loaded")) == dumped
    assert run_command("check", redis_server.url("loaded")) == "nothing is wrong\n"
    engine.dispose()


def test_questions_of_one_transaction_are_answered_from_one_schema(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url("questions")
    engine = create_engine(url)
    with Meter().watching() as meter, engine.connect() as connection:
        schema(2).create_all(connection)
        connection.commit()
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

    schema(2).create_all(engine)
    assert [words for words in seen if not words.startswith("PRAGMA")] == [
        "CREATE TABLE",
        "CREATE TABLE",
        "CREATE INDEX",
    ]
