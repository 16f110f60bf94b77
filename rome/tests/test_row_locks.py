"""Transactions of one process that compare and set the same row wait for each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from rome.engine import row_locks
from rome.engine.row_locks import RowLocks
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

providers = Table(
    "providers",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
)
THREADS, CLAIMS = 6, 15


@pytest.fixture
def database(new_url: Callable[[], str]) -> Engine:
    engine = create_engine(new_url(), poolclass=QueuePool, pool_size=THREADS + 2)
    providers.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(providers.insert(), [{"generation": 0}, {"generation": 0}])
    return engine


def claim(engine: Engine, provider: int) -> bool:
    """Raise a generation, if nobody else did since it was read."""
    of = providers.c.id == provider
    with engine.connect() as connection:
        generation = connection.execute(select(providers.c.generation).where(of)).scalar_one()
        connection.rollback()
    with engine.begin() as connection:
        change = providers.update().where(of, providers.c.generation == generation)
        done = connection.execute(change.values(generation=generation + 1)).rowcount
        time.sleep(0.002)  # whatever else the transaction does
    return done == 1


def test_the_slower_one_hears_of_it_at_its_statement(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 10.0)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            left = CLAIMS
            while left:
                left -= claim(database, 1)
        except DBAPIError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with database.connect() as connection:
        row = select(providers.c.generation).where(providers.c.id == 1)
        assert connection.execute(row).scalar_one() == THREADS * CLAIMS
    database.dispose()


def test_a_thread_does_not_wait_for_itself(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could ever end the first transaction."""
    monkeypatch.setattr(row_locks, "WAIT", 3600.0)
    change = providers.update().where(providers.c.id == 1, providers.c.generation == 0)
    with database.connect() as one, database.connect() as two:
        assert one.execute(change.values(generation=1)).rowcount == 1
        assert two.execute(change.values(generation=2)).rowcount == 1
        two.commit()
        with pytest.raises(DBAPIError, match="try again"):
            one.commit()
    database.dispose()


def test_who_waits_too_long_goes_on(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 0.02)
    change = providers.update().where(providers.c.id == 1, providers.c.generation == 0)
    counts: list[int] = []

    def faster() -> None:
        with database.begin() as two:
            counts.append(two.execute(change.values(generation=2)).rowcount)

    with database.connect() as one:
        assert one.execute(change.values(generation=1)).rowcount == 1
        thread = threading.Thread(target=faster)
        thread.start()
        thread.join()
        assert counts == [1]
        with pytest.raises(DBAPIError, match="try again"):
            one.commit()
    database.dispose()


class Holder:
    """A transaction."""


def test_who_is_gone_holds_nothing() -> None:
    locks, one = RowLocks(), Holder()
    locks.take(Holder(), ["a"], 9, 9)
    locks.take(one, ["a"], 9, 9)
    assert dict(locks._holders) == {"a": one}


def test_locks_are_released_with_their_transaction() -> None:
    locks, one, two = RowLocks(), Holder(), Holder()
    locks.take(one, ["a", "b"], 9, 9)
    locks.take(one, ["a"], 9, 9)  # its own are no hindrance
    taken = threading.Event()

    def other() -> None:
        locks.take(two, ["b", "c"], 9, 9)
        taken.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert not taken.wait(0.01)
    locks.release(one)
    assert taken.wait(10)
    thread.join()
    locks.release(two)
    locks.take(one, ["a", "b", "c"], 9, 9)


def test_who_holds_a_row_for_too_long_has_it_no_more() -> None:
    locks, one, two = RowLocks(), Holder(), Holder()
    taken = in_thread_of_its_own(lambda: locks.take(one, ["a"], 9, 0.05))
    assert taken.wait(10)
    locks.take(two, ["a"], 3600, 0.05)
    assert dict(locks._holders) == {"a": two}
    locks.release(one)
    assert dict(locks._holders) == {"a": two}, "it was another's by then"


def in_thread_of_its_own(work: Callable[[], None]) -> threading.Event:
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    threading.Thread(target=run, daemon=True).start()
    return done
