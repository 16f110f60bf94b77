"""Databases for tests: in memory, in a Redis server and in an etcd member of the run's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine

from tests.etcd_servers import EtcdServer
from tests.etcd_servers import etcd_server as running_member
from tests.servers import RedisServer
from tests.servers import redis_server as running_server

# SQLAlchemy's suite has a configuration of its own: test_compliance.py runs it.
collect_ignore = ["compliance"]

_quiet = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
# The same examples in each run; ROME_TESTS=night looks for new ones, for about an hour.
settings.register_profile("usual", _quiet, max_examples=140, derandomize=True)
settings.register_profile("night", _quiet, max_examples=6000)
settings.load_profile(os.environ.get("ROME_TESTS", "usual"))

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server for the whole run."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """An etcd cluster of one member for the whole run."""
    with running_member() as server:
        yield server


@pytest.fixture(params=["memory", "redis", "etcd"])
def new_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes URLs of databases that nobody has used yet."""
    if request.param == "memory":
        return lambda: f"rome+memory:///test{next(_numbers)}"
    server: RedisServer | EtcdServer = request.getfixturevalue(f"{request.param}_server")
    return lambda: server.url(f"test{next(_numbers)}")


@pytest.fixture
def engine(new_url: Callable[[], str]) -> Iterator[Engine]:
    """An empty database."""
    made = create_engine(new_url())
    yield made
    made.dispose()
