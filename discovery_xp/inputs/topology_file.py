"""The shape of a topology file: its keys, their types, what editors are told of them.

What one key's value says of another's is looked at in `topology_checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from discovery_xp.boundary.names import Name, TestbedName
from discovery_xp.inputs.fields import (
    Address,
    Duration,
    Entry,
    FilePath,
    Loss,
    Option,
    Percent,
    Rate,
    Section,
    Setting,
    Size,
    SshUser,
    wrong,
)
from discovery_xp.inputs.platforms import PlatformEntry
from discovery_xp.onhost.catalogue import SSH_PORT

MAX_SITES = 250
MAX_SERVERS_PER_SITE = 1000
MAX_HOSTS = 10_000
DOCS = "see docs/topologies.md"
# A period of the kernel's control of CPU shares is of as many milliseconds, at most a second.
MAX_TIME_SCALE = 1000
MAX_TABLE_LEASE_S = 5  # ROME's own limit


class SiteEntry(Entry):
    """One site, or `count` equal ones named NAME1, NAME2, ..."""

    name: Name
    count: int = Field(1, ge=1, le=MAX_SITES, description="how many equal sites this stands for")
    controllers: int = Field(1, ge=0, le=MAX_SERVERS_PER_SITE)
    computes: int = Field(1, ge=0, le=MAX_SERVERS_PER_SITE)
    data: int = Field(0, ge=0, le=MAX_SERVERS_PER_SITE, description="key/value (data) nodes")


class LinkValues(Entry):
    """What can be said of a link; None where nothing is."""

    delay: Duration | None = Field(None, description="one way, as in tc")
    rtt: Duration | None = Field(None, description="round trip; half of it each way")
    jitter: Duration | None = Field(None, description="variation of the one-way delay")
    loss: Loss | None = Field(None, description="share of packets lost, each way")
    rate: Rate | None = Field(None, description="bandwidth limit, each way")


class LinkEntry(LinkValues):
    """A rule for one pair of sites (`between`) or one direction (`from`, `to`)."""

    between: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    from_: str | None = Field(None, alias="from")
    to: str | None = None


class ToleranceEntry(Entry):
    """How far an observed round trip may be off: the larger of the two."""

    absolute: Duration = 2.0
    relative: Percent = 5.0


class NetworkEntry(LinkValues):
    """The links between sites: what holds for all, and `links` for single pairs."""

    links: list[LinkEntry] = Field([])
    tolerance: ToleranceEntry = ToleranceEntry()


class LimitEntry(Entry):
    """What one emulated host may use."""

    cpus: float | None = Field(None, gt=0, le=1024, strict=False, description="in cores, e.g. 0.5")
    memory: Size | None = None
    disk: Size | None = Field(None, description="what it may write, e.g. 20GiB; at least 64MiB")
    processes: int | None = Field(
        None, ge=64, le=4_000_000, description="with their threads, e.g. 4096"
    )


class LocalEntry(Entry):
    """Emulated hosts on this machine."""

    type: Literal["local"]
    network: str | None = Field(None, description="IPv4 network of the hosts, e.g. 10.64.0.0/16")
    wan: Literal["auto", "netem", "vde"] = Field(
        "auto", description="how latency is imposed; auto: tc netem if the kernel has it, else VDE"
    )
    limits: dict[Literal["default", "master", "controller", "compute", "data"], LimitEntry] = Field(
        {}
    )
    merge_memory: bool = Field(
        True, description="keep equal pages of the hosts' memory once, where the kernel can"
    )


class StaticHostEntry(Entry):
    """One ssh host, where it differs from the provider's defaults."""

    address: Address
    user: SshUser | None = None
    port: int | None = Field(None, ge=1, le=65535)
    key: FilePath | None = None


class StaticEntry(Entry):
    """Hosts that exist already and answer over ssh."""

    type: Literal["static"]
    hosts: dict[str, list[str | StaticHostEntry]] = Field(
        description="for each site, the addresses of at least as many hosts as it needs"
    )
    user: SshUser = "root"
    port: int = Field(SSH_PORT, ge=1, le=65535)
    key: FilePath | None = Field(None, description="path of the private ssh key")


# The processes of a deployment whose number of workers can be chosen.
WORKER_SERVICES = (
    "keystone", "glance", "placement", "neutron", "nova-api", "nova-conductor", "nova-scheduler",
)  # fmt: skip
Workers = Annotated[int, Field(ge=1, le=64)]


# Section -> option -> value, as in the service's own configuration file.
Settings = dict[Section, dict[Option, Setting]]


class RomeEntry(Entry):
    """Redis, where ROME keeps the services' databases in it."""

    store: Literal["auto", "server", "servers", "cluster"] = Field(
        "auto",
        description="one Redis server, servers on the data nodes that share the databases out, "
        "or a Redis Cluster with a master on each data node; auto: a cluster from 3 data nodes on",
    )
    persistence: Literal["everysec", "always", "none"] = Field(
        "everysec",
        description="when Redis has its log of writes on disk: a second later at most, "
        "before it answers, or never",
    )
    replicas: int = Field(0, ge=0, le=2, description="copies of each datum, on other data nodes")
    table_lease: int = Field(
        0,
        ge=0,
        le=MAX_TABLE_LEASE_S,
        description="for so many seconds services may be promised that a table which nobody wrote "
        "of late stays as it is, and not ask for it; writes of it wait meanwhile",
    )


class GaleraEntry(Entry):
    """Galera, where it keeps the services' databases."""

    writers: Literal["all", "one"] = Field(
        "all",
        description="services write to their own site's node, or all of them to the first one's",
    )
    sync_wait: int | None = Field(
        None,
        ge=0,
        le=15,
        description="MariaDB's wsrep_sync_wait: which statements wait until their node has all "
        "that others wrote before (default: 3, all but inserts, or 0 with one writer)",
    )
    segments: bool = Field(True, description="each site is a segment (gmcast.segment)")
    isolation: Literal["read-committed", "repeatable-read"] | None = Field(
        None,
        description="of transactions: whether they lock the gaps between rows, too, which another "
        "node's inserts break (default: read-committed, or repeatable-read with one writer)",
    )
    nodes: Literal["site", "data"] = Field(
        "site", description="a node at each site, or on each data host"
    )


# What of Nova each site has of its own; docs/cells.md tells of them.
LAYOUTS = ("shared", "cells")


def _refuse_layout_to_come(value: object) -> object:
    if value == "sites":
        raise wrong(
            "'sites', all services at every site, can't be deployed yet",
            f"write {' or '.join(repr(layout) for layout in LAYOUTS)}",
        )
    return value


class OpenStackEntry(Entry):
    """The cloud that `deploy` makes on the hosts."""

    backend: Literal["mysql", "galera", "rome"] = Field(
        "mysql",
        description="what holds the services' databases: one MariaDB, one at each site (Galera), "
        "or Redis through ROME",
    )
    layout: Annotated[Literal["shared", "cells"], BeforeValidator(_refuse_layout_to_come)] = Field(
        "shared",
        description="one cell of Nova for all sites, or one for each site, with a database, a "
        "message bus and conductors of its own",
    )
    rome: RomeEntry = Field(RomeEntry(), description="with 'backend: rome'")
    galera: GaleraEntry = Field(GaleraEntry(), description="with 'backend: galera'")
    placement: Literal["shared", "availability-zones"] = Field(
        "shared", description="one pool of computes, or an aggregate and a zone for each site"
    )
    periodic_tasks: Literal["quiet", "default"] = Field(
        "quiet", description="Nova's own periodic tasks as they come, or as few as it allows"
    )
    virt_driver: Literal["fake"] = Field("fake", description="what the computes run VMs with")
    nics: int = Field(0, ge=0, le=1, description="network interfaces of each VM")
    workers: dict[
        Literal[
            "default", "keystone", "glance", "placement", "neutron",
            "nova-api", "nova-conductor", "nova-scheduler",
        ],
        Workers,
    ] = Field({}, description="processes of each service on its host, by service")  # fmt: skip
    config: dict[Literal["keystone", "glance", "placement", "neutron", "nova"], Settings] = Field(
        {}, description="options of the services' own, by service and section"
    )


class TopologyFile(Entry):
    """A topology: sites, what runs where, the network between them, the provider."""

    name: TestbedName | None = Field(None, description="default: the file's name")
    description: str | None = None
    sites: Annotated[list[SiteEntry], Field(min_length=1, max_length=MAX_SITES)]
    master: str | None = Field(
        None,
        description="site of the host for shared services (default: the first); "
        "'none' lets the first controller do it",
    )
    network: NetworkEntry = NetworkEntry()
    time_scale: float = Field(
        1.0, ge=1, le=MAX_TIME_SCALE, strict=False, allow_inf_nan=False,
        description="how many seconds stand for one: on emulated hosts all goes so much slower",
    )  # fmt: skip
    openstack: OpenStackEntry = OpenStackEntry()
    provider: Annotated[
        LocalEntry | StaticEntry | PlatformEntry,
        Field(discriminator="type"),
    ] = LocalEntry(type="local")


# ---------------------------------------------------------------- what is said of it


_ANNOTATIONS = ("title", "description", "default")


def topology_schema() -> dict[str, Any]:
    """The JSON Schema of a topology file, for editors."""
    schema = TopologyFile.model_json_schema(by_alias=True)
    # `provider: local` is short for `provider: {type: local}`, and so is `dummy`.
    provider = schema["properties"]["provider"]
    full = {key: provider.pop(key) for key in ("discriminator", "oneOf")}
    provider["anyOf"] = [{"enum": ["local", "dummy"]}, {"oneOf": full["oneOf"]}]
    # `workers: 2` is short for `workers: {default: 2}`.
    workers = schema["$defs"]["OpenStackEntry"]["properties"]["workers"]
    by_service = {key: workers.pop(key) for key in tuple(workers) if key not in _ANNOTATIONS}
    workers["anyOf"] = [by_service["additionalProperties"], by_service]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
