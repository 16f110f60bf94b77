"""A plan as it is printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from discovery_xp import providers
from discovery_xp.cli.common import console, echo
from discovery_xp.inputs import units
from discovery_xp.inputs.topology import Link
from discovery_xp.inputs.units import format_bytes
from discovery_xp.planning.galera import GaleraLayout
from discovery_xp.planning.layout import CloudLayout, Service
from discovery_xp.planning.plan import Plan, PlannedLink
from discovery_xp.planning.shares import needed_cores, quota_and_period_us, shares_of


def print_plan(made: Plan) -> None:
    out = console()
    out.print(
        f"{made.name}: {len(made.hosts)} hosts at {len(made.sites)} sites, "
        f"provider {made.provider}, plan {made.digest}"
    )
    for line in _facts(made):
        out.print(line, soft_wrap=True)
    out.print(_hosts_table(made))
    if made.cloud is not None:
        out.print(_services_table(made.cloud))
        out.print(_databases_table(made.cloud))
        out.print(_regions_table(made.cloud))
    if made.time_scale != 1:
        out.print(_shares_table(made))
    out.print(links_table(made.links))
    for request in made.requests:
        echo(f"POST /sites/{request.site}/jobs {json.dumps(request.body)}")
    if len(made.requests) > 1 and "reservation" not in made.requests[0].body:
        echo("each with the same 'reservation', the first slot that all sites have then")
    out.print("Order of play:")
    for number, step in enumerate(made.steps, start=1):
        out.print(f"  {number}. {step}")


def _facts(made: Plan) -> list[str]:
    lines = []
    if made.network:
        lines.append(f"network {made.network}, this machine is {made.machine} in it")
    if made.needs.memory_bytes or made.needs.disk_bytes:
        lines.append(
            f"needs {format_bytes(made.needs.memory_bytes)} of memory, "
            f"{format_bytes(made.needs.disk_bytes)} of disk"
        )
    if made.node_hours is not None:
        nodes = sum(request.nodes for request in made.requests)
        lines.append(f"{nodes} nodes, {made.node_hours:g} node-hours")
    lines += [f"usage policy: {warning}" for warning in made.warnings]
    if made.cloud is not None:
        options = made.cloud.options
        more = {name: count for name, count in options.workers.items() if count > 1}
        lines.append(
            f"OpenStack on {options.backend}, placement {options.placement}, "
            f"periodic tasks {options.periodic_tasks}, virt driver {options.virt_driver}, "
            f"{options.nics} NICs a VM, "
            f"workers {', '.join(f'{name} {n}' for name, n in more.items()) or '1 each'}"
        )
        lines += _databases_in_words(made)
        lines += _cells_in_words(made.cloud)
    lines += _scale_in_words(made)
    lines.append(f"links are imposed by {_wan_in_words(made)}")
    allowed = made.tolerance
    lines.append(
        f"a round trip may be off by {allowed.absolute_ms:g} ms or "
        f"{allowed.relative_percent:g} %, whichever is larger"
    )
    return lines


def _scale_in_words(made: Plan) -> list[str]:
    """What the time scale makes of links and shares, where there is one."""
    if made.time_scale == 1:
        return []
    needed = needed_cores(made)
    return [
        f"time scale {made.time_scale:g}: so many seconds stand for one. Delays, timeouts and "
        "periods take so much longer, rates are so much lower; a core does so much less",
        f"if all hosts used all of their cores at once, {needed:g} of this machine's would do",
    ]


def _shares_table(made: Plan) -> Table:
    """Tabulate the shares of the processor that are held of hosts and units."""
    table = Table(title="Shares of the processor", title_justify="left", show_edge=False)
    for column in ("unit", "hosts", "cores", "held", "quota", "period"):
        table.add_column(column, justify="left" if column in ("unit", "hosts") else "right")
    groups: dict[tuple[str, float], list[str]] = {}
    for share in shares_of(made):
        for unit, cores in (("all of a host's", share.cores), *share.units.items()):
            groups.setdefault((unit, cores), []).append(share.host)
    for (unit, cores), hosts in groups.items():
        quota_us, period_us = quota_and_period_us(cores, made.time_scale)
        table.add_row(
            unit,
            hosts[0] if len(hosts) == 1 else str(len(hosts)),
            f"{cores:g}",
            f"{quota_us / period_us:.3f}",
            f"{quota_us / 1000:g} ms",
            f"{period_us / 1000:g} ms",
        )
    return table


def _databases_in_words(made: Plan) -> list[str]:
    """Where the databases are, where they aren't all on the one MariaDB."""
    from discovery_xp.planning import databases

    cloud = made.cloud
    if cloud is not None and cloud.galera is not None:
        return _galera_in_words(cloud, cloud.galera)
    store = cloud.redis if cloud else None
    if cloud is None or store is None:
        return []
    names = cloud.held_by(databases.ROME)
    words = {
        "everysec": "on disk within a second",
        "always": "on disk before it is answered",
        "none": "nothing on disk",
    }[store.persistence]
    if cloud.options.rome.store == databases.SERVERS:
        servers = cloud.stores_of(databases.REDIS)
        count = f"{len(servers)} Redis servers" if len(servers) > 1 else "one Redis server"
        lines = [f"databases on {count}, {words}"]
        for server in servers:
            names = [each.name for each in cloud.databases if each.store == server.name]
            lines.append(f"  {', '.join(names)} on {server.nodes[0].host}")
    elif store.kind == "server" and cloud.cells:
        lines = [f"databases on Redis servers, {words}: of each cell its own at its site"]
    elif store.kind == "server":
        there = sum("data" in host.roles for host in made.hosts)
        lines = [f"databases on one Redis server, {words}: {', '.join(names)}"]
        if cloud.options.rome.store == "auto":
            lines.append(
                f"a Redis Cluster would need {databases.MIN_MASTERS} data nodes, there "
                f"{'is' if there == 1 else 'are'} {there or 'none'}"
            )
    else:
        held: dict[str, list[str]] = {}
        for name in names:
            held.setdefault(store.master_of(name).host, []).append(name)
        copies = {0: "no copy", 1: "a copy", 2: "two copies"}[cloud.options.rome.replicas]
        lines = [
            f"databases on a Redis Cluster of {len(store.masters)} masters, {copies} of each, "
            f"{words}",
            *(f"  {', '.join(own)} on {host}" for host, own in held.items()),
        ]
    return lines


def _galera_in_words(cloud: CloudLayout, galera: GaleraLayout) -> list[str]:
    """Who has a vote, whom services ask, and how long a node may be silent."""
    store, options = cloud.stores[0], cloud.options.galera
    nodes = len(store.nodes)
    vote = f", and a vote without data on {galera.arbitrator}" if galera.arbitrator else ""
    asked = (
        "services ask their own site's node"
        if options.writers == "all"
        else f"all services ask {store.nodes[0].host}"
    )
    waits = galera.timeouts
    return [
        f"databases on {nodes} node{'s' * (nodes != 1)} of Galera{vote}; {asked}, and another one "
        "where that is down",
        f"wsrep_sync_wait {options.sync_wait}, transactions are {options.isolation}, "
        f"{'a segment for each site' if options.segments else 'one segment'}; round trips of up "
        f"to {units.format_ms(galera.longest_rtt_ms)}: a node that is silent is suspected after "
        f"{waits.suspect_s:g} s",
    ]


def _cells_in_words(cloud: CloudLayout) -> list[str]:
    """Return where Nova's cells have what is their own; nothing where all sites share one."""
    if not cloud.cells:
        return []
    most = 8
    by_name = {each.name: each for each in cloud.databases}
    lines = [f"{len(cloud.cells)} cells of Nova, one for each site with computes"]
    for cell in cloud.cells[:most]:
        store = cloud.store_of(by_name[cell.database])
        is_elsewhere = store.kind == "cluster" and store.master_of(cell.database).host != cell.host
        where = f"on {store.master_of(cell.database).host}" if is_elsewhere else "there, too"
        lines.append(f"  {cell.name}: message bus on {cell.host}, database {where}")
    more = len(cloud.cells) - most
    return [*lines, f"  and {more} more"] if more > 0 else lines


def _wan_in_words(made: Plan) -> str:
    links_by = providers.kind(made.provider).links_by
    if links_by is not None:
        return links_by
    words = {"netem": "tc netem on the hosts", "vde": "VDE between the sites"}
    if made.wan in words:
        return words[made.wan]
    from discovery_xp.planning.kernel import netem_is_likely

    likely = netem_is_likely()
    if likely is None:
        return f"{words['netem']}, or {words['vde']} if the kernel has no sch_netem"
    here = "this kernel has sch_netem" if likely else "this kernel has no sch_netem"
    return f"{words['netem' if likely else 'vde']} ({here})"


def _hosts_table(made: Plan) -> Table:
    table = Table(title="Hosts", title_justify="left", show_edge=False)
    for column in ("site", "network", "role", "hosts", "addresses", "limits"):
        table.add_column(column, overflow="fold")
    for site in made.sites:
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for host in made.hosts_of(site.name):
            groups.setdefault((host.roles, host.limit), []).append(host)
        for (roles, limit), hosts in groups.items():
            names, addresses = [host.name for host in hosts], [host.address for host in hosts]
            bounds = []
            if limit.cpus is not None:
                bounds.append(f"{limit.cpus:g} cpus")
            if limit.memory_bytes is not None:
                bounds.append(format_bytes(limit.memory_bytes))
            if limit.disk_bytes is not None:
                bounds.append(f"{format_bytes(limit.disk_bytes)} of disk")
            if limit.processes is not None:
                bounds.append(f"{limit.processes} processes")
            table.add_row(
                site.name,
                site.network or "",
                ", ".join(roles),
                names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)})",
                _addresses(addresses),
                ", ".join(bounds),
            )
    return table


def _services_table(cloud: CloudLayout) -> Table:
    """Tabulate how many of each service there are, and where."""
    table = Table(title="Services", title_justify="left", show_edge=False)
    for column in ("service", "port", "hosts", "of sites"):
        table.add_column(column, overflow="fold")
    by_unit: dict[str, list[Service]] = {}
    for service in cloud.services:
        by_unit.setdefault(service.unit, []).append(service)
    for unit, services in by_unit.items():
        sites = list(dict.fromkeys(service.site for service in services))
        table.add_row(
            unit,
            str(services[0].port or ""),
            services[0].host if len(services) == 1 else str(len(services)),
            _range(sites),
        )
    return table


def _databases_table(cloud: CloudLayout) -> Table:
    """Tabulate which store holds which databases."""
    table = Table(title="Databases", title_justify="left", show_edge=False)
    for column in ("store", "hosts", "databases"):
        table.add_column(column, overflow="fold")
    for store in cloud.stores:
        names = [each.name for each in cloud.databases if each.store == store.name]
        hosts = list(dict.fromkeys(node.host for node in store.nodes))
        kind = f" {store.kind}" if store.kind == "cluster" else ""
        table.add_row(f"{store.name}{kind}", _range(hosts), ", ".join(names))
    return table


def _regions_table(cloud: CloudLayout) -> Table:
    """Tabulate each region's own API and the sites whose VMs are asked for there."""
    table = Table(title="Regions", title_justify="left", show_edge=False)
    for column in ("region", "Nova's API on", "boots the VMs of"):
        table.add_column(column, overflow="fold")
    many = len(cloud.regions) > 16
    for region in [*cloud.regions[:8], *cloud.regions[-1:]] if many else cloud.regions:
        served = [site for site, name in cloud.served_by.items() if name == region.name]
        if many and region is cloud.regions[-1]:
            table.add_row("...", "...", "...")
        table.add_row(region.name, cloud.endpoint("compute", region.name).host, ", ".join(served))
    return table


def _addresses(addresses: Sequence[str | None]) -> str:
    known_addresses = [address for address in addresses if address]
    return _range(known_addresses) if known_addresses else "assigned by the provider"


def _range(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"


def _link_cells(link: Link) -> list[str]:
    return [
        units.format_ms(link.delay_ms),
        units.format_ms(link.jitter_ms) if link.jitter_ms else "",
        units.format_percent(link.loss_percent) if link.loss_percent else "",
        units.format_rate(link.rate_mbit) if link.rate_mbit else "",
    ]


def links_table(links: Sequence[PlannedLink]) -> Table:
    """One row for each pair, or for all pairs that are alike when those are many."""
    by_ends = {(link.source, link.target): link.link for link in links}
    groups: dict[tuple[Link, Link], list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for (source, target), there in by_ends.items():
        if (target, source) not in seen:
            seen.add((source, target))
            back = by_ends[target, source]
            groups.setdefault((there, back), []).append(f"{source} - {target}")
    table = Table(title="Links between sites", title_justify="left", show_edge=False)
    for column in ("sites", "direction", "delay (one-way)", "jitter", "loss", "rate", "rtt"):
        table.add_column(column)
    for (there, back), pairs in groups.items():
        rtt = units.format_ms(there.delay_ms + back.delay_ms)
        many = len(pairs) > 40 or (len(groups) == 1 and len(pairs) > 3)
        for pair in [f"{pairs[0]} and {len(pairs) - 1} more pairs"] if many else pairs:
            if there == back:
                table.add_row(pair, "both", *_link_cells(there), rtt)
            else:
                table.add_row(pair, "there", *_link_cells(there), rtt)
                table.add_row("", "back", *_link_cells(back), "")
    return table
