"""What happens to servers and clients while a history is made.

A fault is done several times in a run: it begins, is healed, and the next one waits until the
cluster is whole again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import redis

from tests.etcd_servers import EtcdCluster, EtcdServer
from tests.histories.namespaces import NamespacedCluster, NamespacedServer
from tests.servers import CannotStart, RedisCluster, RedisServer, ask, wait_until

Servers = RedisServer | RedisCluster | EtcdCluster
# The hash tag of the databases: which slot, and hence which master has them.
DATABASE = "fire"
# So long after a fault is healed, a failover is no longer expected (s).
_NO_FAILOVER_S = 1.0


@dataclass(slots=True)
class Event:
    """One fault: when it began and was healed (s, monotonic), and how long the cluster itself
    needed until another master had the database (None: it had no need to)."""

    began: float
    healed: float = 0.0
    failover_s: float | None = None


@dataclass(slots=True)
class Scene:
    """What a fault acts on."""

    servers: Servers
    kill_client: Callable[[], None]
    events: list[Event] = field(default_factory=list)

    @property
    def cluster(self) -> RedisCluster:
        """The servers, which have to be a cluster."""
        if not isinstance(self.servers, RedisCluster):
            raise CannotStart("this fault needs a cluster")
        return self.servers

    @property
    def server(self) -> RedisServer:
        """The servers, of which there has to be one."""
        if not isinstance(self.servers, RedisServer):
            raise CannotStart("this fault needs one server")
        return self.servers

    @property
    def members(self) -> EtcdCluster:
        """The servers, which have to be members of etcd."""
        if not isinstance(self.servers, EtcdCluster):
            raise CannotStart("this fault needs etcd")
        return self.servers

    def owner(self) -> RedisServer:
        """Return the master that has the database."""
        return self.cluster.owner(DATABASE)

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return a replica of a master."""
        for node in self.cluster.nodes:
            with contextlib.closing(node.client()) as client:
                info = client.info("replication")
            if info["role"] == "slave" and info["master_port"] == master.port:
                return node
        raise CannotStart("it has no replica")

    @contextlib.contextmanager
    def fault(self, old_master: RedisServer | None = None) -> Iterator[Event]:
        """Note when what stands inside began and ended, and how long the failover from this
        master took."""
        event = Event(time.monotonic())
        self.events.append(event)
        watch = None
        if old_master is not None:
            watch = threading.Thread(target=self._watch, args=(event, old_master), daemon=True)
            watch.start()
        yield event
        event.healed = time.monotonic()
        if watch is not None:
            watch.join()

    def _watch(self, event: Event, old_master: RedisServer) -> None:
        """Wait until another node says that it is the master which has the database."""
        clients = [
            (
                node.port,
                redis.Redis(
                    host=node.host, port=node.port, socket_timeout=0.3, socket_connect_timeout=0.3
                ),
            )
            for node in self.cluster.nodes
            if node is not old_master
        ]
        while event.failover_s is None:
            if event.healed and time.monotonic() - event.healed > _NO_FAILOVER_S:
                break
            for port, client in clients:
                with contextlib.suppress(redis.RedisError, OSError):
                    if _has_database(client, port):
                        event.failover_s = time.monotonic() - event.began
            time.sleep(0.02)
        for _, client in clients:
            client.close()

    def wait_until_whole(self) -> None:
        """Wait until all nodes serve and all replicas follow."""
        if isinstance(self.servers, RedisServer):
            if not wait_until(self.servers.answers):
                raise CannotStart("the server doesn't answer")
            return
        if isinstance(self.servers, EtcdCluster):
            for member in self.servers.members:
                member.wait()
            return
        if not wait_until(self._is_whole, 90):
            raise CannotStart("the cluster doesn't become whole again")

    def _is_whole(self) -> bool:
        nodes = self.cluster.nodes
        replicas = 0
        try:
            for node in nodes:
                if not self.cluster.serves(node):
                    return False
                with contextlib.closing(node.client()) as client:
                    replicas += client.info("replication")["role"] == "slave"
        except (redis.RedisError, OSError):
            return False
        return replicas == len(nodes) // 2


def _has_database(client: redis.Redis, port: int) -> bool:
    """Return whether the node on this port is a master and has the database's slot."""
    if ask(client, "ROLE")[0] != b"master":
        return False
    slot = ask(client, "CLUSTER KEYSLOT", DATABASE)
    return any(
        first <= slot <= last and node[1] == port
        for first, last, node, *_ in ask(client, "CLUSTER SLOTS")
    )


@contextlib.contextmanager
def frozen(server: RedisServer | EtcdServer) -> Iterator[None]:
    """Stop a server's process with SIGSTOP for a while."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def nothing(scene: Scene, seconds: float) -> None:
    """Do nothing."""
    time.sleep(seconds)


def kill_client(scene: Scene, seconds: float) -> None:
    """Kill one client process; another takes its place."""
    with scene.fault():
        scene.kill_client()
    time.sleep(seconds)


def kill_master(scene: Scene, seconds: float) -> None:
    """Kill the master; it comes back as a replica after the failover."""
    master = scene.owner()
    with scene.fault(master) as event:
        master.kill()
        wait_until(lambda: event.failover_s is not None)
        time.sleep(seconds)
        master.start()


def freeze_master(scene: Scene, seconds: float) -> None:
    """Freeze the master for a while."""
    master = scene.owner()
    with scene.fault(master), frozen(master):
        time.sleep(seconds)


def freeze_replica(scene: Scene, seconds: float) -> None:
    """Freeze the master's replica for a while."""
    with scene.fault(), frozen(scene.replica_of(scene.owner())):
        time.sleep(seconds)


def kill_master_with_lagging_replica(scene: Scene, seconds: float) -> None:
    """Freeze the replica, and kill the master before the replica has caught up."""
    master = scene.owner()
    with scene.fault(master) as event:
        with frozen(scene.replica_of(master)):
            time.sleep(seconds)
            event.began = time.monotonic()
            master.kill()
        wait_until(lambda: event.failover_s is not None)
        master.start()


def isolate_master(scene: Scene, seconds: float) -> None:
    """Cut the master off from the other nodes; clients still reach it."""
    master = scene.owner()
    if not isinstance(scene.cluster, NamespacedCluster) or not isinstance(master, NamespacedServer):
        raise CannotStart("this fault needs nodes in namespaces")
    others = [node for node in scene.cluster.places if node is not master]
    with scene.fault(master):
        master.cut_off_from(others, True)
        time.sleep(seconds)
        master.cut_off_from(others, False)


def unplug_master(scene: Scene, seconds: float) -> None:
    """Cut the master off from the other nodes and from the clients."""
    master = scene.owner()
    if not isinstance(master, NamespacedServer):
        raise CannotStart("this fault needs nodes in namespaces")
    with scene.fault(master):
        master.unplug(True)
        time.sleep(seconds)
        master.unplug(False)


def kill_server(scene: Scene, seconds: float) -> None:
    """Kill the only server, and start it again on what it has on disk."""
    with scene.fault():
        scene.server.kill()
        time.sleep(seconds)
        scene.server.start()


def freeze_server(scene: Scene, seconds: float) -> None:
    """Freeze the only server for a while."""
    with scene.fault(), frozen(scene.server):
        time.sleep(seconds)


def kill_leader(scene: Scene, seconds: float) -> None:
    """Kill etcd's leader; it comes back after another one was elected."""
    leader = scene.members.leader()
    with scene.fault() as event:
        leader.kill()
        scene.members.leader()
        event.failover_s = time.monotonic() - event.began
        time.sleep(seconds)
        leader.start()


def freeze_leader(scene: Scene, seconds: float) -> None:
    """Freeze etcd's leader for a while."""
    with scene.fault(), frozen(scene.members.leader()):
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, how long it lasts (s), what it needs, and whether a commit that was acknowledged
    with `wait=0` may be lost by it, as Redis replicates asynchronously.  stale: whether the old
    master goes on, and may answer reads before it knows that it was replaced.  etcd: members of an
    etcd cluster in place of Redis."""

    act: Callable[[Scene, float], None]
    seconds: float
    cluster: bool = True
    namespaces: bool = False
    may_lose: bool = False
    stale: bool = False
    disturbs: bool = True
    etcd: bool = False

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """Return what it needs: a cluster, namespaces, etcd."""
        return self.cluster, self.namespaces, self.etcd


FAULTS: dict[str, Fault] = {
    "none": Fault(nothing, 8, disturbs=False),
    "none, one server": Fault(nothing, 8, cluster=False, disturbs=False),
    "client killed": Fault(kill_client, 1, disturbs=False),
    "client killed, one server": Fault(kill_client, 1, cluster=False, disturbs=False),
    "server killed": Fault(kill_server, 1, cluster=False),
    "server frozen 10 s": Fault(freeze_server, 10, cluster=False),
    "master killed": Fault(kill_master, 1, may_lose=True),
    "master frozen 4 s": Fault(freeze_master, 4, may_lose=True, stale=True),
    "master frozen 10 s": Fault(freeze_master, 10, may_lose=True, stale=True),
    "master frozen 60 s": Fault(freeze_master, 60, may_lose=True, stale=True),
    "master cut off from nodes 10 s": Fault(
        isolate_master, 10, namespaces=True, may_lose=True, stale=True
    ),
    "master cut off from all 10 s": Fault(
        unplug_master, 10, namespaces=True, may_lose=True, stale=True
    ),
    "replica frozen 10 s": Fault(freeze_replica, 10),
    "replica frozen, master killed": Fault(kill_master_with_lagging_replica, 2, may_lose=True),
    "none, etcd": Fault(nothing, 8, disturbs=False, etcd=True),
    "etcd's leader killed": Fault(kill_leader, 1, etcd=True),
    "etcd's leader frozen 4 s": Fault(freeze_leader, 4, etcd=True),
}
