"""What a host is given at its start, and what it may use."""

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from discovery_xp import files
from discovery_xp.cli.status import _at_quota
from discovery_xp.experiment import Inspection
from discovery_xp.inputs.topology import Limit, parse_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.providers.local import cgroups, containers, disks
from discovery_xp.providers.local.cgroups import Bounds
from discovery_xp.testbeds.hosts import HostStatus, Usage
from discovery_xp.testbeds.testbed import State, Testbed

GIB = 2**30


# ---------------------------------------------------------------- a hostile disk


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """What a host gets, as `prepare` lays it out."""
    upper = tmp_path / "files/upper"
    files.make_folder(upper / "etc", files.PUBLIC_FOLDER)
    upper.chmod(0o755)
    files.write_public(upper / "etc/hosts", "127.0.0.1 localhost\n")
    return tmp_path / "files"


def copy(given: Path, disk: Path) -> int:
    command = containers.copy_command(shlex.quote(str(given)), shlex.quote(str(disk)))
    return subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode


def test_a_host_gets_its_files_and_keeps_its_own(tmp_path: Path, given: Path) -> None:
    (tmp_path / "disk/upper/etc").mkdir(parents=True)
    (tmp_path / "disk/upper").chmod(0o700)
    (tmp_path / "disk/upper/etc/own").write_text("kept")
    (tmp_path / "disk/upper/etc/hosts").write_text("old")
    assert copy(given, tmp_path / "disk") == 0
    assert (tmp_path / "disk/upper/etc/hosts").read_text() == "127.0.0.1 localhost\n"
    assert (tmp_path / "disk/upper/etc/own").read_text() == "kept"
    assert stat.S_IMODE((tmp_path / "disk/upper").stat().st_mode) == 0o755


def test_a_link_that_a_host_left_is_not_written_through(tmp_path: Path, given: Path) -> None:
    precious = tmp_path / "passwd"
    precious.write_text("kept")
    (tmp_path / "disk/upper/etc").mkdir(parents=True)
    (tmp_path / "disk/upper/etc/hosts").symlink_to(precious)
    assert copy(given, tmp_path / "disk") == 0
    assert precious.read_text() == "kept"
    assert not (tmp_path / "disk/upper/etc/hosts").is_symlink()


@pytest.mark.parametrize("name", ["upper", "upper/etc"])
def test_a_link_in_place_of_a_folder_ends_the_start(tmp_path: Path, given: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    (tmp_path / "disk/upper").mkdir(parents=True)
    if name == "upper":
        (tmp_path / "disk/upper").rmdir()
    (tmp_path / f"disk/{name}").symlink_to(outside)
    assert copy(given, tmp_path / "disk") != 0
    assert list(outside.rglob("hosts")) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_a_host_is_given_is_private_outside_and_readable_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(disks, "make", lambda image, size: image.touch())
    plan = make_plan(parse_topology("sites: [{name: a}]"), "mine")
    testbed, host = Testbed("mine"), plan.hosts[0]
    before = os.umask(umask)
    try:
        testbed.save(State(plan=plan, phase="acquiring", created="2027-01-01T00:00:00Z"))
        for name in ("login_key.pub", "host_key", "host_key.pub"):
            files.write_atomically(testbed.folder / name, "key")
        containers.prepare(testbed, plan, host)
        containers.prepare(testbed, plan, host)
    finally:
        os.umask(before)
    own = containers.folder(testbed, host.name)
    upper = own / "files/upper"

    def modes(*names: str) -> set[int]:
        return {stat.S_IMODE((upper / name).stat().st_mode) for name in names}

    assert modes("", "etc", "etc/ssh") == {0o755}
    assert modes("etc/hosts", "etc/hostname", "etc/machine-id") == {0o644}
    assert modes("root", "root/.ssh") == {0o700}
    assert modes("root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key") == {0o600}
    for folder in (own, own.parent, own / "mount", own / "root", own / "files"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_console_is_kept_up_to_its_bound_and_stops_nobody(tmp_path: Path) -> None:
    """A host may put a program of its own in place of init, which writes without end."""
    log = tmp_path / "console.log"
    reader, writer = os.pipe()
    process = containers.keep_console(log, reader, [])
    os.close(reader)
    with os.fdopen(writer, "wb") as console:
        console.write(b"x" * (4 * containers.CONSOLE_BYTES))
    assert process.wait(20) == 0
    assert log.stat().st_size == containers.CONSOLE_BYTES
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_console_is_beside_what_gets_controllers_handed_on(tmp_path: Path) -> None:
    """With version 2 a group that has processes of its own hands no controller on."""
    both = [tmp_path / "version-1", tmp_path / "version-2"]
    for folder in both:
        folder.mkdir()
    (both[1] / "cgroup.subtree_control").write_text("")
    assert cgroups.leaves(both, "console") == [both[0], both[1] / "console"]
    assert cgroups.leaves(both, "console")[1].is_dir()


# ---------------------------------------------------------------- quotas


def test_a_disk_takes_little_of_the_machines_own(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    before = os.umask(0)
    try:
        disks.make(image, 20 * GIB)
    finally:
        os.umask(before)
    assert image.stat().st_size == 20 * GIB
    assert image.stat().st_blocks * 512 < 2**20
    assert stat.S_IMODE(image.stat().st_mode) == 0o600
    written = image.stat().st_mtime_ns
    disks.make(image, 10 * GIB)
    assert image.stat().st_mtime_ns == written, "a disk that is there stays"
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk.img"]


def test_no_disk_may_fill_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 6 * GIB}))
    assert disks.size_bytes(None, ("compute",), tmp_path) == 3 * GIB
    assert disks.size_bytes(5 * GIB, ("compute",), tmp_path) == 5 * GIB
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 900 * GIB}))
    assert disks.size_bytes(None, ("controller", "data"), tmp_path) == 20 * GIB


def test_bounds_are_the_topologys_or_leave_room_for_the_others() -> None:
    asked = Bounds.of(Limit(0.5, 2**28, None, 100))
    assert asked == Bounds(2**28, 100, 0.5)
    usual = Bounds.of(Limit())
    assert usual.memory_bytes <= 0.75 * cgroups.machine_memory_bytes()
    assert 64 < usual.processes <= cgroups.DEFAULT_PROCESSES


@pytest.mark.parametrize(
    "names",
    [
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max"),
        ("memory.max", "memory.swap.max", "pids.max"),
    ],
    ids=["version 1", "version 2"],
)
def test_bounds_are_written_to_what_the_kernel_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cgroups, "trees", lambda: [tmp_path])
    folder = tmp_path / "discovery-xp/mine/host.a"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    (folder / "pids.current").write_text("7\n")
    (folder / "pids.events").write_text("max 3\n")
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    cgroups.create("mine", "host.a", Bounds(2**28, 100))
    assert sorted(path.name for path in folder.iterdir() if path.name in names) == sorted(names)
    assert (folder / names[0]).read_text() == str(2**28)
    assert (folder / "pids.max").read_text() == "100"
    assert cgroups.bounds("mine", "host.a") == Bounds(2**28, 100)
    assert cgroups.process_count("mine", "host.a") == 7
    assert cgroups.times_at_bound("mine", "host.a") == {"processes": 3, "memory": 2}


@pytest.mark.parametrize(
    ("name", "weight", "most"),
    [("cpu.shares", 1024, 262_144), ("cpu.weight", 100, 800)],  # of eight CPUs
    ids=["version 1", "version 2"],
)
def test_hosts_weigh_as_much_as_so_many_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weight: int, most: int
) -> None:
    monkeypatch.setattr(cgroups, "trees", lambda: [tmp_path])
    monkeypatch.setitem(cgroups._WEIGHTS, name, (weight, most))
    top = tmp_path / "discovery-xp"
    for folder in (top, top / "mine", top / "other"):
        folder.mkdir()
        (folder / name).write_text(str(weight))

    def weights() -> list[int]:
        return [int((folder / name).read_text()) for folder in (top, top / "mine", top / "other")]

    for host in ("host.a", "host.b", "host.c"):
        cgroups.create("mine", host)
    cgroups.create("other", "host.a")
    assert weights() == [4 * weight, 3 * weight, weight]
    cgroups.kill("mine", "host.b")
    assert weights() == [3 * weight, 2 * weight, weight]
    for number in range(most // weight):
        (top / f"mine/host.{number}").mkdir()
    cgroups.create("mine", "host.last")
    assert weights() == [most, most, weight]
    assert not (top / "mine/host.a" / name).exists(), "each host weighs as one process"


def test_a_topology_bounds_disk_and_processes_by_role() -> None:
    text = (
        "sites: [{name: a, data: 1}]\nprovider: {type: local, limits: "
        "{default: {disk: 4GiB, processes: 500}, data: {disk: 8GiB}}}"
    )
    plan = make_plan(parse_topology(text), "mine")
    limits = {host.roles[0]: host.limit for host in plan.hosts}
    assert limits["data"] == Limit(disk_bytes=8 * GIB, processes=500)
    assert limits["compute"] == Limit(disk_bytes=4 * GIB, processes=500)


def test_status_names_who_is_at_a_quota() -> None:
    usage = (
        Usage("disk", 4 * GIB, 4 * GIB),
        Usage("memory", 1 * GIB, 2 * GIB, refusals=3),
        Usage("processes", 20, 500),
    )
    hosts = {
        "a-1": HostStatus("a-1", True, True, 1, usage),
        "a-2": HostStatus("a-2", True, True, 1),
    }
    assert _at_quota(Inspection("mine", "up", hosts, [])) == [
        "a-1 is at its quota of disk, 4.0 GiB; raise 'disk' in provider.limits",
        "a-1 was at its quota of memory, 2.0 GiB, 3 times; now it uses 1.0 GiB; "
        "raise 'memory' in provider.limits",
    ]
