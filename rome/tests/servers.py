"""Redis servers and Redis Clusters for tests, each on free ports with a folder of its own."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import redis

_WAIT_S = 60


class CannotStart(Exception):
    """A server is missing or doesn't come up."""


class RedisServer:
    """One redis-server: `start`, `stop`, `kill` as often as one likes; it keeps its port.

    `settings` are redis-server's own: `RedisServer(appendonly="yes", maxmemory="20mb")`.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rome-test-redis-"))
        self.port = free_port()
        self.host = "127.0.0.1"
        self.prefix: list[str] = []  # of the command that starts it
        self.settings = {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise CannotStart("the server isn't running")
        return self._process.pid

    @property
    def tls(self) -> bool:
        """Whether it speaks nothing but TLS: with a `tls_cert_file`."""
        return "tls-cert-file" in self.settings

    @property
    def password(self) -> str | None:
        """What `requirepass` says."""
        return self.settings.get("requirepass")

    def start(self) -> None:
        """Start it, and wait until it has loaded its data."""
        for _ in range(5):
            if self._start_once():
                return
            # Somebody took the port meanwhile.
            self.port = free_port()
        raise CannotStart((self.folder / "log").read_text()[-500:])

    def _start_once(self) -> bool:
        ports = {"port": str(self.port)}
        if self.tls:
            ports = {"port": "0", "tls-port": str(self.port)}
        settings = {
            **ports,
            "bind": self.host,
            "dir": str(self.folder),
            "save": "",
            **self.settings,
        }
        command = [*self.prefix, program("redis-server")]
        for name, value in settings.items():
            command += [f"--{name}", value]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return wait_until(lambda: self._process_ended() or self.answers()) and (
            not self._process_ended()
        )

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            with contextlib.closing(self.client()) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except (redis.RedisError, OSError):
            return False

    def client(self) -> redis.Redis:
        """A client of its own for looking into it."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            socket_timeout=30,
            ssl=self.tls,
            ssl_ca_certs=self.settings.get("tls-ca-cert-file"),
            ssl_certfile=self.settings.get("tls-cert-file"),
            ssl_keyfile=self.settings.get("tls-key-file"),
            ssl_check_hostname=False,
        )

    def url(self, database: str = "test", **options: str | float) -> str:
        """Of a database in it."""
        user = f":{self.password}@" if self.password else ""
        query = f"?{urlencode(options)}" if options else ""
        scheme = "rome+rediss" if self.tls else "rome+redis"
        return f"{scheme}://{user}{self.host}:{self.port}/{database}{query}"

    def stop(self) -> None:
        """End it; what it keeps on disk stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisCluster:
    """Three masters and as many replicas for each as wanted."""

    def __init__(self, replicas: int = 0, node_timeout_ms: int = 1000) -> None:
        settings = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": str(node_timeout_ms),
            "appendonly": "no",
            "repl_diskless_sync_delay": "0",
        }
        self._replicas = replicas
        self.nodes = [RedisServer(**settings) for _ in range(3 * (1 + replicas))]

    def start(self) -> None:
        """Start all nodes and wait until the cluster serves and its replicas follow."""
        for node in self.nodes:
            node.start()
        command = [program("redis-cli"), "--cluster", "create"]
        command += [f"{node.host}:{node.port}" for node in self.nodes]
        command += ["--cluster-replicas", str(self._replicas), "--cluster-yes"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise CannotStart(f"redis-cli --cluster create: {(made.stdout + made.stderr)[-500:]}")
        if not wait_until(lambda: all(self.serves(node) for node in self.nodes)):
            raise CannotStart("the cluster doesn't come up")

    def serves(self, node: RedisServer) -> bool:
        with contextlib.closing(node.client()) as client:
            state = ask(client, "CLUSTER INFO")
            role = client.info("replication")
            known = ask(client, "CLUSTER NODES")
        ok = state.get("cluster_state") == "ok" and len(known) == len(self.nodes)
        return ok and (role["role"] == "master" or role.get("master_link_status") == "up")

    def owner(self, tag: str, among: list[RedisServer] | None = None) -> RedisServer:
        """The master that has the keys with this hash tag, as a running node says."""
        node = (among or self.nodes)[0]
        with contextlib.closing(node.client()) as client:
            slot = ask(client, "CLUSTER KEYSLOT", f"{{{tag}}}")
            for first, last, (_, port, *_), *_ in ask(client, "CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(n for n in self.nodes if n.port == port)
        raise CannotStart(f"nobody has slot {slot}")

    def url(self, database: str = "test", **options: str | float) -> str:
        """Of a database in it, with all nodes as seeds."""
        hosts = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        query = f"?{urlencode(options)}" if options else ""
        return f"rome+redis://[{hosts}]/{database}{query}"

    def remove(self) -> None:
        """End all nodes and remove their folders."""
        for node in self.nodes:
            node.remove()


class _Removable(Protocol):
    def start(self) -> None: ...
    def remove(self) -> None: ...


_Server = TypeVar("_Server", bound=_Removable)


@contextlib.contextmanager
def running(server: _Server) -> Iterator[_Server]:
    """A server or cluster that is started, and removed at the end."""
    try:
        server.start()
        yield server
    finally:
        server.remove()


def redis_server(**settings: str) -> AbstractContextManager[RedisServer]:
    """A running server, removed at the end."""
    return running(RedisServer(**settings))


def redis_cluster(
    replicas: int = 0, node_timeout_ms: int = 1000
) -> AbstractContextManager[RedisCluster]:
    """A running cluster, removed at the end."""
    return running(RedisCluster(replicas, node_timeout_ms))


def ask(client: redis.Redis, *command: str | bytes | int) -> Any:
    """A command that redis-py has no typed method for."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def free_port() -> int:
    """A port that nobody uses, nor the one that a cluster's bus takes with it."""
    while True:
        port = random.randrange(20000, 32000)
        if _is_free(port) and _is_free(port + 10000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(condition: Callable[[], bool], seconds: float = _WAIT_S) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def program(name: str) -> str:
    """Where a program is."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        raise CannotStart(f"{name} is not installed")
    return found
