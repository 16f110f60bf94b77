"""The bench on a small real cloud: a whole run, every kind of load, and what goes wrong in one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from discovery_xp import load
from discovery_xp.analysis.measurements import measured
from discovery_xp.errors import Failed
from discovery_xp.inputs.scenario import parse_scenario
from discovery_xp.load import LoadRun
from discovery_xp.load.rally_hosts import RAW
from discovery_xp.load.shares import placement
from discovery_xp.store import PROBES, Run
from tests.real.pair.bench import CONTROLLERS, MASTER, NAME, VMS, Bench

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

COMPUTES = {"site1-compute-1", "site2-compute-1"}


# ---------------------------------------------------------------- a whole run


def test_a_run_is_complete_and_says_what_it_was(bench: Bench, first: Run) -> None:
    record = first.load()
    assert (record.status, record.reason) == ("complete", None)
    # Other work on this machine is noted, and none of a test's business.
    assert not [
        note for note in record.notes if not note.startswith(("busy before", "others took"))
    ]
    assert dataclass_values(record.vms) == (VMS, VMS, 0, VMS)
    assert (record.sites, record.controllers, record.computes, record.data) == (2, 2, 2, 0)
    assert (record.backend, record.latency_ms, record.probes) == ("mysql", 10, PROBES)
    assert record.rtt_ms == pytest.approx(20, abs=3)
    assert record.scenario["vms"] == VMS
    assert {"discovery-xp", "python", "nova", "rally", "mariadb-server"} <= record.versions.keys()
    assert {"computes", "warming up", "load: boot", "deleting the VMs"} <= record.stages_s.keys()
    assert first.folder.parent.name == NAME
    for name in ("plan.json", "topology.yaml", "scenario.yaml", "deployment.json", "links.json",
                 "report.html", "logs/records.tar.xz"):  # fmt: skip
        assert (first.folder / name).stat().st_size > 0, name
    assert not list(first.folder.glob("*.parts")) and not list(first.folder.glob(".*"))
    links = first.read_json("links.json")
    assert [len(links[when]) for when in ("before", "after")] == [1, 1]
    assert "this takes about" in bench.said.splitlines()[2]
    assert "20 of 20" not in bench.said and f"{VMS} of {VMS} VMs ACTIVE" in bench.said


def dataclass_values(value: object) -> tuple[object, ...]:
    return tuple(vars(value).values())


def test_every_vm_is_a_row_with_its_times(first: Run) -> None:
    rows = first.table("vms").to_pylist()
    assert Counter(row["region"] for row in rows) == {"site1": VMS // 2, "site2": VMS // 2}
    for row in rows:
        assert row["status"] == "ACTIVE" and row["host"] in COMPUTES
        assert row["host_site"] == row["host"][:5]
        assert row["requested_at"] <= row["accepted_at"] <= row["seen_at"] < row["deleted_at"]
        assert row["requested_at"] <= row["active_at"] <= row["seen_at"]
        assert row["boot_duration_s"] == row["seen_at"] - row["requested_at"]
    actions = first.table("actions").to_pylist()
    assert Counter(row["action"] for row in actions) == {"boot": VMS, "delete": VMS}
    assert not [row["error"] for row in actions if row["error"]]


def test_the_window_is_the_loads_and_ends_before_vms_are_deleted(first: Run) -> None:
    record = first.load()
    assert record.window is not None and record.duration_s is not None
    rows = first.table("vms").to_pylist()
    assert record.window.start <= min(row["requested_at"] for row in rows)
    assert max(row["seen_at"] for row in rows) <= record.window.end
    assert record.window.end < min(row["deleted_at"] for row in rows)
    assert record.duration_s <= record.window.end - record.window.start
    requests = first.table("requests").to_pylist()
    asked = Counter((row["method"], row["path"], row["status"]) for row in requests)
    assert asked["POST", "/v2.1/servers", 202] == VMS
    assert not [row for row in requests if row["method"] == "DELETE"]
    calls = Counter(row["function"] for row in first.table("calls").to_pylist())
    assert calls["instance_create"] == VMS and not calls["instance_destroy"]
    created = [row for row in first.table("messages").to_pylist()
               if row["queue"].startswith("compute.")]  # fmt: skip
    assert sum(row["published"] for row in created) == VMS, "one message builds a VM"


def test_every_boot_is_followed_from_its_request_until_it_is_active(
    bench: Bench, first: Run
) -> None:
    (run,) = measured([first])
    assert sorted(boot.vm for boot in run.boots) == sorted(run.vms["name"])
    rows = run.vms.set_index("name")
    for boot in run.boots:
        vm = rows.loc[boot.vm]
        assert (boot.root.site, boot.host_site) == (vm["site"], vm["host_site"])
        assert boot.root.start >= vm["requested_at"]
        assert sum(part.seconds for part in boot.parts()) == pytest.approx(boot.seconds, abs=1e-4)
        services = {stretch.node.service for stretch in boot.stretches}
        assert services >= {"nova-api", "nova-conductor", "nova-compute"}
        # Everything that all share is at site 1.
        assert boot.crossings > 0 or boot.root.site == "site1"
        assert boot.crossings <= boot.all_crossings
        assert 0 <= boot.wan_wait_s <= boot.seconds
    assert run.figures["crossings_per_vm"] > 0
    said = bench.cli.run("trace", str(first.folder)).stdout
    assert "Where the time of a boot went" in said and f"all {VMS} VMs" in said
    slowest = run.boots[-1].vm
    assert f"{slowest}: " in bench.cli.run("trace", str(first.folder), "--vm", slowest).stdout


def test_the_machine_was_looked_at_before_the_cloud_was_made(first: Run) -> None:
    record = first.load()
    (machine,) = record.machines_before
    assert (machine.host, machine.cpus) == ("", record.machine.cpus)
    assert (machine.clock_offset_ms, machine.clock_uncertainty_ms) == (0, 0)
    assert machine.memory_available_bytes > 0 and machine.load_1min >= 0
    assert record.sample_every_s == 5
    assert first.table("series").num_rows > 100


def test_no_compute_has_the_schedulers_ask_the_database_for_its_vms(first: Run) -> None:
    calls = Counter(row["function"] for row in first.table("calls").to_pylist())
    assert calls["instance_get_all_uuids_by_hosts"] == 0, "the warm-up made all computes known"


def test_whose_cpu_time_it_was_adds_up(first: Run) -> None:
    record = first.load()
    harness, generator = record.harness, record.load
    assert harness is not None and generator is not None and record.window is not None
    used = first.table("usage").to_pylist()
    assert harness.openstack_cpu_s == pytest.approx(sum(row["cpu_s"] for row in used), abs=0.01)
    assert 0 < harness.load_cpu_s == generator.cpu_s < 2
    # It is read in the middle of what is counted by host, and rounded to hundredths.
    parts = harness.openstack_cpu_s + harness.load_cpu_s + harness.other_cpu_s
    assert parts == pytest.approx(max(harness.total_cpu_s, parts), abs=0.05)
    assert harness.elapsed_s >= record.window.end - record.window.start
    assert harness.total_cpu_s <= 1.05 * record.machine.cpus * harness.elapsed_s
    assert generator.polls > 2 and generator.host == MASTER
    assert {row["service"] for row in used} >= {"mariadb", "nova-api", "nova-compute"}


def test_rallys_own_reports_are_kept_and_nothing_holds_a_password(bench: Bench, first: Run) -> None:
    folder = first.folder / "rally" / MASTER
    assert {path.name for path in folder.iterdir()} == set(RAW)
    results = json.loads((folder / "results.json").read_text())
    [workload] = results["tasks"][0]["subtasks"][0]["workloads"]
    assert workload["scenario"].keys() == {"Discovery.load"}
    measured = sorted(round(row["boot_duration_s"], 3) for row in first.table("vms").to_pylist())
    assert sorted(round(each["duration"], 3) for each in workload["data"]) == measured
    assert "<html" in (folder / "report.html").read_text()[:500].lower()
    secrets = json.loads((bench.testbed.folder / "passwords.json").read_text()).values()
    logs = subprocess.run(["tar", "-xJO", "-f", str(first.folder / "logs/records.tar.xz")],
                          capture_output=True, check=True).stdout  # fmt: skip
    assert len(logs) > 100_000
    for path in (each for each in first.folder.rglob("*") if each.is_file()):
        assert not [secret for secret in secrets if secret.encode() in path.read_bytes()], path
    assert not [secret for secret in secrets if secret.encode() in logs]
    assert bench.traces() == ""


# ---------------------------------------------------------------- every kind


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


def test_a_load_may_start_at_the_sites_and_leave_its_vms(bench: Bench) -> None:
    at: dict[str, float] = {}
    run = bench.load(
        "kind: boot-and-list\nvms: 5\nfrom: sites\nwarm_up: 2\ndelete_after: false",
        before_load=lambda: at.update(before=time.time()),
        after_load=lambda: at.update(after=time.time()),
    )
    assert (run.status, run.hosts) == ("complete", CONTROLLERS)
    assert statuses(run) == {("site1", "ACTIVE"): 3, ("site2", "ACTIVE"): 2}
    assert names(run) == {"boot": 5, "list": 5}
    assert {row["iteration"] for row in run.actions} == set(range(1, 6))
    began = [min(row["requested_at"] for row in run.vms if row["site"] == site)
             for site in ("site1", "site2")]  # fmt: skip
    assert abs(began[0] - began[1]) < 1, "they begin together"
    assert run.window is not None
    assert at["before"] < run.window[0] < run.window[1] < at["after"]
    assert {path.name for path in run.raw.iterdir()} == set(CONTROLLERS)
    assert {server["Name"] for server in bench.servers()} == {row["name"] for row in run.vms}


def test_reads_are_timed_on_a_cloud_without_earlier_vms(bench: Bench) -> None:
    run = bench.load("kind: reads\niterations: 4\nconcurrency: 2\nrepeats: 2")
    assert (run.status, run.vms) == ("complete", ())
    kinds = ("list", "show", "flavors", "images", "hypervisors", "services")
    assert names(run) == dict.fromkeys(kinds, 8)
    assert {row["site"] for row in run.actions} == {"site1", "site2"}
    assert all(0 < row["duration_s"] < 30 for row in run.actions)
    assert "clearing VMs of earlier loads" in {stage for stage, _, _ in bench.told.stages}
    assert bench.servers() == []


def test_boots_and_deletions_survive_a_lost_connection(bench: Bench) -> None:
    def hang_up() -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        for pid in children.split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh":
                os.kill(int(pid), signal.SIGKILL)

    text = "kind: boot-and-delete\nvms: 6\nconcurrency: 2\nwarm_up: 0"
    run = bench.load(text, once(2, hang_up))
    told = bench.told
    assert (run.status, len(run.vms), len(told.vms)) == ("complete", 6, 6)
    assert names(run) == {"boot": 6, "delete": 6}
    for row in run.vms:
        assert row["host"] in COMPUTES, "it is known of VMs that are gone, too"
        assert row["seen_at"] < row["deleted_at"]
    last = max(run.vms, key=lambda row: float(row["requested_at"]))
    assert last["requested_at"] > min(row["deleted_at"] for row in run.vms), "two at a time"
    counts = [done for stage, done, _ in told.stages if stage == "load: try"]
    assert counts == sorted(counts) and len(set(counts)) >= 3 and counts[-1] == 6
    assert any(pace.remaining_s for pace in told.paces)
    assert (told.paces[-1].active, told.paces[-1].failed) == (6, 0)
    assert bench.servers() == []


def test_vms_land_where_they_were_drawn(bench: Bench) -> None:
    text = "kind: boot-and-list\nvms: 5\nwarm_up: 0\nplacement_seed: 4"
    drawn = placement(bench.testbed.load().plan, parse_scenario(text))
    assert drawn is not None and set(drawn.computes.values()) == COMPUTES
    run = bench.load(text)
    assert (run.status, run.notes) == ("complete", ())
    assert {row["name"]: row["host"] for row in run.vms} == drawn.computes
    assert names(run) == {"boot": 5, "list": 5, "delete": 5}
    assert bench.servers() == []


def test_tokens_are_timed(bench: Bench) -> None:
    run = bench.load("kind: authenticate\niterations: 10\nconcurrency: 5\nfrom: sites")
    assert (run.status, run.hosts) == ("complete", CONTROLLERS)
    assert names(run) == {"authenticate": 10}
    assert Counter(row["site"] for row in run.actions) == {"site1": 5, "site2": 5}


# ---------------------------------------------------------------- what goes wrong


def test_a_vm_in_error_is_a_row(bench: Bench) -> None:
    bench.cli.run("openstack", "flavor", "create", "--ram", "999999999", "--disk", "1", "huge")
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
    assert load.duration_s(run.vms) is None
    assert bench.servers() == []


def test_an_order_that_cannot_be_is_refused_before_the_load(bench: Bench) -> None:
    with pytest.raises(Failed, match=r"the cloud has no flavor 'none'; it has huge, m1\.small"):
        bench.load("kind: boot\nvms: 1\nflavor: none")
    assert bench.traces() == ""


def test_a_killed_rally_leaves_what_it_had(bench: Bench) -> None:
    kill = "pkill -KILL -f 'rally .*task start'"
    run = bench.load(
        "kind: boot\nvms: 40\nconcurrency: 3\nwarm_up: 0", once(4, lambda: bench.on(MASTER, kill))
    )
    assert run.status == "partial"
    assert run.reason is not None and f"Rally on {MASTER} ended" in run.reason
    assert "of 40 VMs were never asked for" in run.reason
    found = Counter(row["status"] for row in run.vms)
    assert found["ACTIVE"] >= 4 and 1 <= found["TIMEOUT"] <= 3 and len(run.vms) < 40
    assert len(bench.told.vms) == len(run.vms)
    assert run.window is not None and run.cpu_s > 0
    assert len(bench.servers()) >= 4, "the next load deletes them"
    assert bench.traces() == ""


def test_an_api_that_stops_makes_its_vms_failed_rows_of_a_partial_run(bench: Bench) -> None:
    known = len(bench.runs())
    (bench.results / "steady.yaml").write_text("kind: boot\nvms: 24\nconcurrency: 4\nwarm_up: 0")
    process = bench.start("--keep", "--scenario", str(bench.results / "steady.yaml"))
    try:
        bench.wait_for_rows(process, known, 4)
        bench.on(CONTROLLERS[1], "systemctl stop nova-api")
        said = process.communicate(timeout=300)[1]
    finally:
        bench.on(CONTROLLERS[1], "systemctl start nova-api")
    assert process.returncode == 1
    assert "the run is partial: site2's API" in said
    run = bench.runs()[-1]
    record, rows = run.load(), run.table("vms").to_pylist()
    assert record.status == "partial" and str(record.reason).startswith("site2's API")
    assert len(rows) == 24 == record.vms.asked
    failed = [row for row in rows if row["status"] != "ACTIVE"]
    assert failed and {row["region"] for row in failed} == {"site2"}
    assert {row["status"] for row in failed} <= {"REFUSED", "TIMEOUT"}
    assert all(row["error"] for row in failed)
    assert run.table("usage").num_rows and run.table("calls").num_rows
    assert "PARTIAL" in (run.folder / "report.html").read_text()
    assert bench.servers() == [], "what it had is deleted by way of the other API"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system with no more room than that."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_what_it_holds(bench: Bench, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "784k") as disk:
        done = bench.cli.run(*bench.command("--vms", "8", "--keep", results=disk), code=1)
        assert "can't be stored: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        [run] = bench.runs(disk)
        record = run.load()
        assert record.status == "partial"
        assert record.reason == "it couldn't be stored: No space left on device"
        assert run.table("vms").num_rows == 8, "they came before the disk was full"
    assert bench.traces() == ""
