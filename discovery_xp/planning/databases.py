"""Which store holds which of OpenStack's databases, and how a key/value store is laid out.

Pure, as plans are.  With `backend: mysql` MariaDB on the master holds all of them, with
`backend: galera` MariaDB at each site, which Galera replicates, and with `backend: rome` Redis.
A cell's own database is at the cell's site: on a server there, or in the part of a Redis Cluster
that is there.
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import OpenStack, Rome
from discovery_xp.onhost import catalogue
from discovery_xp.planning.cells import Cell, is_database_of_cell

# How services reach a database: SQLAlchemy's dialect for MariaDB, or ROME's for Redis.
MYSQL, ROME = "mysql", "rome"
# What keeps databases.
MARIADB, REDIS = "mariadb", "redis"
# Of a topology: MariaDB at each site.  The kind of its store, and its name, are called so, too.
GALERA = "galera"

# Nova's own of a cell, where there is one for all sites; cells of sites have `Cell.database`.
ONE_CELL = "nova"
# That of VMs which no cell took.  With cells it is what services above them call theirs.
CELL0 = "nova_cell0"
# Every database and the service that owns it, the most asked first.
OWNERS: Mapping[str, str] = {
    ONE_CELL: "nova",
    "nova_api": "nova",
    "placement": "placement",
    "keystone": "keystone",
    "neutron": "neutron",
    "glance": "glance",
    CELL0: "nova",
}

USER = "rome"
SLOTS = 16_384
# Of a topology: the value of `rome.store` that makes a server of each data host.
SERVERS = "servers"
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
    enough; a single server needs none.  `table_lease` is how long ROME leases tables, in seconds.
    """

    name: str
    engine: str
    kind: str
    nodes: tuple[Node, ...]
    persistence: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    table_lease: int = 0

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


def names_with(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the names of all databases of a cloud with these cells, the most asked first."""
    own = [cell.database for cell in cells] or [ONE_CELL]
    return (*own, *(name for name in OWNERS if name != ONE_CELL))


def owner_of(name: str) -> str:
    """Return the component that owns a database."""
    return OWNERS[ONE_CELL if is_database_of_cell(name) else name]


def place(
    options: OpenStack,
    master: str,
    near: Sequence[str],
    far: Sequence[str],
    galera_nodes: Sequence[str] = (),
    cells: Sequence[Cell] = (),
) -> tuple[tuple[Store, ...], tuple[Database, ...]]:
    """Decide which stores there are, and which of them holds which database.

    `near` are the data hosts at the master's site, `far` those elsewhere; `galera_nodes` are the
    hosts of Galera's nodes.  With one MariaDB it is on the master, and another one on the host of
    each of the `cells` for its own database.  Raises Refused where the hosts are too few for what
    the options ask.
    """
    names = names_with(cells)
    held: list[tuple[Store, Sequence[str]]]
    if options.backend == ROME:
        held = [*_redis(options.rome, names, master, near, far, cells)]
    elif options.backend == GALERA:
        nodes = tuple(_mariadb_node(host) for host in galera_nodes)
        held = [(Store(GALERA, MARIADB, GALERA, nodes), names)]
    else:
        held = [*_servers(MARIADB, names, master, cells, _mariadb_server)]
    backend = ROME if options.backend == ROME else MYSQL
    holders = {name: store.name for store, own in held for name in own}
    all_databases = tuple(Database(name, owner_of(name), backend, holders[name]) for name in names)
    return tuple(store for store, _ in held), all_databases


def _mariadb_node(host: str) -> Node:
    return Node(host, catalogue.UNITS[MARIADB].name, catalogue.MARIADB_PORT)


def _mariadb_server(name: str, host: str) -> Store:
    return Store(name, MARIADB, "server", (_mariadb_node(host),))


def _servers(
    engine: str,
    names: Sequence[str],
    host: str,
    cells: Sequence[Cell],
    server: Callable[[str, str], Store],
) -> Iterator[tuple[Store, Sequence[str]]]:
    """Yield servers of an engine and the databases that each holds: first the one on `host`.

    Another one is on each cell's host for the cell's own database; `server` makes one of a name
    and a host.
    """
    elsewhere = {cell.database: cell for cell in cells if cell.host != host}
    here = [name for name in names if name not in elsewhere]
    if here:
        yield server(engine, host), here
    for name in names:
        if name in elsewhere:
            cell = elsewhere[name]
            yield server(f"{engine}-{cell.name}", cell.host), (name,)


def _redis(
    options: Rome,
    names: Sequence[str],
    master: str,
    near: Sequence[str],
    far: Sequence[str],
    cells: Sequence[Cell],
) -> Iterator[tuple[Store, Sequence[str]]]:
    """Lay Redis out over the data hosts; without any the one server is on the master.

    A cell's own database is a server at its site.  In a cluster it is on the master there: as the
    one cluster has a master at each site anyway, its hash tag does what a server of its own would.
    """
    data, kind = [*near, *far], options.store
    if kind == "auto":
        kind = "cluster" if len(data) >= MIN_MASTERS else "server"
    if kind == "cluster" and len(data) < MIN_MASTERS:
        raise Refused(
            f"a Redis Cluster needs {MIN_MASTERS} data nodes, and there are {len(data)}",
            f"write 'data: 1' for more sites, or 'rome: {{store: {SERVERS}}}', a server on each",
        )
    if kind != "cluster" and options.replicas:
        why = f", as {len(data)} data nodes are" if options.store == "auto" else ""
        what = "these are servers" if kind == SERVERS else f"this is one server{why}"
        raise Refused(
            f"'replicas: {options.replicas}' is for a Redis Cluster, and {what}",
            f"write 'store: cluster' and at least {MIN_MASTERS} data nodes, or 'replicas: 0'",
        )

    def server(name: str, host: str) -> Store:
        nodes, lease = (_node(host),), options.table_lease
        return Store(name, REDIS, "server", nodes, options.persistence, table_lease=lease)

    if kind == SERVERS and data:
        for host, own in _shared_out(names, near, far, cells).items():
            yield server(f"{REDIS}-{host}", host), own
        return
    if kind != "cluster":
        yield from _servers(REDIS, names, data[0] if data else master, cells, server)
        return
    ranges = slot_ranges(len(data))
    masters = [_node(host, slots=slots) for host, slots in zip(data, ranges, strict=True)]
    # A replica is on the next host, so no host's end takes a datum and its copy.
    replicas = [
        _node(data[(place + copy) % len(data)], copy, copies=host)
        for copy in range(1, options.replicas + 1)
        for place, host in enumerate(data)
    ]
    slots_of = dict(zip(data, ranges, strict=True))
    tags = {
        cell.database: tag_within(cell.database, slots_of[cell.host])
        for cell in cells
        if cell.host in slots_of
    }
    others = [name for name in names if name not in tags]
    tags |= spread(others, ranges[: len(near)], ranges[len(near) :])
    nodes = (*masters, *replicas)
    yield Store(REDIS, REDIS, kind, nodes, options.persistence, tags, options.table_lease), names


def _shared_out(
    names: Sequence[str], near: Sequence[str], far: Sequence[str], cells: Sequence[Cell]
) -> dict[str, list[str]]:
    """Return which host's server has which databases: they take turns as in a cluster.

    A cell's own is on the cell's host.  A host that none is left for has no server.
    """
    cells_own = {cell.database: cell.host for cell in cells}
    others = [name for name in names if name not in cells_own]
    places = cells_own | take_turns(others, near, far)
    hosts = dict.fromkeys([*near, *far, *cells_own.values()])
    held = {host: [name for name in names if places[name] == host] for host in hosts}
    return {host: own for host, own in held.items() if own}


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


def tag_within(database: str, slots: tuple[int, int]) -> str:
    """Choose a database's hash tag so that its slot is one of these; always the same one."""
    # The names of cells' databases may end in digits: a tag must be of one database alone.
    stem = f"{database}_" if is_database_of_cell(database) else database
    numbered = (f"{stem}{number}" for number in itertools.count())
    return next(tag for tag in numbered if slots[0] <= key_slot(tag) <= slots[1])


def spread(
    names: Sequence[str], near: Sequence[tuple[int, int]], far: Sequence[tuple[int, int]]
) -> dict[str, str]:
    """Choose a hash tag for each database, so that the masters take turns; always the same ones.

    `near` are the slots of the masters at the site where all services but Nova's run.
    """
    return {name: tag_within(name, slots) for name, slots in take_turns(names, near, far).items()}


_Master = TypeVar("_Master")


def take_turns(
    names: Sequence[str], near: Sequence[_Master], far: Sequence[_Master]
) -> dict[str, _Master]:
    """Choose a master for each database; always the same ones.

    `near` are those at the site where all services but Nova's run: what these ask stays there.
    Nova's databases are asked from every site and take the far masters first.
    """
    everywhere = itertools.cycle([*far, *near])
    at_home = itertools.cycle([*reversed(near)] or far)
    return {name: next(everywhere if owner_of(name) == "nova" else at_home) for name in names}


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
        return f"{catalogue.DATABASE_PROXY_ADDRESS}:{catalogue.DATABASE_PROXY_PORT}"
    return addresses[store.nodes[0].host]


def cell0_template(store: Store | None, addresses: Mapping[str, str]) -> str:
    """Return the URL of Nova's cell 0 as `nova-manage` takes it: login and password are left open.

    `store` holds it; without one Nova derives the URL from that of cell 1 all by itself, and the
    template is empty.
    """
    if store is None:
        return ""
    place = (
        _place(CELL0, store, addresses)
        if store.engine == REDIS
        else f"{_server(store, addresses)}/{CELL0}"
    )
    return f"{{scheme}}://{{username}}:{{password}}@{place}"


def _place(database: str, store: Store, addresses: Mapping[str, str]) -> str:
    # All masters have the same port: SQLAlchemy's URLs have room for one.
    hosts = ",".join(addresses[node.host] for node in store.masters)
    options = [f"tag={store.tags[database]}"] if database in store.tags else []
    if owner_of(database) == "nova":
        # Nova knows no dialect of this name, and writes its regular expressions as LIKE.
        options.append("nova_regexp=on")
    if store.table_lease:
        options.append(f"table_lease={store.table_lease}")
    return f"{hosts}:{store.masters[0].port}/{database}" + (
        f"?{'&'.join(options)}" if options else ""
    )
