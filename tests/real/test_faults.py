"""Runs that are killed, machines that aren't fit: nothing stays, everything resumes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.providers.local.machine import kernel_has_netem
from tests.real.conftest import HOME, Cli
from tests.real.traces import traces
from tests.waiting import WITHIN_S, wait_until

pytestmark = [pytest.mark.real, pytest.mark.alone]

TOPOLOGY = """
name: victim
sites: [{name: a, count: 2, computes: 2}]
network: {delay: 4ms}
"""

# How long a `destroy` of two hosts takes, about: kills spread over it.
DESTROY_S = 1.5


def points(count: int, usual: tuple[int, ...]) -> list[Any]:
    """Numbers from 1 on, as parameters of tests; those that aren't among `usual` are long."""
    return [
        number if number in usual else pytest.param(number, marks=pytest.mark.long)
        for number in range(1, count + 1)
    ]


LIMITS = ("fs/inotify/max_user_instances", "net/ipv4/neigh/default/gc_thresh3")


@pytest.fixture
def victim(cli: Cli) -> str:
    return cli.topology("victim", TOPOLOGY)


def limits() -> list[str]:
    return [Path(f"/proc/sys/{name}").read_text() for name in LIMITS]


def kill_after(cli: Cli, path: str, delay_s: float, number: signal.Signals) -> int:
    """Start `up`, send it a signal after `delay_s`; returns its exit code."""
    process = cli.start("up", path)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    code = process.wait(WITHIN_S)
    if process.stderr is not None:
        process.stderr.close()
    return code


@pytest.fixture(scope="module")
def duration_s(cli: Cli) -> float:
    """How long an undisturbed `up` takes here, so that kills spread over all of it."""
    path = cli.topology("victim", TOPOLOGY)
    cli.run("up", path)  # the root tree is in the cache from now on
    cli.run("destroy")
    started = time.monotonic()
    cli.run("up", path)
    taken = time.monotonic() - started
    cli.run("destroy")
    return taken


@pytest.mark.parametrize("point", points(12, (2, 6, 10)))
def test_after_sigkill_at_any_point_destroy_leaves_nothing(
    cli: Cli, victim: str, duration_s: float, point: int
) -> None:
    before = limits()
    kill_after(cli, victim, duration_s * point / 13, signal.SIGKILL)
    cli.run("destroy", "--all")
    assert traces() == []
    assert limits() == before
    assert not HOME.exists()


@pytest.mark.parametrize("point", points(8, (3, 6)))
def test_after_sigkill_at_any_point_up_completes(
    cli: Cli, victim: str, duration_s: float, point: int
) -> None:
    kill_after(cli, victim, duration_s * point / 9, signal.SIGKILL)
    cli.run("up", victim)
    cli.run("status")
    cli.run("network", "measure")
    cli.run("destroy")
    assert traces() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_says_how_to_go_on(
    cli: Cli, victim: str, duration_s: float, number: signal.Signals
) -> None:
    with cli.start("up", victim) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "booting" in line:
                break
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(WITHIN_S) == 130
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    cli.run("up", victim)
    cli.run("status")
    cli.run("destroy")
    assert traces() == []


def is_building() -> bool:
    """Say whether the victim's hosts' root tree is being built."""
    return any("mmdebstrap" in trace for trace in traces("victim"))


def test_a_killed_image_build_leaves_nothing(cli: Cli, victim: str, tmp_path: Path) -> None:
    own = {**cli.environment, "DISCOVERY_XP_CACHE": str(tmp_path / "cache")}
    for delay_s in (0.5, 3.0):
        process = subprocess.Popen(
            cli.command("up", victim), env=own, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(is_building)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_building()
        subprocess.run(cli.command("destroy", "--all"), env=own, check=True, timeout=WITHIN_S)
        assert traces() == []
        left = [entry.name for entry in (tmp_path / "cache/images").iterdir()]
        assert left == [".lock"]


def test_ruins_after_a_reboot_are_cleaned(cli: Cli, victim: str) -> None:
    """Processes are gone, but namespaces, interfaces and files are still there."""
    cli.run("up", victim)
    for trace in traces("victim"):
        if trace.startswith("process"):
            try:
                os.kill(int(trace.split()[1]), signal.SIGKILL)
            except ProcessLookupError:
                continue
    # A name whose mount is gone, as a reboot leaves it on a disk.
    subprocess.run(["umount", "/run/netns/dxp.victim.host.a1-compute-1"], check=True)
    cli.run("status", code=1)
    cli.run("up", victim)
    cli.run("status")
    stray = "dxp0123456789"
    subprocess.run(["ip", "link", "add", stray, "type", "veth", "peer", "name", "dxp9"], check=True)
    (HOME / "testbeds/victim/state.json").unlink()
    cli.run("destroy", "--all")
    assert traces() == []


def test_a_damaged_state_can_be_destroyed(cli: Cli, victim: str) -> None:
    cli.run("up", victim)
    (HOME / "testbeds/victim/state.json").write_text("{")
    assert "is damaged" in cli.run("status", code=2).stderr
    assert "is damaged" in cli.run("up", victim, code=2).stderr
    cli.run("destroy", "--testbed", "victim")
    assert traces() == []


# ---------------------------------------------------------------- full disks

TWO_HOSTS = """
name: victim
sites: [{name: a, count: 2, computes: 0}]
master: none
network: {delay: 4ms}
"""


@dataclass(frozen=True)
class SmallDisk:
    """A disk that holds HOME, and the user's own folder, and nearly nothing else."""

    cli: Cli
    place: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"DISCOVERY_XP_HOME": f"{self.place}/home", "HOME": f"{self.place}/user",
               "TMPDIR": f"{self.place}/user"}  # fmt: skip
        return {**self.cli.environment, **own}

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.cli.command(*arguments), env=self.environment, check=False,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def fill(self) -> None:
        """To the last byte and the last inode; a killed host's disk may go a moment later."""
        for _ in range(100):
            for size in (2**20, 4096, 1):
                with contextlib.suppress(OSError), (self.place / "filler").open("ab", 0) as file:
                    while file.write(b"x" * size):
                        pass
            with contextlib.suppress(OSError):
                while True:
                    (self.place / f"filler-{uuid.uuid4()}").symlink_to("x")
            time.sleep(0.05)
            if self.is_full():
                return
        raise AssertionError(f"{self.place} doesn't get full")

    def is_full(self) -> bool:
        """True where neither a folder nor a byte can be added."""
        with contextlib.suppress(OSError):
            (self.place / "one-more").mkdir()
            (self.place / "one-more").rmdir()
            return False
        with contextlib.suppress(OSError), (self.place / "filler").open("ab", 0) as file:
            return not file.write(b"x" * 4096)
        return True

    def free(self) -> None:
        for path in self.place.glob("filler*"):
            path.unlink()


@pytest.fixture
def small_disk(cli: Cli, victim: str, tmp_path: Path) -> Iterator[SmallDisk]:
    size = "size=64m,nr_inodes=400"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(tmp_path)], check=True)
    try:
        (tmp_path / "user").mkdir()
        yield SmallDisk(cli, tmp_path)
        cli.run("destroy", "--all", "--forget")
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_is_told_of_in_one_line_and_the_same_command_goes_on(
    cli: Cli, small_disk: SmallDisk
) -> None:
    small_disk.run("up", cli.topology("victim", TWO_HOSTS))
    small_disk.fill()
    done = small_disk.run("network", "set", "--delay", "9ms", code=1)
    assert "no space left on device; free some space" in done.stderr
    assert "Traceback" not in done.stderr
    small_disk.free()
    small_disk.run("network", "set", "--delay", "9ms")
    small_disk.run("status")
    small_disk.fill()
    small_disk.run("destroy")
    assert traces() == []


@pytest.mark.parametrize("point", points(8, (3, 6)))
def test_a_destroy_that_is_killed_on_a_full_disk_is_ended_by_the_next(
    cli: Cli, small_disk: SmallDisk, point: int
) -> None:
    small_disk.run("up", cli.topology("victim", TWO_HOSTS))
    for part in (point / 9, 1 - point / 9):
        small_disk.fill()
        with subprocess.Popen(
            cli.command("destroy", "--testbed", "victim"), env=small_disk.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DESTROY_S * part)
            process.kill()
    small_disk.fill()
    small_disk.run("destroy", "--all")
    assert traces() == []
    assert not (small_disk.place / "home").exists()


# ---------------------------------------------------------------- machines that aren't fit


def test_without_root_emulated_hosts_are_refused(cli: Cli, victim: str) -> None:
    # Another user to itself, who may read this checkout wherever it is.
    other_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    done = subprocess.run(
        [*other_user, *cli.command("up", victim)],
        capture_output=True,
        text=True,
        env=cli.environment,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith("emulated hosts need root; run it as root, e.g. with sudo\n")
    assert "Traceback" not in done.stderr
    assert not HOME.exists()


def test_not_enough_memory_is_refused_with_the_sum(cli: Cli) -> None:
    text = (
        "name: huge\nsites: [{name: s, count: 39, computes: 250}]\n"
        "provider: {type: local, network: 10.0.0.0/8}\n"
    )
    done = cli.run("up", cli.topology("huge", text), code=2)
    assert "9790 hosts need 15" in done.stderr
    assert "of memory" in done.stderr
    assert traces() == []
    assert not HOME.exists()


def test_not_enough_disk_is_refused_with_the_sum(cli: Cli, victim: str, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(tmp_path)], check=True)
    try:
        own = {**cli.environment, "DISCOVERY_XP_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            cli.command("up", victim), env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "of disk, but" in done.stderr
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def in_private_mounts(cli: Cli, prepare: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where `prepare` changed the mounts, for it alone."""
    script = f'{prepare}; exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh",
         *cli.command(*arguments)],
        env=cli.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_without_inotify_instances_it_says_what_to_raise(cli: Cli, victim: str) -> None:
    place = Path("/proc/sys/fs/inotify/max_user_instances")
    before = place.read_text()
    place.write_text("100")
    try:
        frozen = "mount --bind /proc/sys/fs /proc/sys/fs; mount -o remount,ro,bind /proc/sys/fs"
        done = in_private_mounts(cli, frozen, "up", victim)
        assert done.returncode == 2, done.stderr
        assert "fs.inotify.max_user_instances is 100, 7 hosts need 184" in done.stderr
        assert "sysctl -w fs.inotify.max_user_instances=184" in done.stderr
        assert traces() == []
    finally:
        place.write_text(before)


def test_inotify_instances_are_raised_and_put_back(cli: Cli, victim: str) -> None:
    place = Path("/proc/sys/fs/inotify/max_user_instances")
    before = place.read_text()
    place.write_text("100")
    try:
        cli.run("up", victim)
        assert int(place.read_text()) == 184
        cli.run("destroy")
        assert int(place.read_text()) == 100
    finally:
        place.write_text(before)


def test_netem_is_refused_where_the_kernel_has_none(cli: Cli) -> None:
    if kernel_has_netem():
        pytest.skip("this kernel has sch_netem; a virtual machine's test uses it")
    text = TOPOLOGY + "provider: {type: local, wan: netem}\n"
    done = cli.run("up", cli.topology("victim-netem", text), code=2)
    assert "this kernel has no sch_netem; write 'wan: auto' or 'wan: vde'" in done.stderr
    assert traces() == []
    assert not HOME.exists()


def test_missing_programs_are_named_with_their_package(cli: Cli, victim: str) -> None:
    hidden = "mount --bind /dev/null /usr/bin/systemd-nspawn"
    done = in_private_mounts(cli, hidden, "up", victim)
    assert done.returncode == 2, done.stderr
    assert "missing programs of systemd-container; install them" in done.stderr
    assert not HOME.exists()


def test_hosts_that_do_not_boot_are_named_with_their_last_words(cli: Cli, victim: str) -> None:
    # A kernel that refuses what nspawn asks for, as far as it can tell.
    broken = (
        "printf '#!/bin/sh\\necho no such luck; exit 1\\n' >/tmp/dxp-broken; "
        "chmod +x /tmp/dxp-broken; mount --bind /tmp/dxp-broken /usr/bin/systemd-nspawn"
    )
    done = in_private_mounts(cli, broken, "up", victim)
    Path("/tmp/dxp-broken").unlink()
    assert done.returncode == 1, done.stderr
    assert "7 of 7 hosts don't answer over ssh" in done.stderr
    assert "no such luck" in done.stderr
    cli.run("up", victim)
    cli.run("destroy")
    assert traces() == []


def test_one_command_at_a_time_works_on_a_testbed(cli: Cli, victim: str) -> None:
    with cli.start("up", victim) as process:
        assert process.stderr is not None
        process.stderr.readline()
        done = cli.run("destroy", "--testbed", "victim", code=2)
        assert f"is being worked on by process {process.pid}" in done.stderr
        process.stderr.read()
        assert process.wait(WITHIN_S) == 0
    cli.run("destroy")
