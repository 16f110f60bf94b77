"""Where everything of a plan's cloud runs, decided once: a `CloudLayout`.

Whoever needs to know where a service, a store or a database is, or which API serves a site, asks
the plan's layout.  `decide` makes those that there are today: what all sites share is on the
master, each controller has Nova's own services and is a region with an endpoint of its own, each
compute runs one nova-compute; with `layout: cells` each site has conductors, a message bus and a
database of Nova's of its own besides.  A layout with shared services at several sites is another
value of the same type.

Pure, as plans are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from discovery_xp.inputs.topology import OpenStack
from discovery_xp.onhost import catalogue
from discovery_xp.planning import cells as cells_of_nova
from discovery_xp.planning import databases, galera
from discovery_xp.planning.cells import Cell
from discovery_xp.planning.databases import Database, Store
from discovery_xp.planning.galera import GaleraLayout
from discovery_xp.planning.hosts import PlannedHost, PlannedLink


@dataclass(frozen=True)
class Service:
    """A systemd unit on a host.

    `region` is the region that it is a part of, None where all regions share it.  `cell` is the
    cell of Nova that it is a part of, and whose message bus it is on; None above the cells, and
    where there is one for all sites.  `port` is the TCP port where it is asked, None where it
    listens nowhere, and `is_http` is true of one that answers HTTP there.  `queue` is the queue of
    its message bus that only this service reads, None where it has none.
    """

    unit: str
    component: str
    host: str
    site: str
    region: str | None = None
    port: int | None = None
    is_http: bool = False
    queue: str | None = None
    cell: str | None = None

    @property
    def known_to_nova_as(self) -> tuple[str, str]:
        """Return the binary and the host under which Nova lists it, if it does."""
        unit = catalogue.UNITS[self.unit]
        return unit.nova_binary, unit.nova_host(self.host)


@dataclass(frozen=True)
class Region:
    """A controller's own Nova endpoint: what clients name to ask at that controller.

    The first controller's region of a site has the site's name, a further one's the
    controller's.
    """

    name: str
    site: str
    controller: str


@dataclass(frozen=True)
class ApiEndpoint:
    """Where clients of a region ask an API; `kind` is its service's type in Keystone."""

    region: str
    kind: str
    host: str
    port: int
    path: str = ""

    def url(self, addresses: Mapping[str, str]) -> str:
        """Return the endpoint's URL; `addresses` is by host."""
        return f"http://{addresses[self.host]}:{self.port}{self.path}"


@dataclass(frozen=True)
class CloudLayout:
    """A cloud: its options, and which host runs, holds and serves what.

    `master` is the host that the cloud is administered from: OpenStack's client and nova-manage
    run there.  `services` are in the order of the hosts, on each a store first.  `regions` are
    in the order of the controllers.  `endpoints` has one for each API and region.  By site:
    `controllers` and `computes` (sites that have some), and `served_by`, the region whose API boots
    the VMs of a site with computes.  `zones` are the sites that are availability zones of their
    own.  `drawn_from` says of how many computes, those that look best, a scheduler draws a VM's
    host.  `galera` is None unless Galera replicates the databases.  `cells` are Nova's cells, in
    the order of their sites, none where one is for all sites.
    """

    options: OpenStack
    master: str
    services: tuple[Service, ...]
    stores: tuple[Store, ...]
    databases: tuple[Database, ...]
    regions: tuple[Region, ...]
    endpoints: tuple[ApiEndpoint, ...]
    controllers: Mapping[str, tuple[str, ...]]
    computes: Mapping[str, tuple[str, ...]]
    served_by: Mapping[str, str]
    zones: tuple[str, ...] = ()
    drawn_from: int = 1
    galera: GaleraLayout | None = None
    cells: tuple[Cell, ...] = ()

    # ------------------------------------------------------------ services

    def services_on(self, host: str) -> list[Service]:
        """Return the services of a host."""
        return [service for service in self.services if service.host == host]

    def hosts_of(self, component: str) -> list[str]:
        """Return the hosts that run a component, each once."""
        return list(
            dict.fromkeys(each.host for each in self.services if each.component == component)
        )

    @property
    def shared_services(self) -> list[Service]:
        """Return the services that all regions share."""
        return [service for service in self.services if service.region is None]

    def service_for(self, component: str, site: str) -> Service:
        """Return the service of a component that hosts of a site ask: the site's own, or the first.

        Those of cells aren't meant: see `bus`.  Raises KeyError where the cloud has none.
        """
        serving = [
            each for each in self.services if each.component == component and each.cell is None
        ]
        if not serving:
            raise KeyError(component)
        return next((each for each in serving if each.site == site), serving[0])

    # ------------------------------------------------------------ cells

    def cell_at(self, site: str) -> Cell | None:
        """Return the cell of a site's computes; None where it has none of its own."""
        return next((cell for cell in self.cells if cell.name == site), None)

    def bus(self, cell: str | None = None, site: str = "") -> Service:
        """Return the message bus of a cell; without one, that of what is at a site in no cell.

        Raises KeyError where the cloud has none.
        """
        if cell is None:
            return self.service_for("rabbitmq", site)
        for service in self.services:
            if service.component == "rabbitmq" and service.cell == cell:
                return service
        raise KeyError(cell)

    # ------------------------------------------------------------ regions and APIs

    def region(self, name: str) -> Region:
        """Return a region; raises KeyError for a name that is none."""
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(name)

    def region_of(self, host: str, site: str) -> Region:
        """Return the region whose APIs a host's own services ask."""
        for region in self.regions:
            if region.controller == host:
                return region
        return self.region(self.served_by.get(site, self.regions[0].name))

    def endpoint(self, kind: str, region: str | None = None) -> ApiEndpoint:
        """Return where a region's clients ask an API; of the first region unless one is named."""
        name = region or self.regions[0].name
        return next(each for each in self.endpoints if (each.kind, each.region) == (kind, name))

    # ------------------------------------------------------------ databases

    def databases_of(self, region: str) -> list[Database]:
        """Return the databases that services of a region ask: its own, and those that all share."""
        return [each for each in self.databases if each.region in (None, region)]

    def store_of(self, database: Database) -> Store:
        """Return the store that holds a database."""
        return next(store for store in self.stores if store.name == database.store)

    def stores_of(self, engine: str) -> list[Store]:
        """Return the stores of an engine, 'mariadb' or 'redis'."""
        return [store for store in self.stores if store.engine == engine]

    def held_by(self, backend: str) -> list[str]:
        """Return the names of the databases that services reach by a back end."""
        return [each.name for each in self.databases if each.backend == backend]

    @property
    def redis(self) -> Store | None:
        """Return where Redis runs; None where MariaDB holds the databases.

        With servers of cells it is the one that holds the others, with servers that share the
        databases out the first.
        """
        return next(iter(self.stores_of(databases.REDIS)), None)

    @property
    def nova_database(self) -> str:
        """Return the database that Nova's services outside of cells call theirs."""
        return databases.CELL0 if self.cells else databases.ONE_CELL


# ---------------------------------------------------------------- the layout that there is today

BUS = "rabbitmq-server"
# By what a host is for: the units that it runs, in the order in which they are listed.
UNITS_BY_ROLE: Mapping[str, tuple[str, ...]] = {
    "master": (
        BUS, "memcached", "keystone-api", "glance-api", "placement-api", "neutron-api",
    ),
    "controller": ("nova-conductor", "nova-scheduler", "nova-api"),
    "compute": ("nova-compute",),
    "data": (),
}  # fmt: skip
# Those of them that are parts of their site's cell, and what a controller has above the cells.
UNITS_OF_CELLS = ("nova-conductor", "nova-compute")
UNIT_ABOVE_CELLS = "nova-super-conductor"


def decide(
    options: OpenStack,
    hosts: Sequence[PlannedHost],
    links: Sequence[PlannedLink] = (),
    time_scale: float = 1.0,
) -> CloudLayout:
    """Decide where everything of a cloud runs on the hosts of a plan.

    Galera's nodes are asked in the order of their distance by `links`, and waited for so long as
    they and the `time_scale` ask.  Raises Refused where the hosts are too few for what the options
    ask.
    """
    master = next(host for host in hosts if "master" in host.roles)
    regions = _regions(hosts)
    own: dict[str, str] = {}
    for region in regions:
        own.setdefault(region.site, region.name)
    computes = _by_site(hosts, "compute")
    served_by = {site: own.get(site, regions[0].name) for site in computes}
    data = [host for host in hosts if "data" in host.roles]
    cells = cells_of_nova.decide(options, hosts, master)
    replicated = options.backend == databases.GALERA
    nodes = galera.node_hosts(hosts, master, options.galera.nodes) if replicated else []
    stores, all_databases = databases.place(
        options,
        master.name,
        near=[host.name for host in data if host.site == master.site],
        far=[host.name for host in data if host.site != master.site],
        galera_nodes=[host.name for host in nodes],
        cells=cells,
    )
    layout_of_galera = (
        galera.decide(options.galera, hosts, links, time_scale) if replicated else None
    )
    processes = [
        *((node.host, node.unit) for store in stores for node in store.nodes),
        *_units_of_galera(layout_of_galera, [host.name for host in nodes]),
        *((cell.host, BUS) for cell in cells),
    ]
    services = tuple(_services(hosts, processes, regions, served_by, cells))
    zones = tuple(computes) if options.placement == "availability-zones" else ()
    pools = [len(names) for names in computes.values()]
    return CloudLayout(
        options=options,
        master=master.name,
        services=services,
        stores=stores,
        databases=all_databases,
        regions=regions,
        endpoints=tuple(_endpoints(services, regions)),
        controllers=_by_site(hosts, "controller"),
        computes=computes,
        served_by=served_by,
        zones=zones,
        # All that a request may get: computes are alike, and what a scheduler knows of them is
        # old when many VMs are asked for at once: those whose reports take longest would look
        # best, and get most.
        drawn_from=max(1, max(pools, default=0) if zones else sum(pools)),
        galera=layout_of_galera,
        cells=cells,
    )


def _regions(hosts: Iterable[PlannedHost]) -> tuple[Region, ...]:
    regions: dict[str, Region] = {}
    for host in hosts:
        if "controller" in host.roles:
            name = host.name if host.site in regions else host.site
            regions[name] = Region(name, host.site, host.name)
    return tuple(regions.values())


def _by_site(hosts: Iterable[PlannedHost], role: str) -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    for host in hosts:
        if role in host.roles:
            names.setdefault(host.site, []).append(host.name)
    return {site: tuple(own) for site, own in names.items()}


def _services(
    hosts: Iterable[PlannedHost],
    processes: Sequence[tuple[str, str]],
    regions: Iterable[Region],
    served_by: Mapping[str, str],
    cells: Sequence[Cell],
) -> Iterator[Service]:
    """Yield the services of each host: `processes` (host, unit), then its roles' own.

    Processes are those of stores, and the message buses of `cells`.
    """
    names = {region.controller: region.name for region in regions}
    roles = list(UNITS_BY_ROLE)
    named = {cell.name for cell in cells}
    for host in hosts:
        own = host.site if host.site in named else None
        for on, unit in processes:
            if on == host.name:
                yield service(unit, host.name, host.site, cell=own if unit == BUS else None)
        for role in sorted(host.roles, key=roles.index):
            region = {"controller": names.get(host.name), "compute": served_by.get(host.site)}
            for unit in _units_of_role(role, bool(cells), own is not None):
                cell = own if unit in UNITS_OF_CELLS else None
                yield service(unit, host.name, host.site, region.get(role), cell)


def _units_of_role(role: str, has_cells: bool, is_in_cell: bool) -> Iterator[str]:
    """Yield the units of a role; outside of the cells, where there are any, none of theirs."""
    if has_cells and role == "controller":
        yield UNIT_ABOVE_CELLS
    for unit in UNITS_BY_ROLE[role]:
        if is_in_cell or not has_cells or unit not in UNITS_OF_CELLS:
            yield unit


def _units_of_galera(
    layout: GaleraLayout | None, nodes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield host and unit of what Galera needs besides MariaDB."""
    if layout is None:
        return
    for host in nodes:
        yield host, "galera-check"
    if layout.arbitrator is not None:
        yield layout.arbitrator, "garb"
    for host in layout.proxies:
        yield host, "haproxy"


def service(
    unit: str, host: str, site: str, region: str | None = None, cell: str | None = None
) -> Service:
    """Return a unit of the catalogue as a service on a host; raises KeyError for any other."""
    entry = catalogue.UNITS[unit]
    return Service(
        unit,
        entry.component,
        host,
        site,
        region,
        entry.port,
        entry.is_http,
        entry.queue(host),
        cell,
    )


def _endpoints(services: Sequence[Service], regions: Iterable[Region]) -> Iterator[ApiEndpoint]:
    for region in regions:
        for api in catalogue.APIS.values():
            serving = [each for each in services if each.unit == api.unit]
            own = [each for each in serving if each.region == region.name]
            chosen = (own or [each for each in serving if each.region is None])[0]
            if chosen.port is not None:
                yield ApiEndpoint(region.name, api.kind, chosen.host, chosen.port, api.path)
