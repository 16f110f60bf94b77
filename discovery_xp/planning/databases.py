"""Which store holds which of OpenStack's databases, and how a key/value store is laid out.

Pure, as plans are.  With `backend: mysql` MariaDB on the master holds all of them.  With
`backend: rome` Redis holds those that ROME carries, and MariaDB the others.
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import OpenStack

MYSQL, ROME = "mysql", "rome"

# Every database and the service that owns it, the most asked first.
OWNERS: Mapping[str, str] = {
    "nova": "nova",
    "nova_api": "nova",
    "placement": "placement",
    "keystone": "keystone",
    "neutron": "neutron",
    "glance": "glance",
    "nova_cell0": "nova",
}
# Those that ROME carries; the others stay on MariaDB.
CARRIED_BY_ROME = ("nova", "nova_api", "placement", "keystone", "glance", "nova_cell0")

USER = "rome"
PORT = 6379
BUS_OFFSET = 10_000  # nodes of a Redis Cluster talk to each other at this and their port
SLOTS = 16_384
MIN_MASTERS = 3  # fewer can't agree on who is a master
MAX_REPLICAS = 2
UNIT = "redis-server"


@dataclass(frozen=True)
class Node:
    """A Redis process; `copies` is the host of the master that it is a replica of.

    `slots` are the first and the last hash slot of a cluster's master.
    """

    host: str
    unit: str
    port: int
    copies: str | None = None
    slots: tuple[int, int] | None = None


@dataclass(frozen=True)
class Store:
    """Where Redis runs: `kind` is 'server' or 'cluster'.

    `tags` holds for each database the hash tag that puts it on a master of its own, as far
    as there are enough; a single server needs none.
    """

    kind: str
    nodes: tuple[Node, ...]
    persistence: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def masters(self) -> tuple[Node, ...]:
        """The processes that hold the data; the others hold copies."""
        return tuple(node for node in self.nodes if node.copies is None)

    def master_of(self, database: str) -> Node:
        """The one that holds a database, as long as no replica took its place."""
        if self.kind == "server":
            return self.nodes[0]
        slot = key_slot(self.tags[database])
        return next(node for node in self.masters if node.slots and slot <= node.slots[1])


def holders(cloud: OpenStack) -> dict[str, str]:
    """By database: 'rome' or 'mysql'."""
    if cloud.backend == MYSQL:
        return dict.fromkeys(OWNERS, MYSQL)
    return {name: ROME if name in CARRIED_BY_ROME else MYSQL for name in OWNERS}


def held_by(cloud: OpenStack, holder: str) -> list[str]:
    """The databases that a store holds."""
    return [name for name, own in holders(cloud).items() if own == holder]


def store(cloud: OpenStack, master: str, near: Sequence[str], far: Sequence[str]) -> Store | None:
    """How Redis is laid out over the data hosts at the master's site, and those elsewhere.

    Without data hosts the one server is on the master.  None where MariaDB holds all;
    raises Refused where the hosts are too few for what is asked.
    """
    if cloud.backend != ROME:
        return None
    asked, data = cloud.rome, [*near, *far]
    kind = asked.store
    if kind == "auto":
        kind = "cluster" if len(data) >= MIN_MASTERS else "server"
    if kind == "cluster" and len(data) < MIN_MASTERS:
        raise Refused(
            f"a Redis Cluster needs {MIN_MASTERS} data nodes, and there are {len(data)}",
            "write 'data: 1' for more sites, or 'rome: {store: server}'",
        )
    if kind == "server" and asked.replicas:
        why = "" if asked.store == "server" else f", as {len(data)} data nodes are"
        raise Refused(
            f"'replicas: {asked.replicas}' is for a Redis Cluster, and this is one server{why}",
            f"write 'store: cluster' and at least {MIN_MASTERS} data nodes, or 'replicas: 0'",
        )
    if kind == "server":
        return Store(kind, (Node(data[0] if data else master, UNIT, PORT),), asked.persistence)
    ranges = slot_ranges(len(data))
    masters = [
        Node(host, UNIT, PORT, slots=slots) for host, slots in zip(data, ranges, strict=True)
    ]
    # A replica is on the next host, so no host's end takes a datum and its copy.
    replicas = [
        Node(data[(place + copy) % len(data)], f"redis-replica-{copy}", PORT + copy, copies=host)
        for copy in range(1, asked.replicas + 1)
        for place, host in enumerate(data)
    ]
    return Store(
        kind, (*masters, *replicas), asked.persistence,
        spread(held_by(cloud, ROME), ranges[: len(near)], ranges[len(near) :]),
    )  # fmt: skip


def slot_ranges(masters: int) -> list[tuple[int, int]]:
    """First and last hash slot of each master, in equal shares."""
    bounds = [round(place * SLOTS / masters) for place in range(masters + 1)]
    return [(first, after - 1) for first, after in itertools.pairwise(bounds)]


def key_slot(tag: str) -> int:
    """The hash slot of all keys with this hash tag, as Redis Cluster computes it."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def spread(
    names: Sequence[str], near: Sequence[tuple[int, int]], far: Sequence[tuple[int, int]]
) -> dict[str, str]:
    """A hash tag for each database, so that the masters take turns; always the same ones.

    `near` are the slots of the masters at the site where all services but Nova's run: what
    these ask stays there.  Nova's databases are asked from every site and take the far
    masters first.
    """

    def tag(database: str, first: int, last: int) -> str:
        numbered = (f"{database}{number}" for number in itertools.count())
        return next(tag for tag in numbered if first <= key_slot(tag) <= last)

    everywhere = itertools.cycle([*far, *near])
    at_home = itertools.cycle([*reversed(near)] or far)
    return {
        name: tag(name, *next(everywhere if OWNERS[name] == "nova" else at_home)) for name in names
    }


def urls(
    cloud: OpenStack,
    store: Store | None,
    addresses: Mapping[str, str],
    master: str,
    password: str,
) -> dict[str, str]:
    """SQLAlchemy's URL of every database; `master` is the address of the master's MariaDB."""
    return {
        name: f"mysql+pymysql://{OWNERS[name]}:{password}@{master}/{name}"
        if holder == MYSQL or store is None
        else f"rome+redis://{USER}:{password}@{_place(name, store, addresses)}"
        for name, holder in holders(cloud).items()
    }


def cell0_template(store: Store | None, addresses: Mapping[str, str]) -> str:
    """The URL of Nova's cell 0 as `nova-manage` takes it: login and password filled in later.

    Empty where Nova derives it from the URL of cell 1 all by itself.
    """
    if store is None:
        return ""
    return f"{{scheme}}://{{username}}:{{password}}@{_place('nova_cell0', store, addresses)}"


def _place(database: str, store: Store, addresses: Mapping[str, str]) -> str:
    # All masters have the same port: SQLAlchemy's URLs have room for one.
    hosts = ",".join(addresses[node.host] for node in store.masters)
    tag = store.tags.get(database)
    return f"{hosts}:{PORT}/{database}" + (f"?tag={tag}" if tag else "")
