"""Topology YAML to a frozen `Topology`; nothing else reads that YAML.

The file is read strictly: every problem in it is found in one go, each with
its line, its value and a remedy.  `docs/topologies.md` describes the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from discovery_xp.boundary.names import SiteName, TestbedName, derived
from discovery_xp.errors import InvalidInput, Problem
from discovery_xp.inputs import platforms, units
from discovery_xp.inputs.shapes import report_shape
from discovery_xp.inputs.topology_checks import (
    check_network,
    check_openstack,
    check_provider,
    check_sites,
)
from discovery_xp.inputs.topology_file import (
    DOCS,
    MAX_SITES,
    WORKER_SERVICES,
    GaleraEntry,
    LinkValues,
    LocalEntry,
    OpenStackEntry,
    SiteEntry,
    StaticEntry,
    StaticHostEntry,
    TopologyFile,
)
from discovery_xp.inputs.topology_values import (
    Galera as Galera,
)
from discovery_xp.inputs.topology_values import (
    Limit as Limit,
)
from discovery_xp.inputs.topology_values import (
    Link as Link,
)
from discovery_xp.inputs.topology_values import (
    LocalProvider as LocalProvider,
)
from discovery_xp.inputs.topology_values import (
    OpenStack as OpenStack,
)
from discovery_xp.inputs.topology_values import (
    Provider as Provider,
)
from discovery_xp.inputs.topology_values import (
    Rome as Rome,
)
from discovery_xp.inputs.topology_values import (
    Site as Site,
)
from discovery_xp.inputs.topology_values import (
    SshHost as SshHost,
)
from discovery_xp.inputs.topology_values import (
    StaticProvider as StaticProvider,
)
from discovery_xp.inputs.topology_values import (
    Tolerance as Tolerance,
)
from discovery_xp.inputs.topology_values import (
    Topology as Topology,
)
from discovery_xp.inputs.yamlfile import YamlFile, parse_yaml, read_yaml
from discovery_xp.text import short

# ---------------------------------------------------------------- reading


def read_topology(path: Path) -> Topology:
    """Read a topology file; raises InvalidInput with every problem found."""
    return topology_of(read_yaml(path))


def topology_of(parsed: YamlFile) -> Topology:
    """The topology in a file that was read; raises InvalidInput with every problem found."""
    return _build(parsed, default_name=_name_from(Path(parsed.name).stem))


def parse_topology(text: str, name: str = "topology.yaml") -> Topology:
    """The same from text; `name` is what the problems call it."""
    return topology_of(parse_yaml(text, name))


def derive_topology(sites: int, latency: str | None = None) -> Topology:
    """The paper's sites without a file: 1 controller, 6 computes, 1 data node each.

    `latency` is the one-way delay between any two sites, with its unit.
    """
    problems = []
    if not 1 <= sites <= MAX_SITES:
        problems.append(
            Problem("--sites", 0, "", f"'{short(sites)}' is not 1 to {MAX_SITES}", "write e.g. 8")
        )
    delay_ms = 0.0
    if latency is not None:
        try:
            delay_ms = units.parse_duration_ms(latency)
        except units.QuantityError as error:
            problems.append(Problem("--latency", 0, "", error.reason, error.remedy))
    if problems:
        raise InvalidInput(problems)
    names = [SiteName(f"site{number}") for number in range(1, sites + 1)]
    return Topology(
        name=TestbedName(f"sites-{sites}"),
        sites=tuple(Site(name, controllers=1, computes=6, data=1) for name in names),
        master=names[0],
        default=Link(delay_ms=delay_ms),
        rules={},
        tolerance=Tolerance(),
        provider=LocalProvider(),
        description=f"{sites} sites as in the paper, derived from the command line",
    )


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
    link = _link(LinkValues.model_validate(options), current)
    if link.jitter_ms > link.delay_ms:
        raise InvalidInput(
            [Problem("--jitter", 0, "", f"the jitter ({units.format_ms(link.jitter_ms)}) is over "
                     f"the one-way delay ({units.format_ms(link.delay_ms)})",
                     "write a jitter of at most the delay")]
        )  # fmt: skip
    return link


def _shape_errors(options: Mapping[str, str]) -> list[ErrorDetails]:
    try:
        LinkValues.model_validate(options)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _name_from(stem: str) -> TestbedName:
    return TestbedName(derived(stem, "t"))


def _build(parsed: YamlFile, default_name: TestbedName) -> Topology:
    if not isinstance(parsed.data, dict):
        parsed.report((), "is not a topology", f"write a mapping with 'sites:', {DOCS}")
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
        report_shape(parsed, error, TopologyFile, DOCS)
    # Cross-checks look at the raw values, so that they are found in the same run.
    site_servers = check_sites(parsed, data)
    check_network(parsed, data, set(site_servers))
    check_provider(parsed, data, site_servers)
    check_openstack(parsed, data)
    if parsed.problems or shape is None:
        raise InvalidInput(parsed.problems)
    return _resolve(shape, default_name)


# ---------------------------------------------------------------- shape to values


def _resolve(shape: TopologyFile, default_name: TestbedName) -> Topology:
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
        master=None if shape.master == "none" else SiteName(shape.master or sites[0].name),
        default=default,
        rules=rules,
        tolerance=Tolerance(tolerance.absolute, tolerance.relative),
        provider=_resolve_provider(shape, sites),
        description=shape.description or "",
        openstack=_resolve_openstack(shape.openstack),
        time_scale=float(shape.time_scale),
    )


def _resolve_openstack(entry: OpenStackEntry) -> OpenStack:
    common = entry.workers.get("default", 1)
    own: Mapping[str, int] = entry.workers  # type: ignore[assignment]
    return OpenStack(
        backend=entry.backend,
        layout=entry.layout,
        rome=Rome(
            entry.rome.store,
            entry.rome.persistence,
            entry.rome.replicas,
            entry.rome.table_lease,
        ),
        galera=_resolve_galera(entry.galera),
        placement=entry.placement,
        periodic_tasks=entry.periodic_tasks,
        virt_driver=entry.virt_driver,
        nics=entry.nics,
        workers={service: own.get(service, common) for service in WORKER_SERVICES},
        config={service: dict(settings) for service, settings in entry.config.items()},
    )


def _resolve_galera(entry: GaleraEntry) -> Galera:
    """Return how Galera is run; several writers need more than one does.

    Reads and updates wait for other nodes' writes, since OpenStack's services tell each other, by
    messages, of rows that they committed.  No gaps are locked: who does so is given up for others'
    inserts.
    """
    is_alone = entry.writers == "one"
    usual = Galera(sync_wait=0, isolation="repeatable-read") if is_alone else Galera()
    return Galera(
        entry.writers,
        usual.sync_wait if entry.sync_wait is None else entry.sync_wait,
        entry.segments,
        entry.isolation or usual.isolation,
        entry.nodes,
    )


def _resolve_sites(entries: Sequence[SiteEntry]) -> Iterator[Site]:
    for entry in entries:
        grouped = "count" in entry.model_fields_set
        for number in range(1, entry.count + 1):
            name = f"{entry.name}{number}" if grouped else entry.name
            yield Site(SiteName(name), entry.controllers, entry.computes, entry.data)


def _link(values: LinkValues, default: Link) -> Link:
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
        limits={
            role: Limit(own.cpus, own.memory, own.disk, own.processes)
            for role, own in provider.limits.items()
        },
        merge_memory=provider.merge_memory,
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
