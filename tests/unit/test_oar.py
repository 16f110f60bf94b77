"""What OAR is asked for, and what the usage policy says of it."""

import dataclasses
import datetime as dt
import json

import pytest

from discovery_xp.errors import Refused
from discovery_xp.inputs.platforms import Cluster, G5kProvider, Job
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning import oar
from discovery_xp.planning.plan import Plan, make_plan

SITES = "name: t\nsites: [{name: a, computes: 2}, {name: b}]\n"
PARAVANCE = {Cluster("rennes", "paravance"): 65}


def plan_of(provider: str, cloud: bool = False) -> Plan:
    return make_plan(parse_topology(SITES + f"provider: {{type: g5k, {provider}}}"), cloud=cloud)


def test_a_request_says_everything() -> None:
    plan = plan_of("site: rennes, cluster: paravance, job_types: [night], spares: 1")
    (request,) = plan.requests
    assert json.loads(json.dumps(request.body)) == {
        "name": "discovery-xp-t",
        "types": ["deploy", "night", "origin=discovery_xp"],
        "resources": "{cluster='paravance'}/nodes=7,walltime=02:00:00",
        "command": "sleep 31536000",
        "queue": "default",
    }
    assert plan.node_hours == 14


def test_a_site_has_one_request_for_all_its_clusters() -> None:
    plan = plan_of(
        "site: rennes, cluster: paravance, spares: 1, sites: {b: {site: rennes, cluster: parasilo}}"
    )
    (request,) = plan.requests
    assert request.clusters == {"paravance": 5, "parasilo": 3}
    assert request.body["resources"].startswith(
        "{cluster='paravance'}/nodes=5+{cluster='parasilo'}/nodes=3,"
    )


TWO_SITES = "site: rennes, cluster: paravance, sites: {b: {site: nancy, cluster: gros}}, "


@pytest.mark.parametrize(
    ("network", "vlans"),
    [
        ("production", ["", ""]),
        ("kavlan", ["+{type='kavlan'}/vlan=1", "+{type='kavlan'}/vlan=1"]),
        ("kavlan-global", ["+{type='kavlan-global'}/vlan=1", ""]),
    ],
)
def test_vlans_are_asked_for_where_they_are_needed(network: str, vlans: list[str]) -> None:
    plan = plan_of(f"{TWO_SITES}network: {network}")
    wanted = ["{cluster='paravance'}/nodes=4", "{cluster='gros'}/nodes=2"]
    assert [request.body["resources"] for request in plan.requests] == [
        f"{nodes}{vlan},walltime=02:00:00" for nodes, vlan in zip(wanted, vlans, strict=True)
    ]


def test_a_common_start_is_added_in_the_time_of_paris() -> None:
    plan = plan_of(f"{TWO_SITES}network: production")
    start = dt.datetime(2027, 7, 1, 10, 30, tzinfo=dt.UTC).timestamp()
    dated = [oar.at(request, start) for request in plan.requests]
    assert {one.body["reservation"] for one in dated} == {"2027-07-01 12:30:00"}
    assert all("reservation" not in one.body for one in plan.requests)


def test_a_walltime_too_short_for_the_plan_is_refused() -> None:
    where = "site: rennes, cluster: paravance"
    with pytest.raises(Refused, match=r"walltime of 00:10:00, but the nodes take about 15 min"):
        plan_of(f"{where}, walltime: '00:10:00'")
    plan_of(f"{where}, walltime: '00:30:00'")
    with pytest.raises(Refused, match=r"their cloud take about 40 min.*'walltime: \"01:30:00\"'"):
        plan_of(f"{where}, walltime: '00:30:00'", cloud=True)


# ---------------------------------------------------------------- the usage policy


def warned(**job: str) -> list[str]:
    types = tuple(job.pop("types", "").split())
    return oar.policy_warnings(Job(types=types, **job), PARAVANCE)


def test_two_hours_fit_at_any_time() -> None:
    assert warned(walltime="02:00:00") == []


def test_more_by_day_needs_a_larger_cluster() -> None:
    (warning,) = warned(walltime="03:00:00")
    assert "65 nodes of paravance for the 3 hours between 9:00 and 19:00" in warning
    assert "unless paravance has 98 nodes; write 'job_types: [night]'" in warning


@pytest.mark.parametrize(
    ("start", "walltime", "hours"),
    [
        ("2027-03-01 19:00:00", "14:00:00", 0),  # a Monday's night
        ("2027-03-01 17:30:00", "03:00:00", 1.5),
        ("2027-03-05 19:00:00", "62:00:00", 0),  # a weekend
        ("2027-03-05 19:00:00", "65:00:00", 3),
        ("2027-03-06 12:00:00", "04:00:00", 0),  # a Saturday
        ("2027-03-01 18:00:00", "16:00:00", 1),  # of Monday and of Tuesday
        ("2027-03-01 08:00:00", "30:00:00", 10),
    ],
)
def test_hours_of_a_working_day(start: str, walltime: str, hours: float) -> None:
    assert oar.by_day(Job(walltime=walltime, reservation=start)) == hours * 3600


def test_a_night_is_no_day() -> None:
    assert warned(walltime="14:00:00", types="night") == []
    assert warned(walltime="03:00:00", reservation="2027-03-01 19:00:00") == []


def test_a_night_ends_in_the_morning() -> None:
    (warning,) = warned(walltime="15:00:00", types="night")
    assert "longer than the 14 hours that a job may last outside of weekends" in warning
    assert "'reservation' on a Friday" in warning


def test_a_weekend_ends_on_monday() -> None:
    assert warned(walltime="62:00:00", reservation="2027-03-05 19:00:00") == []
    longer = warned(walltime="63:00:00", types="night")
    assert "split the experiment" in longer[0]


def test_other_queues_have_other_rules() -> None:
    assert "end whenever somebody else" in warned(walltime="90:00:00", types="besteffort")[0]
    assert "has rules of its own" in warned(walltime="90:00:00", queue="production")[0]


def test_a_start_is_judged_in_a_word() -> None:
    noon = dt.datetime(2027, 3, 1, 12, tzinfo=oar.PARIS).timestamp()
    job = Job(walltime="03:00:00")
    assert oar.policy_at(job, noon) == "3.0 h of a working day"
    assert oar.policy_at(job, noon + 8 * 3600) == "fits"
    assert oar.policy_at(Job(walltime="63:00:00"), noon) == "too long"


@pytest.mark.parametrize("name", ["x'}/nodes=9+{cluster='y", "a b", "../x", "", "x\n", "{{ x }}"])
def test_a_cluster_s_name_is_no_part_of_oars_language(name: str) -> None:
    plan = plan_of("site: rennes, cluster: paravance")
    assert isinstance(plan.platform, G5kProvider)
    for changed in (Cluster("rennes", name), Cluster(name, "paravance")):
        provider = dataclasses.replace(
            plan.platform, clusters=dict.fromkeys(plan.platform.clusters, changed)
        )
        with pytest.raises(Refused, match="is no name of a Grid'5000 site or cluster"):
            oar.requests(provider, list(provider.clusters), "mine")
