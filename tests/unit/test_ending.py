"""The end of a testbed needs nothing; and a home ends its own testbeds only."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from discovery_xp import ending, experiment, files
from discovery_xp.cli import main as cli
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.places import home
from discovery_xp.planning.plan import make_plan
from discovery_xp.providers import local
from discovery_xp.providers.local import access, cgroups, claims, fabric, machine, merging
from discovery_xp.testbeds.testbed import State, Testbed

PLAN = make_plan(derive_topology(2, "10ms"), "mine")
STATE = State(plan=PLAN, phase="up", created="2027-01-01T00:00:00Z", image="0" * 12)
LENT = make_plan(
    parse_topology(
        "name: mine\nsites: [{name: rennes}]\n"
        "provider: {type: g5k, site: rennes, cluster: paravance}\n"
    ),
    "mine",
)


@pytest.fixture(autouse=True)
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where all that a testbed leaves is in a folder of the test's."""
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(fabric, "_NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(fabric, "remove_stray_devices", lambda: None)
    monkeypatch.setattr(claims, "RUN", tmp_path / "run")
    monkeypatch.setattr(machine, "_notes", lambda: tmp_path / "limits.json")
    monkeypatch.setattr(merging, "_notes", lambda: tmp_path / "ksm.json")
    monkeypatch.setattr(ending, "_is_root", lambda: True)
    (tmp_path / "cgroup/systemd").mkdir(parents=True)
    (tmp_path / "cgroup/systemd/cgroup.procs").touch()
    return tmp_path


def make(folder: Path, name: str = "mine") -> Testbed:
    """A testbed of a home, with a trace on the machine."""
    testbed = Testbed(name, folder)
    testbed.save(STATE)
    claims.claim(testbed)
    (cgroups.ROOT / "systemd/discovery-xp" / name).mkdir(parents=True)
    return testbed


def full(*_arguments: object, **_more: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---------------------------------------------------------------- what the end does without


def test_a_full_disk_keeps_nobody_from_ending_a_testbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed = make(home())
    real_open = os.open

    def none_new(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_CREAT:
            full()
        return real_open(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", none_new)
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space"):
        testbed.save(STATE)
    ending.tear_down(testbed)
    monkeypatch.undo()
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("other", "stays"),
    [(None, False), ("{type: local}", True), ("{type: local, merge_memory: false}", False),
     ("lost", True)],
)  # fmt: skip
def test_ksmd_is_as_before_once_no_testbed_is_left_that_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str | None, stays: bool
) -> None:
    """On a full disk, too."""
    (tmp_path / "ksm").mkdir()
    for name, value in {"run": "0", "pages_to_scan": "100"}.items():
        (tmp_path / "ksm" / name).write_text(value)
    monkeypatch.setattr(merging, "_KSM", tmp_path / "ksm")
    testbed = make(home())
    merging.prepare()
    if other == "lost":
        (tmp_path / "cgroup/systemd/discovery-xp/lost").mkdir(parents=True)
    elif other is not None:
        text = f"name: other\nsites: [{{name: a}}]\nprovider: {other}\n"
        plan = make_plan(parse_topology(text))
        Testbed("other").save(State(plan=plan, phase="up", created="2027-01-01T00:00:00Z"))
    monkeypatch.setattr(files, "write_atomically", full)
    monkeypatch.setattr(files, "_mkdir", full)
    ending.tear_down(testbed)
    assert (tmp_path / "ksm/run").read_text() == ("1" if stays else "0")
    assert (tmp_path / "ksm.json").exists() == stays


def test_traces_without_a_folder_are_ended_where_none_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup/systemd/discovery-xp/lost").mkdir(parents=True)
    monkeypatch.setattr(files, "_mkdir", full)
    ending.tear_down(Testbed("lost"))
    assert ending.known_testbeds() == []


WRITTEN = {
    "empty": b"",
    "no text": b"\xff\xfe",
    "endless": b"[" * 100_000,
    "a huge number": b"1" * 10_000,
    "no plan": b'{"format": 2}',
}


@pytest.mark.parametrize(
    "damage", ["missing", *WRITTEN, "another kind", "a pipe", "a folder", "a link"]
)
def test_whatever_the_state_is_it_can_be_ended(tmp_path: Path, damage: str) -> None:
    testbed = make(home())
    path = testbed.state_file
    text = path.read_text()
    path.unlink()
    if damage in WRITTEN:
        path.write_bytes(WRITTEN[damage])
    elif damage == "another kind":
        path.write_text(text.replace('"local"', "[]"))
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a link":
        path.symlink_to("/dev/zero")
    with pytest.raises(Refused) as caught:
        testbed.load()
    assert len(str(caught.value).splitlines()) == 1
    ending.tear_down(testbed)
    assert not (tmp_path / "home").exists()
    assert ending.known_testbeds() == []


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('ansible', 'enoslib'):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from discovery_xp import ending
from discovery_xp.cli import main
from discovery_xp.providers import grid5000, local
from discovery_xp.providers.grid5000 import jobs
try:
    import enoslib
except ImportError:
    sys.exit(7)
"""


def test_ending_hosts_and_jobs_loads_neither_enoslib_nor_ansible() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, check=False)
    assert done.returncode == 7, done.stderr.decode()


def test_jobs_are_given_back_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from discovery_xp.providers.grid5000 import jobs, record
    from discovery_xp.providers.grid5000.record import Record

    testbed = Testbed("mine")
    testbed.save(State(plan=LENT, phase="up", created="2027-01-01T00:00:00Z"))
    record.save(testbed, Record(jobs=(("rennes", 17),)))
    ended: list[tuple[str, int]] = []
    monkeypatch.setattr(jobs, "end", lambda refs: ended.extend(refs))
    monkeypatch.setattr(jobs, "active", lambda sites, name: [])
    monkeypatch.setattr("discovery_xp.testbeds.testbed.write_atomically", full)
    ending.tear_down(testbed)
    assert ended == [("rennes", 17)]
    assert not testbed.folder.exists()


def test_a_folder_that_can_not_be_removed_is_told_of_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    testbed = make(home())

    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("shutil.rmtree", read_only)
    with pytest.raises(Failed, match=r"can't be removed: Read-only file system; all else"):
        testbed.remove()


STEPS = (
    "fcntl.flock", "open", "os.chmod", "os.kill", "os.listdir", "os.mkdir", "os.remove",
    "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree",
)  # fmt: skip


def end_in_a_process(testbed: Testbed, killed_at: int | None) -> int:
    """Destroy in a process of its own on a full disk; returns its status as `waitpid` has it.

    The process kills itself before its step number `killed_at`: a step is what the interpreter
    tells of that touches a file or a process.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    step = 0

    def on_step(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal step
        if event in STEPS:
            step += 1
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            makes = event == "os.mkdir" or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            )
            if makes:
                full()

    try:
        sys.addaudithook(on_step)
        ending.tear_down(testbed)
        os._exit(0)
    finally:  # whatever it is, it must not come back into the tests
        os._exit(1)


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_destroy_that_is_killed_at_any_step_on_a_full_disk_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_namespace(*_command: object) -> NoReturn:
        raise Failed("ip: no such namespace", "-")

    monkeypatch.setattr(fabric, "run", no_such_namespace)
    monkeypatch.setattr(access, "run", lambda *_command: "[]")  # there are no rules either
    kills = 0
    while True:
        testbed = make(home())
        for name in ("hosts/a/files/upper/etc", "hosts/b/mount"):
            (testbed.folder / name).mkdir(parents=True)
        for name in ("passwords.json", "hosts/a/disk.img", "hosts/a/files/upper/etc/hosts"):
            (testbed.folder / name).touch()
        fabric._NAMESPACES.mkdir(exist_ok=True)
        (fabric._NAMESPACES / "dxp.mine.backbone").touch()
        status = end_in_a_process(testbed, killed_at=kills + 1)
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        if ending.known_testbeds():  # else it was killed after all was done
            assert end_in_a_process(testbed, killed_at=None) == 0, f"after {kills} steps"
        left = [path for path in tmp_path.rglob("*") if "mine" in path.name]
        assert left == [], f"after {kills} steps"
        assert not home().exists() or not list(home().iterdir())
    assert status == 0
    assert kills > 50


# ---------------------------------------------------------------- homes


def test_a_home_does_not_end_the_testbed_of_another(tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    assert ending.known_testbeds() == []
    assert ending.others() == {"mine": tmp_path / "other"}
    for arguments in (["destroy"], ["destroy", "--testbed", "mine"], ["destroy", "--all"]):
        CliRunner().invoke(cli.cli, arguments)
        assert other.exists(), arguments
        assert (cgroups.ROOT / "systemd/discovery-xp/mine").exists(), arguments
    said = CliRunner().invoke(cli.cli, ["destroy", "--all"]).output
    assert said == f"'mine' stays: it belongs to another home, {tmp_path}/other\n"
    with pytest.raises(Refused, match=f"set DISCOVERY_XP_HOME={tmp_path}/other to destroy it"):
        ending.tear_down(Testbed("mine"))


def test_all_homes_are_ended_where_that_is_asked_for(tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    assert "'mine' is gone" in CliRunner().invoke(cli.cli, ["destroy", "--all", "--forget"]).output
    assert not other.folder.exists()
    assert not (cgroups.ROOT / "systemd/discovery-xp/mine").exists()
    assert CliRunner().invoke(cli.cli, ["destroy", "--all"]).output == "there is no testbed\n"


def test_empty_folders_of_a_destroy_that_was_killed_go_with_the_next() -> None:
    (home() / "testbeds").mkdir(parents=True)
    assert CliRunner().invoke(cli.cli, ["destroy", "--all"]).output == "there is no testbed\n"
    assert not home().exists()
    home().mkdir()
    (home() / "of-another-program").touch()
    CliRunner().invoke(cli.cli, ["destroy", "--all"])
    assert (home() / "of-another-program").exists()


def test_a_testbed_that_is_not_named_has_to_be_of_this_home(tmp_path: Path) -> None:
    """Traces alone may be of a testbed that an earlier version made, without noting its home."""
    (tmp_path / "cgroup/systemd/discovery-xp/unnoted").mkdir(parents=True)
    done = CliRunner().invoke(cli.cli, ["destroy"])
    assert isinstance(done.exception, Refused)
    assert "there is no testbed" in str(done.exception)
    assert (tmp_path / "cgroup/systemd/discovery-xp/unnoted").exists()
    assert "'unnoted' is gone" in CliRunner().invoke(cli.cli, ["destroy", "--all"]).output


def test_what_no_home_has_any_more_is_anybodys_to_end(tmp_path: Path) -> None:
    make(tmp_path / "other").remove()  # the traces stay
    assert ending.known_testbeds() == ["mine"]
    ending.tear_down(Testbed("mine"))
    assert ending.known_testbeds() == []


def test_a_name_that_another_home_has_is_refused(tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    own = Testbed("mine")
    with pytest.raises(Refused, match=f"of another home, {tmp_path}/other, is on this machine"):
        claims.claim(own)
    own.save(STATE)  # a run that was killed before it asked
    ending.tear_down(own)
    assert not own.folder.exists()
    assert other.exists()
    assert (cgroups.ROOT / "systemd/discovery-xp/mine").exists()


def test_a_home_by_another_path_is_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(home())
    (tmp_path / "link").symlink_to(home())
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "link"))
    assert claims.holder("mine") is None
    assert ending.known_testbeds() == ["mine"]


@pytest.mark.parametrize("text", ["", "relative", "\0", "/\n" * 1000])
def test_a_damaged_note_of_the_home_is_nobodys(tmp_path: Path, text: str) -> None:
    make(tmp_path / "other")
    (claims.folder("mine") / "home").write_text(text)
    assert ending.known_testbeds() == ["mine"]


def test_a_sweep_spares_what_another_home_is_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both home's commands meet between the look for testbeds and the removal."""
    order = []

    def begin() -> None:
        claims.claim(Testbed("theirs", tmp_path / "other"))
        order.append("theirs begins")

    other = threading.Thread(target=begin)

    def nothing_yet() -> set[str]:
        other.start()
        other.join(0.3)
        return set()

    monkeypatch.setattr(local, "leftovers", nothing_yet)
    monkeypatch.setattr(fabric, "remove_stray_devices", lambda: order.append("strays go"))
    local.sweep()
    other.join()
    assert order == ["strays go", "theirs begins"]


def test_what_another_home_has_begun_is_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fabric, "remove_stray_devices", lambda: pytest.fail("theirs goes"))
    claims.claim(Testbed("theirs", tmp_path / "other"))
    local.sweep()


# ---------------------------------------------------------------- runs that fail


class Lender:
    """Somebody whose hosts we had from this run on."""

    def is_lent(self, _testbed: Testbed) -> bool:
        return False

    def why_over(self, _testbed: Testbed) -> None:
        return None


def fail_and_give_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    """A run that fails on a lender's hosts, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("discovery_xp.providers.of", lambda _kind: Lender())
    testbed = Testbed("mine")
    testbed.save(State(plan=LENT, phase="acquiring", created="2027-01-01T00:00:00Z"))
    (testbed.folder / "ansible.log").write_text("what Ansible said")
    with experiment._given_back(LENT, testbed, False, lambda _stage, _done, _total: None):
        raise Failed("nova doesn't start", "see its log")
    return testbed


def test_what_failed_first_is_told_where_giving_back_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_testbed: Testbed) -> NoReturn:
        raise Failed("the API can't be reached", "destroy tries again")

    monkeypatch.setattr(ending, "release", unreachable)
    with pytest.raises(Failed) as caught:
        fail_and_give_back(tmp_path, monkeypatch)
    assert str(caught.value) == (
        "nova doesn't start; see its log; and then: the API can't be reached; destroy tries again"
    )


def test_the_log_of_a_failed_run_is_not_written_through_a_planted_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "mine-ansible.log").symlink_to("precious")
    monkeypatch.setattr(ending, "release", lambda _testbed: None)
    with pytest.raises(Failed, match="nova"):
        fail_and_give_back(tmp_path, monkeypatch)
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "mine-ansible.log").read_text() == "what Ansible said"
    assert not (tmp_path / "mine-ansible.log").is_symlink()
