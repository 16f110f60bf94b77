"""The platform: sites, their clusters and nodes, their networks, and who may use them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol
from zoneinfo import ZoneInfo

# Dates of reservations are in this time zone on every site, wherever the client is.
PARIS = ZoneInfo("Europe/Paris")

LOCAL_VLANS = ("1", "2", "3")
ROUTED_VLANS = ("4", "5", "6", "7", "8", "9")
DEFAULT_VLAN = "DEFAULT"

QUEUES = ("default", "production", "testing", "besteffort", "admin")

ENVIRONMENTS = tuple(
    f"{system}-{variant}"
    for system in ("debian10", "debian11", "debian12", "ubuntu2204", "ubuntu2404", "centos8")
    for variant in ("min", "base", "nfs", "std", "big")
)


class Clock(Protocol):
    """Says what time it is on the platform."""

    def now(self) -> float:
        """Seconds since the epoch."""


class RunningClock:
    """Runs by itself, `factor` times as fast as the wall clock, and can be put forward."""

    def __init__(self, factor: float = 1) -> None:
        self._started = time.time()
        self._factor = factor
        self._skipped = 0.0

    def now(self) -> float:
        return self._started + (time.time() - self._started) * self._factor + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds


class ManualClock:
    """Stands still until it is put forward."""

    def __init__(self, now: float = 1_700_000_000) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        self._now += seconds


@dataclass(frozen=True)
class Node:
    """A node; `index` counts those of its site."""

    site: str
    cluster: str
    number: int
    index: int

    @property
    def name(self) -> str:
        return f"{self.cluster}-{self.number}"

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{self.site}.grid5000.fr"

    def interface(self, device: str) -> str:
        """The name under which the VLANs know one of its network interfaces."""
        return f"{self.name}-{device}.{self.site}.grid5000.fr"


@dataclass(frozen=True)
class ClusterSpec:
    """What a cluster is made of; a bare number of nodes stands for the rest as it is here."""

    nodes: int
    cores: int = 16
    memory_gib: int = 64
    interfaces: int = 2
    queues: tuple[str, ...] = ("admin", "default")
    exotic: bool = False
    virtual: str = "ivt"


Sites = Mapping[str, Mapping[str, int | ClusterSpec]]
"""A plain description of a platform: `{site: {cluster: nodes}}`."""


@dataclass(frozen=True)
class Cluster:
    name: str
    site: str
    spec: ClusterSpec
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Site:
    """A site; its index gives it its networks, as Grid'5000 numbers its own."""

    name: str
    index: int
    clusters: Mapping[str, Cluster]

    @property
    def nodes(self) -> Iterator[Node]:
        for cluster in self.clusters.values():
            yield from cluster.nodes

    @property
    def global_vlan(self) -> str:
        return str(10 + self.index)

    @property
    def production(self) -> IPv4Network:
        return IPv4Network((int(IPv4Address("172.16.0.0")) + self.index * 16 * 256, 20))

    @property
    def subnets(self) -> IPv4Network:
        """The addresses of which jobs reserve slash_22 and larger."""
        return IPv4Network(f"10.{128 + 4 * self.index}.0.0/14")

    def vlan_networks(self) -> dict[str, IPv4Network]:
        """The VLANs of this site by their identifiers, the default one included."""
        routed = list(IPv4Network(f"10.{4 * self.index}.0.0/14").subnets(new_prefix=18))
        return {
            "default": self.production,
            **{
                vlan: IPv4Network(f"192.168.{192 + 16 * number}.0/20")
                for number, vlan in enumerate(LOCAL_VLANS)
            },
            **dict(zip(ROUTED_VLANS, routed, strict=False)),
            self.global_vlan: routed[-1],
        }

    def address(self, node: Node) -> IPv4Address:
        return self.production[256 + node.index]


@dataclass(frozen=True)
class User:
    name: str
    password: str = "secret"
    projects: tuple[str, ...] = ("discovery",)


def gateway(network: IPv4Network) -> IPv4Address:
    return network[-2]


@dataclass(frozen=True)
class Platform:
    sites: Mapping[str, Site]
    users: Mapping[str, User] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sites: Sites,
        users: Sequence[User] = (User("alice"), User("bob")),
    ) -> Platform:
        """Build one of `{site: {cluster: nodes}}`; raises ValueError for names it can't have."""
        made = {}
        clusters: set[str] = set()
        if len(sites) > 14:
            raise ValueError("the addresses are planned for 14 sites")
        for index, (name, described) in enumerate(sites.items(), start=1):
            _check_name("site", name, r"[a-z]+")
            at = 0
            of_site = {}
            for cluster, spec in described.items():
                _check_name("cluster", cluster, r"[a-z]+\d*")
                if cluster in clusters:
                    raise ValueError(f"cluster {cluster} is there twice")
                clusters.add(cluster)
                full = ClusterSpec(spec) if isinstance(spec, int) else spec
                numbers = range(1, full.nodes + 1)
                nodes = tuple(Node(name, cluster, number, at + number) for number in numbers)
                at += full.nodes
                of_site[cluster] = Cluster(cluster, name, full, nodes)
            made[name] = Site(name, index, of_site)
        return cls(made, {user.name: user for user in users})

    def site_of_vlan(self, vlan: str) -> Site | None:
        """The site that a global VLAN starts from."""
        return next((site for site in self.sites.values() if site.global_vlan == vlan), None)

    def vlans(self, site: Site) -> dict[str, str]:
        """The VLANs that nodes of `site` can be put in, with their types."""
        types = {DEFAULT_VLAN: "NULL"}
        types |= dict.fromkeys(LOCAL_VLANS, "kavlan-local")
        types |= dict.fromkeys(ROUTED_VLANS, "kavlan")
        for other in self.sites.values():
            own = other is site
            types[other.global_vlan] = "kavlan-global" if own else "kavlan-global-remote"
        return types


def _check_name(what: str, name: str, pattern: str) -> None:
    # The clients take sites and clusters out of the names of nodes.
    if not re.fullmatch(pattern, name):
        raise ValueError(f"{what} '{name}' should look like {pattern}")


def parse_sites(text: str) -> dict[str, dict[str, int]]:
    """Read `rennes:paravance=4+parasilo=2,nantes:econome=4`; raises ValueError."""
    sites: dict[str, dict[str, int]] = {}
    for part in text.split(","):
        site, colon, clusters = part.partition(":")
        if not colon:
            raise ValueError(f"'{part}' should look like site:cluster=nodes")
        for described in clusters.split("+"):
            cluster, equals, nodes = described.partition("=")
            if not equals or not nodes.isdigit():
                raise ValueError(f"'{described}' should look like cluster=nodes")
            sites.setdefault(site, {})[cluster] = int(nodes)
    return sites
