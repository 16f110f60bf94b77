"""Placements that are drawn once, and asked for VM by VM."""

import dataclasses
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.inputs.scenario import Scenario, parse_scenario
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.load.placement import Placement, shuffled
from discovery_xp.load.rally_task import task
from discovery_xp.load.shares import placement as placement_of
from discovery_xp.load.shares import shares
from discovery_xp.onhost.wire.request import LoadRequest
from discovery_xp.planning.plan import Plan, make_plan


def plan_of(sites: int = 2, computes: int = 3, backend: str = "mysql", zones: bool = False) -> Plan:
    kind = "availability-zones" if zones else "shared"
    text = (
        f"sites: [{{name: site, count: {sites}, computes: {computes}}}]\n"
        f"openstack: {{backend: {backend}, placement: {kind}}}"
    )
    return make_plan(parse_topology(text), cloud=True)


def boot(vms: int, seed: int = 1, **more: object) -> Scenario:
    return Scenario("try", "boot", vms=vms, placement_seed=seed, **more)  # type: ignore[arg-type]


def drawn(plan: Plan, scenario: Scenario) -> Placement:
    found = placement_of(plan, scenario)
    assert found is not None
    return found


@given(st.integers(0, 2**31 - 1), st.integers(1, 60), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_vm_has_a_compute_and_they_are_as_full_as_each_other(
    seed: int, vms: int, zones: bool
) -> None:
    found = drawn(plan_of(zones=zones), boot(vms, seed))
    assert len(found.computes) == vms
    counts = Counter(found.computes.values())
    pools = ("site1", "site2") if zones else ("site",)
    for pool in pools:
        full = [counts[f"site{s}-compute-{c}"] for s in (1, 2) for c in (1, 2, 3)
                if f"site{s}".startswith(pool)]  # fmt: skip
        assert max(full) - min(full) <= 1


def test_the_draw_is_the_same_whatever_the_back_end_and_another_with_another_seed() -> None:
    mysql = drawn(plan_of(backend="mysql"), boot(24))
    rome = drawn(plan_of(backend="rome"), boot(24))
    assert mysql == rome and mysql.digest == rome.digest
    assert drawn(plan_of(), boot(24, concurrency=3)).digest == mysql.digest
    assert drawn(plan_of(), boot(24, starts_on="sites")).digest == mysql.digest
    others = {drawn(plan_of(), boot(24, seed)).digest for seed in range(20)}
    assert len(others) == 20


def test_the_draw_never_changes() -> None:
    """A seed that is written in a paper gives the same placement with every version."""
    found = drawn(plan_of(computes=2), boot(6, 1))
    assert found.digest == "6bd6bf00af48"
    assert list(found.computes) == [
        "load-site1-00001", "load-site2-00001", "load-site1-00002",
        "load-site2-00002", "load-site1-00003", "load-site2-00003",
    ]  # fmt: skip


def test_each_order_is_about_as_likely_as_another() -> None:
    orders = Counter(tuple(shuffled("abc", f"{seed}/1")) for seed in range(6000))
    assert set(orders) == set(itertools.permutations("abc"))
    # A sixth each: chi squared of 5 degrees of freedom is below 20.5 in 999 of 1000 cases.
    assert sum((count - 1000) ** 2 / 1000 for count in orders.values()) < 20.5


def test_a_zones_vms_stay_at_their_site() -> None:
    found = drawn(plan_of(zones=True), boot(12))
    for name, compute in found.computes.items():
        assert name.split("-")[1] == compute.split("-")[0]


def test_a_region_that_reaches_no_compute_is_refused() -> None:
    plan = plan_of(zones=True)
    assert plan.cloud is not None
    cloud = dataclasses.replace(plan.cloud, computes={"site1": plan.cloud.computes["site1"]})
    with pytest.raises(Refused, match="region 'site2' has no computes to place VMs on; leave it"):
        shares(dataclasses.replace(plan, cloud=cloud), boot(4))


@pytest.mark.parametrize("starts_on", ["master", "sites"])
def test_the_load_hosts_are_told_each_vms_compute(starts_on: str) -> None:
    plan, scenario = plan_of(), boot(7, starts_on=starts_on)
    found = drawn(plan, scenario)
    told = {}
    for share in shares(plan, scenario):
        request = LoadRequest.from_json(
            task(scenario, share, "")["subtasks"][0]["scenario"]["Discovery.load"]["load"]
        )
        for region in request.regions:
            assert len(region.placed) == region.count
            for number, compute in enumerate(region.placed, start=1):
                told[f"load-{region.name}-{number:05d}"] = compute
    assert told == found.computes


def test_without_a_seed_the_scheduler_chooses() -> None:
    scenario = Scenario("try", "boot", vms=4)
    assert placement_of(plan_of(), scenario) is None
    assert shares(plan_of(), scenario)[0].placed == ((), ())


def test_what_landed_elsewhere_is_told() -> None:
    found = Placement(1, {f"load-{n}": "c1" for n in range(6)})
    rows = [{"name": f"load-{n}", "host": "c1"} for n in range(5)]
    assert found.differences([*rows, {"name": "load-5", "host": None}]) == []
    assert found.differences([{**row, "host": "c2"} for row in rows]) == [
        "5 VMs aren't where the placement drew them: load-0 on c2 for c1, load-1 on c2 for c1, "
        "load-2 on c2 for c1 and 2 more"
    ]


def test_a_scenario_says_its_seed() -> None:
    scenario = parse_scenario("kind: boot\nplacement_seed: 0\n")
    assert scenario.placement_seed == 0
    assert parse_scenario(scenario.to_yaml()).placement_seed == 0
    assert "placement_seed" not in parse_scenario("kind: boot\n").to_yaml()
    for text, words in (
        ("kind: boot\nplacement_seed: -1\n", "'-1' is out of range; write 0 to 2147483647"),
        ("kind: boot\nplacement_seed: x\n", "'x' is not a whole number"),
        ("kind: reads\nplacement_seed: 1\n", "means nothing to 'reads'"),
    ):
        with pytest.raises(InvalidInput, match=words):
            parse_scenario(text)
