"""Make one Redis Cluster of servers that run in cluster mode, each with its share of the slots.

What is there is looked at first, so a run that is killed meanwhile is made good by the next
one; `redis-cli --cluster create` wants empty nodes instead.  So is a cluster after a failover:
masters whose place a replica took get it back, and a node that lost its disk gets a copy.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .process import Failure, changed
from .redis_client import Connection, RedisError, View, read_nodes

SLOTS = 16384
# A replica that wasn't elected tries again after so many node timeouts at the earliest, at least
# after 4 s; until then its master would stop writes in vain.
FAILOVER_AGAIN_TIMEOUTS, FAILOVER_AGAIN_S = 4, 4.0


class Cluster:
    """The wanted nodes, and what each says.

    A node of these has `slots`, which it is to hold as a master, or `copies`, the host of the
    master that it is to be a replica of.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.nodes: list[dict[str, Any]] = self.args["nodes"]
        self.deadline = time.monotonic() + self.args["timeout_s"]
        self.changes: list[str] = []
        self.connections: list[Connection] = []
        self.ids: list[str] = []

    def run(self) -> None:
        """Connect, assign slots, have the nodes meet, copy; each is done where it lacks.

        Last of all masters get their places back from replicas that stood in for them.
        """
        for node in self.nodes:
            self.connections.append(self.wait(functools.partial(self.connect, node)))
        self.ids = [connection.ask("CLUSTER", "MYID") for connection in self.connections]
        views = self.views()
        self.refuse_strangers(views)
        self.forget_lost(views)
        self.assign_slots(views)
        self.meet()
        self.wait(self.disagreement, until=_is_nothing)
        self.copy()
        self.wait(self.disagreement_of_copies, until=_is_nothing)
        self.hand_back()

    # ------------------------------------------------------------ steps

    def connect(self, node: Mapping[str, Any]) -> Connection:
        """Log in to a node; raises Failure where it refuses the password."""
        try:
            return Connection(node["address"], int(node["port"]), self.args["password"])
        except RedisError as error:
            if not str(error).startswith(("WRONGPASS", "NOAUTH", "ERR")):
                raise
            raise Failure(
                f"Redis on {_named(node)} refuses its administrator's password ({error}): it was "
                "changed while Redis ran; restart Redis there, whose file has the right one, "
                "then deploy again"
            ) from None

    def view(self, index: int) -> View:
        """Return the cluster as a node sees it."""
        return read_nodes(self.connections[index].ask("CLUSTER", "NODES"))

    def views(self) -> list[View]:
        """Return the cluster as each node sees it, in the order of the nodes."""
        return [self.view(index) for index in range(len(self.nodes))]

    def selves(self) -> list[dict[str, Any]]:
        """Return what each node says of itself, in the order of the nodes."""
        return [view[name] for view, name in zip(self.views(), self.ids, strict=True)]

    def others(self, views: Sequence[View]) -> View:
        """Return the nodes that aren't among the wanted ones, as the last that knows them says."""
        return {
            name: seen
            for view in views
            for name, seen in view.items()
            if name not in self.ids and "handshake" not in seen["flags"]
        }

    def refuse_strangers(self, views: Sequence[View]) -> None:
        """Refuse nodes of another cluster, or of one laid out otherwise: they hold data of it.

        What a wanted node was before it lost its disk is none: it had the node's place, and has
        none once the node itself answers there.
        """
        places = {f"{node['address']}:{node['port']}" for node in self.nodes}
        for view, node in zip(views, self.nodes, strict=True):
            strangers = {
                seen["place"]
                for seen in self.others([view]).values()
                if "noaddr" not in seen["flags"] and seen["place"] not in places
            }
            if strangers:
                raise Failure(
                    f"Redis on {node['host']} is in a cluster with {', '.join(sorted(strangers))}, "
                    "which aren't wanted: 'destroy --cloud-only', then deploy again"
                )

    def forget_lost(self, views: Sequence[View]) -> None:
        """Forget nodes whose disk was lost: what is at their place now is another one.

        Raises Failure where one held slots that no replica has taken over: a replica that still
        followed it has copied the empty disk by now.
        """
        selves = [view[name] for view, name in zip(views, self.ids, strict=True)]
        for name, lost in self.others(views).items():
            # Who sees the slots where they were is late.
            if not any(lost["slots"] <= own["slots"] for own in selves):
                raise Failure(
                    f"Redis on {self._planned_for(lost['slots'])} began with an empty disk, and "
                    "nobody else has what it held: 'destroy --cloud-only', then deploy again"
                )
            for connection in self.connections:
                with contextlib.suppress(RedisError):  # this one doesn't know it
                    connection.ask("CLUSTER", "FORGET", name)
            self.changes.append("a node that lost its disk forgotten")

    def _planned_for(self, slots: set[int]) -> str:
        """Return the hosts that are to hold these slots."""
        return " or ".join(
            node["host"]
            for node in self.nodes
            if node.get("slots") and not slots.isdisjoint(_range(node["slots"]))
        )

    def assign_slots(self, views: Sequence[View]) -> None:
        """Give each master its slots; a slot that one of them has already stays there."""
        assigned: set[int] = set()
        for view in views:
            for seen in view.values():
                assigned |= seen["slots"]
        for index, node in enumerate(self.nodes):
            if not node.get("slots"):
                continue
            first, last = node["slots"]
            if assigned.isdisjoint(_range(node["slots"])):
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
                self.changes.append(f"{_named(node)} in the cluster")

    def copy(self) -> None:
        """Have each node that holds nothing copy who holds the slots that it is there for."""
        slots_of = {node["host"]: node["slots"] for node in self.nodes if node.get("slots")}
        selves = self.selves()
        for index, node in enumerate(self.nodes):
            slots = _range(slots_of[node.get("copies") or node["host"]])
            holders = [at for at, own in enumerate(selves) if not own["slots"].isdisjoint(slots)]
            if selves[index]["slots"] or not holders:
                continue
            if selves[index]["master"] != self.ids[holders[0]]:
                self.connections[index].ask("CLUSTER", "REPLICATE", self.ids[holders[0]])
                self.changes.append(f"{_named(node)} copies {self.nodes[holders[0]]['host']}")

    def hand_back(self) -> None:
        """Have each master take its place again from a replica that stands in for it.

        Nothing is lost by it: who stands in takes no writes until the master has all of them.
        """
        due = [
            index
            for index, own in enumerate(self.selves())
            if self.nodes[index].get("slots") and "slave" in own["flags"]
        ]
        for index in due:
            self.wait(_Promotion(self, index).poll, until=_is_nothing)
            self.changes.append(f"{_named(self.nodes[index])} is a master again")
        if due:
            self.wait(self.disagreement, until=_is_nothing)
            self.copy()
            self.wait(self.disagreement_of_copies, until=_is_nothing)

    # ------------------------------------------------------------ waiting

    def disagreement(self) -> str:
        """Return what keeps the nodes from being one cluster; nothing once they are."""
        agreed: dict[str, set[int]] = {}
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
            holders = {name: seen["slots"] for name, seen in view.items() if seen["slots"]}
            agreed = agreed or holders
            if holders != agreed:  # a master that comes back doesn't know yet who replaced it
                return f"{node['host']} has another view of who holds which slots"
            if "cluster_state:ok" not in self.connections[index].ask("CLUSTER", "INFO"):
                return f"{node['host']} says that the cluster isn't well"
        return ""

    def disagreement_of_copies(self) -> str:
        """Return what keeps them from being one cluster whose replicas have their copies.

        All have to know who is whose replica: a master doesn't vote for one that it takes for a
        master.
        """
        views = self.views()
        for index, (node, name) in enumerate(zip(self.nodes, self.ids, strict=True)):
            own = views[index][name]
            if any(view[name]["master"] != own["master"] for view in views):
                return f"not all know what {_named(node)} is"
            if "slave" in own["flags"]:
                answer = self.connections[index].ask("INFO", "replication")
                if "master_link_status:up" not in answer:
                    return f"{_named(node)} has no copy yet"
        return self.disagreement()

    def wait(self, poll: Callable[[], Any], until: Callable[[Any], bool] = bool) -> Any:
        """Return what `poll` gives once that is good; raises Failure with its last words.

        A node that loads its data, or isn't there yet, is asked again.
        """
        while True:
            try:
                result = poll()
                if until(result):
                    return result
                words = str(result)
            except (OSError, RedisError) as error:
                words = str(error)
            if time.monotonic() > self.deadline:
                raise Failure(f"no cluster within {self.args['timeout_s']} s: {words}")
            time.sleep(0.2)


class _Promotion:
    """A replica that is to be the master again which it was planned as."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        self.cluster, self.index = cluster, index
        connection = cluster.connections[index]
        timeout_ms = int(connection.ask("CONFIG", "GET", "cluster-node-timeout")[1])
        again_s = FAILOVER_AGAIN_TIMEOUTS * timeout_ms / 1000
        self.again_s = max(FAILOVER_AGAIN_S, again_s) + 1
        self.due = 0.0

    def poll(self) -> str:
        """Ask for the failover where that is due; returns nothing once all know of it."""
        cluster, name = self.cluster, self.cluster.ids[self.index]
        slots = set(_range(cluster.nodes[self.index]["slots"]))
        views = cluster.views()
        if all(slots <= view[name]["slots"] for view in views):
            return ""
        now = time.monotonic()
        if "slave" in views[self.index][name]["flags"] and now >= self.due:
            self.due = now + self.again_s
            cluster.connections[self.index].ask("CLUSTER", "FAILOVER")
        return f"{_named(cluster.nodes[self.index])} isn't a master again"


def _range(slots: Sequence[int]) -> range:
    return range(slots[0], slots[1] + 1)


def _named(node: Mapping[str, Any]) -> str:
    return f"{node['host']}:{node['port']}"


def _is_nothing(words: object) -> bool:
    return not words


def ensure(args: Mapping[str, Any]) -> dict[str, Any]:
    """Make the nodes one cluster; `args` are the options of Ansible's module `redis_cluster`."""
    cluster = Cluster(args)
    try:
        cluster.run()
    except (Failure, RedisError, OSError) as error:
        raise Failure(str(error), changes=cluster.changes) from None
    finally:
        for connection in cluster.connections:
            connection.close()
    return changed(cluster.changes)
