"""Unit tests decide and compare values: one that opens a socket fails."""

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio wants a pair of its own
    yield
    enable_socket()
