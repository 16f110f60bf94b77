"""A Redis Cluster whose nodes are in network namespaces, so that they can be cut off.

Each node has an address of its own behind a bridge, on which the clients are.  A node is cut off
from others by routes that drop what is for them, at both ends: connections hang, as in a real
network, and aren't closed.  Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator

from tests.servers import CannotStart, RedisCluster, RedisServer, program

_networks = itertools.count()
_FIRST_PORT = 7001


class NamespacedServer(RedisServer):
    """A Redis server in a network namespace of its own."""

    def __init__(self, network: Network, number: int, **settings: str) -> None:
        super().__init__(**settings, protected_mode="no")
        self.network = network
        self.host = network.address(number)
        self.port = _FIRST_PORT + number
        self.namespace = f"{network.name}-{number}"
        self.cable = f"{network.name}v{number}"  # the bridge's end of it
        self.prefix = [program("ip"), "netns", "exec", self.namespace]

    def cut_off_from(self, others: list[NamespacedServer], cut: bool) -> None:
        """Drop all that it and these nodes send each other, or let it through again."""
        for other in others:
            for one, two in ((self, other), (other, self)):
                self.network.route(one.namespace, two.host, cut)

    def unplug(self, cut: bool) -> None:
        """Cut it off from all others and from the clients, or plug it in again."""
        _ip("link", "set", self.cable, "down" if cut else "up")


class Network:
    """A bridge with namespaces."""

    def __init__(self, count: int) -> None:
        number = os.getpid() * 7 + next(_networks)
        self.name = f"rm{number % 1000000}"
        self._subnet = f"198.{18 + number // 250 % 2}.{number % 250}"
        self._count = count

    def address(self, number: int) -> str:
        """Of a node, from 0 on."""
        return f"{self._subnet}.{number + 2}"

    def route(self, namespace: str, host: str, cut: bool) -> None:
        """Drop what a namespace sends to a host, or don't."""
        word = "replace" if cut else "del"
        _ip("-n", namespace, "route", word, "blackhole", f"{host}/32")

    def make(self) -> None:
        """Make the bridge and the namespaces."""
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self._subnet}.1/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for number in range(self._count):
            namespace, end = f"{self.name}-{number}", f"{self.name}v{number}"
            _ip("netns", "add", namespace)
            inner = ["peer", "name", "eth0", "netns", namespace]
            _ip("link", "add", end, "type", "veth", *inner)
            _ip("link", "set", end, "master", self.name, "up")
            _ip("-n", namespace, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", link, "up")

    def remove(self) -> None:
        """Remove them; what isn't there is no error."""
        for number in range(self._count):
            with contextlib.suppress(CannotStart):
                _ip("netns", "del", f"{self.name}-{number}")
            with contextlib.suppress(CannotStart):
                _ip("link", "del", f"{self.name}v{number}")
        with contextlib.suppress(CannotStart):
            _ip("link", "del", self.name)


class NamespacedCluster(RedisCluster):
    """Three masters and their replicas, each node in a namespace."""

    def __init__(self, replicas: int, node_timeout_ms: int) -> None:
        super().__init__(replicas, node_timeout_ms)
        settings = self.nodes[0].settings
        self.network = Network(len(self.nodes))
        self.places = [
            NamespacedServer(self.network, number, **settings) for number in range(len(self.nodes))
        ]
        for node in self.nodes:
            node.remove()
        self.nodes = [*self.places]

    def start(self) -> None:
        """Make the network, and start all nodes."""
        self.network.make()
        super().start()

    def remove(self) -> None:
        """End all nodes, and remove the network."""
        super().remove()
        self.network.remove()


@contextlib.contextmanager
def namespaced_cluster(replicas: int, node_timeout_ms: int) -> Iterator[NamespacedCluster]:
    """A running cluster, removed at the end."""
    cluster = NamespacedCluster(replicas, node_timeout_ms)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run([program("ip"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotStart(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
