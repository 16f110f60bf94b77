"""A plan's cloud: which service runs on which host, and where it can be asked.

Pure, as plans are.  The layout is the paper's: what all sites share is on the master,
each controller has Nova's own services and is a region with an endpoint of its own,
each compute runs one nova-compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discovery_xp.planning import databases
from discovery_xp.planning.plan import Plan, PlannedHost, key_value_store

# By role of the host: (unit, component, port where it can be asked over HTTP).
_SERVICES: Mapping[str, tuple[tuple[str, str, int | None], ...]] = {
    "master": (
        ("mariadb", "mariadb", None),
        ("rabbitmq-server", "rabbitmq", None),
        ("memcached", "memcached", None),
        ("keystone-api", "keystone", 5000),
        ("glance-api", "glance", 9292),
        ("placement-api", "placement", 8778),
        ("neutron-api", "neutron", 9696),
    ),
    "controller": (
        ("nova-conductor", "nova", None),
        ("nova-scheduler", "nova", None),
        ("nova-api", "nova", 8774),
    ),
    "compute": (("nova-compute", "nova", None),),
    "data": (),
}


@dataclass(frozen=True)
class Service:
    """A systemd unit on a host; `port` is None where it doesn't speak HTTP."""

    unit: str
    component: str
    host: str
    site: str
    port: int | None

    @property
    def queue(self) -> str | None:
        """The queue of the message bus that only this one reads; None where it has none."""
        if self.component != "nova" or self.port is not None:
            return None
        return f"{self.unit.removeprefix('nova-')}.{self.host}"


@dataclass(frozen=True)
class Region:
    """A controller's own Nova endpoint: what clients name to ask at that controller.

    The first controller's region of a site has the site's name, a further one's the
    controller's.
    """

    name: str
    site: str
    controller: str


def services(plan: Plan) -> tuple[Service, ...]:
    """Every service of the plan's cloud, in the order of the hosts; a database first."""
    store = key_value_store(plan)
    has_mariadb = plan.cloud is None or bool(databases.held_by(plan.cloud, databases.MYSQL))
    found = []
    for host in plan.hosts:
        for node in store.nodes if store else ():
            if node.host == host.name:
                found.append(Service(node.unit, "redis", host.name, host.site, None))
        for role in sorted(host.roles, key=list(_SERVICES).index):
            for unit, component, port in _SERVICES[role]:
                if component != "mariadb" or has_mariadb:
                    found.append(Service(unit, component, host.name, host.site, port))
    return tuple(found)


def master(plan: Plan) -> PlannedHost:
    """The host of the services that all sites share."""
    return next(host for host in plan.hosts if "master" in host.roles)


def regions(plan: Plan) -> tuple[Region, ...]:
    """One for each controller, in the order of the hosts."""
    named: set[str] = set()
    found = []
    for host in plan.hosts:
        if "controller" in host.roles:
            found.append(Region(host.name if host.site in named else host.site,
                                host.site, host.name))  # fmt: skip
            named.add(host.site)
    return tuple(found)


def computes(plan: Plan) -> dict[str, list[str]]:
    """Names of the compute hosts by site, without sites that have none."""
    found: dict[str, list[str]] = {}
    for host in plan.hosts:
        if "compute" in host.roles:
            found.setdefault(host.site, []).append(host.name)
    return found


def drawn_from(plan: Plan) -> int:
    """Of how many computes, those that look best, a scheduler draws a VM's host.

    Of all that a request may get.  Computes are alike, and what a scheduler knows of them is
    old when many VMs are asked for at once: those whose reports take longest would look best,
    and get most.
    """
    pools = [len(hosts) for hosts in computes(plan).values()]
    zones = plan.cloud is not None and plan.cloud.placement == "availability-zones"
    return max(1, max(pools, default=0) if zones else sum(pools))


def asked_for(plan: Plan) -> dict[str, Region]:
    """For each site with computes, the region whose API boots its VMs.

    Its own, or the first there is where the site has no controller.
    """
    known = regions(plan)
    own: dict[str, Region] = {}
    for region in known:
        own.setdefault(region.site, region)
    return {site: own.get(site, known[0]) for site in computes(plan)}
