import ipaddress
import json
from pathlib import Path

import pytest
from enoslib.infra.enos_g5k.configuration import ClusterConfiguration

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import derive_topology, parse_topology, read_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json

SHIPPED = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def plan_of(text: str) -> Plan:
    return make_plan(parse_topology(text))


def test_hosts_are_named_by_site_and_role() -> None:
    plan = plan_of("name: t\nsites: [{name: a, computes: 2}, {name: b, computes: 0, data: 1}]")
    assert [host.name for host in plan.hosts] == [
        "a-master-1",
        "a-controller-1",
        "a-compute-1",
        "a-compute-2",
        "b-controller-1",
        "b-data-1",
    ]


def test_without_a_master_the_first_controller_does_it() -> None:
    plan = plan_of("sites: [{name: a, controllers: 0}, {name: b, controllers: 2}]\nmaster: none")
    masters = [host.name for host in plan.hosts if "master" in host.roles]
    assert masters == ["b-controller-1"]
    assert plan.host("b-controller-1").roles == ("controller", "master")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_addresses_are_unique_and_inside_their_site(path: Path) -> None:
    plan = make_plan(read_topology(path))
    if plan.network is None:
        return
    addresses = [host.address for host in plan.hosts]
    addresses += [site.gateway for site in plan.sites]
    addresses += [site.backbone_address for site in plan.sites]
    addresses += [plan.machine, plan.router]
    assert len(set(addresses)) == len(addresses)
    for host in plan.hosts:
        assert usable(host.address, plan.site(host.site).network)
    for address in (plan.machine, plan.router, *(site.backbone_address for site in plan.sites)):
        assert usable(address, plan.backbone)


def usable(address: str | None, network: str | None) -> bool:
    parsed, inside = ipaddress.IPv4Address(address or ""), ipaddress.IPv4Network(network or "")
    return parsed in inside and parsed not in (inside[0], inside[-1])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_plan_survives_json(path: Path) -> None:
    plan = make_plan(read_topology(path))
    again = plan_from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest


def test_the_digest_tells_plans_apart() -> None:
    digests = {make_plan(derive_topology(2, latency)).digest for latency in ("1ms", "2ms", "1ms")}
    assert len(digests) == 2


def test_a_plan_of_another_format_is_refused() -> None:
    data = make_plan(derive_topology(1)).to_json()
    with pytest.raises(Refused, match="format 0"):
        plan_from_json({**data, "format": 0})


def test_other_names_get_other_networks() -> None:
    topology = derive_topology(2)
    networks = {make_plan(topology, name).network for name in ("one", "two", "three")}
    assert len(networks) == 3


def test_big_sites_get_bigger_subnets_or_a_remedy() -> None:
    text = "sites: [{name: big, computes: 1000}, {name: s, count: 100}]\n"
    with pytest.raises(Refused, match=r"no room for 101 sites.*network: 10\.0\.0\.0/1?\d"):
        plan_of(text)
    plan = plan_of(text + "provider: {type: local, network: 10.0.0.0/8}")
    assert len({host.address for host in plan.hosts}) == 1002 + 2 * 100


def test_needs_grow_with_hosts() -> None:
    small, large = make_plan(derive_topology(1)).needs, make_plan(derive_topology(8)).needs
    assert small.memory_bytes < large.memory_bytes
    assert small.disk_bytes < large.disk_bytes


def test_pairs_hold_both_directions() -> None:
    plan = plan_of(
        "sites: [{name: a}, {name: b}, {name: c}]\n"
        "network: {links: [{from: a, to: c, delay: 3ms}, {from: c, to: a, delay: 5ms}]}"
    )
    pairs = {(there.source, there.target): (there, back) for there, back in plan.pairs()}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    there, back = pairs["a", "c"]
    assert (there.link.delay_ms, back.link.delay_ms) == (3, 5)


G5K = (
    "name: paper\n"
    "sites: [{name: s, count: 3, computes: 6, data: 1}]\n"
    "provider: {type: g5k, site: rennes, cluster: paravance, walltime: '03:30:00',"
    " queue: production, project: discovery, reservation: '2027-03-01 19:00:00',"
    " sites: {s3: {site: nancy, cluster: gros}}}"
)


def test_grid5000_requests_are_those_that_enoslib_would_send() -> None:
    plan = plan_of(G5K)
    rennes, nancy = plan.requests
    assert (rennes.site, rennes.nodes, nancy.site, nancy.nodes) == ("rennes", 17, "nancy", 8)
    group = ClusterConfiguration(roles=[], cluster="paravance", site="rennes", nodes=17)
    assert rennes.body["resources"] == f"{group.oar()[1]},walltime=03:30:00"
    assert rennes.body["types"] == ["deploy", "origin=discovery_xp"]
    assert rennes.body["name"] == "discovery-xp-paper"
    assert rennes.body["queue"] == "production"
    assert rennes.body["project"] == "discovery"
    assert rennes.body["reservation"] == "2027-03-01 19:00:00"
    assert plan.node_hours == pytest.approx(25 * 3.5)


def test_static_hosts_are_dealt_out_by_site() -> None:
    plan = plan_of(
        "sites: [{name: a}, {name: b}]\n"
        "provider: {type: static, hosts: "
        "{a: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.9], b: [10.0.0.4, 10.0.0.5]}}"
    )
    assert {host.name: host.address for host in plan.hosts} == {
        "a-master-1": "10.0.0.1",
        "a-controller-1": "10.0.0.2",
        "a-compute-1": "10.0.0.3",
        "b-controller-1": "10.0.0.4",
        "b-compute-1": "10.0.0.5",
    }
