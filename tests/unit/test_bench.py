"""What a bench decides before it acts, and how it closes a run."""

import errno
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from discovery_xp import bench, bench_request, provenance, store
from discovery_xp.bench_request import BenchRequest
from discovery_xp.cli import bench as cli
from discovery_xp.deployment.status import ServiceStatus
from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.store import Run
from tests.unit.synthetic_run import make_run
from tests.unit.test_cli import discovery_xp

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def plan_of(sites: int) -> Plan:
    text = f"name: try\nsites: [{{name: site, count: {sites}, computes: 6}}]"
    return make_plan(parse_topology(text), cloud=True)


def wanted(results: Path, scenario: Scenario | None = None, keep: bool = False) -> BenchRequest:
    return BenchRequest(
        scenario or Scenario("boot", "boot", vms=500),
        "",
        results,
        store.PROBES,
        keep,
    )


def test_without_a_scenario_it_is_the_papers_or_a_small_one() -> None:
    assert bench_request.choose_scenario(None, None, small=False).vms == 500
    assert bench_request.choose_scenario(None, None, small=True).vms == 20
    assert bench_request.choose_scenario(None, 7, small=True).vms == 7
    chosen = bench_request.choose_scenario(SCENARIOS / "boot-steady.yaml", 7, small=True)
    assert (chosen.name, chosen.vms, chosen.concurrency) == ("boot-steady", 7, 20)


def test_vms_of_a_scenario_without_any_are_refused() -> None:
    with pytest.raises(Refused, match="--vms 7: scenario 'reads' boots no VMs"):
        bench_request.choose_scenario(SCENARIOS / "reads.yaml", 7, small=False)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("said", [None, True, False])
def test_vms_are_deleted_on_hosts_that_are_kept_or_where_it_is_said(
    tmp_path: Path, said: bool | None, keep: bool
) -> None:
    request = wanted(tmp_path, Scenario("b", "boot", delete_after=said), keep=keep)
    assert request.load.delete_after is (keep if said is None else said)
    assert request.scenario.delete_after is said, "what is stored is what was written"


def test_probes_are_named_in_any_order() -> None:
    assert bench_request.choose_probes("all") == store.PROBES
    assert bench_request.choose_probes("none") == ()
    assert bench_request.choose_probes("usage, calls") == ("calls", "usage")
    with pytest.raises(Refused, match="--probes: no probe 'cpu'; write 'all', 'none' or some of"):
        bench_request.choose_probes("usage,cpu")


def test_what_will_happen_is_told_with_its_time(tmp_path: Path) -> None:
    lines = bench_request.foretell(plan_of(8), wanted(tmp_path))
    assert lines[0] == (
        "try: 57 hosts at 8 sites are made, OpenStack is deployed on them, 'boot' asks for "
        "500 VMs; then all but the results is destroyed"
    )
    assert str(tmp_path / "try") in lines[1]
    assert "this takes about" in lines[2]
    kept = bench_request.foretell(plan_of(2), wanted(tmp_path, Scenario("r", "reads"), keep=True))
    assert "'r' asks for 100 rounds; the testbed stays up" in kept[0]
    assert bench_request.expected_s(plan_of(8), wanted(tmp_path)) > bench_request.expected_s(
        plan_of(2), wanted(tmp_path)
    )


def test_what_cannot_be_done_is_refused_before_anything_is(tmp_path: Path) -> None:
    elsewhere = Scenario("far", "boot", regions=("site9",))
    with pytest.raises(Refused, match="the cloud has no region 'site9'"):
        bench_request.check(plan_of(2), wanted(tmp_path, elsewhere))
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="is no folder"):
        bench_request.check(plan_of(2), wanted(tmp_path / "file"))
    bench_request.check(plan_of(2), wanted(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing was made"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--probes", "cpu"], "--probes: no probe 'cpu'; write"),
        (["--vms", "0"], "Invalid value for '--vms'"),
        (["--latency", "10"], "'10' has no unit; write '10ms'"),
        (["--sites", "0"], "--sites"),
        (["--backend", "oracle"], "'oracle' is not"),
        (["--scenario", "nowhere.yaml"], "nowhere.yaml"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["--name", "A B"], "'A B' is not a name"),
        (["--results", "/dev/null/x"], "/dev/null/x/sites-2: can't be written to"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = discovery_xp("bench", *arguments, home=tmp_path / "home")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("sites", [1, 2, 8])
def test_what_the_command_line_says_is_stored_as_a_topology(sites: int) -> None:
    text = cli.as_file(None, sites, "50ms", None, None, None)
    derived = make_plan(derive_topology(sites, "50ms"), cloud=True)
    read = make_plan(parse_topology(text), cloud=True)
    assert read.digest == derived.digest
    zones = parse_topology(cli.as_file(None, sites, None, None, "mysql", "availability-zones"))
    assert zones.openstack.placement == "availability-zones"
    rome = parse_topology(cli.as_file(None, sites, None, None, "rome", None))
    assert rome.openstack.backend == "rome"
    text = "sites: [{name: a}]\n"
    assert cli.as_file(text, None, None, None, None, None) == text
    assert cli.as_file(text, None, None, None, "mysql", None).endswith(
        "\n# On the command line: backend: mysql\n"
    )


# ---------------------------------------------------------------- the end of a run


def running(folder: Path) -> Run:
    return make_run(folder, status="running")


def test_a_run_is_closed_complete_or_with_a_reason(tmp_path: Path) -> None:
    run = running(tmp_path / "a")
    run.keep_room()
    bench._close(run, None, {"load": 2.5})
    record = run.load()
    assert (record.status, record.reason, record.stages_s) == ("complete", None, {"load": 2.5})
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]
    other = running(tmp_path / "b")
    bench._close(other, "interrupted", {})
    assert (other.load().status, other.load().reason) == ("partial", "interrupted")


def test_a_run_that_cant_be_merged_says_so_and_keeps_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = running(tmp_path)

    def full(_run: Run) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Run, "merge", full)
    bench._close(run, None, {})
    assert run.load().reason == "it couldn't be stored: No space left on device"


def test_the_machines_cpu_is_that_between_two_moments() -> None:
    busy = provenance.BusyClock()
    busy.end()
    assert (busy.began_at, busy.cpu_s, busy.elapsed_s) == (None, 0.0, 0.0)
    busy.begin()
    until = time.process_time() + 0.15
    while time.process_time() < until:
        pass
    busy.end()
    seen = busy.cpu_s, busy.elapsed_s
    assert busy.cpu_s >= 0.1 and busy.elapsed_s >= 0.1
    busy.end()
    assert (busy.cpu_s, busy.elapsed_s) == seen, "only the first end counts"


# ---------------------------------------------------------------- before the load


def test_a_load_begins_when_all_services_are_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(nova: str) -> ServiceStatus:
        return ServiceStatus(
            "nova-compute", "site1-compute-1", "site1", "active", 0, None, nova, True
        )

    said = [[status("down")], [status("down")], [status("up")]]
    hosts = SimpleNamespace(plan=SimpleNamespace(hosts=(), time_scale=1.0))
    monkeypatch.setattr(bench, "answering_of", lambda _hosts: set())
    monkeypatch.setattr("discovery_xp.deployment.status.inspect", lambda *_: said.pop(0))
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    assert bench._wait_for_services(hosts) == []  # type: ignore[arg-type]
    assert said == []
    monkeypatch.setattr(bench, "SERVICES_UP_WITHIN_S", -1.0)
    said[:] = [[status("down"), status("up")]]
    assert bench._wait_for_services(hosts) == [  # type: ignore[arg-type]
        "nova-compute on site1-compute-1: active, but Nova calls it down"
    ]
