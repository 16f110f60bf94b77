"""Rows that are compared and set, and new keys, are held: processes wait for each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.engine import row_locks
from rome.engine.shared import Shared
from rome.stores import base
from rome.stores.redis.scripts import script
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from tests.processes import at_once, new_processes
from tests.servers import RedisServer

metadata = MetaData()
providers = Table(
    "providers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), unique=True),
    Column("generation", Integer, nullable=False),
    Column("used", Integer, nullable=False),
)
claims = Table(
    "claims",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("provider", Integer, index=True),
    Column("consumer", String(36)),
)
users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(36), unique=True),
    Column("provider", ForeignKey(providers.c.id)),
)
PROVIDERS = [f"uuid-{number}" for number in range(1, 9)]
PROCESSES, CLAIMS = 3, 12


def process(url: Any) -> Engine:
    """An engine that shares nothing with others, as that of another process."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=5)

    @event.listens_for(engine, "do_connect")
    def own(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["shared"] = shared

    shared = Shared()
    return engine


@pytest.fixture
def one(engine: Engine) -> Engine:
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"uuid": uuid, "generation": 0, "used": 0} for uuid in PROVIDERS]
        connection.execute(providers.insert(), rows)
    return engine


@pytest.fixture
def two(one: Engine) -> Iterator[Engine]:
    made = process(one.url)
    yield made
    made.dispose()


def compared(provider: int, generation: int, **values: Any) -> Any:
    change = providers.update().where(
        providers.c.id == provider, providers.c.generation == generation
    )
    return change.values(generation=generation + 1, **values)


def trips(connection: Connection, run: Callable[[], Any]) -> int:
    driver: Any = connection.connection.dbapi_connection
    before: int = driver.store.traffic.round_trips
    run()
    after: int = driver.store.traffic.round_trips
    return after - before


def warm_up(engine: Engine) -> None:
    """Know the schema, and in etcd have the lease that holds of the next seconds go with."""
    with engine.connect() as connection:
        assert connection.execute(compared(8, 0)).rowcount == 1


def in_thread(run: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run it in a thread of its own; what it returns or raises is put into the list."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(run())
        except DBAPIError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def set_in(engine: Engine, statement: Any) -> int:
    with engine.begin() as connection:
        return connection.execute(statement).rowcount


# ---------------------------------------------------------------- waiting for each other


def test_the_slower_process_sets_no_row(one: Engine, two: Engine) -> None:
    with one.connect() as connection:
        assert connection.execute(compared(1, 0)).rowcount == 1
        thread, found = in_thread(lambda: set_in(two, compared(1, 0)))
        thread.join(0.1)
        assert found == []  # it waits
        connection.commit()
    thread.join(30)
    assert found == [0]


def test_who_waited_for_a_rollback_sets_the_row(one: Engine, two: Engine) -> None:
    with one.connect() as connection:
        assert connection.execute(compared(1, 0)).rowcount == 1
        thread, found = in_thread(lambda: set_in(two, compared(1, 0, used=2)))
        thread.join(0.1)
        assert found == []
        connection.rollback()
    thread.join(30)
    assert found == [1]


def test_a_hold_costs_no_round_trip(one: Engine, two: Engine) -> None:
    warm_up(one)
    warm_up(two)
    with one.connect() as connection:
        assert trips(connection, lambda: connection.execute(compared(1, 0))) == 1
        assert trips(connection, connection.commit) == 1
        assert trips(connection, lambda: connection.execute(compared(1, 1))) == 1
        assert trips(connection, connection.rollback) == 0
        # Nothing was left behind for the next ones.
        with two.connect() as other:
            assert trips(other, lambda: other.execute(compared(1, 1))) == 1


def test_other_rows_are_not_held(one: Engine, two: Engine) -> None:
    with one.connect() as connection, two.connect() as other:
        assert connection.execute(compared(1, 0)).rowcount == 1
        assert other.execute(compared(2, 0)).rowcount == 1
        other.execute(providers.update().where(providers.c.id == 1).values(used=5))
        other.commit()  # nobody compared `used`
        connection.commit()
    with one.connect() as connection:
        row = connection.execute(select(providers).where(providers.c.id == 1)).one()
        assert (row.generation, row.used) == (1, 5)


# ---------------------------------------------------------------- when holds are lost


def test_a_hold_lapses(one: Engine, two: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client that died, or hangs.  Its commit, if it ever comes, changes nothing."""
    monkeypatch.setattr(base, "HOLD_S", 0.2)
    monkeypatch.setattr(row_locks, "WAIT", 60.0)
    with one.connect() as connection:
        assert connection.execute(compared(1, 0, used=1)).rowcount == 1
        thread, found = in_thread(lambda: set_in(two, compared(1, 0, used=2)))
        thread.join(30)
        assert found == [1]
        with pytest.raises(DBAPIError, match="try again"):
            connection.commit()
        connection.rollback()
        row = connection.execute(select(providers).where(providers.c.id == 1)).one()
        assert (row.generation, row.used) == (1, 2)


def test_a_hold_that_lapsed_unseen_does_no_harm(
    one: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "HOLD_S", 0.02)
    with one.connect() as connection:
        assert connection.execute(compared(1, 0)).rowcount == 1
        time.sleep(0.05)
        connection.commit()
        assert connection.execute(compared(1, 1)).rowcount == 1
        connection.rollback()


def test_who_waits_too_long_goes_on(
    one: Engine, two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 0.05)
    with one.connect() as connection:
        assert connection.execute(compared(1, 0)).rowcount == 1
        thread, found = in_thread(lambda: set_in(two, compared(1, 0)))
        thread.join(30)
        assert found == [1]
        with pytest.raises(DBAPIError, match="try again"):
            connection.commit()


def test_two_that_wait_for_each_other_go_on(
    one: Engine, two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 0.3)

    def both(engine: Engine, first: int, second: int) -> int:
        with engine.begin() as connection:
            count = connection.execute(compared(first, 0)).rowcount
            barrier.wait(30)
            return count + connection.execute(compared(second, 0)).rowcount

    barrier = threading.Barrier(2)
    threads = [in_thread(lambda: both(one, 1, 2)), in_thread(lambda: both(two, 2, 1))]
    for thread, _ in threads:
        thread.join(30)
    outcomes = [found for _, (found,) in threads]
    assert any(outcome == 2 for outcome in outcomes)
    with one.connect() as connection:
        found = connection.execute(select(providers.c.generation).order_by(providers.c.id))
        assert found.scalars().all()[:2] == [1, 1]


def test_a_thread_does_not_wait_for_itself(
    one: Engine, two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 3600.0)
    with one.connect() as connection, two.connect() as other:
        assert connection.execute(compared(1, 0)).rowcount == 1
        assert other.execute(compared(1, 0)).rowcount == 1
        other.commit()
        with pytest.raises(DBAPIError, match="try again"):
            connection.commit()


def _hold(url: str, ready: Any) -> None:
    with create_engine(url).connect() as connection:
        assert connection.execute(compared(1, 0)).rowcount == 1
        ready.set()
        time.sleep(600)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_client_holds_rows_for_some_seconds_only(
    redis_server: RedisServer, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_locks, "WAIT", 60.0)
    engine = create_engine(redis_server.url(f"killed{how}"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(providers.insert().values(uuid="a", generation=0, used=0))
    context: Any = new_processes()
    ready = context.Event()
    client = context.Process(target=_hold, args=(str(engine.url), ready))
    client.start()
    assert ready.wait(60)
    os.kill(client.pid, how)
    try:
        with engine.begin() as connection:
            assert connection.execute(compared(1, 0)).rowcount == 1
    finally:
        client.kill()
        client.join()
    engine.dispose()


def test_a_child_of_a_fork_lets_nothing_go(one: Engine, two: Engine) -> None:
    with one.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        connection.execute(compared(1, 0))
        holds = driver.transaction.session.holds
        released: list[Any] = []
        holds._store = type("Recorder", (), {"release": lambda *a: released.append(a)})()
        holds._pid += 1  # as in a child, which has another one
        holds.release()
        assert released == []
        connection.rollback()


# ---------------------------------------------------------------- processes


def _claim_often(url: str, number: int) -> tuple[int, list[str]]:
    """Claim all providers as Placement does; how often that worked, and unexpected errors."""
    engine = create_engine(url)
    done, errors = 0, []
    while done < CLAIMS:
        provider = 1 + done % 2
        try:
            with engine.connect() as connection:
                row = select(providers.c.generation).where(providers.c.id == provider)
                generation = connection.execute(row).scalar_one()
                connection.rollback()
            with engine.begin() as connection:
                consumer = f"{number}-{done}"
                connection.execute(claims.select().where(claims.c.provider == provider)).all()
                connection.execute(claims.insert().values(provider=provider, consumer=consumer))
                if connection.execute(compared(provider, generation)).rowcount != 1:
                    connection.rollback()
                    continue
            done += 1
        except DBAPIError as error:
            errors.append(str(error))
            break
    engine.dispose()
    return done, errors


def test_processes_that_claim_one_provider_hear_of_it_at_their_statement(
    redis_server: RedisServer,
) -> None:
    """None has a conflict at its commit, which Placement answers with HTTP 500."""
    engine = create_engine(redis_server.url("processes"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"uuid": uuid, "generation": 0, "used": 0} for uuid in PROVIDERS[:2]]
        connection.execute(providers.insert(), rows)
    arguments = [(str(engine.url), number) for number in range(PROCESSES)]
    assert at_once(_claim_often, arguments) == [(CLAIMS, [])] * PROCESSES
    with engine.connect() as connection:
        generations = connection.execute(select(providers.c.generation)).scalars().all()
        assert sum(generations) == PROCESSES * CLAIMS
        assert len(connection.execute(claims.select()).all()) == PROCESSES * CLAIMS
    engine.dispose()


# ---------------------------------------------------------------- new keys

# etcd holds no keys.
holding_keys = pytest.mark.parametrize("new_url", ["memory", "redis"], indirect=True)


def user(name: str, provider: int | None = None) -> Any:
    return users.insert().values(name=name, provider=provider)


@holding_keys
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_the_slower_insert_of_a_key_fails_by_itself(one: Engine, two: Engine, level: str) -> None:
    other = two.execution_options(isolation_level=level)
    with one.connect().execution_options(isolation_level=level) as connection:
        connection.execute(user("ann"))
        thread, found = in_thread(lambda: set_in(other, user("ann")))
        thread.join(0.1)
        assert found == []  # it waits
        connection.commit()
    thread.join(30)
    assert isinstance(found[0], IntegrityError) and "users.name" in str(found[0])


def test_in_a_process_the_slower_insert_fails_by_itself_on_any_store(one: Engine) -> None:
    with one.connect() as connection:
        connection.execute(user("ann"))
        thread, found = in_thread(lambda: set_in(one, user("ann")))
        thread.join(0.1)
        assert found == []
        connection.commit()
    thread.join(30)
    assert isinstance(found[0], IntegrityError)


@holding_keys
def test_a_key_that_was_held_in_vain_is_free_for_who_waits(one: Engine, two: Engine) -> None:
    with one.connect() as connection:
        connection.execute(user("ann"))
        thread, found = in_thread(lambda: set_in(two, user("ann")))
        thread.join(0.1)
        assert found == []
        connection.rollback()
    thread.join(30)
    assert found == [1]


@holding_keys
def test_other_keys_and_parents_are_not_held(one: Engine, two: Engine) -> None:
    with one.connect() as connection, two.connect() as other:
        connection.execute(user("ann", 1))
        other.execute(user("bob", 1))
        other.execute(compared(1, 0))
        other.commit()
        connection.commit()
        assert len(connection.execute(select(users)).all()) == 2


@holding_keys
def test_holding_a_key_costs_no_round_trip(one: Engine, two: Engine) -> None:
    with one.connect() as connection, two.connect() as other:
        for each, name in ((connection, "ann"), (other, "bob")):
            each.execute(user(name))
            each.rollback()
        assert trips(connection, lambda: connection.execute(user("ann"))) == 1
        assert trips(connection, connection.commit) == 1
        assert trips(connection, lambda: connection.execute(user("eve"))) == 1
        assert trips(connection, connection.rollback) == 0
        # Nothing was left behind for the next ones.
        assert trips(other, lambda: other.execute(user("eve"))) == 1


@holding_keys
def test_a_key_comes_held_with_the_statement_before(one: Engine, two: Engine) -> None:
    def enter(connection: Connection, name: str) -> None:
        assert not connection.execute(select(users).where(users.c.name == name)).all()
        connection.execute(user(name))

    with one.connect() as connection:
        for number in range(4):
            enter(connection, f"user {number}")
            connection.commit()
        assert trips(connection, lambda: enter(connection, "ann")) == 1
        thread, found = in_thread(lambda: set_in(two, user("ann")))
        thread.join(0.1)
        assert found == []
        connection.commit()
        thread.join(30)
        assert isinstance(found[0], IntegrityError)
        with two.connect() as other:
            other.execute(user("bob"))
            # Another holds it, so the INSERT looks for itself, and waits.
            thread, found = in_thread(lambda: enter(connection, "bob"))
            thread.join(0.1)
            assert found == []
            other.commit()
        thread.join(30)
        assert isinstance(found[0], IntegrityError)


@holding_keys
def test_several_new_keys_are_held_together(one: Engine, two: Engine) -> None:
    several = users.insert().values([{"name": "ann"}, {"name": "bob"}])
    with one.connect() as connection, two.connect() as other:
        connection.execute(user("bob"))
        thread, found = in_thread(lambda: set_in(two, several))
        thread.join(0.1)
        assert found == []
        # Who waits for one of them holds none of the others.
        assert trips(connection, lambda: connection.execute(user("ann"))) == 1
        connection.rollback()
        thread.join(30)
        assert found == [2]
        with pytest.raises(IntegrityError):
            other.execute(user("ann"))


def _enter_often(url: str, number: int) -> list[str]:
    """Get or enter the same users as others, as Placement does; return unexpected errors."""
    engine = create_engine(url)
    errors = []
    for name in (f"user {count}" for count in range(CLAIMS)):
        try:
            with engine.begin() as connection:
                known = connection.execute(select(users).where(users.c.name == name)).all()
                if not known:
                    try:
                        connection.execute(user(name))
                        time.sleep(0.02)  # the others are between their SELECT and COMMIT, too
                    except IntegrityError:
                        connection.rollback()
        except DBAPIError as error:
            errors.append(f"{number}: {error}")
    engine.dispose()
    return errors


def test_processes_that_enter_one_user_hear_of_it_at_their_statement(
    redis_server: RedisServer,
) -> None:
    """None has a conflict at its commit, which Placement answers with HTTP 500."""
    engine = create_engine(redis_server.url("users"))
    metadata.create_all(engine)
    arguments = [(str(engine.url), number) for number in range(PROCESSES)]
    assert at_once(_enter_often, arguments) == [[]] * PROCESSES
    with engine.connect() as connection:
        assert len(connection.execute(select(users)).all()) == CLAIMS
    engine.dispose()


# ---------------------------------------------------------------- held ahead


def claim(connection: Connection, number: int) -> int:
    """Claim a provider as Placement does; how many rows were set."""
    uuid, consumer = PROVIDERS[number], f"consumer {number}"
    row = connection.execute(select(providers).where(providers.c.uuid == uuid)).one()
    connection.rollback()
    connection.execute(claims.select().where(claims.c.consumer == "nobody")).all()
    connection.execute(claims.delete().where(claims.c.provider == row.id, claims.c.id < 0))
    connection.execute(claims.insert().values(provider=row.id, consumer=consumer))
    return connection.execute(compared(row.id, row.generation)).rowcount


@pytest.fixture
def learnt(one: Engine) -> Iterator[Connection]:
    """A connection whose process knows how a claim goes on."""
    with one.connect() as connection:
        for number in range(4):
            assert claim(connection, number) == 1
            connection.commit()
        yield connection


def test_a_row_comes_held_with_the_first_statement(learnt: Connection, two: Engine) -> None:
    """Its number and generation are known from the transaction before."""

    def whole() -> None:
        assert claim(learnt, 5) == 1
        learnt.commit()

    # The provider; all that the claim needs; COMMIT.  In etcd, of each an index before its rows.
    assert trips(learnt, whole) == (5 if learnt.dialect.driver == "etcd" else 3)
    assert claim(learnt, 6) == 1
    thread, found = in_thread(lambda: set_in(two, compared(7, 0)))
    thread.join(0.1)
    assert found == []
    learnt.commit()
    thread.join(30)
    assert found == [0]


def test_a_row_that_is_held_by_another_comes_with_its_statement(
    learnt: Connection, two: Engine
) -> None:
    with two.connect() as other:
        assert other.execute(compared(6, 0)).rowcount == 1
        thread, found = in_thread(lambda: claim(learnt, 5))
        thread.join(0.2)
        assert found == []
        other.commit()
    thread.join(30)
    assert found == [0]
    learnt.rollback()


def test_what_was_held_in_vain_is_free_at_the_end(learnt: Connection, two: Engine) -> None:
    uuid = PROVIDERS[6]
    row = learnt.execute(select(providers).where(providers.c.uuid == uuid)).one()
    learnt.rollback()
    learnt.execute(claims.select().where(claims.c.consumer == "nobody")).all()
    learnt.rollback()  # it has changed its mind
    warm_up(two)
    with two.begin() as other:
        assert trips(other, lambda: other.execute(compared(row.id, 0))) == 1


def test_rows_are_held_together_or_not_at_all(one: Engine, two: Engine) -> None:
    def of(first: int) -> Any:
        return select(claims).where(claims.c.provider.in_([first, first + 1]))

    def pair(connection: Connection, first: int) -> None:
        connection.execute(of(first)).all()
        for provider in (first, first + 1):
            assert connection.execute(compared(provider, 0)).rowcount == 1

    with one.connect() as connection, two.connect() as other:
        for first in (1, 3):
            pair(connection, first)
            connection.commit()
        driver: Any = connection.connection.dbapi_connection
        holds = driver.transaction.session.holds
        connection.execute(of(5)).all()
        assert [sorted(numbers) for numbers in holds.names.values()] == [["5", "6"]]
        for provider in (5, 6):
            assert connection.execute(compared(provider, 0)).rowcount == 1
        connection.commit()
        other.execute(compared(8, 0))
        connection.execute(of(7)).all()
        assert holds.names == {}
        connection.rollback()


def test_a_server_that_takes_no_writes_holds_nothing(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(redis_server.url("full"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(providers.insert().values(uuid="a", generation=0, used=0))
    client = redis_server.client()
    client.config_set("maxmemory", 1)
    try:
        with engine.connect() as connection:
            assert connection.execute(compared(1, 0)).rowcount == 1
            with pytest.raises(OperationalError):
                connection.commit()
    finally:
        client.config_set("maxmemory", 0)
        client.close()
    assert multiprocessing.active_children() == []
    engine.dispose()


def test_a_script_has_all_of_its_parts() -> None:
    text, _ = script("commit", False)
    assert text.startswith("#!lua\n")
    assert "not_the_master_for_sure()" in text and "let_go(holder, held)" in text
    assert "local function let_go" in text


def test_how_long_rows_are_held_is_an_option(redis_server: RedisServer) -> None:
    url = redis_server.url("for_how_long")
    engine = create_engine(f"{url}?hold=0.2")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(providers.insert().values(uuid="a", generation=0, used=0))
    other = create_engine(f"{url}?hold=60")
    with engine.connect() as slow:
        assert slow.execute(compared(1, 0)).rowcount == 1
        assert set_in(other, compared(1, 0)) == 1, "the hold has lapsed, and was waited for"
        with pytest.raises(DBAPIError, match="try again"):
            slow.commit()
    for each in (engine, other):
        each.dispose()
    for hold in ("0", "0.05", "100000"):
        with pytest.raises(ArgumentError, match=f"option hold={float(hold):g}: give 0.1 to 86400"):
            create_engine(f"{url}?hold={hold}").connect()
