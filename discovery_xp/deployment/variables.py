"""What the playbooks of a cloud are told, decided in one place: `play_variables`.

Roles know two variables: `xp`, a `CloudVariables`, may be printed and saved; `xp_secrets`, a
`Secrets`, travels apart from it and is neither.  Nothing in them is a template for Ansible.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from discovery_xp import software
from discovery_xp.deployment import cells as cells_of_nova
from discovery_xp.deployment import clients, identities
from discovery_xp.deployment.cells import CellVariables, cell_variables
from discovery_xp.deployment.galera import GaleraVariables, galera_variables
from discovery_xp.deployment.schemas import KeptSchemas
from discovery_xp.deployment.timings import Timings, timings
from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases, ports
from discovery_xp.planning.layout import CloudLayout
from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import Testbed

FLAVOR = "m1.tiny"
IMAGE = "discovery"
API_THREADS = 16

# By the name that roles know them by.
PORTS: Mapping[str, int] = {
    **{unit.component: unit.port for unit in catalogue.UNITS.values()
       if unit.port is not None and unit.component != databases.REDIS},
    "erlang_mapper": catalogue.ERLANG_MAPPER_PORT,
    "wheels": catalogue.WHEELS_PORT,
}  # fmt: skip


@dataclass(frozen=True)
class HostVariables:
    """A host, and whom its services ask.

    `bus` and `cache` are 'ADDRESS:PORT'; `packages` are Debian's.  `cell` is the name of its
    site's own cell, empty where there is none: computes are on that cell's bus, and of a
    controller the cell's conductor alone.
    """

    address: str
    site: str
    region: str
    cell: str
    identity_url: str
    bus: str
    cache: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class EnvironmentVariables:
    """A Python environment; its `archive` lies in the testbed's folder while hosts get it."""

    place: str
    program: str
    lock_digest: str
    wheels: str
    archive: str


@dataclass(frozen=True)
class RegionVariables:
    """A region of the cloud; `urls` is by the type of the API's service in Keystone."""

    name: str
    urls: Mapping[str, str]


@dataclass(frozen=True)
class RedisNode:
    """A Redis process; see `databases.Node`."""

    host: str
    unit: str
    port: int
    copies: str | None
    slots: tuple[int, int] | None
    address: str
    bus_port: int


@dataclass(frozen=True)
class RedisVariables:
    """How Redis is laid out; `by_host` has the nodes of each host."""

    kind: str
    persistence: str
    user: str
    nodes: tuple[RedisNode, ...]
    by_host: Mapping[str, tuple[RedisNode, ...]]


@dataclass(frozen=True)
class RomeVariables:
    """The wheel that hosts with clients of a database get; it is built by `install`."""

    digest: str
    wheel: str


@dataclass(frozen=True)
class FirewallVariables:
    """The addresses that may reach the cloud's ports, and these ports."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True)
class BootVariables:
    """A VM that is booted at a site, through a region's API, on one of the site's computes."""

    site: str
    region: str
    computes: tuple[str, ...]


@dataclass(frozen=True)
class CloudVariables:
    """All that the roles are told of a cloud but its secrets.

    `options` are the topology's choices as results keep them, and what came of them.  `redis`,
    `galera`, `rome` and `firewall` are None where there is none; `mariadb_by_host` has databases by
    host and owner, none with Redis.  `cells` are Nova's, none where all sites share one;
    `nova_mappings` is what Nova maps, and `nova_database` the database that its services outside
    of cells call theirs.  `nova_services` has the hosts of each of Nova's binaries, as it names
    them, `nova_queues` by host of a message bus who reads each queue of it.  `is_prepared` is true
    of hosts that come with all software.  Everything else is told by the names that `hosts` has.
    `timings` are all timeouts and periods.
    """

    testbed: str
    options: Mapping[str, Any]
    master: str
    hosts: Mapping[str, HostVariables]
    ports: Mapping[str, int]
    environments: Mapping[str, EnvironmentVariables]
    is_prepared: bool
    firewall: FirewallVariables | None
    mariadb_by_host: Mapping[str, Mapping[str, tuple[str, ...]]]
    galera: GaleraVariables | None
    redis: RedisVariables | None
    rome: RomeVariables | None
    cell0_template: str
    cells: Mapping[str, CellVariables]
    nova_mappings: tuple[str, ...]
    nova_database: str
    regions: tuple[RegionVariables, ...]
    service_users: tuple[str, ...]
    nova_services: Mapping[str, tuple[str, ...]]
    nova_queues: Mapping[str, Mapping[str, str]]
    computes: Mapping[str, tuple[str, ...]]
    compute_ids: Mapping[str, str]
    boots: tuple[BootVariables, ...]
    timings: Timings
    user: str = clients.USER
    flavor: str = FLAVOR
    image: str = IMAGE
    network: str = catalogue.NETWORK
    api_threads: int = API_THREADS
    schemas: KeptSchemas = field(default_factory=KeptSchemas)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


@dataclass(frozen=True)
class Secrets:
    """What only hosts and the testbed's folder may hold; it prints as nothing.

    `database_urls`, `cell_files` (by path) and `clients_yaml` have passwords in them.  The hashes
    are what RabbitMQ and Redis keep of the passwords of their users.
    """

    passwords: Mapping[str, str] = field(repr=False)
    rabbitmq_hash: str = field(repr=False)
    redis_user_hash: str = field(repr=False)
    redis_admin_hash: str = field(repr=False)
    database_urls: Mapping[str, str] = field(repr=False)
    cell_files: Mapping[str, str] = field(repr=False)
    clients_yaml: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PlayVariables:
    """What a playbook of the cloud is told."""

    cloud: CloudVariables
    secrets: Secrets

    def to_ansible(self) -> dict[str, Any]:
        """Return plain values by the name of Ansible's variable."""
        return {"xp": self.cloud.to_json(), "xp_secrets": self.secrets.to_json()}


def play_variables(hosts: Hosts, testbed: Testbed) -> PlayVariables:
    """Gather all that the playbooks of a cloud are told; passwords that are missing are made.

    Raises Refused where the plan has no cloud, or the testbed's passwords are damaged.
    """
    layout = hosts.plan.require_cloud()
    addresses = {name: str(host.address) for name, host in hosts.by_name().items()}
    testbed_passwords = passwords.ensure(testbed)
    cloud = _cloud(hosts, layout, testbed, addresses)
    return PlayVariables(cloud, _secrets(hosts.plan, layout, cloud, addresses, testbed_passwords))


def _cloud(
    hosts: Hosts, layout: CloudLayout, testbed: Testbed, addresses: Mapping[str, str]
) -> CloudVariables:
    services: dict[str, tuple[str, ...]] = {}
    queues: dict[str, dict[str, str]] = {}
    for service in layout.services:
        if service.queue is not None:
            binary, named = service.known_to_nova_as
            services[binary] = (*services.get(binary, ()), named)
            readers = queues.setdefault(layout.bus(service.cell, service.site).host, {})
            readers[service.queue] = f"{service.unit} on {service.host}"
    cells = cell_variables(layout, addresses)
    return CloudVariables(
        testbed=hosts.plan.name,
        options=result_options(layout),
        master=layout.master,
        hosts={
            host.name: _host(host.name, host.site, layout, addresses) for host in hosts.plan.hosts
        },
        ports=PORTS,
        environments={
            each.name: EnvironmentVariables(
                each.place, each.program, each.lock_digest, str(each.wheels_folder),
                str(testbed.folder / f"{each.name}.tar"),
            )
            for each in (*software.ENVIRONMENTS, software.TEMPEST)
        },
        is_prepared=hosts.is_prepared,
        firewall=None if hosts.is_guarded else _firewall(testbed, addresses),
        mariadb_by_host=_mariadb_by_host(layout),
        galera=galera_variables(hosts.plan.name, layout, addresses),
        redis=_redis(layout.stores_of(databases.REDIS), addresses),
        rome=_rome() if layout.redis else None,
        cell0_template=databases.cell0_template(_store_of_cell0(layout), addresses),
        cells=cells,
        nova_mappings=cells_of_nova.mappings(cells),
        nova_database=layout.nova_database,
        regions=tuple(
            RegionVariables(
                region.name,
                {each.kind: each.url(addresses) for each in layout.endpoints
                 if each.region == region.name},
            )
            for region in layout.regions
        ),
        service_users=catalogue.SERVICE_USERS,
        nova_services=services,
        nova_queues=queues,
        computes=layout.computes,
        compute_ids=identities.load(testbed),
        boots=tuple(
            BootVariables(site, region, layout.computes[site])
            for site, region in layout.served_by.items()
        ),
        timings=timings(layout, hosts.plan.time_scale),
    )  # fmt: skip


def _secrets(
    plan: Plan,
    layout: CloudLayout,
    cloud: CloudVariables,
    addresses: Mapping[str, str],
    testbed_passwords: Mapping[str, str],
) -> Secrets:
    database_urls = databases.urls(
        layout.stores, layout.databases, addresses, testbed_passwords["database"]
    )
    return Secrets(
        passwords=testbed_passwords,
        rabbitmq_hash=passwords.rabbitmq_hash(testbed_passwords["rabbitmq"], plan.name),
        # Redis keeps the passwords of its users as their SHA-256.
        redis_user_hash=hashlib.sha256(testbed_passwords["database"].encode()).hexdigest(),
        redis_admin_hash=hashlib.sha256(testbed_passwords["redis"].encode()).hexdigest(),
        database_urls=database_urls,
        cell_files=cells_of_nova.contents(
            cloud.cells,
            database_urls,
            testbed_passwords["rabbitmq"],
            cloud.timings.settings["nova_database"],
        ),
        clients_yaml=clients.clouds_yaml(
            layout.endpoint("identity").url(addresses),
            [region.name for region in layout.regions],
            testbed_passwords,
        ),
    )


def _host(name: str, site: str, layout: CloudLayout, addresses: Mapping[str, str]) -> HostVariables:
    region = layout.region_of(name, site).name

    def at(component: str) -> str:
        service = layout.service_for(component, site)
        return f"{addresses[service.host]}:{service.port}"

    cell = layout.cell_at(site)
    is_compute = name in layout.computes.get(site, ())
    bus = layout.bus(cell.name if cell is not None and is_compute else None, site)
    components = {service.component for service in layout.services_on(name)}
    servers = [
        package
        for component, package in catalogue.DEBIAN_PACKAGES.items()
        if component in components
    ]
    return HostVariables(
        address=addresses[name],
        site=site,
        region=region,
        cell="" if cell is None else cell.name,
        identity_url=layout.endpoint("identity", region).url(addresses),
        bus=f"{addresses[bus.host]}:{bus.port}",
        cache=at("memcached"),
        packages=(*software.EVERYWHERE, *servers),
    )


def result_options(layout: CloudLayout) -> dict[str, Any]:
    """Return the topology's choices, as results keep them, and what came of them.

    That is of how many computes one is drawn; with Redis what 'auto' came to; how many cells Nova
    has, unless all sites share one; and with either which database is held by what, and on how
    many nodes.
    """
    options = layout.options
    record = {
        **dataclasses.asdict(options),
        "config": options.config,
        "drawn_from": layout.drawn_from,
    }
    store = layout.redis
    # Results with other keys count as those of another cloud.
    if layout.cells:
        record["cells"] = len(layout.cells)
        record["databases"] = {each.name: each.backend for each in layout.databases}
        record["nodes"] = sum(len(each.nodes) for each in layout.stores_of(databases.MARIADB))
    else:
        del record["layout"]
    if layout.galera is None:
        del record["galera"]
    else:
        record["galera"] |= dataclasses.asdict(layout.galera)
        record["nodes"] = len(layout.stores[0].nodes)
    if store is None:
        del record["rome"]
        return record
    return {
        **record,
        "rome": {
            **record["rome"],
            "store": store.kind if options.rome.store == "auto" else options.rome.store,
        },
        "databases": {each.name: each.backend for each in layout.databases},
        "nodes": sum(len(each.masters) for each in layout.stores_of(databases.REDIS)),
        "replicas": options.rome.replicas,
    }


def _by_owner(layout: CloudLayout, stores: Sequence[databases.Store]) -> dict[str, tuple[str, ...]]:
    """Return the databases that these stores hold, by their owner; in an order that stays."""
    owned: dict[str, tuple[str, ...]] = {}
    for database in sorted(layout.databases, key=lambda each: (each.owner, each.name)):
        if layout.store_of(database) in stores:
            owned[database.owner] = (*owned.get(database.owner, ()), database.name)
    return owned


def _mariadb_by_host(layout: CloudLayout) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the databases of each MariaDB, by host and owner; each of Galera's nodes has all."""
    return {
        node.host: _by_owner(layout, [store])
        for store in layout.stores_of(databases.MARIADB)
        for node in store.nodes
    }


def _store_of_cell0(layout: CloudLayout) -> databases.Store | None:
    """Return what holds Nova's cell 0; None where Nova derives that from its one cell's."""
    cell0 = next(each for each in layout.databases if each.name == databases.CELL0)
    return layout.store_of(cell0) if layout.cells or layout.redis is not None else None


def _redis(
    stores: Sequence[databases.Store], addresses: Mapping[str, str]
) -> RedisVariables | None:
    """Tell how Redis is laid out: as one cluster, or as servers that know nothing of each other."""
    if not stores:
        return None
    nodes = tuple(
        RedisNode(
            node.host, node.unit, node.port, node.copies, node.slots, addresses[node.host],
            node.port + catalogue.REDIS_BUS_OFFSET,
        )
        for store in stores
        for node in store.nodes
    )  # fmt: skip
    return RedisVariables(
        stores[0].kind, stores[0].persistence, databases.USER, nodes,
        {host: tuple(node for node in nodes if node.host == host)
         for host in dict.fromkeys(node.host for node in nodes)},
    )  # fmt: skip


def _firewall(testbed: Testbed, addresses: Mapping[str, str]) -> FirewallVariables | None:
    """Return who may reach which ports of the hosts; None where all may."""
    if testbed.exists() and testbed.load().exposed:
        return None
    return FirewallVariables(tuple(sorted(addresses.values())), ports.CLOUD_PORTS)


def _rome() -> RomeVariables:
    return RomeVariables(software.ROME.digest, str(software.ROME.wheel))
