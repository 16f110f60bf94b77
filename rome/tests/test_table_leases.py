"""Tables that nobody writes for a while are read without asking the store."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.engine import table_leases
from rome.engine.shared import Shared
from rome.engine.table_leases import TableLeases
from rome.stores.redis import store
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError

from tests.servers import RedisServer, redis_server, wait_until

metadata = MetaData()
classes = Table(
    "classes", metadata, Column("id", Integer, primary_key=True), Column("name", String(30))
)
things = Table("things", metadata, Column("id", Integer, primary_key=True), Column("n", Integer))
_numbers = itertools.count()
# As short as tests can wait for, and so long that nothing ends it before a test wants that.
SHORT, LONG = 0.3, 5.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are quiet at once, and leases are given at once."""
    monkeypatch.setattr(table_leases, "QUIET_S", 0.0)
    monkeypatch.setattr(store, "GUARD_MS", 0)


def process(server: RedisServer, database: str, lease: float = 0.0) -> Engine:
    """An engine that shares nothing with others, as that of another process."""
    engine = create_engine(server.url(database, **({"table_lease": lease} if lease else {})))

    @event.listens_for(engine, "do_connect")
    def own(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["shared"] = shared

    shared = Shared()
    return engine


@pytest.fixture
def processes(redis_server: RedisServer) -> Iterator[Callable[..., Engine]]:
    """Makes engines of one database, each as that of another process."""
    database, made = f"leases{next(_numbers)}", []

    def new(lease: float = 0.0) -> Engine:
        made.append(process(redis_server, database, lease))
        return made[-1]

    engine = new()
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(classes.insert(), [{"name": "VCPU"}, {"name": "MEMORY_MB"}])
        connection.execute(things.insert(), [{"n": 1}])
    yield new
    for one in made:
        one.dispose()


def trips(connection: Connection, run: Callable[[], Any]) -> int:
    driver: Any = connection.connection.dbapi_connection
    before: int = driver.store.traffic.round_trips
    run()
    after: int = driver.store.traffic.round_trips
    return after - before


def names(connection: Connection) -> list[str]:
    found = list(connection.scalars(select(classes.c.name).order_by(classes.c.id)))
    connection.rollback()
    return found


def leased(connection: Connection) -> None:
    """Read until the table is leased: what is cached is asked for once more, with a lease."""
    for _ in range(3):
        names(connection)
    assert trips(connection, lambda: names(connection)) == 0


def asks_each_time(connection: Connection) -> None:
    for _ in range(3):
        names(connection)  # schema and scripts are known then
    for _ in range(3):
        assert trips(connection, lambda: names(connection)) == 1


def rename(connection: Connection, name: str) -> None:
    connection.execute(classes.update().where(classes.c.id == 1).values(name=name))
    connection.commit()


# ---------------------------------------------------------------- asking nobody


def test_what_is_leased_is_read_without_asking(processes: Callable[..., Engine]) -> None:
    with processes(LONG).connect() as connection:
        leased(connection)
        assert names(connection) == ["VCPU", "MEMORY_MB"]
        # Another SELECT of the table has to be asked once.
        other = select(classes.c.id).where(classes.c.name == "VCPU")
        assert trips(connection, lambda: connection.execute(other).all()) == 1
        assert trips(connection, lambda: connection.execute(other).all()) == 0
        connection.rollback()


def test_nothing_is_leased_unless_the_url_says_so(processes: Callable[..., Engine]) -> None:
    with processes().connect() as connection:
        asks_each_time(connection)


def test_a_serializable_transaction_asks(processes: Callable[..., Engine]) -> None:
    with processes(LONG).connect() as connection:
        leased(connection)
    strict = processes(LONG).execution_options(isolation_level="SERIALIZABLE")
    with strict.connect() as connection:
        asks_each_time(connection)


def test_the_own_rows_of_a_transaction_are_seen(processes: Callable[..., Engine]) -> None:
    with processes(LONG).connect() as connection:
        leased(connection)
        connection.execute(classes.insert().values(name="DISK_GB"))
        found = list(connection.scalars(select(classes.c.name).order_by(classes.c.id)))
        assert found == ["VCPU", "MEMORY_MB", "DISK_GB"]
        connection.rollback()
        assert names(connection) == ["VCPU", "MEMORY_MB"]


def test_the_first_leases_are_given_after_a_while(
    processes: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes the place of this one has to know that there may be leases."""
    monkeypatch.setattr(store, "GUARD_MS", 3600_000)
    with processes(LONG).connect() as connection:
        asks_each_time(connection)


def test_tables_with_commits_are_not_leased(
    processes: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_leases, "QUIET_S", 3600.0)
    with processes(LONG).connect() as connection:
        asks_each_time(connection)


def test_a_lease_is_not_for_ever(redis_server: RedisServer) -> None:
    with pytest.raises(ArgumentError, match="table_lease=6: give 5 seconds at most"):
        create_engine(redis_server.url("x", table_lease=6)).connect()


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("writer_leases", [False, True])
def test_who_writes_waits_for_the_end_of_leases(
    processes: Callable[..., Engine], writer_leases: bool
) -> None:
    reader, writer = processes(SHORT), processes(SHORT if writer_leases else 0.0)
    with reader.connect() as one, writer.connect() as two:
        two.execute(classes.update().where(classes.c.id == 1).values(name="CPU"))
        leased(one)
        assert trips(two, two.commit) == 2
        # What was leased then isn't any more.
        assert names(one) == ["CPU", "MEMORY_MB"]


def test_the_reader_sees_the_old_row_for_as_long_as_the_writer_waits(
    processes: Callable[..., Engine],
) -> None:
    """No SELECT that begins after the commit's end shows what was before it."""
    done = threading.Event()

    def write() -> None:
        with processes().connect() as connection:
            rename(connection, "CPU")
        done.set()

    with processes(SHORT).connect() as connection:
        leased(connection)
        thread = threading.Thread(target=write)
        thread.start()
        seen = [(done.is_set(), names(connection)[0])]
        while not seen[-1][0]:
            seen.append((done.is_set(), names(connection)[0]))
        thread.join()
    assert seen[0] == (False, "VCPU") and seen[-1] == (True, "CPU")
    assert all(name == "CPU" for over, name in seen if over)


def test_who_waits_keeps_others_from_leasing_again(processes: Callable[..., Engine]) -> None:
    with processes(SHORT).connect() as one, processes(LONG).connect() as two:
        leased(one)
        rename(two, "CPU")
        asks_each_time(one)
        assert wait_until(lambda: trips(one, lambda: names(one)) == 0)


def test_other_tables_are_written_at_once(processes: Callable[..., Engine]) -> None:
    with processes(LONG).connect() as one, processes().connect() as two:
        leased(one)
        two.execute(things.insert().values(n=2))
        assert trips(two, two.commit) == 1


def test_a_change_of_the_schema_waits(processes: Callable[..., Engine]) -> None:
    with processes(SHORT).connect() as one, processes().connect() as two:
        leased(one)
        two.execute(text("ALTER TABLE classes ADD COLUMN size INTEGER DEFAULT 5"))
        two.commit()
        found = one.execute(text("SELECT size FROM classes")).scalars().all()
        assert found == [5, 5]


def test_after_a_restart_nobody_writes_for_a_while() -> None:
    """The server may have lost what it had noted of leases."""
    with redis_server(appendonly="yes", appendfsync="always") as server:
        engine, other = process(server, "x", LONG), process(server, "x")
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(classes.insert(), [{"name": "VCPU"}, {"name": "MEMORY_MB"}])
        with engine.connect() as one, other.connect() as two:
            leased(one)
            two.execute(classes.update().where(classes.c.id == 1).values(name="CPU"))
            server.stop()
            server.start()
            with server.client() as client:
                (key,) = client.keys("*:leases")
                client.hdel(key, *(f for f in client.hkeys(key) if f.isdigit()))
            assert trips(two, two.commit) >= 2
            assert names(one) == ["CPU", "MEMORY_MB"]
        engine.dispose()
        other.dispose()


# ---------------------------------------------------------------- what is believed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("rome.engine.table_leases.time.monotonic", lambda: now[0])
    return now


def test_a_lease_counts_from_before_it_was_asked_for(clock: list[float]) -> None:
    leases = TableLeases()
    leases.granted([1, 2], ["a", "b"], 100.0, 2.0)
    assert leases.known_since([1, 2], ["a", "b"]) == 100.0
    assert leases.known_since([1, 2], ["a", "c"]) is None
    assert leases.known_since([1, 3], ["a", "c"]) is None
    leases.granted([1], ["a"], 101.0, 2.0)  # goes on
    clock[0] = 101.8
    assert leases.known_since([1], ["a"]) == 100.0
    assert leases.known_since([2], ["b"]) is None  # a tenth earlier than at the server
    leases.granted([1], ["a"], 103.0, 2.0)  # begins anew
    assert leases.known_since([1], ["a"]) == 103.0


def test_quiet_tables(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_leases, "QUIET_S", 15.0)
    leases = TableLeases()
    leases.saw([1, 2], ["a", "b"])
    clock[0] = 114.0
    leases.saw([1, 2], ["a", "c"])
    assert not leases.are_quiet([1]) and not leases.are_quiet([1, 2])
    clock[0] = 116.0
    assert leases.are_quiet([1]) and not leases.are_quiet([1, 2]) and not leases.are_quiet([3])


def test_rows_that_came_ahead_of_a_lease_are_read_again(
    processes: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later statement never sees an earlier moment than what a lease has shown."""
    first = select(things).where(things.c.n == 1)
    second = select(things).where(things.c.id == 1)
    with processes(LONG).connect() as one, processes().connect() as two:

        def read(between: Callable[[], Any]) -> int:
            one.execute(first).all()
            between()
            found: int = one.execute(second).one().n
            one.rollback()
            return found

        leased(one)
        number = _number(one, "classes")
        leases = {number: leases_of(one)._leases[number]}
        leases_of(one)._leases.clear()
        monkeypatch.setattr(table_leases, "QUIET_S", 3600.0)  # nothing else is leased
        for _ in range(4):
            read(lambda: None)
        assert trips(one, lambda: read(lambda: None)) == 1  # the second comes with the first

        def another_writes_and_a_lease_begins() -> None:
            two.execute(things.update().where(things.c.id == 1).values(n=7))
            two.commit()
            # As another thread of the process would, which asks now.
            for table, lease in leases.items():
                leases_of(one).granted([table], [lease.commit], time.monotonic(), LONG)
            assert len(list(one.scalars(select(classes.c.name).order_by(classes.c.id)))) == 2

        assert read(another_writes_and_a_lease_begins) == 7


def leases_of(connection: Connection) -> TableLeases:
    driver: Any = connection.connection.dbapi_connection
    leases: TableLeases = driver.shared.table_leases
    return leases


def _number(connection: Connection, table: str) -> int:
    driver: Any = connection.connection.dbapi_connection
    number: int = driver.transaction.session.schema.tables[table].number
    return number
