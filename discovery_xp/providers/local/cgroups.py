"""Control groups of a testbed: which processes are ours, and what they may use.

Each host, and each emulated link, has a group of its own, so that all of its
processes can be found and ended whatever has become of their parents.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.topology import Limit

ROOT = Path("/sys/fs/cgroup")
TOP = "discovery-xp"
# Version 1: one tree for each controller, and a named one for systemd inside the hosts.
_V1_TREES = ("systemd", "unified", "pids", "memory", "cpu", "cpuacct", "cpu,cpuacct")
# What a host may have where the topology says nothing: threads count, and MariaDB has one for
# each of 4000 connections at most.  Of the machine's memory, honest hosts leave a quarter.
DEFAULT_PROCESSES = 16384
DEFAULT_MEMORY_SHARE = 0.75
# Files that hold a group's share of the CPUs, of version 1 and 2: what one process weighs, as
# does a group whose file nobody wrote, and the most.  The kernel's most with version 1, where each
# process beside the groups has a share of its own.  With version 2 systemd's slices are beside
# them, and the toolkit's own processes share one of those: so many hosts as there are CPUs.
_WEIGHTS = {
    "cpu.shares": (1024, 262_144),
    "cpu.weight": (100, min(10_000, 100 * (os.cpu_count() or 1))),
}


def trees() -> list[Path]:
    """The mounted trees that we use; one with control groups version 2."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    mounted = [ROOT / name for name in _V1_TREES if (ROOT / name / "cgroup.procs").exists()]
    if not (ROOT / "systemd" / "cgroup.procs").exists():
        raise Refused(
            "this machine has no control groups that a nested systemd can use",
            "mount them: 'mount -t cgroup2 none /sys/fs/cgroup', or boot with systemd",
        )
    return list(dict.fromkeys(path.resolve() for path in mounted))


@dataclass(frozen=True)
class Bounds:
    """What a group may use: `cpus` in cores, None for all of them."""

    memory_bytes: int
    processes: int
    cpus: float | None = None

    @classmethod
    def of(cls, limit: Limit) -> Bounds:
        """A host's limits, with the defaults where it has none."""
        memory = limit.memory_bytes or int(machine_memory_bytes() * DEFAULT_MEMORY_SHARE)
        # A machine of few processes keeps half of them.
        processes = limit.processes or min(DEFAULT_PROCESSES, _most_processes() // 2)
        return cls(memory, processes, limit.cpus)


def machine_memory_bytes() -> int:
    """All memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _most_processes() -> int:
    limits = (Path(f"/proc/sys/kernel/{name}").read_text() for name in ("pid_max", "threads-max"))
    return min(int(text) for text in limits)


def _trees_if_any() -> list[Path]:
    """The trees, none where there are none: then nothing of ours is in them."""
    with contextlib.suppress(Refused):
        return trees()
    return []


def create(testbed: str, name: str, bounds: Bounds | None = None) -> list[Path]:
    """Make the group `name` of a testbed in every tree; returns its folders."""
    folders = []
    for tree in trees():
        folder = tree / TOP / testbed / name
        folder.mkdir(parents=True, exist_ok=True)
        if tree == ROOT:
            for above in (tree, tree / TOP, tree / TOP / testbed):
                for controller in ("cpu", "memory", "pids"):
                    with contextlib.suppress(OSError):  # not there on this kernel
                        (above / "cgroup.subtree_control").write_text(f"+{controller}")
        folders.append(folder)
    if bounds is not None:
        _limit(folders, bounds)
    _weigh(testbed)
    return folders


def leaves(folders: Iterable[Path], name: str) -> list[Path]:
    """Return where processes of these groups go that stay beside groups made inside them.

    With version 2 a group that has processes hands no controller on to those inside, so that
    these processes need a group `name` of their own; it ends with the one around it.
    """
    inside = []
    for folder in folders:
        is_version_2 = (folder / "cgroup.subtree_control").exists()
        inside.append(folder / name if is_version_2 else folder)
        inside[-1].mkdir(exist_ok=True)
    return inside


def _weigh(testbed: str) -> None:
    """Have a testbed's group, and that of all testbeds, weigh as much as the hosts in it.

    The kernel divides the CPUs among processes and groups side by side: with one group's weight,
    all hosts together would get no more than each busy process beside them.
    """
    for top in (tree / TOP for tree in _trees_if_any()):
        for name, (weight, most) in _WEIGHTS.items():
            if not (top / name).exists():
                continue
            counts = {folder: len(_inside(folder)) for folder in _inside(top)}
            for folder, count in (
                (top, sum(counts.values())),
                (top / testbed, counts.get(top / testbed, 0)),
            ):
                with contextlib.suppress(OSError):  # the group may vanish as we look
                    if (folder / name).exists():
                        (folder / name).write_text(str(min(most, weight * max(1, count))))


def _inside(folder: Path) -> list[Path]:
    """Return the groups in a group; none where it has gone."""
    with contextlib.suppress(OSError):
        return [each for each in folder.iterdir() if each.is_dir()]
    return []


def _limit(folders: list[Path], bounds: Bounds) -> None:
    period_us = 100_000
    quota_us = None if bounds.cpus is None else max(1000, round(bounds.cpus * period_us))
    settings = {
        "cpu.cfs_quota_us": "-1" if quota_us is None else str(quota_us),
        "cpu.max": f"{'max' if quota_us is None else quota_us} {period_us}",
        "memory.limit_in_bytes": str(bounds.memory_bytes),
        # With what is swapped out, or a host would fill the machine's swap. After the former.
        "memory.memsw.limit_in_bytes": str(bounds.memory_bytes),
        "memory.max": str(bounds.memory_bytes),
        "memory.swap.max": "0",
        "pids.max": str(bounds.processes),
    }
    for folder in folders:
        for name, value in settings.items():
            if (folder / name).exists():
                (folder / name).write_text(value)


def check_limits(limits: Iterable[Limit]) -> None:
    """Raise Refused where a limit is asked for that this kernel can't impose."""
    mounted = trees()
    hosts_limits = list(limits)
    for controller, key, value in (
        ("cpu", "cpus", any(limit.cpus is not None for limit in hosts_limits)),
        ("memory", "memory", any(limit.memory_bytes is not None for limit in hosts_limits)),
        ("pids", "processes", any(limit.processes is not None for limit in hosts_limits)),
    ):
        version_2 = ROOT / "cgroup.controllers"
        available = (
            version_2.read_text().split() if version_2.exists() else [t.name for t in mounted]
        )
        if value and not any(controller in name.split(",") for name in available):
            raise Refused(
                f"this kernel can't limit {controller}", f"remove '{key}' from provider.limits"
            )


def processes(testbed: str, name: str | None = None) -> set[int]:
    """The processes of a group, or of the whole testbed; zombies aside."""
    pids: set[int] = set()
    for tree in _trees_if_any():
        top = tree / TOP / testbed / name if name else tree / TOP / testbed
        for folder, _, _ in os.walk(top):
            with contextlib.suppress(OSError):  # the group may vanish as we look
                pids.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    pids.discard(0)  # processes of another namespace have no number here
    return {pid for pid in pids if not _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return True


def kill(testbed: str, name: str | None = None, wait_s: float = 20.0) -> None:
    """End all processes of a group, or of the whole testbed, and remove the group.

    Raises Failed when a process survives.
    """
    deadline = time.monotonic() + wait_s
    _forbid_more(testbed, name)
    while left := processes(testbed, name):
        if time.monotonic() > deadline:
            raise Failed(
                f"processes {sorted(left)[:5]} of '{testbed}' can't be ended",
                "see what they wait for in /proc/PID/stack, then destroy again",
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    _remove(testbed, name, deadline)


def _forbid_more(testbed: str, name: str | None) -> None:
    """Keep a group's processes from making others faster than they can be ended."""
    for tree in _trees_if_any():
        top = tree / TOP / testbed / name if name else tree / TOP / testbed
        with contextlib.suppress(OSError):
            if (top / "pids.max").exists():
                (top / "pids.max").write_text("0")


def _remove(testbed: str, name: str | None, deadline: float) -> None:
    for tree in _trees_if_any():
        top = tree / TOP / testbed / name if name else tree / TOP / testbed
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # busy until the kernel let the last one go
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise Failed(f"the control group {top} can't be removed", "destroy again")
            if top.exists():
                time.sleep(0.02)
        if name is None:
            with contextlib.suppress(OSError):
                (tree / TOP).rmdir()
    _weigh(testbed)


def testbeds() -> set[str]:
    """Names of the testbeds that have groups; none where there are no groups at all."""
    names: set[str] = set()
    for tree in _trees_if_any():
        if (tree / TOP).is_dir():
            names.update(entry.name for entry in (tree / TOP).iterdir() if entry.is_dir())
    return names


def memory_bytes(testbed: str, name: str) -> int | None:
    """Memory charged to a group, page cache aside; None where the kernel doesn't count it."""
    for tree in _trees_if_any():
        folder = tree / TOP / testbed / name
        for usage, stat, cached in (
            ("memory.usage_in_bytes", "memory.stat", "total_inactive_file"),
            ("memory.current", "memory.stat", "inactive_file"),
        ):
            if (folder / usage).exists():
                used = int((folder / usage).read_text())
                fields = dict(line.split() for line in (folder / stat).read_text().splitlines())
                return max(0, used - int(fields.get(cached, 0)))
    return None


def exists(testbed: str, name: str) -> bool:
    """True while the group is there, with or without processes."""
    return any((tree / TOP / testbed / name).exists() for tree in _trees_if_any())


def bounds(testbed: str, name: str) -> Bounds | None:
    """What a group may use, as the kernel has it; None where it doesn't bound both."""
    memory = _number(testbed, name, "memory.limit_in_bytes", "memory.max")
    count = _number(testbed, name, "pids.max")
    return None if memory is None or count is None else Bounds(memory, count)


def process_count(testbed: str, name: str) -> int | None:
    """How many processes and threads a group has; None where the kernel doesn't count."""
    return _number(testbed, name, "pids.current")


def times_at_bound(testbed: str, name: str) -> dict[str, int]:
    """How often a group was refused more 'processes', and lost some for want of 'memory'."""
    counts = {"processes": 0, "memory": 0}
    for tree in _trees_if_any():
        folder = tree / TOP / testbed / name
        for key, file, field in (
            ("processes", "pids.events", "max"),
            ("memory", "memory.oom_control", "oom_kill"),
            ("memory", "memory.events", "oom_kill"),
        ):
            with contextlib.suppress(OSError, ValueError):
                lines = (folder / file).read_text().splitlines()
                counts[key] = int(dict(line.split() for line in lines).get(field, 0))
    return counts


def _number(testbed: str, name: str, *keys: str) -> int | None:
    for tree in _trees_if_any():
        for key in keys:
            with contextlib.suppress(OSError, ValueError):  # ValueError: 'max'
                return int((tree / TOP / testbed / name / key).read_text())
    return None
