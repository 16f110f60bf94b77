"""The layout of a cloud: what runs, holds and serves what, for each topology that ships."""

import dataclasses
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from discovery_xp.inputs.topology import parse_topology, read_topology
from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases, layout_checks
from discovery_xp.planning.databases import Database, Node, Store
from discovery_xp.planning.layout import ApiEndpoint, CloudLayout, service
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def plan_of(name: str) -> Plan:
    return make_plan(read_topology(TOPOLOGIES / f"{name}.yaml"), cloud=True)


def shown(cloud: CloudLayout) -> Iterator[str]:
    """A layout as a table; hosts that run the same, one after the other, are one line."""
    by_host = [
        (host, " ".join(each.unit for each in services))
        for host, services in groupby(cloud.services, key=lambda each: each.host)
    ]
    for units, alike in groupby(by_host, key=lambda each: each[1]):
        names = [host for host, _ in alike]
        yield f"{names[0]}{f' ... {names[-1]} ({len(names)})' if len(names) > 1 else ''}: {units}"
    for store in cloud.stores:
        held = " ".join(each.name for each in cloud.databases if each.store == store.name)
        nodes = " ".join(f"{node.host}:{node.port}" for node in store.nodes)
        yield f"{store.name} {store.kind} at {nodes} holds {held}"
    for region in cloud.regions:
        sites = " ".join(site for site, name in cloud.served_by.items() if name == region.name)
        yield f"region {region.name} at {region.controller} boots VMs of {sites or 'none'}"


SHARED = "mariadb rabbitmq-server memcached keystone-api glance-api placement-api neutron-api"
CONTROLLER = "nova-conductor nova-scheduler nova-api"
SUPER = "nova-super-conductor"
ALL = "holds nova nova_api placement keystone neutron glance nova_cell0"

LAYOUTS = {
    "one-site": f"""
        site1-master-1: {SHARED}
        site1-controller-1: {CONTROLLER}
        site1-compute-1 ... site1-compute-2 (2): nova-compute
        mariadb server at site1-master-1:3306 {ALL}
        region site1 at site1-controller-1 boots VMs of site1
    """,
    "two-sites": f"""
        site1-master-1: {SHARED}
        site1-controller-1: {CONTROLLER}
        site1-compute-1 ... site1-compute-2 (2): nova-compute
        site2-controller-1: {CONTROLLER}
        site2-compute-1 ... site2-compute-2 (2): nova-compute
        mariadb server at site1-master-1:3306 {ALL}
        region site1 at site1-controller-1 boots VMs of site1
        region site2 at site2-controller-1 boots VMs of site2
    """,
    "one-site-redis": f"""
        site1-master-1: {SHARED.removeprefix("mariadb ")}
        site1-controller-1: {CONTROLLER}
        site1-compute-1 ... site1-compute-6 (6): nova-compute
        site1-data-1 ... site1-data-4 (4): redis-server redis-replica-1
        redis cluster at site1-data-1:6379 site1-data-2:6379 site1-data-3:6379 site1-data-4:6379 \
site1-data-2:6380 site1-data-3:6380 site1-data-4:6380 site1-data-1:6380 {ALL}
        region site1 at site1-controller-1 boots VMs of site1
    """,
    "three-sites-redis": f"""
        site1-master-1: {SHARED.removeprefix("mariadb ")}
        site1-controller-1: {CONTROLLER}
        site1-compute-1 ... site1-compute-2 (2): nova-compute
        site1-data-1: redis-server redis-replica-1
        site2-controller-1: {CONTROLLER}
        site2-compute-1 ... site2-compute-2 (2): nova-compute
        site2-data-1: redis-server redis-replica-1
        site3-controller-1: {CONTROLLER}
        site3-compute-1 ... site3-compute-2 (2): nova-compute
        site3-data-1: redis-server redis-replica-1
        redis cluster at site1-data-1:6379 site2-data-1:6379 site3-data-1:6379 \
site2-data-1:6380 site3-data-1:6380 site1-data-1:6380 {ALL}
        region site1 at site1-controller-1 boots VMs of site1
        region site2 at site2-controller-1 boots VMs of site2
        region site3 at site3-controller-1 boots VMs of site3
    """,
    "two-sites-galera": f"""
        site1-master-1: garb haproxy {SHARED.removeprefix("mariadb ")}
        site1-controller-1: haproxy {CONTROLLER}
        site1-compute-1 ... site1-compute-2 (2): nova-compute
        site1-data-1: mariadb galera-check
        site2-controller-1: haproxy {CONTROLLER}
        site2-compute-1 ... site2-compute-2 (2): nova-compute
        site2-data-1: mariadb galera-check
        galera galera at site1-data-1:3306 site2-data-1:3306 {ALL}
        region site1 at site1-controller-1 boots VMs of site1
        region site2 at site2-controller-1 boots VMs of site2
    """,
    "two-sites-cells": f"""
        site1-master-1: {SHARED}
        site1-controller-1: {SUPER} {CONTROLLER}
        site1-compute-1 ... site1-compute-2 (2): nova-compute
        site1-data-1: mariadb rabbitmq-server
        site2-controller-1: {SUPER} {CONTROLLER}
        site2-compute-1 ... site2-compute-2 (2): nova-compute
        site2-data-1: mariadb rabbitmq-server
        mariadb server at site1-master-1:3306 holds nova_api placement keystone neutron glance \
nova_cell0
        mariadb-site1 server at site1-data-1:3306 holds nova_cell_site1
        mariadb-site2 server at site2-data-1:3306 holds nova_cell_site2
        region site1 at site1-controller-1 boots VMs of site1
        region site2 at site2-controller-1 boots VMs of site2
    """,
    # Sophia has no controller: the first region boots its VMs.
    "four-sites-uneven": f"""
        rennes-master-1: {SHARED}
        rennes-controller-1: {CONTROLLER}
        rennes-compute-1 ... rennes-compute-4 (4): nova-compute
        nantes-controller-1: {CONTROLLER}
        nantes-compute-1 ... nantes-compute-2 (2): nova-compute
        lyon-controller-1: {CONTROLLER}
        lyon-compute-1 ... sophia-compute-1 (3): nova-compute
        mariadb server at rennes-master-1:3306 {ALL}
        region rennes at rennes-controller-1 boots VMs of rennes sophia
        region nantes at nantes-controller-1 boots VMs of nantes
        region lyon at lyon-controller-1 boots VMs of lyon
    """,
    "grid5000-two-sites": f"""
        west-master-1: {SHARED}
        west-controller-1: {CONTROLLER}
        west-compute-1: nova-compute
        east-controller-1: {CONTROLLER}
        east-compute-1: nova-compute
        mariadb server at west-master-1:3306 {ALL}
        region west at west-controller-1 boots VMs of west
        region east at east-controller-1 boots VMs of east
    """,
}


def alike(prefix: str, sites: int, computes: int) -> str:
    """The table of a topology whose sites are all alike."""
    lines = [f"{prefix}1-master-1: {SHARED}"]
    for number in range(1, sites + 1):
        site = f"{prefix}{number}"
        lines.append(f"{site}-controller-1: {CONTROLLER}")
        lines.append(f"{site}-compute-1 ... {site}-compute-{computes} ({computes}): nova-compute")
    lines.append(f"mariadb server at {prefix}1-master-1:3306 {ALL}")
    for number in range(1, sites + 1):
        site = f"{prefix}{number}"
        lines.append(f"region {site} at {site}-controller-1 boots VMs of {site}")
    return "\n".join(lines)


LAYOUTS |= {
    "eight-sites": alike("site", 8, 6),
    "grid5000-eight-clusters": alike("cluster", 8, 6),
    "hundred-sites": alike("site", 100, 8),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in TOPOLOGIES.glob("*.yaml")))
def test_every_topology_that_ships_has_this_layout(name: str) -> None:
    cloud = plan_of(name).require_cloud()
    assert list(shown(cloud)) == [line.strip() for line in LAYOUTS[name].strip().splitlines()]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_part_of_a_layout_says_all_of_itself(name: str) -> None:
    plan = plan_of(name)
    cloud = plan.require_cloud()
    assert list(layout_checks.faults(cloud, plan.hosts)) == []
    assert cloud.master == cloud.service_for("keystone", plan.sites[-1].name).host
    for each in cloud.services:
        unit = catalogue.UNITS[each.unit]
        assert (each.component, each.port, each.is_http) == (
            unit.component,
            unit.port,
            unit.is_http,
        )
        assert each.queue == unit.queue(each.host)
        assert each.site == plan.host(each.host).site
        # Nova's services are a region's own, all others are shared.
        assert (each.region is None) == (each.component != "nova")
    for region in cloud.regions:
        assert cloud.region_of(region.controller, region.site) == region
        assert cloud.endpoint("compute", region.name).host == region.controller
        for kind in ("identity", "image", "placement", "network"):
            assert cloud.endpoint(kind, region.name).host == cloud.master
    assert {*cloud.hosts_of("nova")} == {
        host.name for host in plan.hosts if {*host.roles} & {"controller", "compute"}
    }
    pools = [len(names) for names in cloud.computes.values()]
    assert cloud.drawn_from == (max(pools) if cloud.zones else sum(pools))
    if not cloud.cells:
        assert [each.owner for each in cloud.databases] == [*databases.OWNERS.values()]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_survives_json(name: str) -> None:
    plan = plan_of(name)
    again = plan_from_json(json.loads(json.dumps(plan.to_json())))
    assert again.cloud == plan.cloud
    assert again == plan


def test_zones_are_the_sites_with_computes() -> None:
    text = "sites: [{name: hub, computes: 0}, {name: a, computes: 2}, {name: b, computes: 3}]\n"
    zones = make_plan(
        parse_topology(f"{text}openstack: {{placement: availability-zones}}"), cloud=True
    ).require_cloud()
    assert (zones.zones, zones.drawn_from) == (("a", "b"), 3)
    shared = make_plan(parse_topology(text), cloud=True).require_cloud()
    assert (shared.zones, shared.drawn_from) == ((), 5)


# ---------------------------------------------------------------- layouts that are to come


def of_two_cells() -> CloudLayout:
    """Every service and a MariaDB of its own at each of two sites, two cells of Nova."""
    plan = plan_of("two-sites")
    hosts = {"site1": "site1-controller-1", "site2": "site2-controller-1"}
    units = (
        "mariadb", "rabbitmq-server", "memcached", "keystone-api", "glance-api", "placement-api",
        "neutron-api", "nova-conductor", "nova-scheduler", "nova-api",
    )  # fmt: skip
    stores = tuple(
        Store(f"mariadb-{site}", "mariadb", "server", (Node(host, "mariadb", 3306),))
        for site, host in hosts.items()
    )
    held = tuple(
        Database(name, owner, "mysql", f"mariadb-{site}", site)
        for site in hosts
        for name, owner in databases.OWNERS.items()
    )
    ends = tuple(
        ApiEndpoint(site, api.kind, host, catalogue.UNITS[api.unit].port or 0, api.path)
        for site, host in hosts.items()
        for api in catalogue.APIS.values()
    )
    return dataclasses.replace(
        plan.require_cloud(),
        master="site1-controller-1",
        services=tuple(
            service(unit, host, site, site) for site, host in hosts.items() for unit in units
        ),
        stores=stores,
        databases=held,
        endpoints=ends,
    )


def test_a_layout_may_have_everything_at_every_site() -> None:
    cloud, plan = of_two_cells(), plan_of("two-sites")
    assert list(layout_checks.faults(cloud, plan.hosts)) == []
    text = json.dumps(dataclasses.asdict(cloud))
    assert TypeAdapter(CloudLayout).validate_json(text) == cloud
    assert cloud.shared_services == []
    for site in ("site1", "site2"):
        host = f"{site}-controller-1"
        for component in ("rabbitmq", "memcached", "keystone", "mariadb"):
            assert cloud.service_for(component, site).host == host
        assert {cloud.endpoint(kind, site).host for kind in catalogue.APIS} == {host}
        own = cloud.databases_of(site)
        assert {cloud.store_of(each).nodes[0].host for each in own} == {host}
        addresses = {"site1-controller-1": "10.0.1.1", "site2-controller-1": "10.0.2.1"}
        urls = databases.urls(cloud.stores, own, addresses, "secret")
        assert urls["nova"] == f"mysql+pymysql://nova:secret@{addresses[host]}/nova"


def test_neutrons_database_may_be_on_mariadb_beside_redis() -> None:
    """Clouds of earlier versions have it there: they are still looked at and destroyed."""
    plan = plan_of("three-sites-redis")
    cloud = plan.require_cloud()
    earlier = dataclasses.replace(
        cloud,
        services=(service("mariadb", cloud.master, "site1"), *cloud.services),
        stores=(
            Store("mariadb", "mariadb", "server", (Node(cloud.master, "mariadb", 3306),)),
            *cloud.stores,
        ),
        databases=tuple(
            dataclasses.replace(each, backend="mysql", store="mariadb")
            if each.name == "neutron"
            else each
            for each in cloud.databases
        ),
    )
    assert list(layout_checks.faults(earlier, plan.hosts)) == []
    assert earlier.held_by("mysql") == ["neutron"]


def test_what_a_cloud_lacks_is_no_service_of_it() -> None:
    cloud = plan_of("two-sites").require_cloud()
    with pytest.raises(KeyError):
        cloud.service_for("redis", "site1")
    with pytest.raises(KeyError):
        cloud.region("nowhere")
    assert cloud.hosts_of("redis") == []


# ---------------------------------------------------------------- layouts that were damaged


@pytest.mark.parametrize(
    ("part", "place", "key", "value"),
    [
        ("services", 0, "unit", "mariadb; touch /tmp/pwned"),
        ("services", 0, "unit", "sshd"),
        ("services", 0, "host", "elsewhere"),
        ("services", 0, "site", "site2"),
        ("services", 0, "port", 22),
        ("services", 0, "is_http", True),
        ("services", 6, "queue", "conductor"),
        ("services", 6, "region", "site9"),
        ("stores", 0, "name", "other"),
        ("stores", 0, "engine", "oracle"),
        ("stores", 0, "kind", "server; x"),
        ("stores", 0, "tags", {}),
        ("stores", 0, "tags", {"nova": "'; DROP TABLE x"}),
        ("stores", 0, "persistence", "{{ x }}"),
        ("stores", 0, "nodes", []),
        ("databases", 0, "name", "x'; --"),
        ("databases", 0, "owner", "glance"),
        ("databases", 0, "store", "nowhere"),
        ("databases", 0, "backend", "mysql"),
        ("regions", 0, "name", "site2"),
        ("regions", 0, "controller", "site2-controller-1"),
        ("endpoints", 0, "kind", "volume"),
        ("endpoints", 0, "host", "site2-compute-1"),
        ("endpoints", 0, "port", 80),
        ("endpoints", 0, "path", "/../"),
        ("endpoints", 0, "region", "site2"),
    ],
)
def test_a_stored_layout_that_is_none_is_refused(
    part: str, place: int, key: str, value: Any
) -> None:
    data = json.loads(json.dumps(plan_of("three-sites-redis").to_json()))
    data["cloud"][part][place][key] = value
    with pytest.raises(ValueError, match=r"\w"):
        plan_from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("master", "elsewhere"),
        ("services", []),
        ("regions", []),
        ("databases", []),
        ("endpoints", []),
        ("stores", []),
        ("computes", {"site1": ["site2-compute-1"]}),
        ("controllers", {"site1": ["nobody"]}),
        ("served_by", {"site1": "site9"}),
        ("zones", ["nowhere"]),
        ("drawn_from", 0),
        ("options", None),
    ],
)
def test_a_stored_layout_that_lacks_a_part_is_refused(key: str, value: Any) -> None:
    data = json.loads(json.dumps(plan_of("three-sites-redis").to_json()))
    data["cloud"][key] = value
    with pytest.raises(ValueError, match=r"\w"):
        plan_from_json(data)
