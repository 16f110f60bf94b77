import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_xp import load
from discovery_xp.deployment.variables import RegionVariables
from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.load import rally_hosts
from discovery_xp.load.ledger import ACTION_COLUMNS, VM_COLUMNS, Ledger, rate_per_s
from discovery_xp.load.rally_task import task
from discovery_xp.load.shares import Share, shares, split
from discovery_xp.onhost.wire import load as wire
from discovery_xp.planning.plan import Plan, make_plan

MASTER = "site1-master-1"
SITES = {"site1-compute-1": "site1", "site2-compute-1": "site2"}


def plan_of(sites: int, controllers: int = 1) -> Plan:
    text = f"sites: [{{name: site, count: {sites}, controllers: {controllers}}}]"
    return make_plan(parse_topology(text), cloud=True)


def boot(vms: int, **more: Any) -> Scenario:
    return Scenario("try", "boot", vms=vms, **more)


# ---------------------------------------------------------------- who asks for what


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_split_is_fair_and_loses_nothing(count: int, parts: int) -> None:
    found = split(count, parts)
    assert sum(found) == count
    assert len(found) == parts
    assert max(found) - min(found) <= 1


def test_the_master_asks_at_every_controller() -> None:
    [share] = shares(plan_of(8), boot(500))
    assert share.host == MASTER
    assert [region.name for region in share.regions] == [f"site{n}" for n in range(1, 9)]
    assert share.counts == (63, 63, 63, 63, 62, 62, 62, 62)
    assert share.warm_ups == (1,) * 8
    assert share.concurrency is None
    assert share.clears == tuple(f"site{n}" for n in range(1, 9))


def test_each_site_asks_for_its_own_share() -> None:
    found = shares(plan_of(3), boot(8, starts_on="sites", concurrency=5, warm_up=4))
    assert [(s.host, s.counts, s.warm_ups, s.concurrency, s.iterations_before) for s in found] == [
        ("site1-controller-1", (3,), (2,), 2, 0),
        ("site2-controller-1", (3,), (1,), 2, 3),
        ("site3-controller-1", (2,), (1,), 1, 6),
    ]
    assert [share.clears for share in found] == [("site1",), ("site2",), ("site3",)]


def test_sites_without_a_share_start_nothing_but_are_cleared() -> None:
    found = shares(plan_of(3), boot(1, starts_on="sites"))
    assert [share.host for share in found] == ["site1-controller-1"]
    assert found[0].clears == ("site1", "site2", "site3")


def zoned(plan: Plan) -> Plan:
    assert plan.cloud is not None
    zones = dataclasses.replace(plan.cloud, zones=tuple(plan.cloud.computes))
    return dataclasses.replace(plan, cloud=zones)


def test_every_compute_is_warmed_by_way_of_its_own_site() -> None:
    plan = plan_of(2, controllers=2)
    [share] = shares(plan, boot(8))
    assert [region.name for region in share.regions] == [
        "site1", "site1-controller-2", "site2", "site2-controller-2",
    ]  # fmt: skip
    assert share.computes == (("site1-compute-1",), (), ("site2-compute-1",), ())
    at_sites = shares(plan, boot(8, starts_on="sites"))
    assert [each.computes for each in at_sites] == [
        (("site1-compute-1",),), ((),), (("site2-compute-1",),), ((),),
    ]  # fmt: skip


def test_computes_of_sites_that_arent_asked_are_shared_out_unless_sites_are_zones() -> None:
    scenario = boot(8, regions=("site3", "site1"))
    [share] = shares(plan_of(4), scenario)
    assert share.computes == (
        ("site3-compute-1", "site2-compute-1"),
        ("site1-compute-1", "site4-compute-1"),
    )
    [share] = shares(zoned(plan_of(4)), scenario)
    assert share.computes == (("site3-compute-1",), ("site1-compute-1",))


def test_a_number_of_vms_to_warm_up_with_names_no_compute() -> None:
    [share] = shares(plan_of(2), boot(8, warm_up=5))
    assert (share.warm_ups, share.computes) == ((3, 2), ((), ()))


def test_a_list_of_regions_is_kept_in_its_order() -> None:
    scenario = boot(3, regions=("site2", "site1-controller-2"))
    [share] = shares(plan_of(2, controllers=2), scenario)
    assert [region.name for region in share.regions] == ["site2", "site1-controller-2"]
    assert share.counts == (2, 1)
    assert set(share.clears) == {"site1", "site1-controller-2", "site2", "site2-controller-2"}


def test_a_region_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        shares(plan_of(2), boot(3, regions=("site9",)))
    assert str(caught.value) == (
        "scenario 'try': the cloud has no region 'site9'; its regions are site1, site2"
    )


def share() -> Share:
    return shares(plan_of(2), boot(6))[0]


def test_rallys_task_is_plain_json_and_says_all() -> None:
    written = json.loads(json.dumps(task(boot(6, vm_timeout_s=5), share(), "")))
    wanted = written["subtasks"][0]["scenario"]["Discovery.load"]["load"]
    assert wanted["regions"] == [
        {
            "name": "site1",
            "site": "site1",
            "count": 3,
            "warm_up": 1,
            "computes": ["site1-compute-1"],
            "placed": [],
        },
        {
            "name": "site2",
            "site": "site2",
            "count": 3,
            "warm_up": 1,
            "computes": ["site2-compute-1"],
            "placed": [],
        },
    ]
    assert (wanted["kind"], wanted["concurrency"], wanted["vm_timeout_s"]) == ("boot", None, 5)


def variables() -> Any:
    """What the playbooks are told, as far as a load needs it."""
    region = RegionVariables("site1", {"identity": "http://10.0.0.1:5000"})
    cloud = SimpleNamespace(
        timings=SimpleNamespace(time_scale=1.0),
        user="discovery",
        options={"nics": 0},
        network="discovery",
        regions=(region,),
    )
    secrets = SimpleNamespace(passwords={"admin": "secret1", "user": "secret2"})
    return SimpleNamespace(cloud=cloud, secrets=secrets)


def test_a_scenarios_text_is_no_template_of_rallys() -> None:
    scenario = dataclasses.replace(boot(6), description="{{ ''.__class__ }}{% raw %}{# x")
    text, _ = rally_hosts.files(variables(), scenario, share())["task.json"]
    assert json.loads(text)["description"] == scenario.description
    assert not [mark for mark in ("{{", "{%", "{#") if mark in text]


def test_only_the_environment_holds_passwords() -> None:
    files = rally_hosts.files(variables(), boot(6), share())
    holding = {name for name, (text, _mode) in files.items() if "secret" in text}
    assert holding == {"env.json"}
    assert files["env.json"][1] == 0o600
    spec = json.loads(files["env.json"][0])["existing@openstack"]
    assert spec["auth_url"] == "http://10.0.0.1:5000/v3"
    assert spec["users"][0]["username"] == "discovery"


# ---------------------------------------------------------------- records to rows


def ledger(vms: int = 2, hosts: tuple[str, ...] = (MASTER,), **more: Any) -> Ledger:
    return Ledger(boot(vms, **more), hosts, SITES)


def vm(name: str, **values: Any) -> dict[str, Any]:
    return {"line": "vm", "name": name, **values}


def asked(name: str, at: float, site: str = "site1") -> dict[str, Any]:
    return vm(name, region=site, site=site, requested_at=at)


def usage(at: float, cpu_s: float, polls: int, mark: str = "") -> dict[str, Any]:
    return {"line": "usage", "at": at, "cpu_s": cpu_s, "polls": polls, "mark": mark}


def action(name: str, at: float, **more: Any) -> dict[str, Any]:
    return {"line": "action", "action": name, "iteration": 1, "region": "site1", "site": "site1",
            "started_at": at, "duration_s": 0.5, "error": None, **more}  # fmt: skip


DONE: Mapping[str, Any] = {"line": "done", "lost": {}}
ENDED: Mapping[str, Any] = {"line": "unit", "words": "ended (success, exited 0)"}
KILLED: Mapping[str, Any] = {"line": "unit", "words": "ended (signal, killed KILL)"}


def take(into: Ledger, *lines: Mapping[str, Any], host: str = MASTER) -> Ledger:
    for line in lines:
        into.take(host, line)
    return into


ONE = (
    {"line": "ready", "at": 99.0},
    usage(100.0, 1.5, 4, "start"),
    asked("a", 100.0),
    asked("b", 100.1, "site2"),
    vm("a", accepted_at=100.3, server_id="id-a"),
    vm("b", status="REFUSED", seen_at=None, error="HTTP 500: broken"),
    action("boot", 100.1, error="HTTP 500: broken"),
    vm("a", status="ACTIVE", seen_at=104.2, error=None),
    action("boot", 100.0),
    usage(104.3, 1.75, 9, "end"),
    {"line": "loaded", "last_sent_at": 100.2, "time_is_up": False},
)


def test_lines_become_rows_in_the_order_of_the_requests() -> None:
    rows = take(ledger(), *ONE).vms
    assert [tuple(row) for row in rows] == [VM_COLUMNS, VM_COLUMNS]
    assert rows[0] == {
        "name": "a",
        "server_id": "id-a",
        "region": "site1",
        "site": "site1",
        "requested_at": 100.0,
        "accepted_at": 100.3,
        "active_at": 104.2,
        "seen_at": 104.2,
        "status": "ACTIVE",
        "host": None,
        "host_site": None,
        "deleted_at": None,
        "error": None,
        "boot_duration_s": pytest.approx(4.2),
    }
    assert (rows[1]["status"], rows[1]["server_id"]) == ("REFUSED", None)
    assert rows[1]["error"] == "HTTP 500: broken"
    assert rows[1]["boot_duration_s"] is rows[1]["active_at"] is None


def test_rows_are_handed_on_once_when_they_ended() -> None:
    book = ledger()
    take(book, *ONE[:4])
    assert book.new_rows() == ([], [])
    take(book, *ONE[4:])
    vms, actions = book.new_rows()
    assert [row["name"] for row in vms] == ["b", "a"]
    assert [tuple(row) for row in actions] == [ACTION_COLUMNS] * 2
    take(book, vm("a", host="site2-compute-1", launched_at=104.0), DONE)
    assert book.new_rows() == ([], [])


def test_what_is_known_later_is_in_the_rows_in_the_end() -> None:
    book = take(ledger(), *ONE, vm("a", host="site2-compute-1", launched_at=103.0))
    take(book, vm("a", deleted_at=110.0))
    row = book.vms[0]
    assert (row["host"], row["host_site"]) == ("site2-compute-1", "site2")
    assert (row["active_at"], row["seen_at"], row["deleted_at"]) == (103.0, 104.2, 110.0)


@pytest.mark.parametrize(
    ("launched_at", "active_at"),
    [(99.0, 100.0), (100.0, 100.0), (103.0, 103.0), (105.0, 104.2), (None, 104.2)],
)
def test_the_clouds_clock_is_bounded_by_ours(launched_at: float | None, active_at: float) -> None:
    # It has whole seconds, rounded down: 99 is what it calls 100.0.
    book = take(ledger(), *ONE, vm("a", host=None, launched_at=launched_at))
    assert book.vms[0]["active_at"] == active_at


def test_a_whole_load_is_complete_though_a_vm_failed() -> None:
    book = take(ledger(), *ONE, DONE, ENDED)
    assert book.reason() is None
    assert book.window() == (100.0, 104.3)
    assert book.spent("cpu_s") == pytest.approx(0.25)
    assert book.spent("polls") == 5
    assert book.sent_s() == pytest.approx(0.2)


def test_several_load_hosts_make_one_load() -> None:
    book = ledger(hosts=("h1", "h2"))
    take(book, usage(10, 1, 0, "start"), asked("a", 10), usage(20, 3, 5, "end"), host="h1")
    take(book, usage(11, 2, 1, "start"), asked("b", 11), usage(18, 3, 2, "end"), host="h2")
    assert book.window() == (10, 20)
    assert (book.spent("cpu_s"), book.spent("polls")) == (3, 6)
    take(book, DONE, ENDED, host="h1")
    assert book.reason() == "Rally on h2 ended early"
    take(book, DONE, host="h2")
    assert book.reason() is None


def test_stages_of_several_load_hosts_are_added_up() -> None:
    book = ledger(hosts=("h1", "h2"))
    assert book.stage() is None
    for host, done in (("h1", 1), ("h2", 2)):
        book.take(host, {"line": "stage", "stage": "deleting the VMs", "done": done, "total": 3})
    assert book.stage() == ("deleting the VMs", 3, 6)


# ---------------------------------------------------------------- loads that died


def test_a_stage_before_the_load_is_not_told_again_after_it() -> None:
    book = take(ledger(), {"line": "stage", "stage": "warming up", "done": 2, "total": 2}, *ONE)
    assert book.hosts[MASTER].is_loaded
    assert book.stage() is None


def test_a_killed_load_keeps_what_it_had_and_says_why() -> None:
    book = take(ledger(vms=5), *ONE[:8], asked("c", 101.0), KILLED)
    take(book, usage(103.0, 1.6, 7))
    reason = book.reason()
    assert reason == (
        f"Rally on {MASTER} ended (signal, killed KILL); 2 of 5 VMs were never asked for"
    )
    book.new_rows()
    book.give_up(reason)
    late, _ = book.new_rows()
    assert [(row["name"], row["status"]) for row in late] == [("c", "TIMEOUT")]
    assert late[0]["error"] == f"its request wasn't answered when the load ended: {reason}"
    assert [row["status"] for row in book.vms] == ["ACTIVE", "REFUSED", "TIMEOUT"]
    assert book.window() == (100.0, 103.0), "until the last that was heard of it"
    assert book.spent("cpu_s") == pytest.approx(0.1)


def test_a_vm_that_was_accepted_is_told_from_one_that_was_not() -> None:
    book = take(ledger(), *ONE[:5], KILLED)
    book.give_up("x")
    assert [row["error"] for row in book.vms] == [
        "it wasn't ACTIVE yet when the load ended: x",
        "its request wasn't answered when the load ended: x",
    ]


def test_a_load_that_died_before_its_first_request_has_no_rows() -> None:
    book = take(ledger(), {"line": "ready", "at": 1.0}, KILLED)
    book.give_up("x")
    assert (book.vms, book.window(), book.spent("cpu_s"), book.sent_s()) == ([], None, 0.0, None)
    assert book.reason() == (
        f"Rally on {MASTER} ended (signal, killed KILL); 2 of 2 VMs were never asked for"
    )


def test_a_crash_is_told_in_its_own_words() -> None:
    book = take(ledger(), *ONE, {"line": "crash", "error": "KeyError: 'server'"}, ENDED)
    assert book.reason() == f"Rally on {MASTER}: KeyError: 'server'"


def test_a_region_that_was_lost_makes_it_partial() -> None:
    lost = {"line": "done", "lost": {"site2": "site2's API doesn't answer: refused"}}
    assert take(ledger(), *ONE, lost, ENDED).reason() == "site2's API doesn't answer: refused"


def test_so_does_a_run_whose_time_was_up() -> None:
    loaded = {"line": "loaded", "last_sent_at": 100.2, "time_is_up": True}
    book = take(ledger(run_timeout_s=60.0), *ONE, loaded, DONE, ENDED)
    assert book.reason() == "the run's time (60 s) was up"


# ---------------------------------------------------------------- how it comes on


@pytest.mark.parametrize(
    ("ended_at", "first", "now", "rate"),
    [
        ([], 0, 10, 0.0),
        ([1, 2, 3, 4, 5], 0, 5, 1.0),
        ([90, 95, 100], 0, 100, 0.1),  # over the last half minute
        ([1, 2, 3], 0, 100, 0.0),
        ([0.2], 0, 0.2, 1.0),  # the first second counts as a whole one
    ],
)
def test_the_rate_is_that_of_late(
    ended_at: list[float], first: float, now: float, rate: float
) -> None:
    assert rate_per_s(ended_at, first, now) == pytest.approx(rate)


def test_the_pace_says_what_is_left() -> None:
    book = take(ledger(vms=10), *ONE[:5], vm("a", status="ACTIVE", seen_at=104.0))
    take(book, vm("b", status="ERROR", seen_at=105.0, error="x"))
    pace = book.pace(110.0)
    assert (pace.done, pace.total, pace.active, pace.failed) == (2, 10, 1, 1)
    assert pace.rate_per_s == pytest.approx(0.2)
    assert pace.remaining_s == pytest.approx(40.0)


def test_rounds_and_tokens_are_counted_by_iteration() -> None:
    book = Ledger(Scenario("r", "reads", iterations=3), [MASTER], SITES)
    take(book, usage(1, 1, 0, "start"), action("list", 1.0), action("show", 1.5),
         {"line": "iteration", "number": 1})  # fmt: skip
    assert (book.done, len(book.actions)) == (1, 2)
    assert book.is_loading
    take(book, usage(2, 1, 0, "end"))
    assert not book.is_loading


# ---------------------------------------------------------------- the result


def test_a_result_sums_up_its_rows() -> None:
    book = take(ledger(), *ONE, vm("a", deleted_at=110.0), DONE)
    done = load.LoadRun(
        scenario=boot(2),
        status="complete",
        reason=None,
        vms=tuple(book.vms),
        actions=tuple(book.actions),
        window=book.window(),
        cpu_s=book.spent("cpu_s"),
        polls=5,
        sent_s=book.sent_s(),
        hosts=(MASTER,),
        raw=Path("raw"),
    )
    assert load.vm_counts(done.vms) == {"asked": 2, "active": 1, "failed": 1, "deleted": 1}
    assert load.duration_s(done.vms) == pytest.approx(4.2)
    assert done.load == {
        "cpu_s": pytest.approx(0.25),
        "cores": pytest.approx(0.25 / 4.3),
        "polls": 5,
        "host": MASTER,
    }


def test_the_units_own_end_is_a_line_of_the_format(tmp_path: Path) -> None:
    script = rally_hosts._ENDED.format(folder=tmp_path, line=rally_hosts._unit_line())
    subprocess.run(
        ["sh", "-c", script], check=True,
        env={"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "9"},
    )  # fmt: skip
    (line,) = (tmp_path / "records.jsonl").read_text().splitlines()
    assert line == wire.encode("unit", words="ended (signal, killed 9)").rstrip()
