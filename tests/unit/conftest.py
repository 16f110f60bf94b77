"""Unit tests decide and compare values: one that opens a socket fails."""

import discovery_xp.testbeds.ansible_runs  # noqa: F401, I001 (it sets how Ansible is loaded)
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import disable_socket, enable_socket

from tests.unit.dummy_life import Life, begin_life

# What a test says depends on no clock, and a run says the same as the one before.
settings.register_profile(
    "unit",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def no_sockets() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio wants a pair of its own
    yield
    enable_socket()


@pytest.fixture
def life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, request: pytest.FixtureRequest
) -> Iterator[Life]:
    yield from begin_life(tmp_path, monkeypatch, capsys, "shown" in request.node.name)
