"""NATS servers for tests, and clients and workers on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import Clients
from tests.servers import NatsServer, Sites, hub_and_leaves, nats_server


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server of a test's own, which it may kill."""
    with nats_server() as own:
        yield own


@pytest.fixture
def sites() -> Iterator[Sites]:
    """A hub, and a leaf node at each of two sites."""
    with hub_and_leaves() as own:
        yield own


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Makes sessions and workers, and ends them."""
    made = Clients()
    yield made
    made.close()
