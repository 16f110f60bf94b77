"""Topology YAML to a frozen `Topology`; nothing else reads that YAML.

The file is read strictly: every problem in it is found in one go, each with
its line, its value and a remedy.  `docs/topologies.md` describes the format,
`topology_schema()` gives it to editors.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from discovery_xp import platforms, units
from discovery_xp.errors import InvalidInput, Problem
from discovery_xp.fields import NAME, Duration, Entry, Loss, Name, Percent, Rate, Size, wrong
from discovery_xp.platforms import (
    ChameleonEntry,
    G5kEntry,
    PlatformProvider,
    VagrantEntry,
    VMonG5kEntry,
)
from discovery_xp.yamlfile import YamlFile, parse_yaml, read_yaml

ROLES = ("master", "controller", "compute", "data")
# Words that Ansible or we give a meaning of their own among the groups of hosts.
RESERVED_NAMES = frozenset({*ROLES, "all", "ungrouped", "localhost", "none", "backbone", "wan"})
MAX_SITES = 250
MAX_SERVERS_PER_SITE = 1000

_HOST_NAME = re.compile(rf"-({'|'.join(ROLES)})-\d+$")
_DOCS = "see docs/topologies.md"


# ---------------------------------------------------------------- the file's shape


class SiteEntry(Entry):
    """One site, or `count` equal ones named NAME1, NAME2, ..."""

    name: Name
    count: int = Field(1, ge=1, le=MAX_SITES, description="how many equal sites this stands for")
    controllers: int = Field(1, ge=0, le=MAX_SERVERS_PER_SITE)
    computes: int = Field(1, ge=0, le=MAX_SERVERS_PER_SITE)
    data: int = Field(0, ge=0, le=MAX_SERVERS_PER_SITE, description="key/value (data) nodes")


class _LinkValues(Entry):
    delay: Duration | None = Field(None, description="one way, as in tc")
    rtt: Duration | None = Field(None, description="round trip; half of it each way")
    jitter: Duration | None = Field(None, description="variation of the one-way delay")
    loss: Loss | None = Field(None, description="share of packets lost, each way")
    rate: Rate | None = Field(None, description="bandwidth limit, each way")


class LinkEntry(_LinkValues):
    """A rule for one pair of sites (`between`) or one direction (`from`, `to`)."""

    between: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    from_: str | None = Field(None, alias="from")
    to: str | None = None


class ToleranceEntry(Entry):
    """How far an observed round trip may be off: the larger of the two."""

    absolute: Duration = 2.0
    relative: Percent = 5.0


class NetworkEntry(_LinkValues):
    """The links between sites: what holds for all, and `links` for single pairs."""

    links: list[LinkEntry] = Field([])
    tolerance: ToleranceEntry = ToleranceEntry()


class LimitEntry(Entry):
    """What one emulated host may use."""

    cpus: float | None = Field(None, gt=0, le=1024, strict=False, description="in cores, e.g. 0.5")
    memory: Size | None = None


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


class StaticHostEntry(Entry):
    """One ssh host, where it differs from the provider's defaults."""

    address: str
    user: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    key: str | None = None


class StaticEntry(Entry):
    """Hosts that exist already and answer over ssh."""

    type: Literal["static"]
    hosts: dict[str, list[str | StaticHostEntry]] = Field(
        description="for each site, the addresses of at least as many hosts as it needs"
    )
    user: str = "root"
    port: int = Field(22, ge=1, le=65535)
    key: str | None = Field(None, description="path of the private ssh key")


# The processes of a deployment whose number of workers can be chosen.
WORKER_SERVICES = (
    "keystone", "glance", "placement", "neutron", "nova-api", "nova-conductor", "nova-scheduler",
)  # fmt: skip
Workers = Annotated[int, Field(ge=1, le=64)]


def _check_setting(value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    raise wrong(f"'{_short(value)}' is not a value", "write a text or a number")


Setting = Annotated[
    Any,
    BeforeValidator(_check_setting),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
# Section -> option -> value, as in the service's own configuration file.
Settings = dict[str, dict[str, Setting]]


class RomeEntry(Entry):
    """Redis, where ROME keeps the services' databases in it."""

    store: Literal["auto", "server", "cluster"] = Field(
        "auto",
        description="one Redis server, or a Redis Cluster with a master on each data node; "
        "auto: a cluster from 3 data nodes on",
    )
    persistence: Literal["everysec", "always", "none"] = Field(
        "everysec",
        description="when Redis has its log of writes on disk: a second later at most, "
        "before it answers, or never",
    )
    replicas: int = Field(0, ge=0, le=2, description="copies of each datum, on other data nodes")


class OpenStackEntry(Entry):
    """The cloud that `deploy` makes on the hosts."""

    backend: Literal["mysql", "rome"] = Field(
        "mysql", description="what holds the services' databases: MariaDB, or Redis through ROME"
    )
    rome: RomeEntry = Field(RomeEntry(), description="with 'backend: rome'")
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

    name: Name | None = Field(None, description="default: the file's name")
    description: str | None = None
    sites: Annotated[list[SiteEntry], Field(min_length=1, max_length=MAX_SITES)]
    master: str | None = Field(
        None,
        description="site of the host for shared services (default: the first); "
        "'none' lets the first controller do it",
    )
    network: NetworkEntry = NetworkEntry()
    openstack: OpenStackEntry = OpenStackEntry()
    provider: Annotated[
        LocalEntry | StaticEntry | G5kEntry | VMonG5kEntry | VagrantEntry | ChameleonEntry,
        Field(discriminator="type"),
    ] = LocalEntry(type="local")


# ---------------------------------------------------------------- the values


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
    """What one emulated host may use; None is no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Site:
    """A place with servers; counts of hosts by role."""

    name: str
    controllers: int
    computes: int
    data: int

    @property
    def servers(self) -> int:
        """Hosts of the site, the master aside."""
        return self.controllers + self.computes + self.data


@dataclass(frozen=True)
class SshHost:
    """How a host is reached; `jump` is the host that ssh goes through, None for nothing."""

    address: str
    user: str
    port: int
    key: str | None
    jump: str | None = None


@dataclass(frozen=True)
class LocalProvider:
    """Emulated hosts; `network` None means: derived from the testbed's name."""

    network: str | None = None
    wan: str = "auto"
    limits: Mapping[str, Limit] = dataclasses.field(default_factory=dict)
    type: str = "local"

    def limit(self, role: str) -> Limit:
        """The limit of hosts of `role`."""
        default = self.limits.get("default", Limit())
        own = self.limits.get(role, Limit())
        return Limit(
            own.cpus if own.cpus is not None else default.cpus,
            own.memory_bytes if own.memory_bytes is not None else default.memory_bytes,
        )


@dataclass(frozen=True)
class StaticProvider:
    """Existing ssh hosts by site, at least as many as the site needs."""

    hosts: Mapping[str, tuple[SshHost, ...]]
    type: str = "static"


Provider: TypeAlias = LocalProvider | StaticProvider | PlatformProvider


@dataclass(frozen=True)
class Rome:
    """How Redis is run where ROME keeps databases in it; `docs/openstack.md` says more."""

    store: str = "auto"
    persistence: str = "everysec"
    replicas: int = 0


@dataclass(frozen=True)
class OpenStack:
    """How the cloud on the hosts is made; `docs/openstack.md` says what each choice does.

    `workers` holds a number for each of WORKER_SERVICES; `config` options of the services
    themselves, by service, section and option; `rome` says nothing with another backend.
    """

    backend: str = "mysql"
    rome: Rome = Rome()
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

    `rules` holds the links that differ from `default`, by (source, target).
    """

    name: str
    sites: tuple[Site, ...]
    master: str | None
    default: Link
    rules: Mapping[tuple[str, str], Link]
    tolerance: Tolerance
    provider: Provider
    description: str = ""
    openstack: OpenStack = OpenStack()

    def link(self, source: str, target: str) -> Link:
        """The link from one site to another (no link is imposed inside a site)."""
        if source == target:
            return Link()
        return self.rules.get((source, target), self.default)


# ---------------------------------------------------------------- reading


def read_topology(path: Path) -> Topology:
    """Read a topology file; raises InvalidInput with every problem found."""
    return _build(read_yaml(path), default_name=_name_from(path.stem))


def parse_topology(text: str, name: str = "topology.yaml") -> Topology:
    """The same from text; `name` is what the problems call it."""
    return _build(parse_yaml(text, name), default_name=_name_from(Path(name).stem))


def derive_topology(sites: int, latency: str | None = None) -> Topology:
    """The paper's sites without a file: 1 controller, 6 computes, 1 data node each.

    `latency` is the one-way delay between any two sites, with its unit.
    """
    problems = []
    if not 1 <= sites <= MAX_SITES:
        problems.append(
            Problem("--sites", 0, "", f"'{sites}' is not 1 to {MAX_SITES}", "write e.g. 8")
        )
    delay_ms = 0.0
    if latency is not None:
        try:
            delay_ms = units.parse_duration_ms(latency)
        except units.QuantityError as error:
            problems.append(Problem("--latency", 0, "", error.reason, error.remedy))
    if problems:
        raise InvalidInput(problems)
    names = [f"site{number}" for number in range(1, sites + 1)]
    return Topology(
        name=f"sites-{sites}",
        sites=tuple(Site(name, controllers=1, computes=6, data=1) for name in names),
        master=names[0],
        default=Link(delay_ms=delay_ms),
        rules={},
        tolerance=Tolerance(),
        provider=LocalProvider(),
        description=f"{sites} sites as in the paper, derived from the command line",
    )


_ANNOTATIONS = ("title", "description", "default")


def topology_schema() -> dict[str, Any]:
    """The JSON Schema of a topology file, for editors."""
    schema = TopologyFile.model_json_schema(by_alias=True)
    # `provider: local` is short for `provider: {type: local}`.
    provider = schema["properties"]["provider"]
    full = {key: provider.pop(key) for key in ("discriminator", "oneOf")}
    provider["anyOf"] = [{"const": "local"}, {"oneOf": full["oneOf"]}]
    # `workers: 2` is short for `workers: {default: 2}`.
    workers = schema["$defs"]["OpenStackEntry"]["properties"]["workers"]
    by_service = {key: workers.pop(key) for key in tuple(workers) if key not in _ANNOTATIONS}
    workers["anyOf"] = [by_service["additionalProperties"], by_service]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def is_name(text: str) -> bool:
    """True for what a site or a testbed may be called."""
    return NAME.fullmatch(text) is not None


def parse_link_options(options: Mapping[str, str], current: Link) -> Link:
    """`current` with the values of command-line options; raises InvalidInput.

    `options` holds some of delay, rtt, jitter, loss, rate, as they were written.
    """
    problems = [
        Problem(f"--{place[0]}", 0, "", str(detail["ctx"]["reason"]), str(detail["ctx"]["remedy"]))
        for detail in _shape_errors(options)
        for place in [detail["loc"]]
    ]
    if {"delay", "rtt"} <= options.keys():
        problems.append(
            Problem("--rtt", 0, "", "'delay' and 'rtt' say the same thing twice",
                    "keep one ('rtt' is twice 'delay')")
        )  # fmt: skip
    if problems:
        raise InvalidInput(problems)
    link = _link(_LinkValues.model_validate(options), current)
    if link.jitter_ms > link.delay_ms:
        raise InvalidInput(
            [Problem("--jitter", 0, "", f"the jitter ({units.format_ms(link.jitter_ms)}) is over "
                     f"the one-way delay ({units.format_ms(link.delay_ms)})",
                     "write a jitter of at most the delay")]
        )  # fmt: skip
    return link


def _shape_errors(options: Mapping[str, str]) -> list[ErrorDetails]:
    try:
        _LinkValues.model_validate(options)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _name_from(stem: str) -> str:
    cleaned = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:30].rstrip("-")
    return cleaned if NAME.fullmatch(cleaned) else f"t-{cleaned}"[:30].rstrip("-")


def _build(parsed: YamlFile, default_name: str) -> Topology:
    if not isinstance(parsed.data, dict):
        parsed.report((), "is not a topology", f"write a mapping with 'sites:', {_DOCS}")
        raise InvalidInput(parsed.problems)
    data = parsed.data
    if isinstance(data.get("provider"), str):
        data = {**data, "provider": {"type": data["provider"]}}
    cloud = data.get("openstack")
    if isinstance(cloud, dict) and not isinstance(cloud.get("workers", {}), dict | None):
        data = {**data, "openstack": {**cloud, "workers": {"default": cloud["workers"]}}}
    shape: TopologyFile | None = None
    try:
        shape = TopologyFile.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _report_shape(parsed, detail)
    # Cross-checks look at the raw values, so that they are found in the same run.
    site_servers = _check_sites(parsed, data)
    _check_network(parsed, data, set(site_servers))
    _check_provider(parsed, data, site_servers)
    if parsed.problems or shape is None:
        raise InvalidInput(parsed.problems)
    return _resolve(shape, default_name)


def _report_shape(parsed: YamlFile, detail: ErrorDetails) -> None:
    path, kind = parsed.written(detail["loc"]), detail["type"]
    context = detail.get("ctx", {})
    shown = f"'{_short(detail['input'])}'"
    if kind == "missing":
        key = str(detail["loc"][-1])
        parsed.report(path, f"'{key}' is missing", f"add '{key}: ...'")
    elif kind == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        close = difflib.get_close_matches(str(path[-1]), known, 1)
        remedy = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
        parsed.report(path, "unknown key", remedy)
    elif kind in ("quantity", "name"):
        parsed.report(path, str(context["reason"]), str(context["remedy"]))
    elif kind in ("int_type", "int_from_float", "int_parsing"):
        parsed.report(path, f"{shown} is not a whole number", "write e.g. 3")
    elif kind in ("greater_than_equal", "less_than_equal", "greater_than"):
        bound = context.get("ge", context.get("le", context.get("gt")))
        wanted = {"greater_than_equal": "at least", "less_than_equal": "at most"}.get(kind, "over")
        parsed.report(path, f"{shown} is out of range", f"write {wanted} {bound}")
    elif kind in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected", context.get("expected_tags", ""))
        if "__key__" in str(detail["loc"][-1]) or str(detail["loc"][-1]) == "[key]":
            parsed.report(path, "unknown key", f"known here: {expected}")
        else:
            tag = context.get("tag")
            parsed.report(
                path,
                f"'{tag}' is unknown" if tag else f"{shown} is unknown",
                f"write one of {expected}",
            )
    elif kind == "union_tag_not_found":
        parsed.report(path, "'type' is missing", "add e.g. 'type: local', 'static' or 'g5k'")
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        parsed.report(path, f"{shown} is not a mapping", f"write 'key: value' pairs, {_DOCS}")
    elif kind == "list_type":
        parsed.report(path, f"{shown} is not a list", "write '- ' items")
    elif kind in ("too_short", "too_long"):
        few = "few" if kind == "too_short" else "many"
        limit = context.get("min_length", context.get("max_length"))
        parsed.report(
            path,
            f"has too {few} items ({context.get('actual_length')})",
            f"write {'at least' if few == 'few' else 'at most'} {limit}",
        )
    elif kind == "string_type":
        parsed.report(path, f"{shown} is not text", "write a word, in quotes if need be")
    elif kind in ("float_type", "float_parsing"):
        parsed.report(path, f"{shown} is not a number", "write e.g. 0.5")
    else:
        parsed.report(path, f"{shown}: {detail['msg']}", _DOCS)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _known_keys(path: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows at `path`."""
    schema = TopologyFile.model_json_schema(by_alias=True)

    def follow(node: dict[str, Any]) -> dict[str, Any]:
        for key in ("anyOf", "oneOf"):
            inner = [part for part in node.get(key, []) if part.get("type") != "null"]
            if inner and "discriminator" not in node:
                node = next((part for part in inner if "$ref" in part), inner[0])
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].split("/")[-1]]
        return node

    node: dict[str, Any] = schema
    for part in path:
        if "discriminator" in node:
            node = follow({"$ref": node["discriminator"]["mapping"].get(part, "#/x/LocalEntry")})
        elif isinstance(part, int):
            node = follow(node.get("items", {}))
        elif part in node.get("properties", {}):
            node = follow(node["properties"][part])
        elif isinstance(node.get("additionalProperties"), dict):
            node = follow(node["additionalProperties"])
    return sorted(node.get("properties", {}))


# ---------------------------------------------------------------- cross-checks


def _items(value: object) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(value, list):
        return []
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)]


def _whole(value: object, default: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(str(value)) if whole else default


def _expand(entry: Mapping[str, Any]) -> list[str]:
    name, count = entry.get("name"), entry.get("count")
    if not isinstance(name, str):
        return []
    if count is None:
        return [name]
    return [f"{name}{number}" for number in range(1, min(_whole(count, 1), MAX_SITES) + 1)]


def _check_sites(parsed: YamlFile, data: Mapping[str, Any]) -> dict[str, int]:
    """Report clashes among sites; returns the number of hosts that each site needs."""
    servers: dict[str, int] = {}
    for index, entry in _items(data.get("sites")):
        wanted = [_whole(entry.get(key), 1) for key in ("controllers", "computes")]
        total = sum(wanted) + _whole(entry.get("data"), 0)
        if total == 0:
            parsed.report(
                ("sites", index),
                "a site without any server",
                "give it controllers, computes or data",
            )
        for name in _expand(entry):
            if name in servers:
                parsed.report(("sites", index, "name"), f"a second site '{name}'", "rename one")
            if name in RESERVED_NAMES:
                parsed.report(
                    ("sites", index, "name"),
                    f"'{name}' is a word of its own",
                    "choose another name",
                )
            if _HOST_NAME.search(name):
                parsed.report(
                    ("sites", index, "name"),
                    f"'{name}' reads like the name of a host",
                    "choose another name",
                )
            servers[name] = total
    if len(servers) > MAX_SITES:
        parsed.report(("sites",), f"{len(servers)} sites", f"write at most {MAX_SITES}")
    master = data.get("master")
    if master is None:
        if servers:
            servers[next(iter(servers))] += 1
    elif master in servers:
        servers[master] += 1
    elif master != "none" and isinstance(master, str):
        parsed.report(
            ("master",), f"site '{master}' is not declared", f"write {_choices(servers)} or 'none'"
        )
    elif master == "none" and not any(
        _whole(entry.get("controllers"), 1) for _, entry in _items(data.get("sites"))
    ):
        parsed.report(
            ("master",),
            "'none' needs a controller to take its part",
            "add a controller or name a site",
        )
    return servers


def _choices(names: Mapping[str, object] | set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def _check_network(parsed: YamlFile, data: Mapping[str, Any], sites: set[str]) -> None:
    network = data.get("network")
    if not isinstance(network, dict):
        return
    _check_delay(parsed, ("network",), network)
    _check_jitter(parsed, ("network",), network, network)
    seen: dict[tuple[str, str], int] = {}
    for index, link in _items(network.get("links")):
        place = ("network", "links", index)
        _check_delay(parsed, place, link)
        _check_jitter(parsed, place, link, network)
        for pair in _check_ends(parsed, place, link, sites):
            first = seen.setdefault(pair, index)
            if first != index:
                line = parsed.line(("network", "links", first))
                parsed.report(
                    place,
                    f"a second rule for {pair[0]} to {pair[1]} (the first is on line {line})",
                    "keep one of them",
                )
        if not {"delay", "rtt", "jitter", "loss", "rate"} & link.keys():
            parsed.report(
                place,
                "a rule that changes nothing",
                "give it 'delay', 'rtt', 'jitter', 'loss' or 'rate'",
            )


def _check_delay(parsed: YamlFile, place: tuple[str | int, ...], values: Mapping[str, Any]) -> None:
    if "delay" in values and "rtt" in values:
        parsed.report(
            (*place, "rtt"),
            "'delay' and 'rtt' say the same thing twice",
            "keep one ('rtt' is twice 'delay')",
        )


def _check_jitter(
    parsed: YamlFile,
    place: tuple[str | int, ...],
    values: Mapping[str, Any],
    default: Mapping[str, Any],
) -> None:
    """A packet can't arrive before it is sent: jitter is at most the delay."""
    jitter = _duration(values.get("jitter", default.get("jitter")))
    delay = _one_way(values) if {"delay", "rtt"} & values.keys() else _one_way(default)
    if jitter is not None and delay is not None and jitter > delay:
        key = "jitter" if "jitter" in values else "delay" if "delay" in values else "rtt"
        parsed.report(
            (*place, key),
            f"the jitter ({units.format_ms(jitter)}) is over the one-way "
            f"delay ({units.format_ms(delay)})",
            "write a jitter of at most the delay",
        )


def _one_way(values: Mapping[str, Any]) -> float | None:
    if "delay" in values:
        return _duration(values["delay"])
    if "rtt" in values:
        rtt_ms = _duration(values["rtt"])
        return None if rtt_ms is None else rtt_ms / 2
    return 0.0


def _duration(value: object) -> float | None:
    try:
        return units.parse_duration_ms(value)
    except units.QuantityError:
        return None


def _check_ends(
    parsed: YamlFile, place: tuple[str | int, ...], link: Mapping[str, Any], sites: set[str]
) -> list[tuple[str, str]]:
    """Report wrong ends of a rule; returns the directions that it rules."""
    between, source, target = link.get("between"), link.get("from"), link.get("to")
    directed = source is not None or target is not None
    if (between is not None) == directed:
        parsed.report(
            place,
            "a rule needs its pair of sites",
            "write either 'between: [A, B]' or 'from: A' and 'to: B'",
        )
        return []
    if directed and (source is None or target is None):
        parsed.report(
            place,
            f"'{'from' if source is None else 'to'}' is missing",
            "write both 'from' and 'to'",
        )
        return []
    if directed and "rtt" in link:
        parsed.report(
            (*place, "rtt"), "a round trip has no direction", "write 'delay' with 'from' and 'to'"
        )
    ends = between if isinstance(between, list) else [source, target]
    if len(ends) != 2 or not all(isinstance(end, str) for end in ends):
        return []
    first, second = str(ends[0]), str(ends[1])
    for number, end in enumerate((first, second)):
        key = ("between", number) if between is not None else (("from", "to")[number],)
        if end not in sites:
            close = difflib.get_close_matches(end, sorted(sites), 1)
            remedy = f"did you mean '{close[0]}'?" if close else f"declared: {_choices(sites)}"
            parsed.report((*place, *key), f"site '{end}' is not declared", remedy)
    if first == second:
        parsed.report(place, f"'{first}' has no link to itself", "name two different sites")
        return []
    return [(first, second)] if directed else [(first, second), (second, first)]


def _check_provider(parsed: YamlFile, data: Mapping[str, Any], servers: Mapping[str, int]) -> None:
    provider = data.get("provider")
    if not isinstance(provider, dict):
        return
    if provider.get("type") == "static":
        _check_static(parsed, provider, servers)
    elif provider.get("type") in platforms.TYPES:
        platforms.check(parsed, provider, servers)
    elif isinstance(provider.get("network"), str):
        _check_local_network(parsed, provider["network"], servers)


def _check_local_network(parsed: YamlFile, text: str, servers: Mapping[str, int]) -> None:
    place = ("provider", "network")
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        parsed.report(
            place, f"'{text}' is not an IPv4 network ({error})", "write e.g. '10.64.0.0/16'"
        )
        return
    if not network.is_private or network.is_loopback or network.is_link_local:
        parsed.report(place, f"'{text}' is not a private network", "write e.g. '10.64.0.0/16'")
        return
    needed = site_prefix(list(servers.values()))
    capacity = 2 ** max(0, needed - network.prefixlen) - 1
    if network.prefixlen > needed or capacity < len(servers):
        bits = max(1, len(servers)).bit_length()
        parsed.report(
            place,
            f"'{text}' has no room for {len(servers)} sites of a /{needed} each",
            f"write a network of /{max(8, needed - bits)} or larger",
        )


def site_prefix(servers_per_site: Sequence[int]) -> int:
    """Prefix length of a site's subnet: room for its hosts, its gateway and some growth.

    The backbone's subnet is of the same size and holds an address for each site.
    """
    most = max([*servers_per_site, len(servers_per_site), 1])
    return min(24, 32 - (most + 8).bit_length())


def _check_static(
    parsed: YamlFile, provider: Mapping[str, Any], servers: Mapping[str, int]
) -> None:
    hosts = provider.get("hosts")
    if not isinstance(hosts, dict):
        return
    seen: set[str] = set()
    for site, entries in hosts.items():
        place = ("provider", "hosts", site)
        if site not in servers:
            parsed.report(place, f"site '{site}' is not declared", f"declared: {_choices(servers)}")
            continue
        if not isinstance(entries, list):
            continue
        if len(entries) < servers[site]:
            parsed.report(
                place,
                f"{len(entries)} hosts, but the site needs {servers[site]}",
                "list more hosts or lower the site's counts",
            )
        for index, entry in enumerate(entries):
            address = entry.get("address") if isinstance(entry, dict) else entry
            _check_address(parsed, (*place, index), str(address), seen)
            seen.add(str(address))
    for site in servers:
        if site not in hosts:
            parsed.report(
                ("provider", "hosts"),
                f"no hosts for site '{site}'",
                f"add '{site}: [...]' with {servers[site]} addresses",
            )


def _check_address(
    parsed: YamlFile, place: tuple[str | int, ...], address: str, seen: set[str]
) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        parsed.report(
            place, f"'{address}' is not an IPv4 address", "write e.g. '192.168.0.7' (tc wants it)"
        )
    if address in seen:
        parsed.report(place, f"'{address}' is listed twice", "list it once")


# ---------------------------------------------------------------- shape to values


def _resolve(shape: TopologyFile, default_name: str) -> Topology:
    sites = tuple(_resolve_sites(shape.sites))
    default = _link(shape.network, Link())
    rules: dict[tuple[str, str], Link] = {}
    for entry in shape.network.links:
        link = _link(entry, default)
        if entry.between is not None:
            first, second = entry.between
            rules[first, second] = rules[second, first] = link
        else:
            rules[str(entry.from_), str(entry.to)] = link
    tolerance = shape.network.tolerance
    return Topology(
        name=shape.name or default_name,
        sites=sites,
        master=None if shape.master == "none" else shape.master or sites[0].name,
        default=default,
        rules=rules,
        tolerance=Tolerance(tolerance.absolute, tolerance.relative),
        provider=_resolve_provider(shape, sites),
        description=shape.description or "",
        openstack=_resolve_openstack(shape.openstack),
    )


def _resolve_openstack(entry: OpenStackEntry) -> OpenStack:
    common = entry.workers.get("default", 1)
    own: Mapping[str, int] = entry.workers  # type: ignore[assignment]
    return OpenStack(
        backend=entry.backend,
        rome=Rome(entry.rome.store, entry.rome.persistence, entry.rome.replicas),
        placement=entry.placement,
        periodic_tasks=entry.periodic_tasks,
        virt_driver=entry.virt_driver,
        nics=entry.nics,
        workers={service: own.get(service, common) for service in WORKER_SERVICES},
        config={service: dict(settings) for service, settings in entry.config.items()},
    )


def _resolve_sites(entries: Sequence[SiteEntry]) -> Iterator[Site]:
    for entry in entries:
        grouped = "count" in entry.model_fields_set
        for number in range(1, entry.count + 1):
            name = f"{entry.name}{number}" if grouped else entry.name
            yield Site(name, entry.controllers, entry.computes, entry.data)


def _link(values: _LinkValues, default: Link) -> Link:
    """`values` over `default`; a rule that says a delay says it for itself alone."""
    if values.delay is not None:
        delay_ms = values.delay
    elif values.rtt is not None:
        delay_ms = values.rtt / 2
    else:
        delay_ms = default.delay_ms
    return Link(
        delay_ms=delay_ms,
        jitter_ms=default.jitter_ms if values.jitter is None else values.jitter,
        loss_percent=default.loss_percent if values.loss is None else values.loss,
        rate_mbit=default.rate_mbit if values.rate is None else values.rate,
    )


def _resolve_provider(shape: TopologyFile, sites: Sequence[Site]) -> Provider:
    provider = shape.provider
    if isinstance(provider, StaticEntry):
        return StaticProvider(
            {
                site: tuple(_ssh_host(entry, provider) for entry in entries)
                for site, entries in provider.hosts.items()
            }
        )
    if not isinstance(provider, LocalEntry):
        return platforms.resolve(provider, [site.name for site in sites])
    return LocalProvider(
        network=provider.network,
        wan=provider.wan,
        limits={role: Limit(own.cpus, own.memory) for role, own in provider.limits.items()},
    )


def _ssh_host(entry: str | StaticHostEntry, provider: StaticEntry) -> SshHost:
    own = StaticHostEntry(address=entry) if isinstance(entry, str) else entry
    key = own.key or provider.key
    return SshHost(
        address=own.address,
        user=own.user or provider.user,
        port=own.port or provider.port,
        key=str(Path(key).expanduser()) if key else None,
    )
