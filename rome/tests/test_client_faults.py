"""What clients leave in either store when they or connections fail: all of a commit or nothing."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rome.admin.check import check
from rome.admin.entries import check_entries
from rome.schema.catalogue import Catalogue
from rome.stores.redis.store import RedisStore
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from tests.cutting_proxy import AFTER, BEFORE, HALF, HALF_ANSWER, IN_ETCD, POINTS, CuttingProxy
from tests.etcd_servers import EtcdServer
from tests.processes import new_processes
from tests.servers import RedisServer, wait_until
from tests.transactions import (
    database,
    done,
    is_beyond,
    many_transactions,
    one_transaction,
    transaction,
)


@pytest.fixture(params=["redis", "etcd"])
def server(request: pytest.FixtureRequest) -> RedisServer | EtcdServer:
    """A server of each store."""
    found: RedisServer | EtcdServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def url(server: RedisServer | EtcdServer, request: pytest.FixtureRequest) -> str:
    """Of a database of the test's own."""
    return server.url("".join(c if c.isalnum() else "-" for c in request.node.name))


@pytest.fixture
def proxy(server: RedisServer | EtcdServer) -> Iterator[CuttingProxy]:
    """Before the server."""
    is_etcd = isinstance(server, EtcdServer)
    made = CuttingProxy(server.port, IN_ETCD, "etcd") if is_etcd else CuttingProxy(server.port)
    yield made
    made.close()


def sound(url: str) -> None:
    """Every index entry fits the rows."""
    parsed = make_url(url)
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    store = arguments["store"]()
    find = check if isinstance(store, RedisStore) else check_entries
    assert [finding.text for finding in find(store, Catalogue())] == []
    store.close()


# ---------------------------------------------------------------- lost connections


@pytest.mark.parametrize("point", POINTS)
def test_commit_whose_connection_breaks_is_done_once(
    url: str, proxy: CuttingProxy, point: str
) -> None:
    direct = database(url)
    engine = create_engine(proxy.url(direct.url.database or ""))
    with engine.connect() as connection:
        transaction(connection, "first")
        proxy.cut_at(point)
        connection.commit()
        assert proxy.reached.is_set()
        assert proxy.commits == 2  # it was sent again
        assert done(direct) == 1
        transaction(connection, "second")  # the connection goes on
        connection.commit()
    assert done(direct) == 2
    sound(url)
    engine.dispose()
    direct.dispose()


def test_commit_is_done_once_although_its_rows_have_changed_since(
    url: str, proxy: CuttingProxy
) -> None:
    """The commit is known by its token, not by what the rows look like."""
    direct = database(url)
    engine = create_engine(proxy.url(direct.url.database or ""))

    def commit() -> None:
        with engine.begin() as connection:
            transaction(connection, "slow")

    proxy.hold_at(AFTER)
    other = threading.Thread(target=commit)
    other.start()
    assert proxy.reached.wait(60)
    with direct.begin() as connection:
        transaction(connection, "quick")
    proxy.release.set()
    other.join()
    assert proxy.commits >= 2
    assert done(direct) == 2
    sound(url)
    engine.dispose()
    direct.dispose()


def test_commit_without_an_answer_says_that_its_outcome_is_unknown(
    url: str, proxy: CuttingProxy
) -> None:
    direct = database(url)
    engine = create_engine(proxy.url(direct.url.database or "", "?patience=0.2"))
    with engine.connect() as connection:
        transaction(connection, "x")
        proxy.cut_at(AFTER)
        proxy.refuse()
        with pytest.raises(OperationalError, match="whether the commit was done is not known"):
            connection.commit()
    assert done(direct) == 1
    engine.dispose()
    direct.dispose()


# ---------------------------------------------------------------- killed clients


@pytest.mark.parametrize(
    ("point", "expected"), [(BEFORE, 0), (HALF, 0), (AFTER, 1), (HALF_ANSWER, 1)]
)
def test_client_killed_in_its_commit(
    url: str, proxy: CuttingProxy, point: str, expected: int
) -> None:
    direct = database(url)
    proxy.hold_at(point)
    child = new_processes().Process(
        target=one_transaction, args=(proxy.url(direct.url.database or ""),)
    )
    child.start()
    assert proxy.reached.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    proxy.release.set()
    assert done(direct) == expected
    sound(url)
    direct.dispose()


def test_clients_killed_at_any_time(url: str) -> None:
    direct = database(url)
    chance = random.Random(7)
    context = new_processes()
    before = 0
    for round_number in range(3):
        running = [
            context.Process(target=many_transactions, args=(url, 2 * round_number + i))
            for i in range(2)
        ]
        for process in running:
            process.start()
        assert wait_until(functools.partial(is_beyond, direct, before))
        for process in running:
            time.sleep(chance.random() * 0.05)
            os.kill(process.pid, signal.SIGKILL)
        for process in running:
            process.join()
            assert process.exitcode == -signal.SIGKILL
        before = done(direct)
        sound(url)
    assert before > 2
    direct.dispose()
