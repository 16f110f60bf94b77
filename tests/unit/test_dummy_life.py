"""The whole life of a testbed and of a bench, on canned hosts: every step, every way to fail.

All of it goes through the real command line, `bench` and `experiment`, and the deployment;
what would touch hosts, the network or root's things is the dummy's.  Each failure says what it
leaves, what is said of it and with which code, and that `destroy` works afterwards.
"""

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from discovery_xp.inputs import platforms
from discovery_xp.providers.dummy import CannedHosts
from discovery_xp.store import Merging, Run
from discovery_xp.store.records import CANNED_PROVIDER
from discovery_xp.testbeds.hosts import PageMerging
from tests.unit.dummy_life import NAME, Life

LAST_HOST = "site2-compute-2"


# ---------------------------------------------------------------- all goes well

DEPLOY_STAGES = [
    "making up hosts", "OpenStack's software", "firewall", "Rally, where loads may start",
    "ROME, where databases are asked", "key/value store", "Galera",
    "Galera's arbitrator and proxies", "database, message bus, cache", "schemas",
    "shared services", "endpoints, users, image", "controllers", "computes",
    "flavors, discovery of the computes", "imposing links", "measuring round trips",
    "a VM at each site",
]  # fmt: skip
BENCH_STAGES = [
    *DEPLOY_STAGES[:-1], "laying down probes", "laying down probes on computes",
    "letting the cloud settle", "starting Rally",
    "reading the counters", "load: boot", "reading the counters again", "collecting records",
    "measuring round trips again", "records of the shared services",
    "records of the cells' databases and message buses", "records of Galera",
    "records of Galera's arbitrator and proxies", "records of the key/value store",
    "records of the controllers", "records of the computes",
    "destroying",
]  # fmt: skip


def test_a_bench_takes_all_its_steps_in_order(life: Life) -> None:
    said = life.bench()
    assert said.code == 0, said.err
    assert life.stages == BENCH_STAGES
    life.requires_nothing_left()
    (run,) = life.runs()
    record = run.load()
    assert (record.status, record.vms.asked, record.vms.active, record.vms.deleted) == (
        "complete", 4, 4, 0,
    )  # fmt: skip
    links = json.loads((run.folder / "links.json").read_text())
    assert [pair["observed_ms"] for when in ("before", "after") for pair in links[when]] == [
        20.05, 20.05,
    ]  # fmt: skip
    for name in ("plan.json", "topology.yaml", "scenario.yaml", "deployment.json",
                 "logs/records.tar.xz", "report.html", "usage.parquet", "traffic.parquet",
                 "rally/site1-master-1/report.html"):  # fmt: skip
        assert (run.folder / name).is_file(), name


def test_a_bench_keeps_how_memory_was_merged_while_the_load_ran(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert life.bench().code == 0
    assert life.runs()[0].load().merging is None, "canned hosts share no memory"
    ksmd_cpu_s = iter((10.0, 12.5))
    monkeypatch.setattr(
        CannedHosts,
        "page_merging",
        lambda *_: PageMerging(True, None, 3 * 2**30, 2**30, next(ksmd_cpu_s)),
    )
    assert life.bench().code == 0
    assert life.runs()[1].load().merging == Merging(True, None, 3 * 2**30, 2**30, 2.5)


def test_what_is_canned_says_so_wherever_it_is_shown(life: Life) -> None:
    said = life.bench()
    assert "measures nothing: there are no hosts, all is canned" in said.out
    assert "CANNED   nothing was measured; there were no hosts" in said.out
    assert "Table 3" not in said.out, "it stands beside no published value"
    (run,) = life.runs()
    told = json.loads((run.folder / "run.json").read_text())
    assert told["machine"]["provider"] == CANNED_PROVIDER
    assert told["notes"][0].startswith("CANNED: there were no hosts")
    assert told["imposed_by"] is None
    page = (run.folder / "report.html").read_text()
    assert "<strong>CANNED</strong>:" in page
    life.bench()
    several = life.xp("report", str(life.results), "--html", "page.html")
    assert "#1 is CANNED: nothing was measured" in several.out
    assert "<strong>CANNED</strong> (#1, #2):" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("kind", "done"), [("boot-and-delete", 4), ("authenticate", 0), ("reads", 0)]
)
def test_every_kind_of_load_comes_to_its_end(life: Life, kind: str, done: int) -> None:
    scenario = life.folder / "scenario.yaml"
    amount = "vms: 4" if done else "iterations: 4"
    scenario.write_text(f"kind: {kind}\n{amount}\n")
    said = life.xp("bench", life.topology(), "--scenario", str(scenario),
                   "--results", str(life.results))  # fmt: skip
    assert said.code == 0, said.err
    assert life.runs()[0].load().vms.active == done


def test_a_deployed_cloud_can_be_looked_at_changed_and_removed(life: Life) -> None:
    deployed = life.xp("deploy", life.topology())
    assert deployed.code == 0, deployed.err
    assert life.stages == DEPLOY_STAGES
    assert "all within tolerance; the worst is site1 - site2: 20.05 ms for 20 ms" in deployed.out
    assert life.testbed.load().phase == "up"
    status = life.xp("status")
    assert status.code == 0, status.out
    assert "there are no hosts: everything that they say is canned" in status.out
    assert life.xp("inventory").out.startswith("all:")
    assert "0 differ" in life.xp("network", "show").out
    changed = life.xp("network", "set", "--delay", "30ms")
    assert changed.code == 0 and "60.05" in changed.out
    assert life.xp("network", "measure").code == 0
    assert life.xp("network", "reset").code == 0
    assert "12 files" in life.xp("backup", "--to", "records").err or Path("records").is_dir()
    again = life.xp("deploy", life.topology())
    assert again.code == 0 and "imposing links" in life.stages, "the links were reset"
    life.xp("deploy", life.topology())
    assert "imposing links" not in life.stages, "a running cloud keeps its links"
    assert life.xp("destroy", "--cloud-only").code == 0
    assert life.testbed.load().plan.cloud is None
    life.destroys_what_is_left()


def test_hosts_alone_come_up_and_get_a_cloud_later(life: Life) -> None:
    up = life.xp("up", life.topology())
    assert up.code == 0, up.err
    assert life.stages == ["making up hosts", "imposing links", "measuring round trips"]
    assert life.xp("deploy", life.topology()).code == 0
    life.xp("up", life.topology())
    assert life.testbed.load().plan.cloud is not None, "'up' leaves the cloud alone"
    life.destroys_what_is_left()


def test_a_bench_on_a_kept_testbed_goes_on_from_there(life: Life) -> None:
    known_state = "bringing the cloud to a known state"
    assert life.bench(more=("--keep",)).code == 0
    assert life.testbed.load().phase == "up"
    assert known_state not in life.stages
    assert life.bench(more=("--keep",)).code == 0
    assert known_state in life.stages, "the first load left something"
    assert len(life.runs()) == 2
    assert known_state in life.runs()[1].load().stages_s, "what that costs is shown"
    life.destroys_what_is_left()


# ---------------------------------------------------------------- something goes wrong


@dataclass(frozen=True)
class Ending:
    """How a command ends with a fault: its code, its last words, what of a run is kept.

    `of_deploy` are the last words of `deploy`, where they differ.
    """

    code: int
    words: str
    run: str | None = None
    reason: str = ""
    of_deploy: str = ""


FAULTS = {
    "refused": Ending(2, "the dummy refuses to lend hosts; leave 'refused' out"),
    "lost": Ending(1, f"{LAST_HOST} doesn't answer; leave 'lost' out"),
    "unreachable": Ending(1, f"{LAST_HOST} can't be reached over ssh; see 'discovery-xp status'"),
    "play": Ending(1, f"{LAST_HOST}: 'computes' failed: a canned failure; the whole log is"),
    "links": Ending(1, "1 links weren't imposed as asked: site1, site1 to site2: asked 10ms"),
    "latency": Ending(1, "1 of 1 pairs are off by more than the tolerance: site1 - site2: 120."),
    "boot": Ending(
        1, "Rally on site1-master-1 didn't get ready: no compute that site2 was asked for boots a",
        "partial", "Rally on site1-master-1 didn't get ready: no compute that site2 was asked",
        "no VM got ACTIVE at 1 of 2 sites: site2: ERROR (a canned error)",
    ),
    "load": Ending(
        1, "the run is partial: Rally on site1-master-1 ended (signal, killed 9); 2 of 4 VMs",
        "partial", "Rally on site1-master-1 ended (signal, killed 9); 2 of 4 VMs were never",
    ),
    "probes": Ending(0, "", "complete", f"{LAST_HOST}: what it measured can't be used"),
    "backup": Ending(
        1, "site2-controller-1: 'records of the controllers' failed: a canned failure",
        "partial", "site2-controller-1: 'records of the controllers' failed",
    ),
    "release": Ending(1, "the dummy doesn't take its hosts back: what was borrowed may not be"),
}  # fmt: skip


def test_every_fault_is_shown() -> None:
    assert FAULTS.keys() | {"services", "shares"} == set(platforms.Fault.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bench_with_a_fault_says_what_it_leaves(life: Life, fault: str) -> None:
    ending = FAULTS[fault]
    said = life.bench(fault)
    assert said.code == ending.code, said.err
    assert ending.words in said.err
    assert "Traceback" not in said.err and "a defect" not in said.err
    records = [run.load() for run in life.runs()]
    if fault == "release":
        assert life.testbed.load().phase == "releasing", "destroy can go on"
        assert [record.status for record in records] == ["complete"]
        assert "half destroyed" in life.bench().err
        assert life.xp("destroy", "--testbed", NAME).code == 1
        assert life.xp("destroy", "--testbed", NAME, "--forget").code == 0
    elif ending.run is None:
        assert records == [], "no run was opened"
    else:
        (record,) = records
        assert record.status == ending.run
        assert ending.reason in f"{record.reason} {record.notes}"
        assert (life.runs()[0].folder / "report.html").is_file()
    life.requires_nothing_left()
    assert life.bench().code == 0, "the next one, without the fault, is whole"


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("load", "probes")])
def test_a_deploy_with_a_fault_is_repaired_or_destroyed(life: Life, fault: str) -> None:
    """Nodes are kept: what is left is gone on from, then destroyed."""
    said = life.xp("deploy", life.topology(fault), "--keep")
    ending = FAULTS[fault]
    if fault in ("backup", "release"):  # come later
        assert said.code == 0
    else:
        assert said.code == ending.code and (ending.of_deploy or ending.words) in said.err
    if fault == "refused":
        return life.requires_nothing_left()
    assert life.testbed.load().phase == ("up" if said.code == 0 else "acquiring")
    repaired = life.xp("deploy", life.topology())
    assert repaired.code == 0, repaired.err
    assert life.testbed.load().phase == "up"
    return life.destroys_what_is_left()


def test_without_keep_a_deploy_that_fails_gives_its_nodes_back(life: Life) -> None:
    said = life.xp("deploy", life.topology("play"))
    assert said.code == 1
    assert life.stages[-1] == "giving the nodes back"
    life.requires_nothing_left()
    assert "a canned failure" in Path(f"{NAME}-ansible.log").read_text()


def test_what_fails_first_is_said_where_giving_back_fails_too(life: Life) -> None:
    said = life.xp("deploy", life.topology("play", "release"))
    assert said.code == 1
    assert "a canned failure" in said.err and "; and then: the dummy doesn't take" in said.err
    assert life.testbed.load().phase == "releasing"
    assert life.xp("destroy", "--all", "--forget").code == 0
    life.requires_nothing_left()


def test_nodes_of_an_earlier_command_stay_where_a_later_one_fails(life: Life) -> None:
    assert life.xp("deploy", life.topology()).code == 0
    assert life.xp("deploy", life.topology("play")).code == 1
    assert life.testbed.exists()
    assert life.xp("deploy", life.topology("refused")).code == 2
    assert life.testbed.exists()
    life.destroys_what_is_left()


def test_a_refused_bench_leaves_a_testbed_that_was_there(life: Life) -> None:
    assert life.xp("deploy", life.topology()).code == 0
    before = life.testbed.load()
    assert life.bench("refused").code == 2
    assert life.testbed.load() == before
    life.destroys_what_is_left()


def test_a_service_that_is_down_is_named_by_status(life: Life) -> None:
    assert life.xp("deploy", life.topology("services")).code == 0
    status = life.xp("status")
    assert status.code == 1
    assert f"nova-compute on {LAST_HOST}: failed" in status.out
    assert "'deploy' with the same topology repairs it" in status.out
    life.destroys_what_is_left()


def test_destroying_all_goes_on_after_one_that_fails(life: Life) -> None:
    """What fails isn't what is refused: the others go all the same."""
    assert life.xp("deploy", life.topology("release")).code == 0
    assert life.xp("up", life.topology(), "--name", "zzz").code == 0
    said = life.xp("destroy", "--all")
    assert said.code == 1
    assert f"'{NAME}' stays: the dummy doesn't take its hosts back" in said.err
    assert said.out == "'zzz' is gone\n"
    assert life.xp("destroy", "--all", "--forget").code == 0
    life.requires_nothing_left()


# ---------------------------------------------------------------- the disk fills, Ctrl-C


def test_a_full_disk_closes_the_run_as_partial(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Run, "append", full)
    said = life.bench()
    assert said.code == 1
    assert "the run can't be stored: No space left on device; what was measured is in" in said.err
    record = life.runs()[0].load()
    assert record.reason == "it couldn't be stored: No space left on device"
    life.requires_nothing_left()


def test_a_run_that_cannot_store_its_inputs_is_closed_too(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Run, "write_text", full)
    assert life.bench().code == 1
    assert life.runs()[0].load().status == "partial"
    life.requires_nothing_left()


# Of those of the deployment, which has a test of its own below, one is enough.
@pytest.mark.parametrize("stage", BENCH_STAGES[BENCH_STAGES.index("measuring round trips") :])
def test_ctrl_c_ends_a_bench_at_each_step(life: Life, stage: str) -> None:
    life.interrupted_at = stage
    said = life.bench()
    assert said.code == 130
    assert said.last_line == "interrupted; the same command starts another run"
    runs = life.runs()
    is_open = BENCH_STAGES.index(stage) >= BENCH_STAGES.index("laying down probes")
    assert len(runs) == is_open
    if stage == "destroying":
        assert runs[0].load().status == "complete"
        life.interrupted_at = None
        return life.destroys_what_is_left()
    if is_open:
        assert runs[0].load().reason == "interrupted"
        assert f"what was measured is in {runs[0].folder}, as a partial run" in said.err
        assert (runs[0].folder / "report.html").is_file()
    return life.requires_nothing_left()


@pytest.mark.parametrize("stage", DEPLOY_STAGES)
def test_ctrl_c_ends_a_deploy_that_goes_on_from_there(life: Life, stage: str) -> None:
    life.interrupted_at = stage
    said = life.xp("deploy", life.topology(), "--keep")
    assert said.code == 130
    assert said.last_line == (
        "interrupted; the same command goes on from here, 'destroy' removes all"
    )
    assert life.testbed.load().phase == "acquiring"
    life.interrupted_at = None
    assert life.xp("deploy", life.topology(), "--keep").code == 0
    life.destroys_what_is_left()


def test_a_name_that_is_taken_is_refused(life: Life) -> None:
    assert life.xp("up", life.topology()).code == 0
    said = life.xp("up", "--sites", "3", "--name", NAME)
    assert said.code == 2
    assert f"a testbed '{NAME}' with other hosts is there since" in said.err
    life.destroys_what_is_left()


def test_a_testbed_whose_state_is_damaged_is_destroyed(life: Life) -> None:
    assert life.xp("up", life.topology()).code == 0
    life.testbed.state_file.write_text("{")
    life.destroys_what_is_left()


# ---------------------------------------------------------------- a verification

VERIFY_STAGES = [*DEPLOY_STAGES, "Tempest, on the master", "starting Tempest", "Tempest's tests",
                 "destroying"]  # fmt: skip


def test_a_verification_takes_all_its_steps_in_order(life: Life) -> None:
    said = life.xp("verify", life.topology(), "--results", str(life.results), "--regex", "boot")
    assert said.code == 0, said.err
    assert life.stages == VERIFY_STAGES
    life.requires_nothing_left()
    (run,) = life.runs()
    record = run.load()
    assert (record.status, record.scenario["kind"], record.scenario["regex"]) == (
        "complete", "verify", "boot",
    )  # fmt: skip
    assert record.versions["tempest"].startswith("47.")
    statuses = run.table("verdicts").column("status").to_pylist()
    assert {each: statuses.count(each) for each in set(statuses)} == {
        "passed": 4, "skipped": 4, "excluded": 4,
    }  # fmt: skip
    for name in ("plan.json", "topology.yaml", "deployment.json", "links.json", "report.html"):
        assert (run.folder / name).is_file(), name


def test_a_test_that_fails_is_the_commands_code(life: Life) -> None:
    topology = life.topology("load")
    said = life.xp("verify", topology, "--results", str(life.results), "--only", "image,network")
    assert said.code == 1
    assert "2 tests failed; the report has the end of each one's traceback" in said.last_line
    (run,) = life.runs()
    assert run.load().status == "complete"
    assert set(run.table("verdicts").column("service").to_pylist()) == {"image", "network"}
    life.requires_nothing_left()


def test_a_cloud_that_is_up_is_verified_and_stays(life: Life) -> None:
    assert life.xp("deploy", life.topology()).code == 0
    said = life.xp("verify", "--results", str(life.results))
    assert said.code == 0, said.err
    assert life.stages == ["Tempest, on the master", "starting Tempest", "Tempest's tests"]
    again = life.results / "again"  # a run's name has seconds
    assert life.xp("verify", "--testbed", NAME, "--results", str(again)).code == 0
    assert len(life.runs()) == 2
    assert life.testbed.load().phase == "up"
    life.destroys_what_is_left()


def test_an_interrupted_verification_is_partial(life: Life) -> None:
    life.interrupted_at = "Tempest's tests"
    said = life.xp("verify", life.topology(), "--results", str(life.results))
    assert said.code == 130
    (run,) = life.runs()
    assert (run.load().status, run.load().reason) == ("partial", "interrupted")
    assert run.table("verdicts").num_rows == 12
    life.requires_nothing_left()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "volume"), "--only: no service 'volume'; write 'all', or some of identity"),
        (("--only", ","), "--only: no service ','"),
        (("--regex", "("), "--regex: '(' is no regular expression"),
        (("--backend", "rome"), "--backend is for a cloud that is deployed for this"),
        (("--keep",), "--keep is for a cloud that is deployed for this"),
        (("--testbed", "a", "--sites", "2"), "--testbed a and a topology both say which cloud"),
        (("--sites", "2", "--region", "site9"), "--region: the cloud has no region 'site9'"),
        (("--testbed", "a"), "no testbed 'a'"),
        ((), "there is no testbed"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_a_line(
    life: Life, arguments: tuple[str, ...], words: str
) -> None:
    said = life.xp("verify", *arguments)
    assert (said.code, said.out) == (2, ""), said
    assert words in said.last_line
    assert "Traceback" not in said.err
    assert life.runs() == []
    life.requires_nothing_left()
