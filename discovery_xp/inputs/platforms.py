"""Platforms that lend machines: their part of a topology file, and what comes of it.

Grid'5000 (nodes, or virtual machines on them), Vagrant and Chameleon; and the dummy, which has
canned answers in the place of machines.  What each field means to a user is in
docs/topologies.md.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from discovery_xp.inputs.fields import (
    Entry,
    FilePath,
    Identifier,
    JumpHost,
    Label,
    Size,
    SshUser,
    own_network,
    word,
    wrong,
)
from discovery_xp.inputs.yamlfile import YamlFile
from discovery_xp.text import short

MIB = 2**20

# ---------------------------------------------------------------- the file's shape


_START = "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"


def _check_start(value: object) -> object:
    try:
        start = dt.datetime.strptime(str(value)[:40], "%Y-%m-%d %H:%M:%S")
    except ValueError:
        start = None
    is_plain = isinstance(value, str) and re.fullmatch(_START, value) is not None
    if not is_plain or start is None or not 2000 <= start.year < 2200:
        raise wrong(f"'{short(value)}' is not a start", "write e.g. '2027-03-01 19:00:00'")
    return value


def _check_network(value: object) -> object:
    return str(own_network(value, "192.168.42.0/24"))


Walltime = Annotated[
    str,
    *word(
        r"\d{1,3}:[0-5]\d:[0-5]\d",
        "a walltime",
        "write hours, minutes and seconds, e.g. '03:00:00'",
    ),
]
Start = Annotated[
    str,
    BeforeValidator(_check_start),
    WithJsonSchema({"type": "string", "pattern": f"^{_START}$"}),
]
JobType = Annotated[
    str,
    *word(
        r"[a-z_]+(=[A-Za-z0-9_.*+:|()^$-]+)?",
        "a type of job",
        "write e.g. 'night', 'exotic' or 'monitor=wattmetre'",
    ),
]
PrivateNetwork = Annotated[str, BeforeValidator(_check_network), WithJsonSchema({"type": "string"})]
Queue = Literal["default", "production", "testing", "besteffort", "admin"]


class ClusterEntry(Entry):
    """Where on Grid'5000 a site of the experiment lives."""

    site: Identifier
    cluster: Identifier


class _Grid5000Entry(Entry):
    site: Identifier | None = Field(
        None, description="Grid'5000 site of the sites not under `sites`"
    )
    cluster: Identifier | None = Field(None, description="cluster of the sites not under `sites`")
    sites: dict[str, ClusterEntry] = Field({})
    walltime: Walltime = "02:00:00"
    queue: Queue = "default"
    project: Identifier | None = None
    reservation: Start | None = Field(
        None, description="start in Paris, as 'YYYY-mm-dd HH:MM:SS'; else as soon as possible"
    )
    job_types: list[JobType] = Field(
        [], max_length=20, description="types of OAR jobs, besides those needed"
    )
    key: FilePath | None = Field(
        None, description="path of the private ssh key, its public half beside it as .pub"
    )
    jump_host: JumpHost = Field(
        "auto", description="through which ssh goes; auto: Grid'5000's own, from outside of it"
    )


class G5kEntry(_Grid5000Entry):
    """Nodes reserved on Grid'5000."""

    type: Literal["g5k"]
    environment: Label = Field("debian12-nfs", description="image that is deployed on the nodes")
    network: Literal["production", "kavlan", "kavlan-global"] = Field(
        "production",
        description="the network of all, a routed VLAN for each Grid'5000 site, or one for all",
    )
    spares: int = Field(
        0, ge=0, le=100, description="nodes more on each cluster, for those that don't come up"
    )


class VMonG5kEntry(_Grid5000Entry):
    """Virtual machines on nodes of Grid'5000, a host of the experiment in each."""

    type: Literal["vmong5k"]
    image: FilePath = Field(
        "/grid5000/virt-images/debian12-x64-nfs.qcow2", description="as the nodes know it"
    )
    cores: int = Field(2, ge=1, le=512)
    memory: Size = 4096 * MIB


class VagrantEntry(Entry):
    """Virtual machines on this one, by Vagrant."""

    type: Literal["vagrant"]
    backend: Literal["libvirt", "virtualbox"] = "libvirt"
    box: Label = "generic/debian12"
    user: SshUser = "root"
    cores: int = Field(2, ge=1, le=512)
    memory: Size = 2048 * MIB
    network: PrivateNetwork = "192.168.42.0/24"


class ChameleonEntry(Entry):
    """Machines lent by Chameleon: virtual ones, or whole ones for a time."""

    type: Literal["chameleon"]
    kind: Literal["kvm", "baremetal"] = "baremetal"
    rc_file: FilePath = Field(description="path of the project's OpenStack RC file")
    key_name: Label = Field(description="name of the key pair there")
    key: FilePath | None = Field(None, description="path of its private half")
    image: Label = Field(description="name of a Debian 12 image there")
    flavour: Label = Field(description="flavour of the virtual machines, or type of the nodes")
    user: SshUser = "cc"
    walltime: Walltime = "02:00:00"


# What can go wrong with the dummy's hosts, in the order in which it does.
Fault = Literal[
    "refused", "lost", "unreachable", "play", "links", "latency", "boot", "services", "load",
    "probes", "backup", "release", "shares",
]  # fmt: skip


class DummyEntry(Entry):
    """No hosts: all that hosts would say is canned, to try the commands out."""

    type: Literal["dummy"]
    faults: list[Fault] = Field([], max_length=20, description="what is to go wrong")


# ---------------------------------------------------------------- the values


@dataclass(frozen=True)
class Cluster:
    """A Grid'5000 site and cluster."""

    site: str
    cluster: str


@dataclass(frozen=True)
class Job:
    """How jobs are asked of OAR; `reservation` is in Paris, None for as soon as possible."""

    walltime: str = "02:00:00"
    queue: str = "default"
    project: str | None = None
    reservation: str | None = None
    types: tuple[str, ...] = ()

    @property
    def walltime_s(self) -> int:
        """Its walltime in seconds."""
        return seconds(self.walltime)


@dataclass(frozen=True)
class Access:
    """How nodes are reached: the private key's path, and the host that ssh jumps through.

    `jump_host` is 'auto', 'none' or a host; `key` None means ssh's own.
    """

    key: str | None = None
    jump_host: str = "auto"


@dataclass(frozen=True)
class G5kProvider:
    """Nodes of Grid'5000; `clusters` by site of the experiment."""

    clusters: Mapping[str, Cluster]
    job: Job = Job()
    access: Access = Access()
    environment: str = "debian12-nfs"
    network: str = "production"
    spares: int = 0
    type: str = "g5k"


@dataclass(frozen=True)
class VMonG5kProvider:
    """Virtual machines on nodes of Grid'5000; `clusters` by site of the experiment."""

    clusters: Mapping[str, Cluster]
    job: Job
    access: Access
    image: str
    cores: int
    memory_mib: int
    type: str = "vmong5k"


@dataclass(frozen=True)
class VagrantProvider:
    """Virtual machines by Vagrant."""

    backend: str
    box: str
    user: str
    cores: int
    memory_mib: int
    network: str
    type: str = "vagrant"


@dataclass(frozen=True)
class ChameleonProvider:
    """Machines of Chameleon; `kind` is 'kvm' or 'baremetal'."""

    kind: str
    rc_file: str
    key_name: str
    key: str | None
    image: str
    flavour: str
    user: str
    walltime: str
    type: str = "chameleon"


@dataclass(frozen=True)
class DummyProvider:
    """Canned answers in the place of hosts; `faults` are what goes wrong.

    Faults aren't part of what the hosts are: a command without them goes on where one with them
    failed.
    """

    faults: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    type: Literal["dummy"] = "dummy"


PlatformEntry: TypeAlias = G5kEntry | VMonG5kEntry | VagrantEntry | ChameleonEntry | DummyEntry
PlatformProvider: TypeAlias = (
    G5kProvider | VMonG5kProvider | VagrantProvider | ChameleonProvider | DummyProvider
)
TYPES = ("g5k", "vmong5k", "vagrant", "chameleon", "dummy")


def seconds(walltime: str) -> int:
    """'H:MM:SS' in seconds."""
    hours, minutes, rest = (int(part) for part in walltime.split(":"))
    return hours * 3600 + minutes * 60 + rest


# ---------------------------------------------------------------- checks over several keys


def check(parsed: YamlFile, provider: Mapping[str, Any], sites: Iterable[str]) -> None:
    """Report what is wrong between the keys of a provider's mapping; `sites` are declared."""
    if provider.get("type") not in ("g5k", "vmong5k"):
        return
    declared, entries = dict.fromkeys(sites), provider.get("sites")
    own = entries if isinstance(entries, dict) else {}
    for site in own:
        if site not in declared:
            parsed.report(
                ("provider", "sites", site),
                f"site '{short(site)}' is not declared",
                f"declared: {_some(declared)}",
            )
    homeless = [site for site in declared if site not in own]
    if homeless and not (provider.get("site") and provider.get("cluster")):
        parsed.report(
            ("provider",),
            f"no cluster for {_some(homeless)}",
            "write 'site' and 'cluster', or one for each under 'sites'",
        )
    types = provider.get("job_types")
    types = types if isinstance(types, list) else []
    for index, name in enumerate(types):
        if short(name).split("=")[0] in ("deploy", "origin"):
            parsed.report(
                ("provider", "job_types", index), f"'{short(name)}' is there anyway", "leave it out"
            )
    if "besteffort" in types and provider.get("reservation"):
        parsed.report(
            ("provider", "reservation"),
            "a job of type besteffort has no start",
            "leave one of them out",
        )


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


# ---------------------------------------------------------------- shape to values


def resolve(entry: PlatformEntry, sites: Iterable[str]) -> PlatformProvider:
    """The values of an entry without problems, for a topology of these sites."""
    if isinstance(entry, DummyEntry):
        return DummyProvider(tuple(entry.faults))
    if isinstance(entry, VagrantEntry):
        return VagrantProvider(
            entry.backend, entry.box, entry.user, entry.cores, entry.memory // MIB, entry.network
        )
    if isinstance(entry, ChameleonEntry):
        return ChameleonProvider(
            kind=entry.kind,
            rc_file=_path(entry.rc_file),
            key_name=entry.key_name,
            key=_path(entry.key) if entry.key else None,
            image=entry.image,
            flavour=entry.flavour,
            user=entry.user,
            walltime=entry.walltime,
        )
    common = Cluster(entry.site or "", entry.cluster or "")
    clusters = {
        site: Cluster(own.site, own.cluster) if (own := entry.sites.get(site)) else common
        for site in sites
    }
    job = Job(entry.walltime, entry.queue, entry.project, entry.reservation, tuple(entry.job_types))
    access = Access(_path(entry.key) if entry.key else None, entry.jump_host)
    if isinstance(entry, VMonG5kEntry):
        return VMonG5kProvider(clusters, job, access, entry.image, entry.cores, entry.memory // MIB)
    return G5kProvider(clusters, job, access, entry.environment, entry.network, entry.spares)


def _path(text: str) -> str:
    return str(Path(text).expanduser())
