"""Who is the master, who may acknowledge, and what is known of a commit: on real failovers."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rome.admin.check import check
from rome.driver import OutcomeUnknown
from rome.errors import OperationalError as OperationalErrorOfDriver
from rome.schema.catalogue import Catalogue
from rome.stores.redis import connection as redis_wire
from rome.stores.redis.link import Server, slot_of
from rome.stores.redis.runner import Runner
from rome.stores.redis.store import RedisStore
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from rome import driver
from tests.cutting_proxy import AFTER, CuttingProxy
from tests.servers import (
    RedisCluster,
    RedisServer,
    ask,
    free_port,
    redis_cluster,
    redis_server,
    wait_until,
)

metadata = MetaData()
things = Table("things", metadata, Column("id", Integer, primary_key=True), Column("n", Integer))


def database(url: str, **options: Any) -> Engine:
    """An engine of a database with the table, empty."""
    engine = create_engine(url, **options)
    metadata.create_all(engine)
    return engine


def add(engine: Engine, number: int) -> None:
    """A row in a transaction of its own."""
    with engine.begin() as connection:
        connection.execute(insert(things), {"n": number})


def numbers(engine: Engine) -> list[int]:
    """What is there."""
    with engine.connect() as connection:
        return list(connection.scalars(select(things.c.n).order_by(things.c.n)))


def store_of(url: str) -> RedisStore:
    """The store of an engine's connection."""
    parsed = make_url(url)
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    store = arguments["store"]()
    assert isinstance(store, RedisStore)
    return store


def pair(*servers: RedisServer, **options: float) -> str:
    """The URL of a database with several addresses."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"rome+redis://[{hosts}]/test?{query}"


@pytest.fixture
def replicated() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and a replica that follows it, outside of any cluster."""
    with redis_server(repl_diskless_sync_delay="0") as master, redis_server() as replica:
        with replica.client() as client:
            ask(client, "REPLICAOF", "127.0.0.1", master.port)
            assert wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        yield master, replica


# ---------------------------------------------------------------- without a cluster


def test_a_replica_among_the_addresses_is_passed_over(
    replicated: tuple[RedisServer, RedisServer],
) -> None:
    """Neither stale answers nor refused writes; and after a failover the other one is used."""
    master, replica = replicated
    for order in ((master, replica), (replica, master)):
        engine = database(pair(*order))
        before = numbers(engine)
        add(engine, len(before))
        assert numbers(engine) == [*before, len(before)]
        engine.dispose()
    held = create_engine(pair(replica, master))
    add(held, 2)
    with master.client() as client:
        assert ask(client, "WAIT", 1, 5000) == 1
    with replica.client() as client:
        ask(client, "REPLICAOF", "NO", "ONE")
    with master.client() as client:
        ask(client, "REPLICAOF", "127.0.0.1", replica.port)
    # The connection in the pool leads to a node that takes no writes any more.
    add(held, 3)
    assert numbers(held) == [0, 1, 2, 3]
    held.dispose()


def test_a_frozen_master_that_was_replaced_is_given_up(
    replicated: tuple[RedisServer, RedisServer],
) -> None:
    master, replica = replicated
    engine = database(pair(master, replica))
    add(engine, 1)
    with master.client() as client:
        assert ask(client, "WAIT", 1, 5000) == 1
    os.kill(master.pid, signal.SIGSTOP)
    try:
        with replica.client() as client:
            ask(client, "REPLICAOF", "NO", "ONE")
        add(engine, 2)
        assert numbers(engine) == [1, 2]
        # A new connection doesn't wait for the frozen one either.
        fresh = create_engine(pair(master, replica, connect_timeout=600))
        assert numbers(fresh) == [1, 2]
        fresh.dispose()
    finally:
        os.kill(master.pid, signal.SIGCONT)
    engine.dispose()


def test_a_single_address_that_is_a_replica(replicated: tuple[RedisServer, RedisServer]) -> None:
    master, replica = replicated
    engine = create_engine(replica.url(patience=0.1))
    told = rf"is a replica of 127\.0\.0\.1:{master.port}, which takes no writes"
    with engine.connect() as connection, pytest.raises(OperationalError, match=told):
        connection.execute(text("SELECT 1 FROM things"))
    engine.dispose()


def test_candidates_that_hang_cost_a_moment_each() -> None:
    """Sockets that accept and say nothing are waited for together."""
    with redis_server() as server, contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_server(("127.0.0.1", free_port()))) for _ in range(3)
        ]
        hosts = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in silent)
        url = f"rome+redis://[{hosts},127.0.0.1:{server.port}]/test?connect_timeout=600"
        engine = database(url)
        add(engine, 1)
        assert numbers(engine) == [1]
        engine.dispose()


def test_a_candidate_that_refuses_the_password_is_passed_over() -> None:
    with redis_server(requirepass="other") as foreign, redis_server(requirepass="own") as server:
        hosts = f"127.0.0.1:{foreign.port},127.0.0.1:{server.port}"
        engine = database(f"rome+redis://:own@[{hosts}]/test")
        add(engine, 1)
        assert numbers(engine) == [1]
        engine.dispose()


# ---------------------------------------------------------------- what is known of a commit


def test_an_unknown_outcome_invalidates_the_connection() -> None:
    with redis_server() as server:
        direct = database(server.url())
        add(direct, 0)  # now the server knows the script
        proxy = CuttingProxy(server.port)
        engine = create_engine(proxy.url("test", "?patience=0.2"))
        with engine.connect() as connection:
            connection.execute(insert(things), {"n": 1})
            proxy.cut_at(AFTER)
            proxy.refuse()
            with pytest.raises(OperationalError, match="not known") as failure:
                connection.commit()
            assert isinstance(failure.value.orig, OutcomeUnknown)
            assert isinstance(failure.value.orig, driver.OperationalError)
            assert failure.value.connection_invalidated
            assert connection.invalidated
        assert numbers(direct) == [0, 1]
        assert issubclass(driver.Connection.OutcomeUnknown, driver.Error)
        proxy.close()
        engine.dispose()
        direct.dispose()


def test_an_unknown_outcome_for_oslo_db() -> None:
    """A lost connection: not a deadlock, after which it would be done again."""
    engines = importlib.import_module("oslo_db.sqlalchemy.engines")
    exception = importlib.import_module("oslo_db.exception")
    with redis_server() as server:
        direct = database(server.url())
        add(direct, 0)
        proxy = CuttingProxy(server.port)
        engine = engines.create_engine(proxy.url("test", "?patience=0.2"))
        with pytest.raises(exception.DBConnectionError), Session(engine) as session:
            session.execute(insert(things), {"n": 1})
            proxy.cut_at(AFTER)
            proxy.refuse()
            session.commit()
        assert numbers(direct) == [0, 1]
        proxy.close()
        engine.dispose()
        direct.dispose()


@pytest.mark.parametrize("again", [True, False])
def test_a_change_of_the_schema_whose_answer_is_lost(again: bool) -> None:
    """Sent again it is found done; where it can't be, the error says that nothing is known."""
    with redis_server() as server:
        direct = database(server.url())
        proxy = CuttingProxy(server.port)
        engine = create_engine(proxy.url("test", "" if again else "?patience=0.2"))
        create = text("CREATE TABLE later (id INTEGER PRIMARY KEY)")
        with engine.connect() as connection:
            connection.execute(select(things))  # is connected
            proxy.cut_at(AFTER, (b"CREATE TABLE later",))
            if again:
                connection.execute(create)
            else:
                proxy.refuse()
                with pytest.raises(OperationalError, match="not known") as failure:
                    connection.execute(create)
                assert isinstance(failure.value.orig, OutcomeUnknown)
                assert connection.invalidated
        assert proxy.reached.is_set()
        with create_engine(server.url(patience=14)).connect() as connection:
            assert connection.execute(text("SELECT * FROM later")).all() == []
        proxy.close()
        engine.dispose()
        direct.dispose()


def test_an_index_whose_build_crossed_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover may have lost entries of it: it isn't ready until it is built anew."""
    with redis_server() as server:
        engine = database(server.url())
        for number in range(3):
            add(engine, number)
        build = RedisStore.build_index

        def lose(store: RedisStore, *arguments: Any) -> None:
            build(store, *arguments)
            with server.client() as client:  # as a failover that loses the last writes
                client.delete(*client.keys("{test}:i[0-9]*"))
            store._wire.close()

        with monkeypatch.context() as patch, engine.connect() as connection:
            patch.setattr(RedisStore, "build_index", lose)
            connection.execute(text("CREATE INDEX by_n ON things (n)"))
            driver: Any = connection.connection.dbapi_connection
            (table,) = driver.catalogue.load(driver.store).tables.values()
            assert [index.ready for index in table.indexes if not index.unique] == [False]
        by_n = select(things.c.n).where(things.c.n == 1)
        with engine.connect() as connection:
            assert connection.scalars(by_n).all() == [1]
        store = store_of(server.url())
        assert [
            "isn't ready" in found.text for found in check(store, Catalogue(), repair=True)
        ] == [True]
        with create_engine(server.url(patience=14)).connect() as connection:
            assert connection.scalars(by_n).all() == [1]
        assert [finding.text for finding in check(store, Catalogue())] == []
        store.close()
        engine.dispose()


def test_a_scan_that_crosses_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server gives other cursors: rows would be left out without a word."""
    with redis_server() as server:
        engine = database(server.url())
        with engine.begin() as connection:
            connection.execute(insert(things), [{"n": n} for n in range(2000)])
        store = store_of(server.url())
        table = next(iter(Catalogue().load(store).tables.values()))
        assert len(list(store.scan(table.number))) == 2000
        rows = store.scan(table.number)
        next(rows)
        store._wire.close()
        with pytest.raises(OperationalErrorOfDriver, match="in the middle of a scan"):
            list(rows)
        store.close()
        engine.dispose()


# ---------------------------------------------------------------- wait


def test_wait_refuses_before_it_writes_without_replicas(
    replicated: tuple[RedisServer, RedisServer],
) -> None:
    master, replica = replicated
    engine = database(master.url())
    waiting = create_engine(master.url(wait=1))
    add(waiting, 1)
    with replica.client() as client:
        assert client.exists("{test}:meta")
    replica.kill()
    with master.client() as client:
        assert wait_until(lambda: client.info("replication")["connected_slaves"] == 0)
    with pytest.raises(OperationalError, match=r"0 replicas follow.*not done") as failure:
        add(waiting, 2)
    assert not isinstance(failure.value.orig, OutcomeUnknown)
    assert not failure.value.connection_invalidated
    assert numbers(engine) == [1]
    assert numbers(waiting) == [1]
    engine.dispose()
    waiting.dispose()


def test_wait_whose_replicas_are_silent_is_an_unknown_outcome(
    replicated: tuple[RedisServer, RedisServer],
) -> None:
    master, replica = replicated
    engine = database(master.url())
    waiting = create_engine(master.url(wait=1))
    add(waiting, 1)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OperationalError, match="0 of 1 replicas have it") as failure:
            add(waiting, 2)
        assert isinstance(failure.value.orig, OutcomeUnknown)
        assert failure.value.connection_invalidated
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert numbers(engine) == [1, 2]
    engine.dispose()
    waiting.dispose()


# ---------------------------------------------------------------- the lease


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster(replicas=1) as running:
        yield running


def _rest(cluster: RedisCluster, owner: RedisServer) -> list[RedisServer]:
    return [node for node in cluster.nodes if node is not owner]


def _replaced(cluster: RedisCluster, tag: str, owner: RedisServer) -> bool:
    return cluster.owner(tag, _rest(cluster, owner)) is not owner


def _follows(server: RedisServer) -> bool:
    with contextlib.closing(server.client()) as client:
        role = client.info("replication")
    return bool(role["role"] == "slave" and role["master_link_status"] == "up")


def test_a_master_that_is_resumed_acknowledges_nothing_that_is_lost(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits wait in its sockets while its replica takes over; then it goes on with them."""
    clients = 24
    engine = database(cluster.url("resumed", patience=60), pool_size=clients)
    # Nobody asks others while it hangs: each stays with its socket.
    monkeypatch.setattr(redis_wire, "HUNG_S", 600)
    for round_number in range(2):
        owner = cluster.owner("resumed")
        connections = [engine.connect() for _ in range(clients)]
        for place, connection in enumerate(connections):
            number = 1000 * round_number + place
            connection.execute(insert(things), {"n": number})
        with owner.client() as client:  # the row numbers that were taken aren't lost
            assert ask(client, "WAIT", 1, 30000) == 1
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            threads = [threading.Thread(target=c.commit) for c in connections]
            for thread in threads:
                thread.start()
            assert wait_until(lambda: _replaced(cluster, "resumed", owner))  # noqa: B023
        finally:
            os.kill(owner.pid, signal.SIGCONT)
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
        assert wait_until(lambda: _follows(owner))  # noqa: B023
    # Each was acknowledged, by whom ever.
    fresh = create_engine(cluster.url("resumed", patience=61))
    assert numbers(fresh) == [*range(clients), *range(1000, 1000 + clients)]
    fresh.dispose()
    engine.dispose()


def test_a_master_that_hangs_is_given_up_once_it_is_replaced(cluster: RedisCluster) -> None:
    engine = database(cluster.url("hangs", patience=600, timeout=600, connect_timeout=600))
    add(engine, 1)
    owner = cluster.owner("hangs")
    replica = next(n for n in _rest(cluster, owner) if _is_replica_of(n, owner))
    with owner.client() as client:
        assert ask(client, "WAIT", 1, 5000) == 1
    os.kill(owner.pid, signal.SIGSTOP)
    try:
        add(engine, 2)  # with the socket that it has
        assert cluster.owner("hangs", [replica]) is replica
        fresh = create_engine(cluster.url("hangs", patience=599, connect_timeout=600))
        add(fresh, 3)
        fresh.dispose()
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    assert wait_until(lambda: _follows(owner))
    assert numbers(engine) == [1, 2, 3]
    engine.dispose()


@pytest.mark.parametrize("asked", ["afterwards", "before"])
def test_no_connection_believes_a_master_that_another_one_knows_to_be_replaced(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """A question waits in the sockets of a frozen master, which answers it when it goes on."""
    engine = database(cluster.url(f"known-{asked}", patience=60))
    add(engine, 1)
    owner = cluster.owner(f"known-{asked}")
    found: list[list[int]] = []
    # By itself the one would never ask others who the master is; a socket that is open would.
    monkeypatch.setattr(redis_wire, "HUNG_S", 600.0)
    engine.dispose()
    with engine.connect() as one:
        assert one.scalars(select(things.c.n)).all() == [1]
        one.rollback()
        monkeypatch.undo()
        with engine.connect() as two, owner.client() as client:
            two.execute(insert(things), {"n": 2})
            assert ask(client, "WAIT", 1, 5000) == 1
            thread = threading.Thread(
                target=lambda: found.append(list(one.scalars(select(things.c.n)).all()))
            )
            os.kill(owner.pid, signal.SIGSTOP)
            try:
                if asked == "before":
                    thread.start()
                two.commit()
                if asked == "afterwards":
                    thread.start()
                    thread.join(0.3)
            finally:
                os.kill(owner.pid, signal.SIGCONT)
            thread.join(60)
    assert found == [[1, 2]]
    assert wait_until(lambda: _follows(owner))
    engine.dispose()


def _is_replica_of(node: RedisServer, master: RedisServer) -> bool:
    with contextlib.closing(node.client()) as client:
        role = client.info("replication")
    return role["role"] == "slave" and bool(role["master_port"] == master.port)


def test_a_master_that_hears_no_majority_refuses_commits(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the others may have replaced it, and until it can be sure that they haven't."""
    monkeypatch.setattr(redis_wire, "_ASK_S", 0.02)  # the others are going to be frozen
    engine = database(cluster.url("alone", patience=0))
    owner = cluster.owner("alone")
    others = _rest(cluster, owner)
    heard: list[str] = []

    def try_once() -> bool:
        try:
            add(engine, len(heard))
            heard.append("done")
        except OperationalError as error:
            assert not isinstance(error.orig, OutcomeUnknown)
            heard.append("LEASE" if "LEASE" in str(error) else "other")
        return heard[-1] == "LEASE"

    assert wait_until(lambda: try_once() or heard[-1] == "done")
    for node in others:
        os.kill(node.pid, signal.SIGSTOP)
    try:
        assert wait_until(try_once)
        after = len(heard)
        for _ in range(20):
            try_once()
        assert "done" not in heard[after:]
    finally:
        for node in others:
            os.kill(node.pid, signal.SIGCONT)
    assert wait_until(lambda: not try_once() and heard[-1] == "done")
    assert numbers(create_engine(cluster.url("alone", patience=60))) == [
        place for place, word in enumerate(heard) if word == "done"
    ]
    engine.dispose()


def test_an_acknowledgement_that_comes_late_is_confirmed(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node may have been halted since it looked at its lease: the master is asked again,
    and if it doesn't have the commit, the commit is sent again."""
    engine = database(cluster.url("late", patience=60))
    add(engine, 1)
    owner = cluster.owner("late")
    in_time = Runner.in_time
    asked: list[bool] = []

    def late_once(runner: Runner) -> bool:
        asked.append(in_time(runner))
        if len(asked) > 1:
            return asked[-1]
        with owner.client() as client:  # what a failover loses that nobody has copied
            lost = [key for key in client.keys("{late}:*") if b":t:" in key or b":r" in key]
            client.delete(*lost)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "in_time", late_once)
        add(engine, 2)
    assert len(asked) >= 3
    assert numbers(engine) == [2]
    engine.dispose()


def test_a_cluster_that_tells_no_node_timeout(cluster: RedisCluster) -> None:
    """Nothing is written on the chance that it goes well."""
    database(cluster.url("silent", patience=60)).dispose()
    for node in cluster.nodes:
        with node.client() as client:
            ask(client, "ACL", "SETUSER", "nova", "on", ">s3cret", "~*", "+@all", "-config")
    try:
        place = cluster.url("silent").replace("//", "//nova:s3cret@")
        refused = create_engine(f"{place}?patience=60")
        with pytest.raises(OperationalError, match=r"CONFIG GET.*nothing was written.*node"):
            add(refused, 1)
        for number, value in enumerate(("1", "0")):
            engine = create_engine(f"{place}?patience=60&node_timeout={value}")
            add(engine, number)
            assert numbers(engine) == list(range(number + 1))
            engine.dispose()
        refused.dispose()
    finally:
        for node in cluster.nodes:
            with node.client() as client:
                ask(client, "ACL", "DELUSER", "nova")


def test_the_lease_costs_a_server_without_cluster_nothing() -> None:
    with redis_server() as server:
        engine = database(server.url())
        add(engine, 1)
        with server.client() as client:
            client.config_resetstat()
            add(engine, 2)
            calls = client.info("commandstats")
            assert not [name for name in calls if "cluster" in name or "time" in name.lower()]
            assert not client.exists("{test}:lease")
        engine.dispose()


# ---------------------------------------------------------------- names and passwords


@pytest.mark.parametrize(
    "tag", ["", "a}b", "{a", "a:b", "*", "a?", "[a]", "a^", "a\\b", "a b", "a\nb", "a}:r1"]
)
def test_tags_that_would_be_other_keys(tag: str) -> None:
    url = make_url("rome+redis://h/x").update_query_dict({"tag": tag})
    with pytest.raises(ArgumentError, match="option tag="):
        create_engine(url).connect()
    if tag:
        with pytest.raises(ArgumentError, match="name a database"):
            create_engine(url.set(query={}, database=tag)).connect()


def test_databases_whose_names_are_tags_of_others() -> None:
    """Each has its own keys: dropping one leaves the others as they are."""
    names = {"a": None, "b": "a", "ab": "a", "c": "b", "a-b": "a"}
    with redis_server() as server:
        urls = {
            name: server.url(name, **({"tag": tag} if tag else {})) for name, tag in names.items()
        }
        for place, url in enumerate(urls.values()):
            engine = database(url)
            add(engine, place)
            engine.dispose()
        for place, url in enumerate(urls.values()):
            for later, other in list(enumerate(urls.values()))[place:]:
                engine = create_engine(other)
                assert numbers(engine) == [later]
                engine.dispose()
            store = store_of(url)
            store.drop()
            assert list(store.key_names()) == []
            store.close()
        with server.client() as client:
            assert client.dbsize() == 0
        # The tag that a database has anyhow is no other database.
        assert store_of(server.url("a")).prefix == store_of(server.url("a", tag="a")).prefix


def test_passwords_are_not_shown() -> None:
    secret = "h1dden-from-all"
    url = make_url(f"rome+redis://nova:{secret}@127.0.0.1:1/x?patience=0")
    arguments = url.get_dialect()().create_connect_args(url)
    assert secret not in repr(arguments)
    assert secret not in repr(arguments[1]["store"]())
    assert secret not in repr(Server((("h", 1),), password=secret))
    assert "nova" in repr(arguments)
    engine = create_engine(url)
    with engine.connect() as connection, pytest.raises(OperationalError) as failure:
        connection.execute(select(things))
    assert secret not in repr(failure.value) + str(failure.value.__cause__)
    with pytest.raises(ArgumentError) as wrong:
        create_engine(f"rome+redis://h/x?password={secret}").connect()
    assert "unknown option password" in str(wrong.value)
    assert secret not in str(wrong.value)


def test_slots_are_those_of_redis(cluster: RedisCluster) -> None:
    with cluster.nodes[0].client() as client:
        for tag in ("nova", "nova_api", "a", "\u00e9"):
            assert slot_of(tag) == ask(client, "CLUSTER", "KEYSLOT", f"{{{tag}}}")
