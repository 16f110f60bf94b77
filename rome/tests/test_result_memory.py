"""The memory of the result cache: it is bounded, for all databases of a process together."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from rome.engine import result_cache
from rome.engine.calls import Result
from rome.engine.shared import Shared
from rome.stores.memory import store as memory
from rome.stores.rows import encode
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, select

from tests.servers import RedisServer

BOUND = 4 * 2**20
# What keeps a connection and its statements going, beside the answers.
SLACK = 2**19


def groups(count: int, _number: int) -> tuple[Result, list[list[bytes]]]:
    """Of a GROUP BY that the store has answered: no rows were brought."""
    rows: list[Any] = [(f"the name of {i}", i * 1000, i / 7) for i in range(count)]
    return Result(rows, None, -1, None), []


def rows(count: int, number: int) -> tuple[Result, list[list[bytes]]]:
    """Of a SELECT of so many rows, with the rows as they came."""
    values: list[Any] = [
        (number * 1000 + i, f"the name of {i} and {number}", None, 1.5 * i) for i in range(count)
    ]
    found = [part for row in values for part in (b"%d" % row[0], encode(row))]
    return Result(values, None, -1, None), [found]


@pytest.mark.parametrize(
    "make, count, times",
    [(groups, 10000, 5), (groups, 1000, 40), (rows, 500, 40), (rows, 1, 5000), (groups, 0, 6000)],
    ids=["large groups", "groups", "rows", "single rows", "nothing"],
)
def test_answers_take_the_memory_that_is_counted(
    make: Callable[[int, int], tuple[Result, list[list[bytes]]]], count: int, times: int
) -> None:
    bound = result_cache.CacheMemory(BOUND)
    databases = [result_cache.ResultCache(bound) for _ in range(3)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(times):
        key = result_cache.cache_key(
            f"{number}", f"SELECT {number} FROM t WHERE id = ?", (f"{number}",)
        )
        result, found = make(count, number)
        databases[number % 3].put(key, result, found, [f"{number:032}"])
        del result, found
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken <= 1.1 * bound.size + SLACK
    assert taken >= 0.7 * bound.size
    # Groups of 10,000 are each larger than one answer may be.
    assert (bound.size == 0) if count == 10000 else (BOUND / 2 < bound.size <= BOUND)


def test_kept_groups_take_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = result_cache.CacheMemory(BOUND // 4)
    monkeypatch.setattr(result_cache.ResultCache.__init__, "__defaults__", (bound,))
    things = Table(
        "things", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(40))
    )
    engine = create_engine("rome+memory:///bytes")
    things.create(engine)
    with engine.begin() as connection:
        values = [{"name": f"the name of {i}"} for i in range(300)]
        connection.execute(things.insert(), values)
    by_name = select(things.c.name, func.max(things.c.id)).group_by(things.c.name)
    with engine.connect() as connection:
        for number in range(30):
            if number == 1:
                gc.collect()
                tracemalloc.start()
                before, counted = tracemalloc.get_traced_memory()[0], bound.size
            connection.execute(by_name.where(things.c.id > -number)).all()
            connection.rollback()
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    engine.dispose()
    memory.forget("bytes")
    assert BOUND / 8 < bound.size <= BOUND / 4
    assert 0.6 * (bound.size - counted) <= taken <= 1.1 * (bound.size - counted) + SLACK / 2


def test_answers_go_with_their_database() -> None:
    bound = result_cache.CacheMemory(BOUND)
    mine, other = result_cache.ResultCache(bound), result_cache.ResultCache(bound)
    key = result_cache.cache_key("1", "SELECT 1", (1,))
    for database in (mine, other):
        database.put(key, *rows(1, 1), ["x"])
    size = bound.size
    del mine, database
    gc.collect()
    other.put(key, *rows(1, 1), ["x"])
    assert 0 < bound.size == size / 2
    assert other.get(key) is not None


def test_the_process_has_one_bound() -> None:
    databases = [Shared().result_cache for _ in range(3)]
    assert {id(it._memory) for it in databases} == {id(result_cache.PROCESS)}
    key = result_cache.cache_key("1", "SELECT 1", (1,))
    databases[0].put(key, *rows(1, 1), ["x"])
    assert databases[0].get(key) is not None
    assert databases[1].get(key) is None


def test_a_transaction_keeps_no_more_rows_than_it_must(redis_server: RedisServer) -> None:
    """Of large answers, which it may have to compare with later ones, it keeps a digest."""
    engine = create_engine(redis_server.url("kept", result_cache="off", prefetch="off"))
    table = Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(40))
    )
    table.create(engine)
    with engine.connect() as connection:
        values = [{"name": f"the name of row {number}"} for number in range(3000)]
        connection.execute(table.insert(), values)
        connection.commit()

        def read() -> None:
            assert len(connection.execute(select(table)).all()) == 3000

        read()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(30):
            read()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert taken < 2**20  # the rows of one answer take about half of that
    engine.dispose()
