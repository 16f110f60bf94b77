"""What of a stored layout doesn't fit its hosts, or the catalogue of what a cloud is made of.

Units, hosts and names of databases get into commands and files: none gets through that isn't known.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from discovery_xp.inputs.topology_file import MAX_TABLE_LEASE_S
from discovery_xp.onhost import catalogue
from discovery_xp.planning import cells, databases
from discovery_xp.planning.databases import Store
from discovery_xp.planning.hosts import PlannedHost
from discovery_xp.planning.layout import BUS, UNITS_OF_CELLS, CloudLayout, service

MAX_SEGMENT = 255  # gmcast.segment is a byte
MOST_SECONDS = 1e6


def faults(layout: CloudLayout, hosts: Sequence[PlannedHost]) -> Iterator[str]:
    """Yield what is wrong with a layout for these hosts, in a few words each."""
    sites = {host.name: host.site for host in hosts}
    regions = {region.name: region for region in layout.regions}
    if layout.master not in sites:
        yield "the master of the cloud is no host"
    if not regions or len(regions) < len(layout.regions):
        yield "the cloud has no region, or one twice"
    if any(sites.get(region.controller) != region.site for region in layout.regions):
        yield "the controller of a region is elsewhere"
    yield from _faults_of_services(layout, sites, regions)
    yield from _faults_of_databases(layout)
    yield from _faults_of_galera(layout)
    yield from _faults_of_cells(layout, sites)
    for by_site in (layout.controllers, layout.computes):
        if any(sites.get(name) != site for site, names in by_site.items() for name in names):
            yield "a host of the cloud is at another site"
    if layout.served_by.keys() != layout.computes.keys() or not all(layout.computes.values()):
        yield "a site has computes that no region serves, or none that it serves"
    if not {*layout.served_by.values()} <= regions.keys():
        yield "a site is served by a region that isn't there"
    if not {*layout.zones} <= layout.computes.keys() or layout.drawn_from < 1:
        yield "VMs can't be placed"


def _faults_of_services(
    layout: CloudLayout, sites: Mapping[str, str], regions: Collection[str]
) -> Iterator[str]:
    for each in layout.services:
        if each.host not in sites or each.unit not in catalogue.UNITS:
            yield "a service isn't known, or its host isn't"
        elif each != service(each.unit, each.host, sites[each.host], each.region, each.cell):
            yield f"{each.unit} isn't what the catalogue says"
        if each.region is not None and each.region not in regions:
            yield f"{each.unit} is of a region that isn't there"
    shared = {each.component for each in layout.services if each.cell is None}
    if {"rabbitmq", "memcached"} - shared:
        yield "the cloud has no message bus, or no cache"
    processes = {(each.host, each.unit) for each in layout.services}
    for end in layout.endpoints:
        api = catalogue.APIS.get(end.kind)
        if (
            api is None
            or (end.host, api.unit) not in processes
            or (end.port, end.path) != (catalogue.UNITS[api.unit].port, api.path)
        ):
            yield "an API is asked where it isn't"
    ends = sorted((end.region, end.kind) for end in layout.endpoints)
    if ends != sorted((region, kind) for region in regions for kind in catalogue.APIS):
        yield "a region lacks an API"


def _faults_of_databases(layout: CloudLayout) -> Iterator[str]:
    processes = {(each.host, each.unit) for each in layout.services}
    stores = {store.name: store for store in layout.stores}
    if len(stores) < len(layout.stores):
        yield "two stores have one name"
    for store in layout.stores:
        if not _is_store(store) or any(
            (node.host, node.unit) not in processes
            or node.port != catalogue.UNITS[node.unit].port
            or catalogue.UNITS[node.unit].component != store.engine
            for node in store.nodes
        ):
            yield "a store isn't known, or a process of it isn't where it is to be"
    engines = {databases.MYSQL: databases.MARIADB, databases.ROME: databases.REDIS}
    names = {*databases.names_with(layout.cells)}
    for each in layout.databases:
        holder = stores.get(each.store)
        if each.name not in names or databases.owner_of(each.name) != each.owner:
            yield "a database isn't known"
        elif holder is None or engines.get(each.backend) != holder.engine:
            yield f"{each.name} is in no store"
        elif holder.kind == "cluster" and each.name not in holder.tags:
            yield f"{each.name} has no tag"
    if {each.name for each in layout.databases} != names:
        yield "a database is missing"


def _faults_of_galera(layout: CloudLayout) -> Iterator[str]:
    """Yield what of Galera's part doesn't fit the nodes and the hosts' services."""
    nodes = {
        node.host
        for store in layout.stores
        if store.kind == databases.GALERA
        for node in store.nodes
    }
    galera = layout.galera
    if galera is None:
        if nodes:
            yield "nothing is said of how Galera's nodes work together"
        return
    processes = {(each.host, each.unit) for each in layout.services}
    arbitrators = {galera.arbitrator} - {None}
    wanted = {
        *((host, "galera-check") for host in nodes),
        *((host, "garb") for host in arbitrators),
        *((host, "haproxy") for host in galera.proxies),
    }
    if not wanted <= processes or galera.segments.keys() != nodes | arbitrators:
        yield "a part of Galera isn't where it is to be"
    if any({*order} != nodes or len(order) != len(nodes) for order in galera.proxies.values()):
        yield "a proxy of Galera doesn't know all nodes, or knows one twice"
    if not all(0 <= number <= MAX_SEGMENT for number in galera.segments.values()):
        yield "a segment of Galera has no number that it may have"
    if not all(0 < value < MOST_SECONDS for value in dataclasses.astuple(galera.timeouts)):
        yield "a timeout of Galera is none"


def _faults_of_cells(layout: CloudLayout, sites: Mapping[str, str]) -> Iterator[str]:
    """Yield what of Nova's cells doesn't fit the sites and the hosts' services."""
    names = {cell.name for cell in layout.cells}
    if bool(names) != (layout.options.layout == cells.CELLS) or len(names) < len(layout.cells):
        yield "there are cells that nobody asked for, or one twice, or none"
    if names and names != layout.computes.keys():
        yield "a cell has no computes, or computes have no cell"
    for cell in layout.cells:
        if sites.get(cell.host) != cell.name or cell.database != cells.database_of(cell.name):
            yield "the host or the database of a cell is another one's"
    buses = [(each.cell, each.host) for each in layout.services if each.unit == BUS and each.cell]
    if sorted(buses) != sorted((cell.name, cell.host) for cell in layout.cells):
        yield "a cell has no message bus, or another one's"
    for each in layout.services:
        is_part = each.unit in UNITS_OF_CELLS and each.site in names
        if each.unit != BUS and each.cell != (each.site if is_part else None):
            yield f"{each.unit} is in a cell that isn't its own"
    with_conductors = {each.cell for each in layout.services if each.unit == "nova-conductor"}
    if not names <= with_conductors:
        yield "a cell has no conductor"


def _is_store(store: Store) -> bool:
    return (
        re.fullmatch("[a-z0-9-]+", store.name) is not None
        and (store.kind != databases.GALERA or store.engine == databases.MARIADB)
        and store.engine in (databases.MARIADB, databases.REDIS)
        and store.kind in ("server", "cluster", databases.GALERA)
        and store.persistence in ("", "everysec", "always", "none")
        and 0 <= store.table_lease <= MAX_TABLE_LEASE_S
        and all(re.fullmatch("[a-z0-9_]+", tag) for tag in store.tags.values())
        and bool(store.masters)
        and (store.kind != "cluster" or _are_shared_out(store))
    )


def _are_shared_out(store: Store) -> bool:
    """Return whether each hash slot of a cluster has one master, in the order of the masters."""
    bounds = [node.slots for node in store.masters if node.slots is not None]
    if len(bounds) < len(store.masters):
        return False
    following = [first for first, _ in bounds[1:]] + [databases.SLOTS]
    return bounds[0][0] == 0 and all(
        first <= last and last + 1 == after
        for (first, last), after in zip(bounds, following, strict=True)
    )
