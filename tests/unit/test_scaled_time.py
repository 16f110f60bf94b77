"""Scaled time: what is refused, what gets longer, what is held, and what a run's seconds are."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import experiment, store, validity
from discovery_xp.analysis import facts, plots, report, run_tables
from discovery_xp.analysis.measurements import Measurements, group, label, measured
from discovery_xp.cli.bench import as_file
from discovery_xp.cli.guard import run as run_guarded
from discovery_xp.cli.main import cli
from discovery_xp.deployment.timings import DEFAULTS, SECONDS, scaled, timings
from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.inputs.topology import Link, Tolerance, derive_topology, parse_topology
from discovery_xp.load.rally_task import task
from discovery_xp.load.shares import shares
from discovery_xp.planning.plan import Plan, PlannedLink, make_plan
from discovery_xp.planning.plan_json import plan_from_json
from discovery_xp.planning.shares import needed_cores, quota_and_period_us, shares_of
from discovery_xp.providers.local.shares import set_command, unset_command
from discovery_xp.testbeds import pings
from discovery_xp.testbeds.hosts import Reading
from discovery_xp.testbeds.links import ScaledWan, disagreements, slowed
from discovery_xp.testbeds.shares import HeldShare
from discovery_xp.testbeds.shares import disagreements as share_disagreements
from discovery_xp.validity import CpuTimes, MachineWatch, Occupation, occupation
from tests.unit.synthetic_run import START, make_run


def plan_of(time_scale: float = 4, delay: str = "50ms", more: str = "", cloud: bool = True) -> Plan:
    text = (
        "name: try\nsites: [{name: site, count: 2, computes: 2, data: 1}]\n"
        f"network: {{delay: {delay}}}\ntime_scale: {time_scale}\n{more}"
    )
    return make_plan(parse_topology(text), cloud=cloud)


# ---------------------------------------------------------------- what is asked for


def test_a_topology_says_its_scale_and_so_does_its_plan() -> None:
    assert derive_topology(2, "10ms").time_scale == 1
    plan = plan_of(2.5)
    assert plan.time_scale == 2.5
    assert plan.links[0].link.delay_ms == 50  # what it stands for
    assert plan_from_json(plan.to_json()) == plan
    older = {key: value for key, value in plan.to_json().items() if key != "time_scale"}
    assert plan_from_json(older).time_scale == 1


@pytest.mark.parametrize("value", ["0.5", "0", "-1", ".nan", ".inf", "1001", "fast", "[2]"])
def test_a_scale_below_one_or_none_is_refused_with_its_line(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_topology(f"sites: [{{name: a}}]\ntime_scale: {value}\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (2, "time_scale")


@pytest.mark.parametrize("value", ["0.5", "nan", "inf", "-4"])
def test_the_command_line_refuses_the_same_in_a_line(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["discovery-xp", "plan", "--sites", "2",
                                      "--time-scale", value])  # fmt: skip
    assert run_guarded(cli) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"a time scale of {float(value):g} is out of range; write 1 to 1000"


PROVIDERS = {
    "static": "{type: static, hosts: {a: [10.0.0.1, 10.0.0.2, 10.0.0.3]}}",
    "g5k": "{type: g5k, sites: {a: {site: nancy, cluster: gros}}, walltime: '02:00:00'}",
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_real_machines_keep_their_own_time(provider: str) -> None:
    text = f"name: try\nsites: [{{name: a}}]\ntime_scale: 2\nprovider: {PROVIDERS[provider]}\n"
    with pytest.raises(Refused) as caught:
        make_plan(parse_topology(text))
    assert str(caught.value) == (
        f"'try' has a time scale of 2, but the machines of provider '{provider}' keep their own "
        "time; leave time_scale out, or write 'provider: local'"
    )
    assert make_plan(parse_topology(text.replace("time_scale: 2", "time_scale: 1")))


def test_a_round_trip_beyond_tcps_first_timeout_is_refused_with_the_largest_scale() -> None:
    with pytest.raises(Refused) as caught:
        plan_of(10, "50ms")
    assert str(caught.value) == (
        "site1 - site2: a round trip of 100 ms at a time scale of 10 takes 1 s, and TCP sends "
        "anew after 1 s; write a time scale of at most 9.9"
    )
    assert plan_of(9.9, "50ms").time_scale == 9.9
    with pytest.raises(Refused, match="leave time_scale out"):
        plan_of(1.5, "500ms")
    assert plan_of(1, "500ms")  # without a scale it is the user's own business


def test_jitter_counts_to_the_round_trip() -> None:
    plan_of(9, "50ms")
    with pytest.raises(Refused, match="a round trip of 120 ms"):
        plan_of(9, "50ms, jitter: 10ms")


def test_a_bench_stores_the_scale_of_the_command_line() -> None:
    text = as_file(None, 2, "50ms", 4.0, None, None)
    assert parse_topology(text).time_scale == 4
    assert as_file("name: x\n", None, None, 4.0, "rome", None) == (
        "name: x\n# On the command line: backend: rome, time_scale: 4.0\n"
    )


# ---------------------------------------------------------------- links


class FakeWan:
    """Keeps what it was told."""

    kind = "fake"

    def __init__(self) -> None:
        self.links: list[PlannedLink] = []

    def impose(self, links: Sequence[PlannedLink]) -> None:
        self.links = list(links)

    def read_back(self) -> list[Reading]:
        return [Reading(each.source, each.source, each.target, each.link) for each in self.links]

    def reset(self) -> None:
        self.links = []


def test_links_are_imposed_slower_and_read_back_as_they_were_asked_for() -> None:
    asked = [PlannedLink("a", "b", Link(25, 3, 0.1, 100)), PlannedLink("b", "a", Link(10))]
    inner = FakeWan()
    wan = ScaledWan(inner, 3)
    wan.impose(asked)
    assert [each.link for each in inner.links] == [Link(75, 9, 0.1, 33.333333), Link(30)]
    assert disagreements(asked, wan.read_back()) == []
    inner.links[0] = dataclasses.replace(inner.links[0], link=Link(25, 3, 0.1, 100))
    assert len(disagreements(asked, wan.read_back())) == 1
    assert slowed(Link(), 3).is_plain


def test_round_trips_are_judged_by_what_they_stand_for() -> None:
    both = (Link(50), Link(50))
    good = pings.summarise("a", "b", both, [402.0, 404.0, 408.0], Tolerance(), 1, 4)
    assert (good.observed_ms, good.measured_ms, good.is_off) == (101.0, 404.0, False)
    assert good.to_json()["measured_ms"] == 404.0
    assert pings.summarise("a", "b", both, [101.0], Tolerance(), 1, 4).is_off
    assert pings.summarise("a", "b", both, [404.0], Tolerance()).is_off


def test_pings_leave_slower_links_more_time() -> None:
    pair = (Link(100, rate_mbit=0.01), Link(100, rate_mbit=0.01))
    once, scaled_ = pings.pace_of([pair]), pings.pace_of([pair], time_scale=4)
    assert scaled_.wait_ms - 3000 == pytest.approx(4 * (once.wait_ms - 3000), abs=4)
    assert scaled_.period_ms == pytest.approx(4 * once.period_ms, abs=4)


# ---------------------------------------------------------------- timeouts and periods


def test_without_a_scale_nothing_but_our_own_choices_is_written() -> None:
    layout = plan_of(1).require_cloud()
    told = timings(layout, 1)
    assert told.seconds == SECONDS
    assert told.settings["keystone"] == told.settings["nova_database"] == {}
    assert (told.mariadb, told.rabbitmq, told.redis) == ({}, {}, {})
    nova = told.settings["nova"]
    assert nova["DEFAULT"]["rpc_response_timeout"] == 120
    assert nova["DEFAULT"]["sync_power_state_interval"] == -1
    assert "oslo_messaging_rabbit" not in nova


def test_with_a_scale_every_time_is_so_many_times_longer() -> None:
    told = timings(plan_of(2.5).require_cloud(), 2.5)
    nova = told.settings["nova"]
    assert nova["DEFAULT"]["rpc_response_timeout"] == 300
    assert nova["DEFAULT"]["report_interval"] == 75
    assert nova["DEFAULT"]["sync_power_state_interval"] == -1  # off stays off
    assert nova["oslo_messaging_rabbit"]["heartbeat_timeout_threshold"] == 150
    assert told.settings["keystone"]["database"]["connection_parameters"] == "connect_timeout=25"
    assert told.seconds["gunicorn_keepalive"] == 188  # whole, and not less
    assert told.rabbitmq["heartbeat"] == 150
    assert told.mariadb["net_read_timeout"] == 75
    for component, sections in DEFAULTS.items():
        for section, options in sections.items():
            for option in options:
                value = told.settings[component][section][option]
                assert isinstance(value, int), (component, section, option)


@pytest.mark.parametrize(("time_scale", "seconds"), [(2, 2), (4, 4), (6, 4), (9, 4)])
def test_a_time_is_no_longer_than_the_service_takes(time_scale: float, seconds: int) -> None:
    """oslo.messaging refuses to start with a longer one."""
    settings = timings(plan_of(time_scale).require_cloud(), time_scale).settings
    for component in ("nova", "neutron"):
        rabbit = settings[component]["oslo_messaging_rabbit"]
        assert rabbit["kombu_reconnect_delay"] == seconds
        assert rabbit["rabbit_interval_max"] == 30 * time_scale


def test_rome_gets_its_timeouts_by_its_url() -> None:
    told = timings(plan_of(2, more="openstack: {backend: rome}").require_cloud(), 2)
    assert told.settings["nova_database"]["database"]["connection_parameters"] == (
        "timeout=60&connect_timeout=10&hold=10&patience=30"
    )
    assert told.settings["neutron"]["database"]["connection_parameters"] == (
        "timeout=60&connect_timeout=10&hold=10&patience=30"
    )


def test_what_a_topology_says_of_a_time_is_scaled_and_comes_before_our_choices() -> None:
    more = "openstack: {config: {nova: {DEFAULT: {rpc_response_timeout: 90, debug: true}}}}"
    assert timings(plan_of(1, more=more).require_cloud(), 1).settings["nova"]["DEFAULT"][
        "rpc_response_timeout"
    ] == 90  # fmt: skip
    default = timings(plan_of(2, more=more).require_cloud(), 2).settings["nova"]["DEFAULT"]
    assert default["rpc_response_timeout"] == 180
    assert "debug" not in default  # the option is the topology's own


def test_times_are_whole_seconds_and_the_rest_is_no_time() -> None:
    assert [scaled(value, 1.5) for value in (1, 10, 0, -1)] == [2, 15, 0, -1]


def test_the_load_waits_and_polls_so_much_longer() -> None:
    plan, scenario = plan_of(), Scenario("boot", "boot", vms=4)
    (share,) = shares(plan, scenario)
    (subtask,) = task(scenario, share, "", 4)["subtasks"]
    request = subtask["scenario"]["Discovery.load"]["load"]
    assert (request["poll_interval_s"], request["vm_timeout_s"], request["run_timeout_s"]) == (
        4 * scenario.poll_interval_s, 4 * scenario.vm_timeout_s, 4 * scenario.run_timeout_s,
    )  # fmt: skip
    assert request["time_scale"] == 4


# ---------------------------------------------------------------- shares of the processor


def test_nothing_is_held_without_a_scale() -> None:
    assert shares_of(plan_of(1)) == ()


def test_a_service_gets_a_core_for_each_process_and_a_host_its_cores() -> None:
    more = "openstack: {workers: {nova-api: 2, default: 1, keystone: 8}}\n"
    by_host = {share.host: share for share in shares_of(plan_of(4, more=more))}
    master, controller = by_host["site1-master-1"], by_host["site1-controller-1"]
    assert (master.cores, master.units["mariadb"], master.units["rabbitmq-server"]) == (2, 2, 1)
    assert master.units["keystone-api"] == 2  # what its host has
    assert controller.units == {"nova-conductor": 1, "nova-scheduler": 1, "nova-api": 2}
    assert by_host["site2-compute-1"].units == {"nova-compute": 1}


def test_a_limit_of_the_provider_says_how_many_cores_a_host_has() -> None:
    plan = plan_of(2, more="provider: {type: local, limits: {compute: {cpus: 0.5}}}")
    by_host = {share.host: share for share in shares_of(plan)}
    assert (
        by_host["site1-compute-1"].cores == by_host["site1-compute-1"].units["nova-compute"] == 0.5
    )
    assert by_host["site1-master-1"].cores == 2
    # A master, and for each site a controller and a data node of 2 cores, two computes of half.
    assert needed_cores(plan) == (2 + 2 * (2 + 2 + 2 * 0.5)) / 2


@pytest.mark.parametrize(
    ("cores", "time_scale", "expected"),
    [
        (1, 4, (1000, 4000)),
        (2, 4, (2000, 4000)),
        (1, 2.5, (1000, 2500)),
        (0.5, 4, (1000, 8000)),  # the kernel takes no quota below a millisecond
        (1, 1000, (1000, 1_000_000)),
        (4, 2, (4000, 2000)),
    ],
)
def test_quota_and_period(cores: float, time_scale: float, expected: tuple[int, int]) -> None:
    quota_us, period_us = quota_and_period_us(cores, time_scale)
    assert (quota_us, period_us) == expected
    assert quota_us / period_us == pytest.approx(cores / time_scale)


def test_a_hosts_systemd_is_told_in_percent() -> None:
    (share,) = [each for each in shares_of(plan_of(3)) if each.host == "site1-compute-1"]
    assert set_command(share, 3) == (
        "systemctl set-property --runtime system.slice CPUQuota=66.67% CPUQuotaPeriodSec=3000us"
        " && systemctl set-property --runtime nova-compute.service CPUQuota=33.33% "
        "CPUQuotaPeriodSec=3000us"
    )
    # Before a cloud is installed a host's systemd doesn't know the units: that is no failure.
    assert unset_command(share).endswith("nova-compute.service CPUQuota= 2>/dev/null; true")


def held_of(plan: Plan) -> list[HeldShare]:
    return [
        HeldShare(share.host, unit, cores)
        for share in shares_of(plan)
        for unit, cores in (("", share.cores), *share.units.items())
    ]


def test_what_isnt_held_as_planned_is_named() -> None:
    plan = plan_of()
    planned, held = shares_of(plan), held_of(plan)
    assert share_disagreements(planned, held) == []
    missing = [each for each in held if (each.host, each.unit) != ("site2-compute-1", "")]
    assert share_disagreements(planned, missing) == ["site2-compute-1: nothing is held of 2 cores"]
    wrong = [dataclasses.replace(held[0], cores=1), dataclasses.replace(held[1], strays=2)]
    assert share_disagreements(planned, [*wrong, *held[2:]]) == [
        f"{held[0].host}: 1 cores are held instead of 2",
        f"{held[1].unit} on {held[1].host}: 2 processes aren't held",
    ]


DUMMY = """name: tryout
sites: [{name: site, count: 2, controllers: 1, computes: 2}]
network: {delay: 50ms}
provider: {type: dummy, faults: [FAULTS]}
"""


@pytest.fixture
def dummy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(experiment, "SHARE_READ_EVERY_S", 0.0)
    monkeypatch.chdir(tmp_path)

    def xp(*arguments: str, fault: str = "") -> tuple[int, str, str]:
        (tmp_path / "t.yaml").write_text(DUMMY.replace("FAULTS", fault))
        monkeypatch.setattr(sys, "argv", ["discovery-xp", *arguments])
        capsys.readouterr()
        code = run_guarded(cli)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return xp


def test_a_whole_bench_of_scaled_time_on_canned_hosts(dummy: Any, tmp_path: Path) -> None:
    code, out, err = dummy("bench", "t.yaml", "--time-scale", "4", "--vms", "4")
    assert code == 0, err
    (run,) = store.find_runs([tmp_path / "results"])
    record = run.load()
    assert record.time_scale == 4
    assert record.validity is None  # there was no machine
    (pair,) = run.links().before
    assert pair.requested_ms == 100
    assert pair.observed_ms == pytest.approx(100, abs=1)
    assert "time scale 4" in " ".join(out.split())


def test_a_share_that_isnt_held_ends_a_deployment(dummy: Any) -> None:
    code, _, err = dummy("deploy", "t.yaml", "--time-scale", "2", fault="shares")
    assert code == 1
    assert "1 shares of the processor aren't held as planned: site1-master-1: 4 cores" in err
    assert dummy("deploy", "t.yaml", "--time-scale", "2")[0] == 0
    code, out, _ = dummy("status", "--testbed", "tryout")
    assert (code, "time scale 2: " in out) == (0, True)
    code, _, err = dummy("deploy", "t.yaml", "--time-scale", "3")
    assert (code, "runs at a time scale of 2, not 3" in err) == (2, True)
    code, _, err = dummy("network", "set", "--delay", "300ms")
    assert (code, "TCP sends anew" in err) == (2, True)
    code, out, _ = dummy("network", "measure")
    assert (code, "by a clock" in out, "200.05" in out) == (0, True, True)
    assert dummy("destroy", "--testbed", "tryout")[0] == 0


# ---------------------------------------------------------------- the machine's verdict


def looks(*busy: float, every_s: float = 0.25, ticks: int = 50) -> list[CpuTimes]:
    """Looks at a machine that is so busy in each slice."""
    found = [CpuTimes(0.0, 0, 0, 0)]
    for share in busy:
        last = found[-1]
        idle = last.idle + round(ticks * (1 - share))
        found.append(CpuTimes(last.at + every_s, idle, 0, last.total + ticks))
    return found


def test_how_full_a_machine_was() -> None:
    seen = occupation(looks(*[1.0] * 4, *[0.5] * 16))
    assert (seen.busy, seen.saturated, seen.busiest_second) == (0.6, 0.2, 1.0)
    assert seen.slices == 20
    assert occupation(looks(0.5)).busiest_second == 0.5  # all there is
    assert occupation([]) == occupation(looks()) == Occupation()


def test_a_slice_that_came_late_counts_by_its_length() -> None:
    late = [CpuTimes(0, 0, 0, 0), CpuTimes(3.0, 0, 0, 600), CpuTimes(4.0, 200, 0, 800)]
    assert occupation(late).saturated == 0.75


def test_time_that_a_hypervisor_took_isnt_idle() -> None:
    text = "cpu  10 0 10 60 10 0 0 10 0 0\ncpu0 1 1\n"
    times = validity.parse_stat(text, 1.0)
    assert times == CpuTimes(1.0, 70, 10, 100)
    seen = occupation([CpuTimes(0.0, 0, 0, 0), times])
    assert (seen.busy, seen.stolen) == (0.3, 0.1)
    with pytest.raises(ValueError):
        validity.parse_stat("cpu0 1 2 3", 0.0)


@pytest.mark.parametrize(
    ("busy", "saturated", "verdict"),
    [(0.5, 0.1, "good"), (0.5, 0.11, "busy"), (0.9, 0.0, "good"), (0.91, 0.0, "busy")],
)
def test_the_verdict(busy: float, saturated: float, verdict: str) -> None:
    assert validity.verdict_of(Occupation(busy, saturated)) == verdict


def test_whose_share_was_used_up_most_often() -> None:
    before = [
        HeldShare("a", "nova-api", 1, 0, 100, 10, 1.0),
        HeldShare("a", "", 2, 0, 100, 0, 0.0),
        HeldShare("b", "nova-compute", 1, 0, 5, 5, 1.0),
    ]
    after = [
        HeldShare("a", "nova-api", 1, 0, 200, 60, 1.5),
        HeldShare("a", "", 2, 0, 300, 20, 0.25),
        HeldShare("b", "nova-compute", 1, 0, 5, 5, 1.0),  # it stood idle: no period
        HeldShare("b", "new", 1, 0, 5, 5, 1.0),
    ]
    found = validity.validity(plan_of(4), 2, Occupation(0.5, 0.0), before, after)
    assert found.throttled_unit == store.ThrottledShare("nova-api on a", 0.5, 0.5)
    assert found.throttled_host == store.ThrottledShare("a", 0.1, 0.25)
    assert found.verdict == "good"
    assert found.unit_cores["mariadb"] == 2
    assert found.needed_cores == 2 * 9 / 4
    assert validity.validity(plan_of(1), 2, Occupation(), None, None).unit_cores == {}


def test_the_watch_looks_keeps_and_ends() -> None:
    kept: list[float] = []

    def keep() -> None:
        kept.append(time.monotonic())
        raise OSError("no such group")

    watch = MachineWatch(lambda: CpuTimes(time.monotonic(), 0, 0, 0), keep, keep_every_s=0.0)
    watch.begin()
    while not kept:
        time.sleep(0.01)
    watch.end()
    count = len(watch.times)
    watch.end()
    assert len(watch.times) == count >= 3
    assert watch.failures[0] == "OSError: no such group"


# ---------------------------------------------------------------- what analysis makes of it


BUSY = store.Validity("busy", 0.95, 0.5, 0.0, 1.0, 400, 0.25, 2, 4.5, {"nova-api": 1.0},
                      {"a": 2.0}, store.ThrottledShare("nova-api on a", 0.4, 12.0),
                      None)  # fmt: skip


def scaled_run(root: Path, time_scale: float, found: store.Validity | None) -> Measurements:
    run = make_run(root)
    run.update(time_scale=time_scale, validity=found)
    (read,) = measured([run])
    return read


def test_durations_are_divided_once_and_moments_keep_their_order(tmp_path: Path) -> None:
    natural = scaled_run(tmp_path / "a", 1, None)
    run = scaled_run(tmp_path / "b", 4, None)
    for key in ("duration_s", "s_per_vm", "boot_median_s", "boot_p90_s", "call_mean_ms"):
        assert run.figures[key] == pytest.approx(natural.figures[key] / 4), key
    for key in ("cpu_ms_per_vm", "statements_per_vm", "network_mb_per_vm", "machine_busy", "calls"):
        assert run.figures[key] == natural.figures[key], key
    assert run.natural_s == natural.duration_s == natural.record.duration_s
    assert run.window_s == natural.window_s / 4  # type: ignore[operator]
    for name in ("requested_at", "active_at", "seen_at"):
        there, here = natural.vms[name].dropna(), run.vms[name].dropna()
        assert (here - START).tolist() == pytest.approx(((there - START) / 4).tolist(), abs=1e-5)
    assert len(run.requests) == len(natural.requests)  # the window is the same
    assert run.statements["duration_ms"].sum() == natural.statements["duration_ms"].sum() / 4
    assert run.usage["cpu_s"].sum() == natural.usage["cpu_s"].sum()
    assert run.actions["duration_s"].sum() == pytest.approx(natural.actions["duration_s"].sum() / 4)


def test_the_scale_and_a_full_machine_are_said_beside_seconds(tmp_path: Path) -> None:
    run = scaled_run(tmp_path / "b", 4, BUSY)
    assert label(run.record) == "mysql, 1 site, time scale 4, busy"
    overview = run_tables.overview([run])
    row = dict(zip(overview.headings(), overview.cells()[0], strict=True))
    assert (row["status"], row["time scale"]) == ("busy", "4.00")
    assert float(row["by a clock, s"]) == pytest.approx(4 * float(row["to create, s"]), rel=0.01)
    said = dict(facts.facts(run))
    assert said["validity"].startswith("busy: the machine was busy 95% of the time and full 50%")
    assert "nova-api on a used its share up in 40% of its periods" in said["validity"]
    assert "4.5 of the machine's 2 cores" in said["time scale"]
    page = report.html([run])
    assert "<strong>busy</strong>" in page
    assert plots.timeline([run]) is not None


def test_runs_of_other_scales_or_a_full_machine_are_no_repeats(tmp_path: Path) -> None:
    runs = [
        scaled_run(tmp_path / "a", 1, None),
        scaled_run(tmp_path / "b", 4, None),
        scaled_run(tmp_path / "c", 4, BUSY),
        scaled_run(tmp_path / "d", 1, dataclasses.replace(BUSY, verdict="good")),
    ]
    assert len({group(run.record) for run in runs}) == 3
    assert group(runs[0].record) == group(runs[3].record)


def test_a_run_of_an_earlier_format_took_what_a_clock_showed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = run.load().to_json()
    for key in ("time_scale", "validity"):
        del data[key]
    record = store.record_from_json({**data, "format": 1})
    assert (record.time_scale, record.validity, record.is_busy) == (1, None, False)
