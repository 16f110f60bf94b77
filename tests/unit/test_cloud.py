import dataclasses
import json
from pathlib import Path

import pytest

from discovery_xp.deployment import deploy, description
from discovery_xp.deployment.deploy import Boot
from discovery_xp.deployment.description import Deployment, Endpoint
from discovery_xp.errors import Failed, InvalidInput, Refused
from discovery_xp.inputs.topology import derive_topology, parse_topology, read_topology
from discovery_xp.planning.layout import CloudLayout, Region
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json
from discovery_xp.testbeds.testbed import Testbed

SHIPPED = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def plan_of(text: str) -> Plan:
    return make_plan(parse_topology(text), cloud=True)


def layout_of(text: str) -> CloudLayout:
    return plan_of(text).require_cloud()


def units_of(cloud: CloudLayout) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for service in cloud.services:
        found.setdefault(service.host, []).append(service.unit)
    return found


SHARED = [
    "mariadb",
    "rabbitmq-server",
    "memcached",
    "keystone-api",
    "glance-api",
    "placement-api",
    "neutron-api",
]
CONTROLLER = ["nova-conductor", "nova-scheduler", "nova-api"]


# ---------------------------------------------------------------- where what runs


def test_what_all_sites_share_is_on_the_master_and_nova_at_every_site() -> None:
    cloud = layout_of("sites: [{name: a, computes: 2, data: 1}, {name: b}]")
    assert units_of(cloud) == {
        "a-master-1": SHARED,
        "a-controller-1": CONTROLLER,
        "a-compute-1": ["nova-compute"],
        "a-compute-2": ["nova-compute"],
        "b-controller-1": CONTROLLER,
        "b-compute-1": ["nova-compute"],
    }
    assert cloud.master == "a-master-1"
    assert [service.unit for service in cloud.shared_services] == SHARED


def test_without_a_master_the_first_controller_has_the_shared_services_too() -> None:
    cloud = layout_of("sites: [{name: a, controllers: 0}, {name: b, controllers: 2}]\nmaster: none")
    assert cloud.master == "b-controller-1"
    assert units_of(cloud) == {
        "a-compute-1": ["nova-compute"],
        "b-controller-1": [*SHARED, *CONTROLLER],
        "b-controller-2": CONTROLLER,
        "b-compute-1": ["nova-compute"],
    }


def test_a_service_knows_its_host_its_site_and_where_it_is_asked() -> None:
    services = {service.unit: service for service in layout_of("sites: [{name: a}]").services}
    assert services["nova-api"].component == "nova"
    assert (services["nova-api"].host, services["nova-api"].site) == ("a-controller-1", "a")
    ports = {unit: service.port for unit, service in services.items() if service.is_http}
    assert ports == {
        "keystone-api": 5000,
        "glance-api": 9292,
        "placement-api": 8778,
        "neutron-api": 9696,
        "nova-api": 8774,
    }


def test_each_controller_is_a_region_the_first_one_named_like_its_site() -> None:
    assert layout_of("sites: [{name: a, controllers: 3}, {name: b}]").regions == (
        Region("a", "a", "a-controller-1"),
        Region("a-controller-2", "a", "a-controller-2"),
        Region("a-controller-3", "a", "a-controller-3"),
        Region("b", "b", "b-controller-1"),
    )


def test_a_site_is_served_by_its_own_region_or_the_first_one() -> None:
    cloud = layout_of(
        "sites: [{name: edge, controllers: 0}, {name: a, controllers: 2}, {name: b}]\nmaster: a"
    )
    assert cloud.served_by == {"edge": "a", "a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("text", "computes"),
    [
        ("sites: [{name: a, computes: 1}]", 1),
        ("sites: [{name: a, computes: 6}, {name: b, computes: 5}]", 11),
        (
            "sites: [{name: a, computes: 6}, {name: b, computes: 4}]\n"
            "openstack: {placement: availability-zones}",
            6,
        ),
    ],
)
def test_a_host_is_drawn_from_all_that_a_request_may_get(text: str, computes: int) -> None:
    assert layout_of(text).drawn_from == computes


def test_a_site_without_computes_boots_nothing() -> None:
    cloud = layout_of("sites: [{name: hub, computes: 0}, {name: a, computes: 2}]")
    assert cloud.computes == {"a": ("a-compute-1", "a-compute-2")}
    assert list(cloud.served_by) == ["a"]


def test_a_site_called_like_a_host_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'a-controller-2' reads like the name of a host"):
        parse_topology("sites: [{name: a, controllers: 2}, {name: a-controller-2}]")


@pytest.mark.parametrize("role", ["controller", "compute"])
def test_a_cloud_without_a_role_is_refused_but_its_hosts_are_not(role: str) -> None:
    topology = parse_topology(f"sites: [{{name: a, {role}s: 0}}]")
    with pytest.raises(Refused, match=f"has no {role}.*; write '{role}s: 1' for one of its sites"):
        make_plan(topology, cloud=True)
    assert make_plan(topology).cloud is None


# ---------------------------------------------------------------- in a plan


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_plan_with_a_cloud_survives_json(path: Path) -> None:
    plan = make_plan(read_topology(path), cloud=True)
    assert plan.cloud is not None
    again = plan_from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest


def test_every_choice_survives_json() -> None:
    plan = plan_of(
        "sites: [{name: a}]\n"
        "openstack:\n"
        "  placement: availability-zones\n"
        "  periodic_tasks: default\n"
        "  nics: 1\n"
        "  workers: {default: 2, nova-api: 3}\n"
        "  config: {nova: {DEFAULT: {debug: true, ram_allocation_ratio: 1.5, reserved: 0,"
        " my_ip: '10'}}}\n"
    )
    again = plan_from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.cloud is not None
    written = again.cloud.options.config["nova"]["DEFAULT"]
    # True == 1 and 0 == 0.0, but they aren't the same in a configuration file.
    assert [repr(value) for value in written.values()] == ["True", "1.5", "0", "'10'"]


def test_a_plan_of_hosts_alone_has_no_cloud() -> None:
    plan = make_plan(derive_topology(2))
    assert plan.cloud is None
    written_before_there_were_clouds = plan.to_json()
    del written_before_there_were_clouds["cloud"]
    assert plan_from_json(written_before_there_were_clouds) == plan


def test_a_cloud_needs_no_other_hosts_but_is_another_plan() -> None:
    topology = parse_topology("name: t\nsites: [{name: a}]")
    other = parse_topology("name: t\nsites: [{name: a}]\nopenstack: {workers: 4}")
    bare, clouded = make_plan(topology), make_plan(topology, cloud=True)
    assert bare.has_hosts_of(clouded)
    assert clouded.has_hosts_of(bare)
    assert clouded.has_hosts_of(make_plan(other, cloud=True))
    assert len({bare.digest, clouded.digest, make_plan(other, cloud=True).digest}) == 3
    assert not clouded.has_hosts_of(
        plan_of("name: t\nsites: [{name: a, computes: 2}]\nopenstack: {workers: 4}")
    )


# ---------------------------------------------------------------- once it is there


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    made = Testbed("mine")
    made.folder.mkdir(parents=True)
    return made


DEPLOYMENT = Deployment(
    auth_url="http://10.0.0.1:5000",
    endpoints=(Endpoint("a", "a", "a-controller-1", "http://10.0.0.2:8774/v2.1"),),
    user="discovery",
    flavor="m1.tiny",
    image="discovery",
    options={"nics": 0, "workers": {"nova-api": 1}},
    versions={"nova": "33.0.0"},
    stages_s={"schemas": 20.5},
    changes=3,
)


def test_a_deployment_survives_its_file(testbed: Testbed) -> None:
    description.deployment_file(testbed).write_text(json.dumps(DEPLOYMENT.to_json()))
    assert description.load(testbed) == DEPLOYMENT


def test_a_testbed_without_a_deployment_has_no_cloud(testbed: Testbed) -> None:
    with pytest.raises(Refused, match="'mine' has no cloud; make one with 'discovery-xp deploy"):
        description.load(testbed)


def test_a_deployment_of_another_format_is_refused(testbed: Testbed) -> None:
    text = json.dumps({**DEPLOYMENT.to_json(), "format": 0})
    description.deployment_file(testbed).write_text(text)
    with pytest.raises(Refused, match="format 0, but this version reads 1; use the version"):
        description.load(testbed)


ACTIVE = Boot("a", "a", "ACTIVE", "a-compute-1", 2.5, "")
FAULTY = Boot("b", "a", "ERROR", "", None, "No valid host was found.")


def test_a_vm_is_wanted_at_every_site() -> None:
    assert ACTIVE.is_active
    assert not FAULTY.is_active
    deploy.require_active([ACTIVE])
    with pytest.raises(Failed, match="no VM got ACTIVE at 1 of 2 sites: b: ERROR") as caught:
        deploy.require_active([ACTIVE, FAULTY])
    assert "(No valid host was found.)" in caught.value.message
    assert "'deploy' again" in caught.value.remedy


def test_only_a_few_of_many_failed_sites_are_named() -> None:
    boots = [dataclasses.replace(FAULTY, site=f"s{number}", message="") for number in range(9)]
    with pytest.raises(Failed, match="at 9 of 9 sites: s0: ERROR; s1: ERROR; s2") as caught:
        deploy.require_active(boots)
    assert "s8" not in caught.value.message
