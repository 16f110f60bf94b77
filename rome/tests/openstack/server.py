"""A Redis server or an etcd member for one run: on ports and in a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from tests.etcd_servers import etcd_server
from tests.openstack.environment import Failed
from tests.servers import CannotStart

START_TIMEOUT_S = 20
STORES = ("redis", "etcd")
ETCD_OPERATIONS = 512


@contextlib.contextmanager
def own_url(store: str, database: str) -> Iterator[str]:
    """The URL of a database in a new, empty server of a store; ends the server at the end."""
    if store == "redis":
        with redis_server() as port:
            yield f"rome+redis://127.0.0.1:{port}/{database}"
        return
    try:
        # Each engine gets a database of its own, and nobody removes it.  What refers to Neutron's
        # ports is in more tables than etcd compares in one transaction unless it is told to.
        with etcd_server(
            quota_backend_bytes=str(8 * 2**30), max_txn_ops=str(ETCD_OPERATIONS)
        ) as member:
            yield member.url(database, txn_ops=ETCD_OPERATIONS)
    except CannotStart as error:
        raise Failed(f"etcd doesn't start: {error}") from error


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """The port of a new, empty server on the loopback interface; ends it at the end."""
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("there is no redis-server: install Redis, or give --url")
    with tempfile.TemporaryDirectory(prefix="rome-redis-") as folder:
        port = _free_port()
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder,
             "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait(server, port)
            yield port
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as it:
            it.sendall(b"PING\r\n")
            if it.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    raise Failed(f"redis-server didn't answer on port {port} within {START_TIMEOUT_S} s")
