"""Which store holds which of OpenStack's databases, and how a key/value store is laid out.

Pure, as plans are.  With `backend: mysql` MariaDB on the master holds all of them, with
`backend: galera` MariaDB at each site, which Galera replicates.  With `backend: rome` Redis holds
those that ROME carries, and MariaDB on the master the others.
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import OpenStack, Rome
from discovery_xp.onhost import catalogue

# How services reach a database: SQLAlchemy's dialect for MariaDB, or ROME's for Redis.
MYSQL, ROME = "mysql", "rome"
# What keeps databases.
MARIADB, REDIS = "mariadb", "redis"
# Of a topology: MariaDB at each site.  The kind of its store, and its name, are called so, too.
GALERA = "galera"

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
SLOTS = 16_384
MIN_MASTERS = 3  # fewer can't agree on who is a master


@dataclass(frozen=True)
class Node:
    """A process of a store; `copies` is the host of the master that it is a replica of.

    `slots` are the first and the last hash slot of a cluster's master.
    """

    host: str
    unit: str
    port: int
    copies: str | None = None
    slots: tuple[int, int] | None = None


@dataclass(frozen=True)
class Store:
    """Processes that keep databases together.

    `engine` is 'mariadb' or 'redis', `kind` 'server', 'cluster' (of Redis) or 'galera' (each node
    has everything); `name` tells the stores of a cloud apart.  `persistence` is Redis's.  `tags`
    holds for each database the hash tag that puts it on a master of its own, as far as there are
    enough; a single server needs none.
    """

    name: str
    engine: str
    kind: str
    nodes: tuple[Node, ...]
    persistence: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def masters(self) -> tuple[Node, ...]:
        """Return the processes that hold the data; the others hold copies."""
        return tuple(node for node in self.nodes if node.copies is None)

    def master_of(self, database: str) -> Node:
        """Return the one that holds a database, as long as no replica took its place."""
        if self.kind != "cluster":
            return self.nodes[0]
        slot = key_slot(self.tags[database])
        return next(node for node in self.masters if node.slots and slot <= node.slots[1])


@dataclass(frozen=True)
class Database:
    """A database of the cloud: the component that owns it, and the store that holds it.

    `backend` is how its services reach it, 'mysql' or 'rome'.  `region` is the region whose
    services alone ask it, None where all share it.
    """

    name: str
    owner: str
    backend: str
    store: str
    region: str | None = None


def place(
    options: OpenStack,
    master: str,
    near: Sequence[str],
    far: Sequence[str],
    galera_nodes: Sequence[str] = (),
) -> tuple[tuple[Store, ...], tuple[Database, ...]]:
    """Decide which stores there are, and which of them holds which database.

    `near` are the data hosts at the master's site, `far` those elsewhere; `galera_nodes` are the
    hosts of Galera's nodes.  One MariaDB is on the master, where a database needs it.  Raises
    Refused where the hosts are too few for what the options ask.
    """
    backends = {
        name: ROME if options.backend == ROME and name in CARRIED_BY_ROME else MYSQL
        for name in OWNERS
    }
    stores = []
    unit = catalogue.UNITS[MARIADB]
    if options.backend == GALERA:
        nodes = tuple(Node(host, unit.name, catalogue.MARIADB_PORT) for host in galera_nodes)
        stores.append(Store(GALERA, MARIADB, GALERA, nodes))
    elif MYSQL in backends.values():
        node = Node(master, unit.name, catalogue.MARIADB_PORT)
        stores.append(Store(MARIADB, MARIADB, "server", (node,)))
    if options.backend == ROME:
        carried = [name for name, backend in backends.items() if backend == ROME]
        stores.append(_redis(options.rome, carried, master, near, far))
    all_databases = tuple(
        Database(name, OWNERS[name], backend, REDIS if backend == ROME else stores[0].name)
        for name, backend in backends.items()
    )
    return tuple(stores), all_databases


def _redis(
    options: Rome, carried: Sequence[str], master: str, near: Sequence[str], far: Sequence[str]
) -> Store:
    """Lay Redis out over the data hosts; without any the one server is on the master."""
    data, kind = [*near, *far], options.store
    if kind == "auto":
        kind = "cluster" if len(data) >= MIN_MASTERS else "server"
    if kind == "cluster" and len(data) < MIN_MASTERS:
        raise Refused(
            f"a Redis Cluster needs {MIN_MASTERS} data nodes, and there are {len(data)}",
            "write 'data: 1' for more sites, or 'rome: {store: server}'",
        )
    if kind == "server" and options.replicas:
        why = "" if options.store == "server" else f", as {len(data)} data nodes are"
        raise Refused(
            f"'replicas: {options.replicas}' is for a Redis Cluster, and this is one server{why}",
            f"write 'store: cluster' and at least {MIN_MASTERS} data nodes, or 'replicas: 0'",
        )
    if kind == "server":
        nodes = (_node(data[0] if data else master),)
        return Store(REDIS, REDIS, kind, nodes, options.persistence)
    ranges = slot_ranges(len(data))
    masters = [_node(host, slots=slots) for host, slots in zip(data, ranges, strict=True)]
    # A replica is on the next host, so no host's end takes a datum and its copy.
    replicas = [
        _node(data[(place + copy) % len(data)], copy, copies=host)
        for copy in range(1, options.replicas + 1)
        for place, host in enumerate(data)
    ]
    return Store(
        REDIS, REDIS, kind, (*masters, *replicas), options.persistence,
        spread(carried, ranges[: len(near)], ranges[len(near) :]),
    )  # fmt: skip


def _node(
    host: str, number: int = 0, copies: str | None = None, slots: tuple[int, int] | None = None
) -> Node:
    unit = catalogue.redis_unit(number)
    return Node(host, unit.name, catalogue.REDIS_PORTS[number], copies, slots)


def slot_ranges(masters: int) -> list[tuple[int, int]]:
    """Return the first and the last hash slot of each master, in equal shares."""
    bounds = [round(place * SLOTS / masters) for place in range(masters + 1)]
    return [(first, after - 1) for first, after in itertools.pairwise(bounds)]


def key_slot(tag: str) -> int:
    """Return the hash slot of all keys with this hash tag, as Redis Cluster computes it."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def spread(
    names: Sequence[str], near: Sequence[tuple[int, int]], far: Sequence[tuple[int, int]]
) -> dict[str, str]:
    """Choose a hash tag for each database, so that the masters take turns; always the same ones.

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
    stores: Sequence[Store],
    databases: Iterable[Database],
    addresses: Mapping[str, str],
    password: str,
) -> dict[str, str]:
    """Return SQLAlchemy's URL of each of these databases; `addresses` is by host."""
    by_name = {store.name: store for store in stores}
    return {
        each.name: f"rome+redis://{USER}:{password}@"
        f"{_place(each.name, by_name[each.store], addresses)}"
        if each.backend == ROME
        else f"mysql+pymysql://{each.owner}:{password}@"
        f"{_server(by_name[each.store], addresses)}/{each.name}"
        for each in databases
    }


def _server(store: Store, addresses: Mapping[str, str]) -> str:
    """Return where services ask for MariaDB: of Galera their own host's proxy."""
    if store.kind == GALERA:
        return f"127.0.0.1:{catalogue.DATABASE_PROXY_PORT}"
    return addresses[store.nodes[0].host]


def cell0_template(store: Store | None, addresses: Mapping[str, str]) -> str:
    """Return the URL of Nova's cell 0 as `nova-manage` takes it: login and password are left open.

    `store` is Redis; without it Nova derives the URL from that of cell 1 all by itself, and the
    template is empty.
    """
    if store is None:
        return ""
    return f"{{scheme}}://{{username}}:{{password}}@{_place('nova_cell0', store, addresses)}"


def _place(database: str, store: Store, addresses: Mapping[str, str]) -> str:
    # All masters have the same port: SQLAlchemy's URLs have room for one.
    hosts = ",".join(addresses[node.host] for node in store.masters)
    options = [f"tag={store.tags[database]}"] if database in store.tags else []
    if OWNERS[database] == "nova":
        # Nova knows no dialect of this name, and writes its regular expressions as LIKE.
        options.append("nova_regexp=on")
    return f"{hosts}:{store.masters[0].port}/{database}" + (
        f"?{'&'.join(options)}" if options else ""
    )
