"""What a plan lists: its sites, its hosts, the links between sites."""

from __future__ import annotations

from dataclasses import dataclass, field

from discovery_xp.boundary.names import HostName, SiteName
from discovery_xp.inputs.topology import Limit, Link, SshHost


@dataclass(frozen=True)
class PlannedSite:
    """A site; `network` and `gateway` only where we lay out the addresses ourselves."""

    name: str  # a SiteName
    number: int
    network: str | None = None
    gateway: str | None = None
    backbone_address: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", SiteName(self.name))


@dataclass(frozen=True)
class PlannedHost:
    """One host: `address` is None until the provider assigns one."""

    name: str  # a HostName
    site: str  # a SiteName
    roles: tuple[str, ...]
    address: str | None = None
    ssh: SshHost | None = None
    limit: Limit = field(default_factory=Limit)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", HostName(self.name))
        object.__setattr__(self, "site", SiteName(self.site))


@dataclass(frozen=True)
class PlannedLink:
    """What holds for the packets from `source` to `target`, both sites."""

    source: str  # a SiteName
    target: str  # a SiteName
    link: Link

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", SiteName(self.source))
        object.__setattr__(self, "target", SiteName(self.target))
