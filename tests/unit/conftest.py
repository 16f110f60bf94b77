"""Unit tests decide and compare values: one that opens a socket fails."""

import discovery_xp.ansible_runs  # noqa: F401, I001 (it sets how Ansible is loaded)
import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio wants a pair of its own
    yield
    enable_socket()
