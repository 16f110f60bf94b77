"""Real Redis servers become one cluster, and are what was planned again after masters died."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.onhost import redis_cluster
from discovery_xp.onhost.process import Failure
from discovery_xp.onhost.redis_client import Connection, RedisError
from discovery_xp.planning.databases import key_slot, slot_ranges
from tests.waiting import wait_until

HOSTS = ("a", "b", "c")
PASSWORD = "secret"
BUS_OFFSET = 10_000  # Redis': where the nodes of a cluster talk to each other


class Server:
    """A Redis server that keeps its port and, unless it is wiped, its data."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        settings = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "",
            "logfile": "log", "appendonly": "yes", "requirepass": PASSWORD, "masterauth": PASSWORD,
            "repl-diskless-sync-delay": "0", "cluster-enabled": "yes",
            "cluster-node-timeout": "1500",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(["redis-server", *words])
        until(lambda: self.ask("PING") == "PONG")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def wipe(self) -> None:
        shutil.rmtree(self.folder)

    def ask(self, *words: object) -> Any:
        connection = Connection("127.0.0.1", self.port, PASSWORD)
        try:
            return connection.ask(*words)
        finally:
            connection.close()

    @property
    def role(self) -> str:
        return str(self.ask("ROLE")[0])


def until(holds: Callable[[], bool]) -> None:
    """Wait for an answer, also of a server that doesn't listen yet."""
    wait_until(holds, despite=(OSError, RedisError))


def free_ports(count: int) -> list[int]:
    """Return ports that are free, with those of the cluster's own bus."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        try:
            for each in (port, port + BUS_OFFSET):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


class Servers:
    """A master on each host and, with `replicas`, a replica of the next host's beside it."""

    def __init__(self, folder: Path, replicas: int) -> None:
        count = len(HOSTS) * (1 + replicas)
        self.all = [Server(folder / str(port), port) for port in free_ports(count)]
        self.masters, self.replicas = self.all[: len(HOSTS)], self.all[len(HOSTS) :]
        self.nodes: list[dict[str, Any]] = []
        for place, (host, slots) in enumerate(zip(HOSTS, slot_ranges(len(HOSTS)), strict=True)):
            self._add(host, self.masters[place], slots=list(slots))
        for place, server in enumerate(self.replicas):
            self._add(HOSTS[(place + 1) % len(HOSTS)], server, copies=HOSTS[place])

    def _add(self, host: str, server: Server, **more: Any) -> None:
        node = {"host": host, "address": "127.0.0.1", "port": server.port}
        self.nodes.append({**node, "slots": None, "copies": None, **more})

    def ensure(self) -> list[str]:
        """Have them be the cluster that is wanted; returns what was changed."""
        done = redis_cluster.ensure({"nodes": self.nodes, "password": PASSWORD, "timeout_s": 90})
        assert done["changed"] is bool(done["changes"])
        return list(done["changes"])

    def as_planned(self) -> bool:
        """Tell whether each has the part that it is to have."""
        for server, node in zip(self.all, self.nodes, strict=True):
            role = server.ask("ROLE")
            if node["copies"]:
                port = self.masters[HOSTS.index(node["copies"])].port
                if role[:3] != ["slave", "127.0.0.1", port]:
                    return False
            elif role[0] != "master":
                return False
        return True


def on_first(name: str) -> str:
    """A key whose slot is the first master's."""
    tags = (f"{name}{number}" for number in range(1000))
    return next(f"{{{tag}}}" for tag in tags if key_slot(tag) <= slot_ranges(len(HOSTS))[0][1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    yield from started(Servers(tmp_path_factory.mktemp("redis"), 1))


@pytest.fixture
def without_copies(tmp_path: Path) -> Iterator[Servers]:
    yield from started(Servers(tmp_path, 0))


def started(made: Servers) -> Iterator[Servers]:
    try:
        for server in made.all:
            server.start()
        yield made
    finally:
        for server in made.all:
            server.kill()


def test_servers_become_a_cluster_that_is_left_alone_then(servers: Servers) -> None:
    assert servers.ensure()
    assert servers.as_planned()
    assert servers.ensure() == []


def test_a_master_gets_its_place_again_from_who_stood_in_for_it(servers: Servers) -> None:
    master, replica = servers.masters[0], servers.replicas[0]
    before, meanwhile = on_first("before"), on_first("meanwhile")
    master.ask("SET", before, "1")
    until(lambda: master.ask("WAIT", 1, 1000) == 1)
    master.kill()
    until(lambda: replica.role == "master")
    until(lambda: replica.ask("SET", meanwhile, "2") == "OK")
    master.start()
    assert f"a:{master.port} is a master again" in servers.ensure()
    assert servers.as_planned()
    assert [master.ask("GET", key) for key in (before, meanwhile)] == ["1", "2"]
    assert servers.ensure() == []


def test_a_master_that_lost_its_disk_gets_a_copy(servers: Servers) -> None:
    master, replica = servers.masters[0], servers.replicas[0]
    key = on_first("kept")
    master.ask("SET", key, "3")
    until(lambda: master.ask("WAIT", 1, 1000) == 1)
    master.kill()
    until(lambda: replica.role == "master")
    master.wipe()
    master.start()
    assert f"a:{master.port} is a master again" in servers.ensure()
    assert servers.as_planned()
    assert master.ask("GET", key) == "3"
    assert servers.ensure() == []


def test_a_replica_that_lost_its_disk_copies_again(servers: Servers) -> None:
    replica = servers.replicas[1]
    replica.kill()
    replica.wipe()
    replica.start()
    assert f"c:{replica.port} copies b" in servers.ensure()
    assert servers.as_planned()
    assert servers.ensure() == []


def test_a_wrong_password_is_a_line_with_host_and_remedy(servers: Servers) -> None:
    server = servers.masters[1]
    connection = Connection("127.0.0.1", server.port, PASSWORD)
    connection.ask("CONFIG", "SET", "requirepass", "another")
    with pytest.raises(Failure) as caught:
        servers.ensure()
    connection.ask("CONFIG", "SET", "requirepass", PASSWORD)
    connection.close()
    assert f"Redis on b:{server.port} refuses its administrator's password" in str(caught.value)
    assert "restart Redis there" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_without_copies_a_master_comes_back_with_its_data_or_not_at_all(
    without_copies: Servers,
) -> None:
    without_copies.ensure()
    master, key = without_copies.masters[0], on_first("alone")
    master.ask("SET", key, "4")
    master.kill()
    master.start()
    assert without_copies.ensure() == []
    assert master.ask("GET", key) == "4"
    master.kill()
    master.wipe()
    master.start()
    with pytest.raises(Failure, match="Redis on a began with an empty disk, and nobody else has"):
        without_copies.ensure()


def test_a_cluster_that_is_laid_out_otherwise_is_refused(without_copies: Servers) -> None:
    without_copies.ensure()
    stranger = without_copies.nodes.pop()
    with pytest.raises(Failure, match=rf"127.0.0.1:{stranger['port']}, which aren't wanted"):
        without_copies.ensure()
