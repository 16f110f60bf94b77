"""KaVLAN: which network interfaces of the nodes are in which VLAN, and who may change that."""

from __future__ import annotations

from .jobs import Job, Jobs
from .platform import DEFAULT_VLAN, Platform, Site


class Forbidden(Exception):
    """A user who has no right on a VLAN."""


class Vlans:
    def __init__(self, platform: Platform, jobs: Jobs) -> None:
        self._platform = platform
        self._jobs = jobs
        self._moved: dict[str, str] = {}
        jobs.on_end.append(self._put_back)

    def interfaces(self, site: Site) -> list[str]:
        """The names of all interfaces of a site's nodes: the first one is the node's own."""
        names = []
        for cluster in site.clusters.values():
            for node in cluster.nodes:
                names.append(node.fqdn)
                devices = range(1, cluster.spec.interfaces)
                names += [node.interface(f"eth{number}") for number in devices]
        return names

    def of(self, interface: str) -> str:
        return self._moved.get(interface, DEFAULT_VLAN)

    def inside(self, site: Site, vlan: str) -> list[str]:
        return [name for name in self.interfaces(site) if self.of(name) == vlan]

    def users(self, site: Site, vlan: str) -> list[str]:
        """Who has the VLAN in a running job; a global one may be another site's."""
        start = self._platform.site_of_vlan(vlan) or site
        return sorted(
            {
                job.asked.user
                for job in self._jobs.of(start.name)
                if job.state == "running" and vlan in job.named("vlan")
            }
        )

    def put(self, site: Site, vlan: str, interfaces: list[str], user: str) -> dict[str, str]:
        """Move interfaces into a VLAN; says `ok`, `unchanged` or `unknown_node` of each.

        Raises Forbidden when the user has the VLAN, or one of the nodes, in no running job.
        """
        known = set(self.interfaces(site))
        if vlan != DEFAULT_VLAN and user not in self.users(site, vlan):
            raise Forbidden
        for name in known & set(interfaces):
            if self._jobs.running_on(_node_of(name), user, "deploy") is None:
                raise Forbidden
        found = {}
        for name in interfaces:
            # The first interface is called by its device, too.
            real = name if name in known else name.replace("-eth0.", ".")
            if real not in known:
                found[name] = "unknown_node"
            elif self.of(real) == vlan:
                found[name] = "unchanged"
            else:
                self._moved[real] = vlan
                found[name] = "ok"
        return found

    def _put_back(self, job: Job) -> None:
        ended = set(job.named("node"))
        for name in list(self._moved):
            if _node_of(name) in ended:
                del self._moved[name]


def _node_of(interface: str) -> str:
    """`paravance-1-eth1.rennes.grid5000.fr` is on `paravance-1.rennes.grid5000.fr`."""
    host, dot, domain = interface.partition(".")
    return "-".join(host.split("-")[:2]) + dot + domain
