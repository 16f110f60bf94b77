"""A plan's cloud as the model sees it: where services, stores and buses are, and how far apart."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from discovery_xp.errors import Refused
from discovery_xp.onhost import catalogue
from discovery_xp.planning.databases import CELL0, GALERA, ONE_CELL, Store
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.shares import unit_cores

_UNITS = {"mariadb": "mariadb", "redis": "redis-server"}
# The database that a service asks above all.
_DATABASES = {
    "placement-api": "placement",
    "keystone-api": "keystone",
    "glance-api": "glance",
    "neutron-api": "neutron",
    "nova-api": "nova_api",
    "nova-scheduler": "nova_api",
    "nova-super-conductor": "nova_api",
}


@dataclass(frozen=True)
class Node:
    """A process of a store; `farthest_rtt_s` is to the farthest other one of Galera's."""

    host: str
    unit: str
    farthest_rtt_s: float = 0.0


class Cloud:
    """Where a plan's services are; raises Refused where it has no cloud, or one with NICs."""

    def __init__(self, plan: Plan) -> None:
        layout = plan.require_cloud()
        if layout.options.nics:
            raise Refused(
                f"'{plan.name}' gives VMs {layout.options.nics} NICs, and no run with NICs was "
                "traced for the model",
                "write 'nics: 0' under 'openstack'",
            )
        self._layout = layout
        self._plan = plan
        self.site_of = {host.name: host.site for host in plan.hosts}
        self.master = layout.master
        self.master_site = self.site_of[layout.master]
        self.apis = [region.controller for region in layout.regions]
        self.computes = [host for hosts in layout.computes.values() for host in hosts]
        self._delay_ms = {(link.source, link.target): link.link.delay_ms for link in plan.links}
        self._hosts_of: dict[str, list[str]] = {}
        for service in layout.services:
            self._hosts_of.setdefault(service.unit, []).append(service.host)

    @property
    def idle_processes(self) -> int:
        """Return how many processes of Nova's wake up while nothing is asked of them."""
        return sum(len(hosts) for unit, hosts in self._hosts_of.items() if unit.startswith("nova"))

    def rtt_s(self, one: str, other: str) -> float:
        """Return the round trip between two sites, in seconds."""
        return (self._delay_ms[one, other] + self._delay_ms[other, one]) / 1000

    def computes_for(self, api: str) -> list[str]:
        """Return the computes that a VM asked for at an API may get."""
        if self._layout.zones:
            own = self._layout.computes.get(self.site_of[api])
            if own:
                return list(own)
        return self.computes

    def hosts_for(self, service: str, api: str, compute: str) -> list[str]:
        """Return the hosts of a service that may take what is done for a VM."""
        if service == "nova-api":
            return [api]
        if service == "nova-compute":
            return [compute]
        hosts = self._hosts_of.get(service)
        if hosts is None:
            raise Refused(
                f"'{self._plan.name}' has no {service}, which boots ask in the runs that were "
                "traced",
                "name a layout that the model was calibrated for",
            )
        if service == "nova-conductor" and self._layout.cells:
            site = self.site_of[compute]
            return [host for host in hosts if self.site_of[host] == site] or hosts
        if service.startswith("nova"):
            return hosts
        return [next((h for h in hosts if self.site_of[h] == self.site_of[api]), hosts[0])]

    def bus(self, receiver: str, compute: str, site: str) -> str:
        """Return the host of the message bus by which a message reaches a service for a VM."""
        if self._layout.cells and receiver in ("nova-compute", "nova-conductor"):
            cell = self._layout.cell_at(self.site_of[compute])
            return self._layout.bus(cell.name if cell else None, site).host
        return self._layout.bus(None, site).host

    @functools.cache  # noqa: B019  # a cloud lives as long as its prediction
    def store(self, service: str, host: str, compute: str | None) -> Node:
        """Return what a service on a host asks; with a `compute` that of its cell's database."""
        layout = self._layout
        cell = layout.cell_at(self.site_of[compute]) if compute is not None else None
        if cell is not None:
            name = cell.database
        else:
            name = _DATABASES.get(service, ONE_CELL)
            if layout.cells and name == ONE_CELL:
                name = CELL0
        database = next(each for each in layout.databases if each.name == name)
        store = layout.store_of(database)
        if store.kind == GALERA:
            return self._node_of_galera(store, host)
        return Node(store.master_of(name).host, _UNITS[store.engine])

    def _node_of_galera(self, store: Store, host: str) -> Node:
        """Return the node that is asked from a host: the first one of its proxy's."""
        site = self.site_of[host]
        hosts = [node.host for node in store.nodes]
        near = next((each for each in hosts if self.site_of[each] == site), hosts[0])
        own = self.site_of[near]
        far = [self.rtt_s(own, self.site_of[each]) for each in hosts if self.site_of[each] != own]
        return Node(near, _UNITS[store.engine], max(far, default=0.0))

    def workers(self, service: str) -> int:
        """Return how many processes of its own a service has."""
        if service not in catalogue.UNITS:
            return 1
        entry = catalogue.UNITS[service]
        workers = self._layout.options.workers
        return int(workers.get(entry.nova_binary, workers.get(entry.component, 1)))

    def cores_of(self, service: str, host_cores: float | None) -> int:
        """Return how many cores a service uses at most: one for each process of Python."""
        most = host_cores if host_cores is not None else 64.0
        if service not in catalogue.UNITS:
            return 1
        return max(1, int(unit_cores(service, most, self._layout.options)))
