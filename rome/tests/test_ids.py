"""Row numbers: unique, growing, one round trip for many."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rome.schema.ids import BLOCK, Ids
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    select,
)

from tests.servers import RedisServer


class Counter:
    """A store's counter."""

    def __init__(self) -> None:
        self.last = 0
        self.calls = 0

    def reserve(self, name: str, count: int) -> int:
        self.calls += 1
        self.last += count
        return self.last - count + 1


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_one_reservation_for_a_block(counter: Counter) -> None:
    ids = Ids()
    taken = [ids.take(1, 1, 0, counter.reserve) for _ in range(BLOCK)]
    assert taken == list(range(1, BLOCK + 1))
    assert counter.calls == 1
    assert ids.take(1, 1, 0, counter.reserve) == BLOCK + 1
    assert counter.calls == 2


def test_more_than_a_block(counter: Counter) -> None:
    ids = Ids()
    assert ids.take(1, 1, 0, counter.reserve) == 1
    first = ids.take(1, 5 * BLOCK, 0, counter.reserve)
    assert first == BLOCK + 1
    assert ids.take(1, 1, 0, counter.reserve) == first + 5 * BLOCK


def test_above_what_is_there(counter: Counter) -> None:
    ids = Ids()
    assert ids.take(1, 1, 50, counter.reserve) == 51
    assert ids.take(1, 1, 100_000, counter.reserve) == 100_001
    # Others don't get these either.
    assert Ids().take(1, 1, 0, counter.reserve) > 100_001


def test_a_number_that_the_application_chose(counter: Counter) -> None:
    ids = Ids()
    ids.take(1, 1, 0, counter.reserve)
    ids.passed(1, 10)
    assert ids.take(1, 1, 0, counter.reserve) == 11
    ids.passed(1, 5)
    assert ids.take(1, 1, 0, counter.reserve) == 12


def test_threads_share_blocks(counter: Counter) -> None:
    ids = Ids()
    found: list[int] = []
    lock = threading.Lock()

    def reserve(name: str, count: int) -> int:
        with lock:
            return counter.reserve(name, count)

    def take() -> None:
        mine = [ids.take(1, 3, 0, reserve) for _ in range(200)]
        with lock:
            found.extend(mine)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [first + i for first in found for i in range(3)]
    assert len(set(numbers)) == len(numbers) == 4 * 200 * 3


# ---------------------------------------------------------------- in a database


def inserted(connection: Connection, made: Table) -> int:
    """A row's new number."""
    key: Any = connection.execute(made.insert().values(name="x")).inserted_primary_key
    number: int = key[0]
    return number


def table() -> Table:
    return Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(20))
    )


@pytest.fixture
def filled(engine: Engine) -> Iterator[tuple[Engine, Table]]:
    made = table()
    made.create(engine)
    yield engine, made


def test_numbers_grow(filled: tuple[Engine, Table]) -> None:
    engine, made = filled
    numbers: list[int] = []
    for _ in range(3):
        with engine.begin() as connection:
            numbers.append(inserted(connection, made))
            many = made.insert().returning(made.c.id, sort_by_parameter_order=True)
            numbers += connection.scalars(many, [{"name": str(i)} for i in range(5)])
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 18


def test_a_number_is_never_given_again(filled: tuple[Engine, Table]) -> None:
    engine, made = filled
    with engine.begin() as connection:
        first = inserted(connection, made)
        connection.execute(made.delete())
    with engine.begin() as connection:
        assert inserted(connection, made) > first


def test_beyond_a_chosen_number(filled: tuple[Engine, Table]) -> None:
    engine, made = filled
    with engine.begin() as connection:
        connection.execute(made.insert().values(id=1_000_000, name="far"))
        same = inserted(connection, made)
    with engine.begin() as connection:
        later = inserted(connection, made)
    assert 1_000_000 < same < later


def test_rows_without_a_number_of_their_own(engine: Engine) -> None:
    made = Table("t", MetaData(), Column("k", String(20), primary_key=True))
    made.create(engine)
    for start in (0, 300):
        with engine.begin() as connection:
            connection.execute(made.insert(), [{"k": str(start + i)} for i in range(300)])
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(made)) == 600


def test_large_key_is_refused(filled: tuple[Engine, Table]) -> None:
    """Scripts count in doubles."""
    engine, made = filled
    with engine.begin() as connection:
        connection.execute(made.insert().values(id=2**53, name="largest"))
        with pytest.raises(Exception, match="too large a key"):
            connection.execute(made.insert().values(id=2**53 + 2))
    with engine.connect() as connection:
        assert connection.scalars(select(made.c.id)).all() == [2**53]


def _insert(url: str, count: int) -> None:
    engine = create_engine(url)
    made = table()
    for _ in range(count):
        with engine.begin() as connection:
            connection.execute(made.insert().values(name=str(os.getpid())))
    engine.dispose()


def test_processes(redis_server: RedisServer) -> None:
    url = redis_server.url("ids-of-processes")
    engine = create_engine(url)
    made = table()
    made.create(engine)
    with engine.begin() as connection:
        connection.execute(made.insert().values(name="parent"))
    engine.dispose()
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_insert, args=(url, 30)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with engine.connect() as connection:
        numbers = connection.scalars(select(made.c.id)).all()
    engine.dispose()
    assert len(numbers) == len(set(numbers)) == 91


def test_forked_child_takes_blocks_of_its_own() -> None:
    ids = Ids()
    counter = Counter()
    ids.take(1, 1, 0, counter.reserve)
    ids.restart()
    assert ids.take(1, 1, 0, counter.reserve) == BLOCK + 1
