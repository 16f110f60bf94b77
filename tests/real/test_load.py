"""Loads on a small real cloud: every kind, and what goes wrong in the middle of one."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import deploy, experiment, load
from discovery_xp.errors import Failed, Refused
from discovery_xp.load import LoadRun, Pace, Row
from discovery_xp.scenario import parse_scenario
from discovery_xp.testbed import Testbed
from tests.real.conftest import HOME, Cli

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1200)]

NAME = "loaded"
CLOUD = f"""
name: {NAME}
sites: [{{name: site, count: 2, computes: 1, data: 0}}]
network: {{delay: 10ms}}
"""
MASTER, CONTROLLERS = "site1-master-1", ("site1-controller-1", "site2-controller-1")
COMPUTES = {"site1-compute-1", "site2-compute-1"}


@dataclass
class Told:
    """What a load's caller was told while it went on."""

    vms: list[Row] = field(default_factory=list)
    actions: list[Row] = field(default_factory=list)
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)


First = tuple[LoadRun, Told, float]


class Bench:
    """The cloud, and loads on it."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.testbed = Testbed(NAME)
        self.hosts = experiment.hosts_of(self.testbed)
        self.variables = deploy.variables(self.hosts, self.testbed)
        self.told = Told()

    def load(
        self, text: str, meanwhile: Callable[[int], None] = lambda _rows: None, **more: Any
    ) -> LoadRun:
        """Do a scenario; `meanwhile` is called with the number of rows there are so far."""
        self.told = told = Told()

        def on_rows(vms: list[Row], actions: list[Row]) -> None:
            told.vms += vms
            told.actions += actions
            meanwhile(len(told.vms))

        return load.run(
            self.hosts, self.testbed, self.variables, parse_scenario(text, "try.yaml"), on_rows,
            lambda *stage: told.stages.append(stage), on_pace=told.paces.append, **more,
        )  # fmt: skip

    def on(self, host: str, command: str) -> str:
        return self.cli.run("ssh", host, command).stdout

    def openstack(self, *arguments: str) -> str:
        return self.cli.run("openstack", *arguments).stdout

    def servers(self) -> list[Any]:
        found: list[Any] = json.loads(
            self.openstack("server", "list", "--all-projects", "-f", "json")
        )
        return found

    def traces(self) -> str:
        """What loads left on the hosts that make load."""
        return "".join(
            self.on(
                host,
                f"ls -A {load.FOLDER} 2>/dev/null; pgrep -af '/opt/rall[y]'; "
                f"systemctl is-active {load.UNIT} | grep -v inactive; true",
            )
            for host in (MASTER, *CONTROLLERS)
        )


@pytest.fixture(scope="module")
def bench(cli: Cli) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOVERY_XP_HOME", str(HOME))
        cli.run("deploy", cli.topology(NAME, CLOUD), timeout_s=900)
        made = Bench(cli)
        made.openstack(
            "flavor", "create", "--ram", "999999999", "--vcpus", "1", "--disk", "1", "huge"
        )
        yield made


def statuses(run: LoadRun) -> Counter[tuple[str, str]]:
    return Counter((row["region"], row["status"]) for row in run.vms)


def names(run: LoadRun) -> Counter[str]:
    assert not [row["error"] for row in run.actions if row["error"]]
    return Counter(row["action"] for row in run.actions)


def once(threshold: int, doing: Callable[[], object]) -> Callable[[int], None]:
    """Does it when there are so many rows, then no more."""
    done: list[bool] = []

    def look(rows: int) -> None:
        if rows >= threshold and not done:
            done.append(True)
            doing()

    return look


# ---------------------------------------------------------------- every kind


@pytest.fixture(scope="module")
def first(bench: Bench) -> First:
    """A plain load, what was told of it, and when `before_load` was called."""
    called: list[float] = []
    text = "kind: boot\nvms: 6\nconcurrency: 3\npoll_interval: 500ms"
    run = bench.load(text, before_load=lambda: called.append(time.time()))
    return run, bench.told, called[0]


def test_vms_are_spread_over_the_controllers(bench: Bench, first: First) -> None:
    run = first[0]
    assert (run.status, run.reason, run.notes) == ("complete", None, ())
    assert statuses(run) == {("site1", "ACTIVE"): 3, ("site2", "ACTIVE"): 3}
    for row in run.vms:
        assert row["host"] in COMPUTES
        assert row["host_site"] == row["host"][:5]
        assert row["requested_at"] <= row["accepted_at"] <= row["seen_at"] < row["deleted_at"]
        assert row["requested_at"] <= row["active_at"] <= row["seen_at"]
        assert 0 < row["boot_duration_s"] == row["seen_at"] - row["requested_at"] < 60
    assert names(run) == {"boot": 6, "delete": 6}
    assert {row["iteration"] for row in run.actions} == set(range(1, 7))
    under_way = [
        sum(row["requested_at"] <= at < row["seen_at"] for row in run.vms)
        for at in (row["requested_at"] for row in run.vms)
    ]
    assert max(under_way) == 3
    assert bench.servers() == []
    assert bench.traces() == ""


def test_a_load_is_summed_up(first: First) -> None:
    run, _, before = first
    assert run.vm_counts == {"asked": 6, "active": 6, "failed": 0, "deleted": 6}
    assert run.window is not None and run.duration_s is not None
    assert before < run.window[0] <= run.vms[0]["requested_at"]
    assert run.duration_s <= run.window[1] - run.window[0]
    assert run.sent_s is not None and run.sent_s < run.duration_s
    assert 0 < run.cpu_s < 2 and run.polls > 2 and run.host == MASTER


def test_the_caller_is_told_as_it_happens(first: First) -> None:
    run, told, _ = first
    assert sorted(row["name"] for row in told.vms) == sorted(row["name"] for row in run.vms)
    assert len(told.actions) == len(run.actions) == 12
    counts = [done for stage, done, _ in told.stages if stage == "load: try"]
    assert counts == sorted(counts) and len(set(counts)) >= 3 and counts[-1] == 6
    stages = list(dict.fromkeys(stage for stage, _, _ in told.stages))
    wanted = ["starting Rally", "warming up", "load: try", "deleting the VMs"]
    assert [stage for stage in stages if stage in wanted] == wanted
    assert any(pace.remaining_s for pace in told.paces)
    assert (told.paces[-1].active, told.paces[-1].failed) == (6, 0)


def test_rallys_own_reports_are_kept_without_passwords(bench: Bench, first: First) -> None:
    run = first[0]
    folder = run.raw / MASTER
    assert {path.name for path in folder.iterdir()} == set(load.RAW)
    results = json.loads((folder / "results.json").read_text())
    [workload] = results["tasks"][0]["subtasks"][0]["workloads"]
    assert workload["scenario"].keys() == {"Discovery.load"}
    assert len(workload["data"]) == 6
    measured = sorted(round(row["boot_duration_s"], 3) for row in run.vms)
    assert sorted(round(each["duration"], 3) for each in workload["data"]) == measured
    assert "<html" in (folder / "report.html").read_text()[:500].lower()
    secrets = json.loads((bench.testbed.folder / "passwords.json").read_text()).values()
    for path in folder.iterdir():
        assert not [secret for secret in secrets if secret in path.read_text()], path.name
    journal = bench.on(MASTER, f"journalctl --no-pager -u {load.UNIT}; ps -eo args")
    assert not [secret for secret in secrets if secret in journal]


def test_a_load_may_start_at_the_sites(bench: Bench) -> None:
    run = bench.load("kind: boot-and-list\nvms: 5\nfrom: sites\nwarm_up: 2")
    assert (run.status, run.hosts) == ("complete", CONTROLLERS)
    assert statuses(run) == {("site1", "ACTIVE"): 3, ("site2", "ACTIVE"): 2}
    assert names(run) == {"boot": 5, "list": 5, "delete": 5}
    assert {row["iteration"] for row in run.actions} == set(range(1, 6))
    first = [min(row["requested_at"] for row in run.vms if row["site"] == site)
             for site in ("site1", "site2")]  # fmt: skip
    assert abs(first[0] - first[1]) < 1, "they begin together"
    assert {path.name for path in run.raw.iterdir()} == set(CONTROLLERS)
    assert bench.servers() == []


def test_boot_and_delete_leaves_none(bench: Bench) -> None:
    run = bench.load("kind: boot-and-delete\nvms: 4\nconcurrency: 2")
    assert run.status == "complete"
    assert names(run) == {"boot": 4, "delete": 4}
    for row in run.vms:
        assert row["host"] in COMPUTES, "it is known of VMs that are gone, too"
        assert row["seen_at"] < row["deleted_at"]
    last = max(run.vms, key=lambda row: float(row["requested_at"]))
    assert last["requested_at"] > min(row["deleted_at"] for row in run.vms), "two at a time"
    assert bench.servers() == []


def test_vms_stay_until_the_next_load_where_that_is_wanted(bench: Bench) -> None:
    run = bench.load("kind: boot\nvms: 3\ndelete_after: false\nspread: [site2]")
    assert statuses(run) == {("site2", "ACTIVE"): 3}
    assert run.vm_counts["deleted"] == 0
    assert {server["Name"] for server in bench.servers()} == {row["name"] for row in run.vms}
    bench.load("kind: reads\niterations: 1\nspread: [site1]\nreads: [list]\nwarm_up: 0")
    assert bench.servers() == []


def test_reads_are_timed(bench: Bench) -> None:
    run = bench.load("kind: reads\niterations: 4\nconcurrency: 2\nrepeats: 2")
    assert (run.status, run.vms, run.duration_s) == ("complete", (), None)
    kinds = ("list", "show", "flavors", "images", "hypervisors", "services")
    assert names(run) == dict.fromkeys(kinds, 8)
    assert {row["site"] for row in run.actions} == {"site1", "site2"}
    assert all(0 < row["duration_s"] < 30 for row in run.actions)
    assert bench.servers() == []


def test_tokens_are_timed(bench: Bench) -> None:
    run = bench.load("kind: authenticate\niterations: 10\nconcurrency: 5\nfrom: sites")
    assert (run.status, run.hosts) == ("complete", CONTROLLERS)
    assert names(run) == {"authenticate": 10}
    assert Counter(row["site"] for row in run.actions) == {"site1": 5, "site2": 5}


# ---------------------------------------------------------------- what goes wrong


def test_a_vm_in_error_is_a_row(bench: Bench) -> None:
    run = bench.load("kind: boot\nvms: 2\nflavor: huge\nwarm_up: 0\npoll_interval: 500ms")
    assert run.status == "complete"
    assert statuses(run) == {("site1", "ERROR"): 1, ("site2", "ERROR"): 1}
    for row in run.vms:
        assert "No valid host" in row["error"]
        assert row["seen_at"] and row["deleted_at"]
        assert row["active_at"] is row["boot_duration_s"] is row["host"] is None
    assert [row["error"] for row in run.actions if row["action"] == "boot"] == [
        "it went to ERROR"
    ] * 2
    assert run.duration_s is None
    assert bench.servers() == []


def test_an_order_that_cannot_be_is_refused_before_the_load(bench: Bench) -> None:
    with pytest.raises(Failed, match=r"the cloud has no flavor 'none'; it has huge, m1\.small"):
        bench.load("kind: boot\nvms: 1\nflavor: none")
    with pytest.raises(Refused, match="the cloud has no region 'site9'"):
        bench.load("kind: boot\nvms: 1\nspread: [site9]")
    assert bench.traces() == ""


def test_a_killed_rally_leaves_what_it_had_and_the_next_load_works(bench: Bench) -> None:
    kill = "pkill -KILL -f 'rally .*task start'"
    run = bench.load("kind: boot\nvms: 40\nconcurrency: 3", once(4, lambda: bench.on(MASTER, kill)))
    assert run.status == "partial"
    assert run.reason is not None and f"Rally on {MASTER} ended" in run.reason
    assert "of 40 VMs were never asked for" in run.reason
    found = Counter(row["status"] for row in run.vms)
    assert found["ACTIVE"] >= 4 and 1 <= found["TIMEOUT"] <= 3 and len(run.vms) < 40
    assert len(bench.told.vms) == len(run.vms)
    assert run.window is not None and run.cpu_s > 0
    assert len(bench.servers()) >= 4
    assert bench.traces() == ""
    again = bench.load("kind: boot\nvms: 2\nwarm_up: 0")
    assert again.status == "complete"
    assert "clearing VMs of earlier loads" in {stage for stage, _, _ in bench.told.stages}
    assert bench.servers() == []


def test_a_lost_connection_is_made_again(bench: Bench) -> None:
    def hang_up() -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        for pid in children.split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh":
                os.kill(int(pid), signal.SIGKILL)

    run = bench.load("kind: boot\nvms: 8\nconcurrency: 2\nwarm_up: 0", once(2, hang_up))
    assert (run.status, len(run.vms), len(bench.told.vms)) == ("complete", 8, 8)
    assert names(run) == {"boot": 8, "delete": 8}


def test_an_api_that_stops_fails_its_own_vms_only(bench: Bench) -> None:
    def stop() -> None:
        bench.on(CONTROLLERS[1], "systemctl stop nova-api")

    try:
        run = bench.load(
            "kind: boot\nvms: 16\nconcurrency: 4\nwarm_up: 0\nvm_timeout: 2min", once(4, stop)
        )
    finally:
        bench.on(CONTROLLERS[1], "systemctl start nova-api")
    found = statuses(run)
    assert found["site1", "ACTIVE"] == 8
    failed = [row for row in run.vms if row["status"] != "ACTIVE"]
    assert failed and {row["region"] for row in failed} == {"site2"}
    assert {row["status"] for row in failed} <= {"REFUSED", "TIMEOUT"}
    assert all(row["error"] for row in failed)
    assert len(run.vms) == 16
    assert run.status == "partial"
    assert run.reason is not None and "site2's API" in run.reason
    assert bench.servers() == [], "what it had is deleted by way of the other API"
    wait_until_up(bench)


def wait_until_up(bench: Bench) -> None:
    latest = time.monotonic() + 60
    while not json.loads(bench.cli.run("status", "--json", code=None).stdout)["is_healthy"]:
        assert time.monotonic() < latest
        time.sleep(2)


def test_a_run_ends_when_its_time_is_up(bench: Bench) -> None:
    run = bench.load(
        "kind: boot\nvms: 30\nconcurrency: 2\nwarm_up: 0\nvm_timeout: 8s\nrun_timeout: 9s"
    )
    assert run.status == "partial"
    assert run.reason is not None and run.reason.startswith("the run's time (9 s) was up; ")
    assert 2 <= len(run.vms) < 30
    assert run.window is not None and 8 < run.window[1] - run.window[0] < 12
    assert bench.servers() == []


def test_a_load_that_is_interrupted_leaves_nothing_that_runs(bench: Bench) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.load("kind: boot\nvms: 20\nconcurrency: 2\nwarm_up: 0", once(2, interrupt))
    found = Counter(row["status"] for row in bench.told.vms)
    assert found["ACTIVE"] >= 2 and found["TIMEOUT"] >= 1
    assert bench.traces() == ""
