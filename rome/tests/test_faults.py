"""What is left when clients, connections or servers fail: all of a transaction or nothing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rome.admin.check import check
from rome.schema.catalogue import Catalogue
from rome.stores import rows
from rome.stores.redis.store import RedisStore
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from rome import errors
from tests.cutting_proxy import AFTER, BEFORE, CuttingProxy
from tests.processes import new_processes
from tests.servers import RedisServer, ask, redis_cluster, redis_server, wait_until
from tests.transactions import (
    children,
    count_of,
    database,
    done,
    is_beyond,
    many_transactions,
    metadata,
    one_transaction,
    parents,
    transaction,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def url(server: RedisServer, request: pytest.FixtureRequest) -> str:
    """Of a database of the test's own."""
    return server.url("".join(c if c.isalnum() else "-" for c in request.node.name))


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[CuttingProxy]:
    made = CuttingProxy(server.port)
    yield made
    made.close()


def _store(url: str) -> RedisStore:
    parsed = make_url(url)
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    store = arguments["store"]()
    assert isinstance(store, RedisStore)
    return store


def sound(url: str) -> None:
    """Every index entry fits the rows."""
    store = _store(url)
    assert [finding.text for finding in check(store, Catalogue())] == []
    store.close()


def wire(connection: Connection) -> Any:
    """The driver's connection to Redis."""
    driver: Any = connection.connection.dbapi_connection
    return driver.store._wire


def client_id(connection: Connection) -> int:
    """Redis's number of a connection."""
    number: int = wire(connection).call("CLIENT", "ID")
    return number


# ---------------------------------------------------------------- lost connections


def test_a_commit_that_never_left_is_known_not_to_be_done(url: str) -> None:
    direct = database(url)
    never = create_engine(url + "?patience=0.2")
    with never.connect() as connection:
        transaction(connection, "y")
        wire(connection).close()
        wire(connection).server = type(wire(connection).server)(
            addresses=(("127.0.0.1", 1),), patience=0.2
        )
        with pytest.raises(OperationalError, match="no answer from Redis") as failure:
            connection.commit()
    assert "not known" not in str(failure.value)
    assert done(direct) == 0


def test_an_interrupted_statement_leaves_no_answer_behind(url: str, server: RedisServer) -> None:
    """As eventlet's time-outs interrupt: the next statement gets its own answer."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupted

    engine = database(url)
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SELECT n FROM parents WHERE id = 1")
    raw.rollback()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    with server.client() as client:
        client.client_pause(500)
    earlier = signal.signal(signal.SIGUSR1, interrupt)
    try:
        alarm = threading.Timer(0.2, signal.pthread_kill, (main_thread, signal.SIGUSR1))
        alarm.start()
        with pytest.raises(Interrupted):
            cursor.execute("SELECT name FROM children")
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    # No row of children is a row of parents.
    cursor.execute("SELECT count(*), 'right' FROM parents")
    assert cursor.fetchall() == [(1, "right")]
    raw.close()
    engine.dispose()


# ---------------------------------------------------------------- changes of the schema


def _change(url: str, sql: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(sql))
    engine.dispose()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE UNIQUE INDEX by_both ON children (parent_id, name)",
        "DROP INDEX ix_parents_n",
        "DROP TABLE children",
        "ALTER TABLE children ADD COLUMN more VARCHAR DEFAULT 'x'",
    ],
)
def test_client_killed_in_a_change_of_the_schema(
    url: str, server: RedisServer, proxy: CuttingProxy, sql: str
) -> None:
    """Wherever it was: rows are untouched, and `check` repairs what is half done."""
    findings = 0
    for number in range(1, 30):
        name = f"{make_url(url).database}-{number}"
        direct = database(server.url(name), poolclass=NullPool)
        with direct.begin() as connection:
            transaction(connection, "a")
        proxy.hold_request(number)
        child = new_processes().Process(target=_change, args=(proxy.url(name), sql))
        child.start()
        assert wait_until(lambda: proxy.reached.is_set() or not child.is_alive())  # noqa: B023
        ended = not proxy.reached.is_set()
        if not ended:
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        proxy.release.set()
        store = _store(server.url(name))
        for finding in check(store, Catalogue(), repair=True):
            findings += 1
            assert finding.repaired, finding
            assert re.search(r"isn't ready|of no table|number of no", finding.text), finding
        assert list(check(store, Catalogue())) == []
        store.close()
        there = set(inspect(direct).get_table_names())
        with direct.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(parents)) == 2
            if "children" in there:
                assert connection.scalar(select(func.count()).select_from(children)) == 3
        direct.dispose()
        if ended:
            assert child.exitcode == 0
            break
    assert number > 3
    assert findings == 0 if sql.startswith("ALTER") else findings > 0


def test_changes_of_the_schema_beside_writers(url: str) -> None:
    direct = database(url, poolclass=NullPool)
    running = [new_processes().Process(target=many_transactions, args=(url, i)) for i in range(2)]
    for process in running:
        process.start()
    for turn in range(3):
        before = count_of(direct)
        for sql in (
            "CREATE INDEX by_data ON children (data)",
            "CREATE UNIQUE INDEX by_both ON children (parent_id, name)",
            f"ALTER TABLE children ADD COLUMN more{turn} VARCHAR DEFAULT 'x'",
            f"CREATE INDEX by_more ON children (more{turn})",
            "DROP INDEX by_data",
            "DROP INDEX by_both",
            "DROP INDEX by_more",
        ):
            with direct.begin() as connection:
                connection.execute(text(sql))
        assert wait_until(functools.partial(is_beyond, direct, before))  # they go on
    for process in running:
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert done(direct) > 0
    sound(url)
    direct.dispose()


# ---------------------------------------------------------------- forks and threads


def _after_fork(engine: Engine, inherited: Connection | None, number: int, answers: Any) -> None:
    try:
        ids = set()
        if inherited is not None:
            # The parent's transaction is not the child's to commit.
            inherited.rollback()
            ids.add(client_id(inherited))
        for i in range(130):
            with engine.begin() as connection:
                connection.execute(insert(children), {"parent_id": 1, "name": f"fork {number}-{i}"})
                ids.add(client_id(connection))
        answers.put((number, ids, None))
    except BaseException as problem:
        answers.put((number, set(), repr(problem)))


def test_fork_with_an_open_pool(url: str) -> None:
    """Children get sockets and row numbers of their own; the parent's go on."""
    engine = database(url, poolclass=QueuePool, pool_size=3)
    connections = [engine.connect() for _ in range(3)]
    for place, connection in enumerate(connections):
        connection.execute(insert(children), {"parent_id": 1, "name": f"before {place}"})
        if place:
            connection.commit()
    parents_ids = {client_id(connection) for connection in connections}
    connections[1].close()
    connections[2].close()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    running = [
        context.Process(target=_after_fork, args=(engine, connections[0], number, answers))
        for number in range(3)
    ]
    for process in running:
        process.start()
    for i in range(130):
        with engine.begin() as connection:
            connection.execute(insert(children), {"parent_id": 1, "name": f"parent {i}"})
    results = [answers.get() for _ in running]
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert [problem for _, _, problem in results] == [None] * 3
    seen = [ids for _, ids, _ in results]
    for place, ids in enumerate(seen):
        assert ids.isdisjoint(parents_ids)
        assert all(ids.isdisjoint(others) for others in seen[:place])
    # The children's ends didn't end the parent's connection, nor its transaction.
    assert client_id(connections[0]) in parents_ids
    connections[0].commit()
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(children)) == 4 * 130 + 3
    connections[0].close()
    sound(url)
    engine.dispose()


def _make_table(engine: Engine, name: str) -> None:
    own = Table(name, MetaData(), Column("id", Integer, primary_key=True))
    own.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(own), [{}, {}])


def test_forks_that_make_tables(url: str) -> None:
    """Numbers of tables, which are reserved as well, are not used by two processes."""
    engine = database(url)
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_make_table, args=(engine, name)) for name in ("a", "b")]
    for process in running:
        process.start()
    _make_table(engine, "c")
    for process in running:
        process.join()
        assert process.exitcode == 0
    with engine.connect() as connection:
        for name in ("a", "b", "c"):
            assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == 2
    sound(url)
    engine.dispose()


def test_a_database_that_was_dropped_and_made_anew(server: RedisServer, url: str) -> None:
    """A process that knew the old one doesn't use the numbers that it had reserved there."""
    old = database(url)
    kept = old.connect()
    transaction(kept, "old")
    kept.commit()
    store = _store(url)
    store.drop()
    store.close()
    # Another process would share nothing with the first: so does another name of the host.
    new = create_engine(url.replace("127.0.0.1", "localhost"))
    others = [f"other{i}" for i in range(8)]
    for name in others:
        _make_table(new, name)
    metadata.create_all(new)
    with new.begin() as connection:
        connection.execute(insert(parents), {"id": 1, "n": 0})
    _make_table(old, "last")
    for name in (*others, "last"):
        with kept.engine.connect() as connection:
            assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == 2
    for i in range(60):  # no number is given out twice, so nobody is in the other's way
        for engine in (old, new):
            with engine.begin() as connection:
                connection.execute(
                    insert(children), {"parent_id": 1, "name": f"{engine.url.host} {i}"}
                )
    with new.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(children)) == 120
    kept.close()
    sound(url)
    old.dispose()
    new.dispose()


def test_threads_share_an_engine(url: str) -> None:
    engine = database(url, poolclass=QueuePool, pool_size=4, max_overflow=0)
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(25):
                while True:
                    try:
                        with engine.begin() as connection:
                            transaction(connection, f"{number}-{i}")
                        break
                    except OperationalError as error:
                        assert isinstance(error.orig, errors.ConflictError)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert done(engine) == 200
    sound(url)
    engine.dispose()


def test_threads_make_and_drop_tables(url: str) -> None:
    """Schema changes by some, rows by others."""
    engine = database(url)
    problems: list[BaseException] = []

    def change(number: int) -> None:
        own = Table(f"own{number}", MetaData(), Column("id", Integer, primary_key=True))
        try:
            for _ in range(6):
                own.create(engine)
                with engine.begin() as connection:
                    connection.execute(insert(own), [{}, {}])
                with engine.connect() as connection:
                    assert connection.scalar(select(func.count()).select_from(own)) == 2
                own.drop(engine)
        except BaseException as problem:
            problems.append(problem)

    def write() -> None:
        try:
            for i in range(30):
                while True:
                    try:
                        with engine.begin() as connection:
                            transaction(connection, f"{i}")
                        break
                    except OperationalError as error:
                        assert isinstance(error.orig, errors.ConflictError)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(3)]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert done(engine) == 30
    sound(url)
    engine.dispose()


# ---------------------------------------------------------------- a server that restarts


@pytest.fixture
def durable() -> Iterator[RedisServer]:
    with redis_server(appendonly="yes", appendfsync="always") as running:
        yield running


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_server_restarts_between_and_within_transactions(durable: RedisServer, how: str) -> None:
    engine = database(durable.url())
    with engine.connect() as connection:
        for name in ("between", "within"):
            if name == "within":
                transaction(connection, name)
            getattr(durable, how)()
            again = threading.Timer(0.3, durable.start)
            again.start()
            if name == "between":
                transaction(connection, name)  # waits for the server
            connection.commit()
            again.join()
            assert durable.answers()
    assert done(engine) == 2
    sound(durable.url())
    engine.dispose()


@pytest.mark.parametrize("point", [BEFORE, AFTER])
def test_server_killed_in_a_commit(durable: RedisServer, point: str) -> None:
    """What was done before the crash is not done again after it."""
    direct = database(durable.url())
    proxy = CuttingProxy(durable.port)
    engine = create_engine(proxy.url("test"))
    proxy.hold_at(point)
    committer = threading.Thread(target=one_transaction, args=(proxy.url("test"),))
    committer.start()
    assert proxy.reached.wait(60)
    durable.kill()
    proxy.release.set()
    durable.start()
    committer.join()
    assert done(direct) == 1
    sound(durable.url())
    proxy.close()
    engine.dispose()
    direct.dispose()


def test_server_is_away_for_longer_than_patience(durable: RedisServer) -> None:
    engine = database(durable.url(patience=0.2))
    with engine.connect() as connection:
        transaction(connection, "lost")
        durable.stop()
        with pytest.raises(OperationalError, match="no answer from Redis"):
            connection.commit()
        connection.rollback()
        with pytest.raises(OperationalError, match=r"no answer from Redis.*waited 0\.2 s"):
            connection.execute(select(parents))
        connection.rollback()
        durable.start()
        transaction(connection, "later")  # the same connection, without any ado
        connection.commit()
    assert done(engine) == 1
    engine.dispose()


def test_server_comes_back_without_its_data() -> None:
    """Nobody writes by a schema that was lost."""
    with redis_server() as server:
        engine = database(server.url())
        with engine.begin() as connection:
            transaction(connection, "lost")
        held = engine.connect()
        transaction(held, "held")
        server.kill()
        server.start()
        with pytest.raises(OperationalError, match="try again"):
            held.commit()
        held.close()
        with engine.connect() as connection, pytest.raises(OperationalError, match="no such table"):
            connection.execute(select(parents))
        # The tables come in another order, by another process, so they get other numbers.
        other = create_engine(server.url(), poolclass=NullPool)
        for table in reversed(metadata.sorted_tables):
            table.create(other)
        with engine.begin() as connection:
            connection.execute(insert(parents), {"id": 1, "n": 0})
            transaction(connection, "new")
        assert done(engine) == 1
        sound(server.url())
        engine.dispose()


def test_a_frozen_server_gets_the_commit_once(durable: RedisServer) -> None:
    """Time-outs make the client send it again; the server then finds it several times."""
    engine = database(durable.url(timeout=0.3, connect_timeout=0.3, patience=30))
    with engine.connect() as connection:
        transaction(connection, "slow")
        os.kill(durable.pid, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (durable.pid, signal.SIGCONT)).start()
        connection.commit()
        assert wire(connection).in_doubt  # it was sent more than once
    assert done(engine) == 1
    sound(durable.url())
    engine.dispose()


def test_row_numbers_that_were_lost_are_not_used_twice(url: str, server: RedisServer) -> None:
    """After a failover that lost a reservation, two processes have the same block."""
    engine = database(url)
    name = engine.url.database
    with engine.begin() as connection:
        connection.execute(insert(children), {"parent_id": 1, "name": "before"})
    with server.client() as client:
        for field in client.hkeys(f"{{{name}}}:ids"):
            if field != b"tables":
                client.hset(f"{{{name}}}:ids", field, 1)
    other = create_engine(server.url(f"{name}", patience=14), poolclass=NullPool)
    conflicts = 0
    for i in range(120):
        for who in (engine, other):
            for _ in range(10):
                try:
                    with who.begin() as connection:
                        connection.execute(
                            insert(children), {"parent_id": 1, "name": f"{id(who)}-{i}"}
                        )
                    break
                except OperationalError as error:
                    assert isinstance(error.orig, errors.ConflictError)
                    conflicts += 1
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(children)) == 241
    assert conflicts < 10
    sound(url)
    engine.dispose()


# ---------------------------------------------------------------- clusters


def test_failover() -> None:
    """The master is killed: its replica takes over, with all that it was known to have."""
    with redis_cluster(replicas=1) as cluster:
        engine = database(cluster.url(wait=1))
        for i in range(10):
            with engine.begin() as connection:
                transaction(connection, f"a{i}")
        held = create_engine(cluster.url(patience=60)).connect()
        transaction(held, "held")
        owner = cluster.owner("test")
        os.kill(owner.pid, signal.SIGKILL)
        held.commit()  # by the replica, once it is the master
        transaction(held, "later")
        held.commit()
        assert wire(held).node.address[1] != owner.port
        assert done(held.engine) == 12
        held.close()
        sound(cluster.url(patience=60))
        # A seed that is gone is passed over.
        for seeds in (cluster.nodes, cluster.nodes[::-1]):
            hosts = ",".join(f"127.0.0.1:{node.port}" for node in seeds)
            fresh = create_engine(f"rome+redis://[{hosts}]/test")
            assert done(fresh) == 12
            fresh.dispose()
        engine.dispose()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("", [("localhost", 6379)]),
        ("a", [("a", 6379)]),
        ("a:7", [("a", 7)]),
        ("a,b:7", [("a", 7), ("b", 7)]),
        ("[a:7,b:8,c]", [("a", 7), ("b", 8), ("c", 6379)]),
        ("[::1]:7", [("::1", 7)]),
        ("u:p@[10.0.0.1:7,10.0.0.2:8]", [("10.0.0.1", 7), ("10.0.0.2", 8)]),
    ],
)
def test_addresses(place: str, expected: list[tuple[str, int]]) -> None:
    parsed = make_url(f"rome+redis://{place}/x")
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    store = arguments["store"]()
    assert list(store._wire.server.addresses) == expected


@pytest.mark.parametrize("place", ["[a:b]", "[a:7,]", "a,:7", "[a:70000]"])
def test_addresses_that_are_none(place: str) -> None:
    with pytest.raises(ArgumentError, match="is no host:port"):
        create_engine(f"rome+redis://{place}/x").connect()


def test_a_cluster_whose_slots_move() -> None:
    with redis_cluster() as cluster:
        owner = cluster.owner("test")
        others = [node for node in cluster.nodes if node is not owner]
        # A seed that doesn't have the database says who has.
        url = f"rome+redis://127.0.0.1:{others[0].port}/test"
        engine = database(url)
        with engine.connect() as connection:
            transaction(connection, "1")
            connection.commit()
            assert wire(connection).node.address[1] == owner.port
        engine.dispose()

        target = others[1]
        with owner.client() as source, target.client() as destination:
            slot = ask(source, "CLUSTER KEYSLOT", "{test}")
            target_id = ask(destination, "CLUSTER MYID").decode()
            source_id = ask(source, "CLUSTER MYID").decode()
            ask(destination, "CLUSTER SETSLOT", slot, "IMPORTING", source_id)
            ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", target_id)
            keys = sorted(ask(source, "CLUSTER GETKEYSINSLOT", slot, 1000))

            def move(some: list[bytes]) -> None:
                ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *some)

            move(keys[::2])
            # Half of the keys are here, half there: nothing is read or written.
            hasty = create_engine(url + "?patience=0.3")
            asked = pytest.raises(OperationalError, match="no answer from Redis: ASK")
            with hasty.connect() as connection, asked:
                connection.execute(select(parents))
            with pytest.raises(OperationalError, match="no answer from Redis: ASK"):
                metadata.create_all(hasty)
            hasty.dispose()
            patient = create_engine(url + "?patience=60")
            results: list[int] = []

            def work() -> None:
                with patient.begin() as connection:
                    transaction(connection, "2")
                results.append(done(patient))

            worker = threading.Thread(target=work)
            worker.start()
            move(keys[1::2])
            for node in (destination, source):
                ask(node, "CLUSTER SETSLOT", slot, "NODE", target_id)
            worker.join()
            assert results == [2]
            assert cluster.owner("test", [target]) is target
        sound(url)
        patient.dispose()


# ---------------------------------------------------------------- servers that refuse


def test_out_of_memory() -> None:
    """A commit is refused as a whole; reading and deleting go on."""
    with redis_server(maxmemory="7mb", maxmemory_policy="noeviction") as server:
        engine = database(server.url())
        count = 0

        def big(connection: Connection, name: str) -> None:
            transaction(connection, name)
            connection.execute(
                update(children).where(children.c.name == f"{name}-0").values(data=b"x" * 100_000)
            )

        with pytest.raises(OperationalError, match="OOM"):
            while True:
                with engine.begin() as connection:
                    big(connection, f"{count}")
                count += 1
        assert count > 5
        assert done(engine) == count
        sound(server.url())
        fresh = create_engine(server.url() + "?patience=14")  # a process that comes new
        assert done(fresh) == count
        with fresh.begin() as connection:
            some = [f"{i}-{j}" for i in range(5) for j in range(3)]
            connection.execute(delete(children).where(children.c.name.in_(some)))
        with fresh.begin() as connection:  # there is room again
            connection.execute(insert(children), [{"parent_id": 1, "name": n} for n in some])
        assert done(fresh) == count
        sound(server.url())
        with pytest.raises(OperationalError, match="OOM"):
            while True:
                with engine.begin() as connection:
                    big(connection, f"{count}")
                count += 1
        metadata.drop_all(fresh)  # tables can be dropped when nothing else can be done
        assert metadata.tables
        metadata.create_all(fresh)
        fresh.dispose()
        engine.dispose()


def test_wrong_password() -> None:
    with redis_server(requirepass="r1ght") as server:
        database(server.url()).dispose()
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "nova", "on", ">s3cret", "~*", "+@all")
        place = f"127.0.0.1:{server.port}/test"
        assert done(create_engine(f"rome+redis://nova:s3cret@{place}")) == 0
        for user in (":wr0ng", "nova:wr0ng", "nobody:wr0ng"):
            engine = create_engine(f"rome+redis://{user}@{place}")
            with engine.connect() as connection, pytest.raises(OperationalError) as failure:
                connection.execute(select(parents))
            assert "refuses the user or password" in str(failure.value)
            assert "wr0ng" not in str(failure.value)
        refused = pytest.raises(OperationalError, match="NOAUTH")
        with create_engine(f"rome+redis://{place}").connect() as connection, refused:
            connection.execute(select(parents))


def test_unreachable() -> None:
    engine = create_engine("rome+redis://127.0.0.1:1/test?patience=0.2")
    told = pytest.raises(OperationalError, match=r"no answer from Redis: 127\.0\.0\.1:1")
    with engine.connect() as connection, told:
        connection.execute(select(parents))
    with pytest.raises(OperationalError, match="no answer from Redis"):
        metadata.create_all(engine)


def test_unreachable_for_oslo_db() -> None:
    """oslo.db knows a lost connection, and a conflict that may be retried."""
    engines = importlib.import_module("oslo_db.sqlalchemy.engines")
    exception = importlib.import_module("oslo_db.exception")
    with redis_server() as server:
        engine = engines.create_engine(server.url(patience=0.2))
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(parents), {"id": 1, "n": 0})
        one, two = engine.connect(), engine.connect()
        for connection in (one, two):
            swap = update(parents).where(parents.c.id == 1, parents.c.n == 0)
            assert connection.execute(swap.values(n=7)).rowcount == 1
        one.commit()
        with pytest.raises(exception.DBDeadlock):
            two.commit()
        two.rollback()
        server.stop()
        with pytest.raises(exception.DBConnectionError):
            one.execute(select(parents))
        one.close()
        two.close()
        engine.dispose()


@pytest.fixture
def large() -> Iterator[tuple[RedisServer, Engine]]:
    """A server with a table that takes a script a while, and hardly any patience with scripts."""
    with redis_server(busy_reply_threshold="1") as server:
        engine = database(server.url(result_cache="off"))  # so that it is looked at each time
        row = rows.encode([0, 7])
        with server.client() as client, client.pipeline(transaction=False) as pipe:
            number = next(int(n) for n in client.hkeys("{test}:ids") if n != b"tables")
            # As many as are read by one script, which writes nothing: only such a one is killed.
            pipe.hset(f"{{test}}:r{number}", mapping={str(n): row for n in range(10, 3900)})
            pipe.execute()
        yield server, engine
        engine.dispose()


def test_a_statement_whose_script_is_killed(large: tuple[RedisServer, Engine]) -> None:
    server, engine = large
    killed = threading.Event()
    stop = threading.Event()

    def kill() -> None:
        with server.client() as client:
            while not stop.is_set():
                with contextlib.suppress(Exception):
                    client.script_kill()
                    killed.set()
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with engine.connect() as connection:
            slow = select(parents.c.id).where(parents.c.n > 7, parents.c.n != 8)
            with pytest.raises(OperationalError, match=r"[kK]illed"):
                while not killed.is_set():
                    connection.execute(slow)
            connection.rollback()
            one = select(parents.c.n).where(parents.c.id == 1)
            assert connection.scalar(one) == 0  # the connection goes on
    finally:
        stop.set()
        killer.join()


def test_a_server_busy_with_anothers_script_is_waited_for() -> None:
    with redis_server(busy_reply_threshold="50") as server:
        engine = database(server.url())

        def block() -> None:
            with server.client() as client, contextlib.suppress(Exception):
                client.eval("while true do end", 0)

        blocker = threading.Thread(target=block)
        results: list[int] = []
        with engine.connect() as connection, server.client() as client:
            worker = threading.Thread(target=lambda: results.append(_count(connection)))
            blocker.start()
            assert wait_until(lambda: _busy(client))
            worker.start()
            time.sleep(0.3)  # for it to hear BUSY a few times
            assert results == []
            client.script_kill()
            worker.join()
            blocker.join()
            assert results == [1]
            errors_told = client.info("errorstats")
            assert errors_told["errorstat_BUSY"]["count"] > 1
        engine.dispose()


def _count(connection: Connection) -> int:
    count: int = connection.scalars(select(func.count()).select_from(parents)).one()
    return count


def _busy(client: Any) -> bool:
    try:
        client.ping()
    except Exception as error:
        return "BUSY" in str(error)
    return False


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of 127.0.0.1 by it, and an authority that nobody asked."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *curve, "-keyout", f"{name}.key", "-out", f"{name}.crt",
            "-days", "2", "-subj", f"/CN=test {name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
    for name, alternative in (
        ("server", "IP:127.0.0.1"),
        ("elsewhere", "DNS:elsewhere.example"),
        ("client", "DNS:nova"),
    ):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=x")
        (folder / "names").write_text(f"subjectAltName={alternative}\n")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "names",
        )  # fmt: skip
    openssl("ec", "-in", "client.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    return folder


def _tls_server(certificates: Path, name: str, **settings: str) -> Any:
    return redis_server(
        tls_cert_file=str(certificates / f"{name}.crt"),
        tls_key_file=str(certificates / f"{name}.key"),
        tls_ca_cert_file=str(certificates / "ca.crt"),
        **settings,
    )


def test_tls_names_are_checked(certificates: Path) -> None:
    """Whatever the libraries' defaults are; a switch of its own turns it off."""
    ca = str(certificates / "ca.crt")
    with _tls_server(certificates, "elsewhere", tls_auth_clients="no") as server:
        named = create_engine(server.url(tls_ca=ca, patience=0.1))
        refused = pytest.raises(OperationalError, match="IP address mismatch")
        with named.connect() as connection, refused:
            connection.execute(select(parents))
        unnamed = database(server.url(tls_ca=ca, tls_check_hostname="off"))
        assert done(unnamed) == 0
        other = server.url(
            tls_ca=str(certificates / "other.crt"), tls_check_hostname="off", patience=0.1
        )
        refused = pytest.raises(OperationalError, match="certificate verify failed")
        with create_engine(other).connect() as connection, refused:
            connection.execute(select(parents))
        unnamed.dispose()


def test_tls_with_client_certificates(certificates: Path) -> None:
    """As Redis wants them unless it is told otherwise."""
    ca = str(certificates / "ca.crt")
    cert, key = str(certificates / "client.crt"), str(certificates / "client.key")
    with _tls_server(certificates, "server") as server:
        engine = database(server.url(tls_ca=ca, tls_cert=cert, tls_key=key))
        assert done(engine) == 0
        both = certificates / "both.pem"
        both.write_text(Path(cert).read_text() + Path(key).read_text())
        assert done(create_engine(server.url(tls_ca=ca, tls_cert=str(both)))) == 0
        for options, told in (
            ({}, "no answer"),
            ({"tls_cert": cert, "tls_key": str(certificates / "ca.key")}, "tls_cert"),
            ({"tls_cert": cert, "tls_key": str(certificates / "locked.key")}, "passphrase"),
            ({"tls_cert": cert, "tls_key": "/none"}, "tls_key"),
        ):
            bad = create_engine(server.url(tls_ca=ca, patience=0.1, **options))
            with bad.connect() as connection, pytest.raises(OperationalError, match=told):
                connection.execute(select(parents))
            bad.dispose()
        engine.dispose()
    for url, told in (
        ("rome+rediss://h/x?tls_key=k", "tls_key without tls_cert"),
        ("rome+redis://h/x?tls_ca=c", "options of TLS are for rome"),
        ("rome+rediss://h/x?tls_check_hostname=maybe", "say on or off"),
    ):
        with pytest.raises(ArgumentError, match=told):
            create_engine(url).connect()


def test_tls(certificates: Path) -> None:
    with _tls_server(certificates, "server", tls_auth_clients="no", requirepass="s3cret") as server:
        good = server.url(tls_ca=str(certificates / "ca.crt"))
        engine = database(good)
        with engine.begin() as connection:
            transaction(connection, "safe")
            connection.execute(
                update(children).where(children.c.name == "safe-0").values(data=b"y" * 300_000)
            )
        assert done(engine) == 1  # also rows longer than a record of TLS
        sound(good)
        context = multiprocessing.get_context("fork")
        with engine.connect() as connection:
            before = client_id(connection)
            child = context.Process(target=one_transaction, args=(good,))
            child.start()
            child.join()
            assert child.exitcode == 0
            assert client_id(connection) == before
        engine.dispose()
        wrong = server.url(tls_ca=str(certificates / "other.crt"), patience=0.2)
        for bad, told in (
            (wrong, "certificate verify failed"),
            (server.url(patience=0.2), "certificate verify failed"),
            (wrong.replace("rediss", "redis").split("?")[0] + "?patience=0.2", "no answer"),
        ):
            refused = create_engine(bad)
            with refused.connect() as connection, pytest.raises(OperationalError, match=told):
                connection.execute(select(parents))
            refused.dispose()
