"""Make one Redis Cluster of servers that run in cluster mode, each with its share of the slots.

What is there is looked at first, so a run that is killed meanwhile is made good by the next
one; `redis-cli --cluster create` wants empty nodes instead.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from .process import Failure, changed

SLOTS = 16384


class RedisError(Exception):
    """What a server answers with in place of a result."""


class Connection:
    """The least of a client: a command, its answer."""

    def __init__(self, address: str, port: int, password: str) -> None:
        self.socket = socket.create_connection((address, port), timeout=10)
        self.file: BinaryIO = self.socket.makefile("rb")
        self.ask("AUTH", password)

    def ask(self, *words: object) -> Any:
        """Return a server's answer: text, a number, a list or None; raises RedisError."""
        parts = [str(word).encode() for word in words]
        sent = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n%s" % (len(parts), sent))
        return self.read()

    def read(self) -> Any:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the connection was closed")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise RedisError(rest)
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self.file.read(size + 2)[:-2].decode()
        return [self.read() for _ in range(size)]


def read_nodes(text: str) -> dict[str, dict[str, Any]]:
    """Return what CLUSTER NODES says, by id; `slots` holds those that are a master's own."""
    nodes: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 8:
            continue
        slots: set[int] = set()
        for word in words[8:]:
            if not word.startswith("["):  # those in brackets are on their way
                first, _, last = word.partition("-")
                slots |= set(range(int(first), int(last or first) + 1))
        flags = set(words[2].split(","))
        nodes[words[0]] = {
            "place": words[1].split("@")[0].split(",")[0],
            "flags": flags,
            "master": None if words[3] == "-" else words[3],
            "slots": slots,
        }
    return nodes


class Cluster:
    """The wanted nodes, and what each says."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.nodes: list[dict[str, Any]] = self.args["nodes"]
        self.deadline = time.monotonic() + self.args["timeout_s"]
        self.changes: list[str] = []
        self.connections: list[Connection] = []
        self.ids: list[str] = []

    def run(self) -> None:
        """Connect, assign slots, have the nodes meet, copy; each is done where it lacks."""
        for node in self.nodes:
            self.connections.append(self.wait(functools.partial(self.connect, node)))
        self.ids = [connection.ask("CLUSTER", "MYID") for connection in self.connections]
        self.refuse_strangers()
        self.assign_slots()
        self.meet()
        self.wait(self.disagreement, until=lambda words: not words)
        self.copy()
        self.wait(self.disagreement_of_copies, until=lambda words: not words)

    # ------------------------------------------------------------ steps

    def connect(self, node: Mapping[str, Any]) -> Connection:
        return Connection(node["address"], int(node["port"]), self.args["password"])

    def view(self, index: int) -> dict[str, dict[str, Any]]:
        """Return the cluster as a node sees it."""
        return read_nodes(self.connections[index].ask("CLUSTER", "NODES"))

    def refuse_strangers(self) -> None:
        """Refuse nodes of another cluster, or of one laid out otherwise: they hold data of it."""
        for index, node in enumerate(self.nodes):
            strangers = {
                seen["place"]
                for name, seen in self.view(index).items()
                if name not in self.ids and "handshake" not in seen["flags"]
            }
            if strangers:
                raise Failure(
                    f"Redis on {node['host']} is in a cluster with {', '.join(sorted(strangers))}, "
                    "which aren't wanted: 'destroy --cloud-only', then deploy again"
                )

    def assign_slots(self) -> None:
        """Give each master its slots; a slot that one of them has already stays there."""
        assigned: set[int] = set()
        for index in range(len(self.nodes)):
            for seen in self.view(index).values():
                assigned |= seen["slots"]
        for index, node in enumerate(self.nodes):
            if not node.get("slots"):
                continue
            first, last = node["slots"]
            if assigned.isdisjoint(range(first, last + 1)):
                with contextlib.suppress(RedisError):  # it knows others, and has an epoch
                    self.connections[index].ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                self.connections[index].ask("CLUSTER", "ADDSLOTSRANGE", first, last)
                self.changes.append(f"slots {first}-{last} on {node['host']}")

    def meet(self) -> None:
        """Tell the first one of all others; they tell each other the rest."""
        members = self.view(0)
        for index, node in enumerate(self.nodes[1:], start=1):
            if self.ids[index] not in members:
                self.connections[0].ask("CLUSTER", "MEET", node["address"], node["port"])
                self.changes.append(f"{node['host']}:{node['port']} in the cluster")

    def copy(self) -> None:
        """Have replicas that still call themselves masters copy theirs."""
        masters = {
            node["host"]: self.ids[index]
            for index, node in enumerate(self.nodes)
            if node.get("slots")
        }
        for index, node in enumerate(self.nodes):
            seen = self.view(index)[self.ids[index]]
            if node.get("copies") and "master" in seen["flags"] and not seen["slots"]:
                self.connections[index].ask("CLUSTER", "REPLICATE", masters[node["copies"]])
                self.changes.append(f"{node['host']}:{node['port']} copies {node['copies']}")

    # ------------------------------------------------------------ waiting

    def disagreement(self) -> str:
        """Return what keeps the nodes from being one cluster; nothing once they are."""
        for index, node in enumerate(self.nodes):
            view = self.view(index)
            missing = set(self.ids) - view.keys()
            if missing:
                return f"{node['host']} knows {len(view)} of {len(self.nodes)} nodes"
            if any({"handshake", "fail", "fail?"} & seen["flags"] for seen in view.values()):
                return f"{node['host']} can't reach all others"
            held = sum(len(seen["slots"]) for seen in view.values())
            if held != SLOTS:
                return f"{node['host']} knows who holds {held} of {SLOTS} slots"
            if "cluster_state:ok" not in self.connections[index].ask("CLUSTER", "INFO"):
                return f"{node['host']} says that the cluster isn't well"
        return ""

    def disagreement_of_copies(self) -> str:
        """Return what keeps them from being one cluster whose replicas have their copies."""
        for index, node in enumerate(self.nodes):
            if "slave" in self.view(index)[self.ids[index]]["flags"]:
                answer = self.connections[index].ask("INFO", "replication")
                if "master_link_status:up" not in answer:
                    return f"{node['host']}:{node['port']} has no copy yet"
        return self.disagreement()

    def wait(self, poll: Callable[[], Any], until: Callable[[Any], bool] = bool) -> Any:
        """Return what `poll` gives once that is good; raises Failure with its last words."""
        while True:
            try:
                result = poll()
                if until(result):
                    return result
                words = str(result)
            except OSError as error:
                words = str(error)
            if time.monotonic() > self.deadline:
                raise Failure(f"no cluster within {self.args['timeout_s']} s: {words}")
            time.sleep(0.2)


def ensure(args: Mapping[str, Any]) -> dict[str, Any]:
    """Make the nodes one cluster; `args` are the options of Ansible's module `redis_cluster`."""
    cluster = Cluster(args)
    try:
        cluster.run()
    except (Failure, RedisError, OSError) as error:
        raise Failure(str(error), changes=cluster.changes) from None
    return changed(cluster.changes)
