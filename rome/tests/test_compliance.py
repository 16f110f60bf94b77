"""SQLAlchemy's own suite for dialects passes; compliance/ says what it leaves out, and why."""

from __future__ import annotations

import pytest

from tests.compliance.runner import run
from tests.etcd_servers import EtcdServer
from tests.servers import RedisServer

# Fewer can't be: a run that is cut short, or skips what it shouldn't, is none.
PASSED = 1040


def test_in_redis(redis_server: RedisServer) -> None:
    outcome = run(redis_server.url("compliance"))
    assert outcome.failed == 0, outcome.output
    assert outcome.passed >= PASSED, outcome.output


@pytest.mark.long
def test_in_etcd(etcd_server: EtcdServer) -> None:
    outcome = run(etcd_server.url("compliance"))
    assert outcome.failed == 0, outcome.output
    assert outcome.passed >= PASSED, outcome.output


@pytest.mark.long
def test_in_memory() -> None:
    outcome = run("rome+memory:///compliance")
    assert outcome.failed == 0, outcome.output
    assert outcome.passed >= PASSED, outcome.output
