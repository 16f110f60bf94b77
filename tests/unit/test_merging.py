"""Equal pages of emulated hosts' memory: who is marked, what ksmd is told, what is said of it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from discovery_xp import files, providers, store
from discovery_xp.analysis.facts import facts
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.cli.status import _on_merging
from discovery_xp.errors import Refused
from discovery_xp.experiment import Inspection
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.providers import KINDS, local
from discovery_xp.providers.local import containers, disks, merging
from discovery_xp.store import record_from_json
from discovery_xp.testbeds.hosts import PageMerging
from discovery_xp.testbeds.testbed import State, Testbed
from tests.unit.synthetic_run import make_run

GIB = 2**30
PLAN = make_plan(parse_topology("sites: [{name: a}]"), "mine")
APART = make_plan(
    parse_topology("sites: [{name: a}]\nprovider: {type: local, merge_memory: false}"), "mine"
)
BEFORE = {
    "advisor_mode": "none [scan-time]",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
    "run": "0",
}


@pytest.fixture
def ksm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's settings of KSM, all in a folder of the test's."""
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, value in {**BEFORE, "pages_sharing": "256"}.items():
        (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(merging, "_KSM", folder)
    monkeypatch.setattr(merging, "_notes", lambda: tmp_path / "notes.json")
    merging.obstacle.cache_clear()
    return folder


def settings(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text().strip() for name in BEFORE}


# ---------------------------------------------------------------- ksmd


def test_settings_are_noted_and_put_back(ksm: Path) -> None:
    merging.prepare()
    assert settings(ksm)["run"] == "1"
    assert settings(ksm)["advisor_mode"] == "none"
    merging.restore()
    assert settings(ksm) == {**BEFORE, "advisor_mode": "scan-time"}
    assert not merging._notes().exists()


def test_pages_are_hardly_looked_at_while_a_load_is_measured(ksm: Path) -> None:
    provider = providers.of("local")
    provider.slow_merging(PLAN, Testbed("mine"))
    assert settings(ksm)["sleep_millisecs"] == "20", "the settings aren't ours"
    merging.prepare()
    provider.slow_merging(APART, Testbed("mine"))
    assert settings(ksm)["sleep_millisecs"] == "20"
    provider.slow_merging(PLAN, Testbed("mine"))
    assert (settings(ksm)["sleep_millisecs"], settings(ksm)["run"]) == ("1000", "1")
    provider.resume_merging(PLAN, Testbed("mine"))
    assert settings(ksm)["sleep_millisecs"] == "20"
    merging.slow_down()  # by a bench that is killed
    merging.prepare()
    assert settings(ksm)["sleep_millisecs"] == "20"
    merging.restore()
    assert settings(ksm) == {**BEFORE, "advisor_mode": "scan-time"}


def test_an_advisor_has_its_say_before_the_number_of_pages(
    ksm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(Path, "write_text", lambda path, _text: written.append(path.name))
    merging._write(merging._SETTINGS)
    assert written[0] == "advisor_mode"
    assert written[-1] == "run"


def test_a_second_testbed_does_not_forget_what_was_set_before_the_first(ksm: Path) -> None:
    merging.prepare()
    (ksm / "pages_to_scan").write_text("7")  # by whoever
    merging.prepare()
    merging.prepare()
    merging.restore()
    assert settings(ksm) == {**BEFORE, "advisor_mode": "scan-time"}


def test_one_that_was_killed_between_note_and_settings_is_put_back(ksm: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_write", lambda _settings: None)
        merging.prepare()
    assert json.loads(merging._notes().read_text())["run"] == "0"
    merging.prepare()
    assert settings(ksm)["run"] == "1"
    merging.restore()
    assert settings(ksm)["run"] == "0"


def test_a_machine_that_merges_already_keeps_its_settings(ksm: Path) -> None:
    (ksm / "run").write_text("1")
    merging.prepare()
    merging.restore()
    assert settings(ksm) == {**BEFORE, "run": "1"}
    assert not merging._notes().exists()


def test_an_older_kernel_has_no_advisor(ksm: Path) -> None:
    (ksm / "advisor_mode").unlink()
    merging.prepare()
    merging.restore()
    assert not (ksm / "advisor_mode").exists()
    assert (ksm / "run").read_text() == "0"


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"run": {"x": 1}}', '{"../run": "1"}', "null"])
def test_damaged_notes_keep_nothing_from_its_end(ksm: Path, notes: str) -> None:
    merging._notes().write_text(notes)
    merging.restore()
    assert not merging._notes().exists()
    assert not (ksm.parent / "run").exists()


# ---------------------------------------------------------------- what the kernel can


def test_without_ksm_it_is_said(ksm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_KSM", ksm / "none")
    assert merging.obstacle() == "this kernel has no KSM"
    assert not containers.merges(PLAN)
    assert merging.saved_bytes() == 0


def test_a_mark_that_is_lost_is_no_use(ksm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "marked", lambda command: command)
    assert "PR_SET_MEMORY_MERGE" in (merging.obstacle() or "")


def test_a_topology_may_go_without(ksm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "obstacle", lambda: None)
    assert PLAN.merge_memory
    assert containers.merges(PLAN)
    assert not APART.merge_memory
    assert not containers.merges(APART)
    assert not PLAN.has_hosts_of(APART), "hosts that run aren't marked or unmarked"


def test_a_marked_command_runs_as_it_was_given(tmp_path: Path) -> None:
    show = "import sys; print(open('/proc/self/personality').read().strip(), sys.argv[1:])"
    command = merging.marked([sys.executable, "-c", show, "a b", "$HOME", ""])
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    if done.returncode:  # no root, or no such prctl: nothing is run unmarked
        assert done.stdout == ""
    else:
        assert done.stdout == "00040000 ['a b', '$HOME', '']\n"


@pytest.mark.parametrize("merges", [True, False])
def test_services_of_marked_hosts_have_one_hash_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merges: bool
) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(disks, "make", lambda image, size: image.touch())
    monkeypatch.setattr(containers, "merges", lambda _plan: merges)
    testbed, host = Testbed("mine"), PLAN.hosts[0]
    testbed.save(State(plan=PLAN, phase="acquiring", created="2027-01-01T00:00:00Z"))
    for name in ("login_key.pub", "host_key", "host_key.pub"):
        files.write_atomically(testbed.folder / name, "key")
    containers.prepare(testbed, PLAN, host)
    own = containers.folder(testbed, host.name) / "files/upper" / merging.FILE
    assert own.exists() == merges
    if merges:
        assert "PYTHONHASHSEED=0" in own.read_text()
        assert own.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("merge", [True, False])
def test_the_first_process_is_marked_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: bool
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(containers, "keep_console", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    reader, writer = os.pipe()
    try:
        containers._start(Testbed("mine"), PLAN.hosts[0], [], reader, "true", merge)
    finally:
        os.close(reader)
        os.close(writer)
    command = started[0][started[0].index("true") + 2 :]
    assert (command[0] == "nsenter") == (not merge)
    assert command[command.index("nsenter") :][:3:2] == ["nsenter", "systemd-nspawn"]


# ---------------------------------------------------------------- what is said of it


ON = PageMerging(True, None, 3 * GIB, 2 * GIB, 12.0)


def test_the_provider_says_what_it_costs(ksm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "obstacle", lambda: None)
    found = local.page_merging(PLAN, Testbed("mine"))
    assert found.is_on
    assert found.saved_bytes == 256 * os.sysconf("SC_PAGE_SIZE")
    apart = providers.of("local").page_merging(APART, Testbed("mine"))
    assert apart == dataclasses.replace(
        found, is_on=False, reason="'merge_memory' is false", ksmd_cpu_s=merging.ksmd_cpu_s()
    )


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"local"}))
def test_hosts_with_machines_of_their_own_share_no_memory(name: str) -> None:
    plan = dataclasses.replace(PLAN, provider=name)
    assert providers.of(name).page_merging(plan, Testbed("mine")) is None


def test_a_window_has_its_own_cpu_seconds() -> None:
    later = dataclasses.replace(ON, ksmd_cpu_s=15.5)
    assert later.since(ON).ksmd_cpu_s == 3.5
    unseen = dataclasses.replace(ON, ksmd_cpu_s=None)
    assert later.since(unseen).ksmd_cpu_s is None
    assert unseen.since(later).ksmd_cpu_s is None


def test_status_tells_it() -> None:
    def lines(found: PageMerging | None) -> list[str]:
        return _on_merging(Inspection("mine", "up", {}, [], merging=found))

    assert lines(None) == []
    assert "would take 2.0 GiB more, for 12 s" in lines(ON)[0]
    assert lines(dataclasses.replace(ON, is_on=False, reason="this kernel has no KSM")) == [
        "equal pages of the hosts' memory aren't merged: this kernel has no KSM"
    ]


def test_a_result_tells_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "memory" not in dict(facts(Measurements(run, 1)))
    run.update(merging=store.Merging(**dataclasses.asdict(ON)))
    told = dict(facts(Measurements(run, 1)))["memory"]
    assert told == (
        "hosts used 3.0 GiB; equal pages were merged, they would take 2.0 GiB more, "
        "for 12.0 s of ksmd's CPU time while the load ran"
    )
    off = dataclasses.replace(ON, is_on=False, reason="'merge_memory' is false")
    run.update(merging=store.Merging(**dataclasses.asdict(off)))
    told = dict(facts(Measurements(run, 1)))["memory"]
    assert told == "hosts used 3.0 GiB; equal pages weren't merged: 'merge_memory' is false"


def test_a_result_of_earlier_versions_lacks_it(tmp_path: Path) -> None:
    values = make_run(tmp_path).load().to_json()
    del values["merging"]
    assert record_from_json(values).merging is None
    for wrong in ({}, {**dataclasses.asdict(ON), "is_on": 1}, {**dataclasses.asdict(ON), "x": 1}):
        with pytest.raises((ValueError, Refused), match="merging"):
            record_from_json({**values, "merging": wrong})
