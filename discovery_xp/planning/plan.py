"""Topology to `Plan`: hosts, roles, addresses, links, requests, order of play.

Pure: nothing is opened, asked or touched, so a plan can be printed before
anything happens.  A plan is plain values and survives a trip through JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from discovery_xp.boundary.names import HostName, TestbedName
from discovery_xp.errors import Refused
from discovery_xp.inputs.platforms import (
    Cluster,
    G5kProvider,
    Job,
    PlatformProvider,
    VMonG5kProvider,
)
from discovery_xp.inputs.topology import (
    Limit,
    LocalProvider,
    StaticProvider,
    Tolerance,
    Topology,
)
from discovery_xp.inputs.topology_checks import site_prefix
from discovery_xp.planning import databases, oar, plan_checks
from discovery_xp.planning.hosts import PlannedHost as PlannedHost  # for who reads a plan
from discovery_xp.planning.hosts import PlannedLink as PlannedLink
from discovery_xp.planning.hosts import PlannedSite as PlannedSite
from discovery_xp.planning.layout import CloudLayout, decide
from discovery_xp.planning.oar import Request
from discovery_xp.text import short

PLAN_FORMAT = 5

# What an idle emulated host and its share of the machinery take (benchmarks/hosts.py
# measures them), rounded up: these refuse a plan that can't fit, they don't limit it.
HOST_MEMORY_BYTES = 16 * 2**20
HOST_DISK_BYTES = 4 * 2**20
IMAGE_DISK_BYTES = 700 * 2**20
# What OpenStack adds on a host of each role, once it has booted some hundred VMs
# (benchmarks/deploy.py measures them), and for each worker beyond the first; then its databases.
CLOUD_MEMORY_BYTES = {
    "master": 1250 * 2**20,
    "controller": 480 * 2**20,
    "compute": 150 * 2**20,
    "data": 0,
}
WORKER_MEMORY_BYTES = 110 * 2**20
MARIADB_MEMORY_BYTES = 250 * 2**20
REDIS_MEMORY_BYTES = 120 * 2**20  # for each process
GALERA_MEMORY_BYTES = 330 * 2**20  # for each node and its check
PROXY_MEMORY_BYTES = 30 * 2**20
# Of each of Nova's cells: its message bus, and a super conductor beside its conductor.
CELL_MEMORY_BYTES = (180 + 110) * 2**20
CLOUD_DISK_BYTES = 2500 * 2**20
WAN_PAIR_MEMORY_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Needs:
    """What the plan takes of this machine, in bytes."""

    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """All that will be done, decided before anything is done.

    `platform` is who lends the hosts and how, None where nobody does; `warnings` say what
    of it the platform may not like.
    `cloud` is what `deploy` makes on the hosts: which of them runs, holds and serves what;
    None where only hosts are wanted.
    `network` and `backbone` are the addresses of a local testbed: `machine` is this
    machine's own end of the backbone, `router` the backbone's.  With `merge_memory` equal pages
    of its hosts' memory are kept once, where the kernel can.
    `time_scale` seconds stand for one: links, timeouts and shares of the processor are held so,
    while all values of the plan are those that they stand for.
    """

    name: TestbedName
    provider: str
    sites: tuple[PlannedSite, ...]
    hosts: tuple[PlannedHost, ...]
    links: tuple[PlannedLink, ...]
    tolerance: Tolerance
    needs: Needs
    steps: tuple[str, ...]
    wan: str = "netem"
    network: str | None = None
    backbone: str | None = None
    machine: str | None = None
    router: str | None = None
    merge_memory: bool = False
    platform: PlatformProvider | None = None
    requests: tuple[Request, ...] = ()
    node_hours: float | None = None
    warnings: tuple[str, ...] = ()
    cloud: CloudLayout | None = None
    time_scale: float = 1.0
    format: int = PLAN_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain values; `plan_json.plan_from_json` is the way back."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that are equal for equal plans."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def job(self) -> Job | None:
        """How the hosts are reserved for a time; None where they aren't."""
        platform = self.platform
        return platform.job if isinstance(platform, G5kProvider | VMonG5kProvider) else None

    def has_hosts_of(self, other: Plan) -> bool:
        """True when both need the very same hosts; links and tolerance may differ."""

        def without_links(plan: Plan) -> Plan:
            return dataclasses.replace(
                plan, links=(), tolerance=Tolerance(), needs=Needs(), steps=(), cloud=None
            )

        return without_links(self) == without_links(other)

    def require_cloud(self) -> CloudLayout:
        """Return the layout of the plan's cloud; raises Refused where only hosts are wanted."""
        if self.cloud is None:
            raise Refused(
                f"'{self.name}' has no cloud", "make one with 'discovery-xp deploy TOPOLOGY'"
            )
        return self.cloud

    def host(self, name: str) -> PlannedHost:
        """The host called `name`; raises Refused when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        some = ", ".join(host.name for host in self.hosts[:4])
        raise Refused(f"'{self.name}' has no host '{short(name)}'", f"name one of {some}, ...")

    def site(self, name: str) -> PlannedSite:
        """The site called `name`; raises Refused when there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        names = ", ".join(site.name for site in self.sites[:8])
        raise Refused(f"'{self.name}' has no site '{short(name)}'", f"name one of {names}")

    def hosts_of(self, site: str) -> list[PlannedHost]:
        """The hosts of a site, in their order of addresses."""
        return [host for host in self.hosts if host.site == site]

    def pairs(self) -> Iterator[tuple[PlannedLink, PlannedLink]]:
        """Both directions of each pair of sites, in the order of the sites."""
        links = {(link.source, link.target): link for link in self.links}
        names = [site.name for site in self.sites]
        for index, first in enumerate(names):
            for second in names[index + 1 :]:
                yield links[first, second], links[second, first]


def make_plan(topology: Topology, name: str | None = None, cloud: bool = False) -> Plan:
    """Decide everything for `topology`; `name` is the testbed's (default: the topology's).

    With `cloud` the hosts are to get the topology's OpenStack.

    Raises Refused when the addresses don't fit, or a cloud lacks a role; BadName.
    """
    chosen = topology.name if name is None else TestbedName(name)
    hosts = tuple(_hosts(topology))
    for role in ("controller", "compute") if cloud else ():
        if not any(role in host.roles for host in hosts):
            raise Refused(
                f"'{chosen}' has no {role}, so its cloud can't boot a VM",
                f"write '{role}s: 1' for one of its sites",
            )
    links = tuple(
        PlannedLink(source.name, target.name, topology.link(source.name, target.name))
        for source in topology.sites
        for target in topology.sites
        if source.name != target.name
    )
    layout = decide(topology.openstack, hosts, links, topology.time_scale) if cloud else None
    between = {(each.source, each.target): each.link for each in links}
    plan_checks.require_measurable(between)
    plan_checks.require_scalable(chosen, topology.provider.type, topology.time_scale, between)
    common: dict[str, Any] = {
        "name": chosen,
        "provider": topology.provider.type,
        "links": links,
        "tolerance": topology.tolerance,
        "cloud": layout,
        "time_scale": topology.time_scale,
    }
    if isinstance(topology.provider, LocalProvider):
        return _local_plan(topology, topology.provider, hosts, common)
    sites = tuple(
        PlannedSite(site.name, number) for number, site in enumerate(topology.sites, start=1)
    )
    if isinstance(topology.provider, StaticProvider):
        return Plan(
            sites=sites,
            hosts=tuple(_static_hosts(hosts, topology.provider)),
            needs=Needs(),
            steps=_steps(topology, common["cloud"], "reach the hosts over ssh"),
            **common,
        )
    return _lent_plan(topology, topology.provider, hosts, sites, common)


def with_links(plan: Plan, links: Iterable[PlannedLink]) -> Plan:
    """The same plan with other links."""
    return dataclasses.replace(plan, links=tuple(links))


def _steps(topology: Topology, cloud: CloudLayout | None, *acquire: str) -> tuple[str, ...]:
    links: tuple[str, ...] = (
        "impose the links between sites",
        "read back what was imposed",
        "measure every pair of sites, and refuse to go on outside the tolerance",
    )
    if topology.time_scale != 1:
        links = (*links, "hold the shares of the processor, and read them back")
    if cloud is None:
        return (*acquire, *links)
    sites = sum(1 for site in topology.sites if site.computes)
    servers = ["the message bus and the cache"]
    if cloud.cells:
        servers = ["the cache, a message bus for each cell and one above them"]
    return (
        *acquire,
        "install OpenStack on hosts that haven't got it",
        f"start {', '.join((_stores_in_words(cloud), *servers))}, bring the schemas up to date",
        "start Keystone, Glance, Placement and Neutron; make endpoints, users and an image",
        "start Nova on the controllers, then on the computes, and map the computes",
        *links,
        f"boot a VM at each of {sites} sites, through the API that serves it",
    )


def _stores_in_words(cloud: CloudLayout) -> str:
    """Name what holds the databases."""
    if cloud.redis:
        return "Redis" if cloud.redis.kind == "server" else "the Redis Cluster"
    if cloud.galera:
        return f"Galera's {len(cloud.stores[0].nodes)} nodes"
    return "MariaDB above the cells and in each" if cloud.cells else "the database"


def _cloud_memory(cloud: CloudLayout | None, hosts: Iterable[PlannedHost]) -> int:
    """Estimate what a cloud adds to the memory of its hosts, in bytes."""
    if cloud is None:
        return 0
    workers = cloud.options.workers.items()
    more = {
        "controller": sum(number - 1 for name, number in workers if name.startswith("nova")),
        "master": sum(number - 1 for name, number in workers if not name.startswith("nova")),
    }
    services = sum(
        CLOUD_MEMORY_BYTES[role] + more.get(role, 0) * WORKER_MEMORY_BYTES
        for host in hosts
        for role in host.roles
    )
    proxies = len(cloud.galera.proxies) if cloud.galera else 0
    return (
        services
        + len(cloud.cells) * CELL_MEMORY_BYTES
        + sum(len(store.nodes) * _node_memory(store) for store in cloud.stores)
        + proxies * PROXY_MEMORY_BYTES
    )


def _node_memory(store: databases.Store) -> int:
    """Estimate what one node of a store takes, in bytes."""
    if store.engine == databases.REDIS:
        return REDIS_MEMORY_BYTES
    return GALERA_MEMORY_BYTES if store.kind == databases.GALERA else MARIADB_MEMORY_BYTES


def _hosts(topology: Topology) -> Iterator[PlannedHost]:
    provider = topology.provider
    master_is_missing = topology.master is None
    for site in topology.sites:
        names: list[tuple[str, tuple[str, ...]]] = []
        if site.name == topology.master:
            names.append((f"{site.name}-master-1", ("master",)))
        for role, count in (
            ("controller", site.controllers),
            ("compute", site.computes),
            ("data", site.data),
        ):
            for number in range(1, count + 1):
                roles: tuple[str, ...] = (role,)
                if master_is_missing and role == "controller":
                    roles, master_is_missing = (role, "master"), False
                names.append((f"{site.name}-{role}-{number}", roles))
        for name, roles in names:
            limit = provider.limit(roles[0]) if isinstance(provider, LocalProvider) else Limit()
            yield PlannedHost(HostName(name), site.name, roles, limit=limit)


def _local_plan(
    topology: Topology,
    provider: LocalProvider,
    hosts: tuple[PlannedHost, ...],
    common: dict[str, Any],
) -> Plan:
    servers: dict[str, int] = {site.name: 0 for site in topology.sites}
    for host in hosts:
        servers[host.site] += 1
    network = ipaddress.IPv4Network(provider.network or _network_of(common["name"]))
    prefix = site_prefix(list(servers.values()))
    if prefix < network.prefixlen or 2 ** (prefix - network.prefixlen) <= len(servers):
        bits = len(servers).bit_length()
        raise Refused(
            f"{network} has no room for {len(servers)} sites of a /{prefix} each",
            f"write 'provider: {{type: local, network: 10.0.0.0/{max(8, prefix - bits)}}}'",
        )
    subnets = network.subnets(new_prefix=prefix)
    backbone = next(subnets)
    sites = []
    placed: list[PlannedHost] = []
    of_site: dict[str, list[PlannedHost]] = {site.name: [] for site in topology.sites}
    for host in hosts:
        of_site[host.site].append(host)
    for number, site in enumerate(topology.sites, start=1):
        subnet = next(subnets)
        sites.append(
            PlannedSite(site.name, number, str(subnet), str(subnet[-2]), str(backbone[number]))
        )
        placed += [
            dataclasses.replace(host, address=str(subnet[index]))
            for index, host in enumerate(of_site[site.name], start=1)
        ]
    pairs = sum(1 for link in common["links"] if not link.link.is_plain)
    return Plan(
        sites=tuple(sites),
        hosts=tuple(placed),
        wan=provider.wan,
        network=str(network),
        backbone=str(backbone),
        machine=str(backbone[-3]),
        router=str(backbone[-2]),
        merge_memory=provider.merge_memory,
        needs=Needs(
            memory_bytes=len(hosts) * HOST_MEMORY_BYTES
            + pairs * WAN_PAIR_MEMORY_BYTES // 2
            + _cloud_memory(common["cloud"], hosts),
            disk_bytes=len(hosts) * HOST_DISK_BYTES
            + IMAGE_DISK_BYTES
            + (CLOUD_DISK_BYTES if common["cloud"] else 0),
        ),
        steps=_steps(
            topology,
            common["cloud"],
            "check this machine: rights, tools, memory, disk, addresses",
            "build the root tree of the hosts, or take it from the cache",
            f"join {len(sites)} sites by a backbone of network namespaces",
            f"boot {len(hosts)} hosts and wait for ssh",
        ),
        **common,
    )


def _lent_plan(
    topology: Topology,
    provider: PlatformProvider,
    hosts: tuple[PlannedHost, ...],
    sites: tuple[PlannedSite, ...],
    common: dict[str, Any],
) -> Plan:
    """Of machines that a platform lends: their addresses are known once they are there."""
    chosen, placed = str(common["name"]), [host.site for host in hosts]
    requests: tuple[Request, ...] = ()
    hours: float | None = None
    warnings: list[str] = []
    if isinstance(provider, G5kProvider):
        requests = oar.requests(provider, placed, chosen)
        hours = oar.node_hours(requests, provider.job.walltime_s)
        warnings = oar.policy_warnings(provider.job, _nodes(requests))
        plan_checks.require_walltime(chosen, provider.job, common["cloud"] is not None)
    elif isinstance(provider, VMonG5kProvider):
        plan_checks.require_walltime(chosen, provider.job, common["cloud"] is not None)
    return Plan(
        sites=sites,
        hosts=hosts,
        needs=Needs(),
        platform=provider,
        requests=requests,
        node_hours=hours,
        warnings=tuple(warnings),
        steps=_steps(topology, common["cloud"], *_lending(provider, len(hosts))),
        **common,
    )


def _nodes(requests: Iterable[Request]) -> dict[Cluster, int]:
    return {
        Cluster(request.site, cluster): nodes
        for request in requests
        for cluster, nodes in request.clusters.items()
    }


def _lending(provider: PlatformProvider, hosts: int) -> tuple[str, ...]:
    if isinstance(provider, G5kProvider):
        more = f", {provider.spares} more on each cluster" if provider.spares else ""
        return (
            "go on with the jobs of an earlier run, if it left any",
            f"reserve {hosts} nodes on Grid'5000{more}",
            f"deploy {provider.environment} on them, wait for ssh, put spares in for those that "
            "don't come up",
        )
    words = {
        "vmong5k": "reserve nodes on Grid'5000 and start {} virtual machines on them",
        "vagrant": "start {} virtual machines with Vagrant",
        "chameleon": "borrow {} machines from Chameleon",
        "dummy": "make up what {} hosts would say",
    }
    return (words[provider.type].format(hosts), "wait for ssh")


def _network_of(name: str) -> str:
    """A network for each testbed name, so that two testbeds rarely meet."""
    return f"10.{64 + zlib.crc32(name.encode()) % 64}.0.0/16"


def _static_hosts(
    hosts: tuple[PlannedHost, ...], provider: StaticProvider
) -> Iterator[PlannedHost]:
    free = {site: iter(entries) for site, entries in provider.hosts.items()}
    for host in hosts:
        ssh = next(free[host.site])
        yield dataclasses.replace(host, address=ssh.address, ssh=ssh)
