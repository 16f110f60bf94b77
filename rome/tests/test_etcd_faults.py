"""What is left in etcd when clients, connections or members fail: all of a commit or nothing."""

from __future__ import annotations

import base64
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rome.admin.entries import check_entries
from rome.schema.catalogue import Catalogue
from rome.stores.etcd.store import EtcdStore
from sqlalchemy import Connection, Engine, create_engine, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from rome import errors
from tests.cutting_proxy import AFTER, BEFORE, IN_ETCD, CuttingProxy
from tests.etcd_servers import EtcdCluster, EtcdServer, etcd_cluster, etcd_server
from tests.servers import wait_until
from tests.transactions import (
    children,
    count_of,
    database,
    done,
    parents,
    transaction,
)


@pytest.fixture
def url(etcd_server: EtcdServer, request: pytest.FixtureRequest) -> str:
    """Of a database of the test's own."""
    return etcd_server.url("".join(c if c.isalnum() else "-" for c in request.node.name))


@pytest.fixture
def proxy(etcd_server: EtcdServer) -> Iterator[CuttingProxy]:
    made = CuttingProxy(etcd_server.port, IN_ETCD, "etcd")
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members, which each test leaves whole."""
    with etcd_cluster() as running:
        yield running


def store_of(url: str) -> EtcdStore:
    parsed = make_url(url)
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    store = arguments["store"]()
    assert isinstance(store, EtcdStore)
    return store


def sound(url: str) -> None:
    """Every index entry fits the rows."""
    store = store_of(url)
    assert [finding.text for finding in check_entries(store, Catalogue())] == []
    store.close()


# ---------------------------------------------------------------- lost connections


def test_a_commit_that_was_refused_is_not_done_later(url: str, proxy: CuttingProxy) -> None:
    """Its request was under way when it was refused: the token is void then."""
    direct = database(url)
    engine = create_engine(proxy.url(direct.url.database or ""))
    with engine.connect() as connection:
        connection.execute(update(parents).where(parents.c.id == 1, parents.c.n == 0).values(n=1))
        proxy.cut_at(BEFORE)  # it was sent, for all that the client knows
        with direct.begin() as quick:
            quick.execute(update(parents).where(parents.c.id == 1).values(n=7))
        with pytest.raises(OperationalError, match="try again"):
            connection.commit()
        # The connection goes on.
        connection.rollback()
        connection.execute(update(parents).where(parents.c.id == 1).values(n=parents.c.n + 1))
        connection.commit()
        assert connection.scalar(select(parents.c.n).where(parents.c.id == 1)) == 8
    engine.dispose()
    direct.dispose()


def test_change_of_the_schema_whose_answer_is_lost_is_made_once(
    url: str, proxy: CuttingProxy
) -> None:
    direct = database(url)
    engine = create_engine(proxy.url(direct.url.database or ""))
    with engine.connect() as connection:
        connection.execute(select(parents))
        # Nothing else puts the schema's version.
        key = base64.b64encode(f"rome:{direct.url.database}:version".encode())
        proxy.cut_at(AFTER, (b'"request_put":{"key":"%b"' % key,))
        connection.execute(text("CREATE TABLE more (id INTEGER PRIMARY KEY)"))
        connection.commit()
        assert proxy.reached.is_set()
    with direct.connect() as connection:
        assert connection.execute(text("SELECT * FROM more")).all() == []
    engine.dispose()
    direct.dispose()


def _after_fork(engine: Engine, number: int, answers: Any) -> None:
    try:
        for i in range(30):
            with engine.begin() as connection:
                connection.execute(insert(children), {"parent_id": 1, "name": f"{number} {i}"})
        answers.put(None)
    except BaseException as problem:
        answers.put(repr(problem))


def test_fork_with_an_open_pool(url: str) -> None:
    """Children get sockets and row numbers of their own; the parent's go on."""
    engine = database(url, poolclass=QueuePool, pool_size=2)
    connections = [engine.connect() for _ in range(2)]
    for connection in connections:
        connection.execute(select(children)).all()
    connections[1].close()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    running = [
        context.Process(target=_after_fork, args=(engine, number, answers)) for number in range(2)
    ]
    for process in running:
        process.start()
    for i in range(30):
        with engine.begin() as connection:
            connection.execute(insert(children), {"parent_id": 1, "name": f"parent {i}"})
    results = [answers.get() for _ in running]
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert results == [None] * 2
    assert len(connections[0].execute(select(children)).all()) == 90
    connections[0].close()
    sound(url)
    engine.dispose()


# ---------------------------------------------------------------- one member


def test_a_member_that_restarts() -> None:
    with etcd_server() as server:
        engine = database(server.url("restarts"))
        for how in (server.kill, server.stop):
            before = count_of(engine)
            with engine.connect() as connection:
                transaction(connection, f"{how.__name__}")
                how()
                server.start()
                connection.commit()
            assert done(engine) == before + 1
        sound(server.url("restarts"))
        engine.dispose()


def test_a_member_that_is_away_for_longer_than_patience() -> None:
    with etcd_server() as server:
        engine = database(server.url("away", patience=0.3))
        with engine.connect() as connection:
            transaction(connection, "x")
            server.stop()
            with pytest.raises(OperationalError, match="no answer from etcd") as failure:
                connection.commit()
            assert "not known" not in str(failure.value)
            server.start()
            connection.rollback()
            transaction(connection, "y")
            connection.commit()
        assert done(engine) == 1
        engine.dispose()


def test_a_frozen_member_gets_the_commit_once() -> None:
    with etcd_server() as server:
        engine = database(server.url("frozen", timeout=0.3))
        with engine.connect() as connection:
            transaction(connection, "x")
            with server.frozen():
                thaw = threading.Timer(1.0, os.kill, (server.pid, signal.SIGCONT))
                thaw.start()
                connection.commit()
                thaw.join()
        assert done(engine) == 1
        engine.dispose()


def test_a_user_with_a_password() -> None:
    with etcd_server() as server:
        for name, password in (("root", "r"), ("nova", "secret")):
            server.call("/v3/auth/user/add", name=name, password=password)
        server.call("/v3/auth/role/add", name="root")
        server.call("/v3/auth/user/grant", user="root", role="root")
        server.call("/v3/auth/enable")
        engine = database(server.url("own").replace("//", "//root:r@"))
        with engine.begin() as connection:
            transaction(connection, "x")
        assert done(engine) == 1
        engine.dispose()
        for user, said in (
            ("", "wants a user and a password"),
            ("root:wrong@", "refuses the user or password"),
            ("nova:secret@", "refuses this to the user"),
        ):
            other = create_engine(server.url("own").replace("//", f"//{user}"))
            with pytest.raises(OperationalError, match=said) as failure, other.connect() as c:
                c.execute(select(parents))
            assert "secret" not in str(failure.value)
            other.dispose()


# ---------------------------------------------------------------- several members


def writers(url: str, stop: threading.Event, acknowledged: list[int], count: int = 3) -> Any:
    """Threads that add 1 to a row, and note how often that was acknowledged or isn't known."""

    def write(number: int) -> None:
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            while not stop.is_set():
                try:
                    transaction(connection, f"w{number}-{time.monotonic_ns()}")
                    connection.commit()
                    acknowledged[0] += 1
                except OperationalError as error:
                    if isinstance(error.orig, errors.OutcomeUnknown):
                        acknowledged[1] += 1
                    connection.rollback()
                time.sleep(0.005)
        engine.dispose()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("reads", ["linearizable", "local"])
@pytest.mark.parametrize("fault", ["leader killed", "leader frozen", "follower killed"])
def test_a_member_fails_under_load(cluster: EtcdCluster, fault: str, reads: str) -> None:
    """No commit that was acknowledged is lost, none is done twice, none in parts."""
    name = f"load-{fault.replace(' ', '-')}-{reads}"
    leader = cluster.leader()
    victim = leader
    if fault.startswith("follower"):
        victim = next(member for member in cluster.members if member is not leader)
    # The victim is the one that is asked first.
    url = cluster.url(name, cluster.members.index(victim), timeout=2, reads=reads, patience=30)
    engine = database(url)
    stop, acknowledged = threading.Event(), [0, 0]
    threads = writers(url, stop, acknowledged)
    try:
        assert wait_until(lambda: acknowledged[0] > 10)
        if fault.endswith("frozen"):
            with victim.frozen():
                at_the_fault = acknowledged[0]
                assert wait_until(lambda: acknowledged[0] > at_the_fault + 10)
        else:
            victim.kill()
            at_the_fault = acknowledged[0]
            assert wait_until(lambda: acknowledged[0] > at_the_fault + 10)
            victim.start()
        healed = acknowledged[0]
        assert wait_until(lambda: acknowledged[0] > healed + 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        if victim._process is None:
            victim.start()
    exact = create_engine(cluster.url(name))
    count = done(exact)
    assert acknowledged[0] <= count <= sum(acknowledged)
    sound(cluster.url(name))
    exact.dispose()
    engine.dispose()


def test_without_a_majority(cluster: EtcdCluster) -> None:
    """Nothing is written; reads from the own member go on, if that was asked for."""
    alive, *others = cluster.members
    options: dict[str, Any] = {"patience": 1, "timeout": 2}
    engine = database(cluster.url("minority", **options))
    local = create_engine(alive.url("minority", reads="local", **options))

    def read(connection: Connection) -> int:
        n: int = connection.scalars(select(parents.c.n).where(parents.c.id == 1)).one()
        return n

    try:
        with engine.connect() as connection, local.connect() as near:
            assert read(near) == 0
            near.rollback()
            transaction(connection, "x")
            for member in others:
                member.kill()
            assert read(near) == 0
            with pytest.raises(OperationalError, match="no answer from etcd"):
                connection.commit()
    finally:
        for member in others:
            member.launch()
        for member in cluster.members:
            member.wait()
    assert done(engine) in (0, 1)  # it may have been accepted, and done with the others' help
    engine.dispose()
    local.dispose()


def test_a_process_sees_its_own_commits_by_local_reads(cluster: EtcdCluster) -> None:
    """Also where it has committed through another member, and its own one is behind."""
    leader = cluster.leader()
    near = next(member for member in cluster.members if member is not leader)
    place = cluster.members.index(near)
    engine = database(cluster.url("own", place, reads="local", timeout=0.5, patience=30))
    with engine.connect() as connection:
        for number in range(1, 4):
            with near.frozen():
                connection.execute(
                    update(parents).where(parents.c.id == 1).values(n=parents.c.n + 1)
                )
                connection.commit()
            driver: Any = connection.connection.dbapi_connection
            driver.store._wire.server.hints.place = 0  # back to the one that was frozen
            driver.store._wire.close()
            assert connection.scalar(select(parents.c.n).where(parents.c.id == 1)) == number
            connection.rollback()
    engine.dispose()
