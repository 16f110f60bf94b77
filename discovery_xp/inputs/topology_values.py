"""What a topology says, as frozen values; and the file that says it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from discovery_xp.boundary.names import BadName, SiteName, TestbedName
from discovery_xp.inputs import topology_yaml
from discovery_xp.inputs.fields import HOST_PATTERN, JUMP_PATTERN, USER_PATTERN, is_plain_path
from discovery_xp.inputs.platforms import PlatformProvider
from discovery_xp.inputs.topology_file import WORKER_SERVICES
from discovery_xp.text import short


@dataclass(frozen=True)
class Link:
    """One direction between two sites; `delay_ms` and `jitter_ms` are one-way.

    `rate_mbit` is None where the link has no limit of its own.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit: float | None = None

    @property
    def is_plain(self) -> bool:
        """True when nothing has to be imposed."""
        return self == Link()


@dataclass(frozen=True)
class Tolerance:
    """An observed round trip may be off by the larger of the two."""

    absolute_ms: float = 2.0
    relative_percent: float = 5.0

    def allowed_ms(self, rtt_ms: float) -> float:
        """How far from `rtt_ms` an observation may be, in ms."""
        return max(self.absolute_ms, rtt_ms * self.relative_percent / 100)


@dataclass(frozen=True)
class Limit:
    """What one emulated host may use; None leaves it to the provider."""

    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class Site:
    """A place with servers; counts of hosts by role."""

    name: SiteName
    controllers: int
    computes: int
    data: int

    @property
    def servers(self) -> int:
        """Hosts of the site, the master aside."""
        return self.controllers + self.computes + self.data


@dataclass(frozen=True)
class SshHost:
    """How a host is reached; `jump` is the host that ssh goes through, None for nothing.

    Whoever names the host (a topology, a platform's API, a stored state), each value is a
    single word, or a path: BadName is raised for what a line of ssh's configuration could
    take for more.
    """

    address: str
    user: str
    port: int
    key: str | None
    jump: str | None = None

    def __post_init__(self) -> None:
        is_word = {
            "address": re.fullmatch(HOST_PATTERN, self.address),
            "user": re.fullmatch(USER_PATTERN, self.user),
            "port": 1 <= self.port <= 65535,
            "key": self.key is None or is_plain_path(self.key),
            "jump": self.jump is None or re.fullmatch(JUMP_PATTERN, self.jump),
        }
        for field, is_right in is_word.items():
            if not is_right:
                raise BadName(
                    f"ssh's {field}",
                    f"'{short(getattr(self, field))}' can't be one",
                    "write one without spaces, quotes and control characters",
                )


@dataclass(frozen=True)
class LocalProvider:
    """Emulated hosts; `network` None means: derived from the testbed's name."""

    network: str | None = None
    wan: str = "auto"
    limits: Mapping[str, Limit] = dataclasses.field(default_factory=dict)
    merge_memory: bool = True
    type: str = "local"

    def limit(self, role: str) -> Limit:
        """The limit of hosts of `role`."""
        default = self.limits.get("default", Limit())
        own = self.limits.get(role, Limit())
        return Limit(
            own.cpus if own.cpus is not None else default.cpus,
            own.memory_bytes if own.memory_bytes is not None else default.memory_bytes,
            own.disk_bytes if own.disk_bytes is not None else default.disk_bytes,
            own.processes if own.processes is not None else default.processes,
        )


@dataclass(frozen=True)
class StaticProvider:
    """Existing ssh hosts by site, at least as many as the site needs."""

    hosts: Mapping[str, tuple[SshHost, ...]]
    type: str = "static"


Provider: TypeAlias = LocalProvider | StaticProvider | PlatformProvider


@dataclass(frozen=True)
class Rome:
    """How Redis is run where ROME keeps databases in it; `docs/openstack.md` says more.

    `table_lease` is in seconds of a clock, whatever the time scale; 0 leases none.
    """

    store: str = "auto"
    persistence: str = "everysec"
    replicas: int = 0
    table_lease: int = 0


@dataclass(frozen=True)
class Galera:
    """How Galera replicates databases; `docs/galera.md` says more.

    `writers` is 'all' or 'one'; `sync_wait` is MariaDB's `wsrep_sync_wait`; with `segments` each
    site is a segment of the group; `isolation` is that of transactions; `nodes` says whether each
    'site' has one, or each 'data' host.
    """

    writers: str = "all"
    sync_wait: int = 3
    segments: bool = True
    isolation: str = "read-committed"
    nodes: str = "site"


@dataclass(frozen=True)
class OpenStack:
    """How the cloud on the hosts is made; `docs/openstack.md` says what each choice does.

    `layout` is 'shared' or 'cells'.  `workers` holds a number for each of WORKER_SERVICES; `config`
    options of the services themselves, by service, section and option; `rome` and `galera` say
    nothing with another backend.
    """

    backend: str = "mysql"
    layout: str = "shared"
    rome: Rome = Rome()
    galera: Galera = Galera()
    placement: str = "shared"
    periodic_tasks: str = "quiet"
    virt_driver: str = "fake"
    nics: int = 0
    workers: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(WORKER_SERVICES, 1)
    )
    config: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Topology:
    """What a researcher asked for, complete and free of contradictions.

    `rules` holds the links that differ from `default`, by (source, target).  So many seconds as
    `time_scale` says stand for one; all values are those that they stand for.
    """

    name: TestbedName
    sites: tuple[Site, ...]
    master: SiteName | None
    default: Link
    rules: Mapping[tuple[str, str], Link]
    tolerance: Tolerance
    provider: Provider
    description: str = ""
    openstack: OpenStack = OpenStack()
    time_scale: float = 1.0

    def link(self, source: str, target: str) -> Link:
        """The link from one site to another (no link is imposed inside a site)."""
        if source == target:
            return Link()
        return self.rules.get((source, target), self.default)

    def to_yaml(self) -> str:
        """Write a topology file that says the same, complete, each quantity with its unit.

        Raises ValueError for what no file says: a rule without the limit that all links have.
        """
        return topology_yaml.write(dataclasses.asdict(self))
