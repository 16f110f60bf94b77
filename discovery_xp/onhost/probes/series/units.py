"""CPU time, memory and throttling of units, from their control groups.

systemd gives each unit a group in version 2's tree or in one of its own, in which CPU time is
counted whatever controllers there are.  A limit of CPU time is in the group that a unit's
processes have of the controller `cpu`, which may be another tree's; where that is the host's
own, the host is throttled as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...wire.series import HOST

ROOT = "/sys/fs/cgroup"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Reading = tuple[str, str, float]


@dataclass
class Mounts:
    """Where the trees of control groups are mounted: version 2's, and version 1's by controller."""

    unified: str = ""
    controllers: dict[str, str] = field(default_factory=dict)


def mounts(mountinfo: str) -> Mounts:
    """Return where the trees are; `mountinfo` is the text of /proc/self/mountinfo."""
    there = Mounts()
    for line in mountinfo.splitlines():
        fields, _, source = line.partition(" - ")
        kind, *rest = source.split()
        place = fields.split()[4]
        if kind == "cgroup2":
            there.unified = place
        elif kind == "cgroup" and rest:
            for option in rest[-1].split(","):
                there.controllers.setdefault(option, place)
    return there


def groups_of(text: str) -> dict[str, str]:
    """Return a process's group by controller, "" for version 2, from its /proc/PID/cgroup."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def cpu_stat(text: str) -> dict[str, float]:
    """Return what a file cpu.stat says, times in seconds, by the metrics' names.

    Version 1 counts throttled time in nanoseconds, version 2 in microseconds, and CPU time only
    there.
    """
    numbers = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        numbers[key] = float(value) if value.isdigit() else 0.0
    found = {}
    if "usage_usec" in numbers:
        found["cpu_s"] = numbers["usage_usec"] / 1e6
    if "nr_periods" in numbers:
        found["cpu_periods"] = numbers["nr_periods"]
        found["throttled_periods"] = numbers.get("nr_throttled", 0.0)
        found["throttled_s"] = (
            numbers["throttled_usec"] / 1e6
            if "throttled_usec" in numbers
            else numbers.get("throttled_time", 0.0) / 1e9
        )
    return found


def read(path: str) -> str:
    """Return a small file of the kernel's, without what Python's text files cost."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    finally:
        os.close(descriptor)


class Units:
    """The units of a host; `groups` is the control group of each, as systemd names it."""

    def __init__(self, groups: Mapping[str, str], there: Mounts) -> None:
        self.there = there
        self.groups = {unit: group for unit, group in groups.items() if group}
        self.trees = [path for path in (there.unified, there.controllers.get("name=systemd", ""))
                      if path]  # fmt: skip
        # By unit, the cpu.stat of its limit; the host's own is under HOST.
        self.limits: dict[str, str] = {}
        self._processes: dict[str, list[str]] = {}

    def readings(self) -> Iterator[Reading]:
        """Yield what is read now: subject, metric, value."""
        for unit, group in self.groups.items():
            pids = self._pids(group)
            if pids != self._processes.get(unit):  # the first time, or it was restarted
                self._processes[unit] = pids
                self._find_limit(unit, pids)
            cpu_s = self._cpu_s(group, pids)
            if cpu_s is not None:
                yield unit, "cpu_s", cpu_s
            yield unit, "memory_bytes", float(sum(resident(pid) for pid in pids))
        for subject, path in self.limits.items():
            try:
                stat = cpu_stat(read(path))
            except OSError:
                continue
            stat.pop("cpu_s", None)
            # Nothing is counted where there is no limit.
            if stat.get("cpu_periods"):
                for metric, value in stat.items():
                    yield subject, metric, value

    def _pids(self, group: str) -> list[str]:
        for tree in self.trees:
            try:
                return read(f"{tree}{group}/cgroup.procs").split()
            except OSError:
                continue
        return []

    def _cpu_s(self, group: str, pids: list[str]) -> float | None:
        if self.there.unified:
            try:
                stat = cpu_stat(read(f"{self.there.unified}{group}/cpu.stat"))
                if "cpu_s" in stat:
                    return stat["cpu_s"]
            except OSError:
                pass
        return sum(cpu_of(pid) for pid in pids) if pids else None

    def _find_limit(self, unit: str, pids: list[str]) -> None:
        """Note where the unit's limit of CPU time is counted."""
        self.limits.pop(unit, None)
        if not pids:
            return
        try:
            groups = groups_of(read(f"/proc/{pids[0]}/cgroup"))
        except OSError:
            return
        if "cpu" in groups and "cpu" in self.there.controllers:
            tree, group = self.there.controllers["cpu"], groups["cpu"]
        else:
            tree, group = self.there.unified, groups.get("", "/")
        if not tree:
            return
        subject = HOST if group == "/" else unit
        self.limits[subject] = f"{tree}{group.rstrip('/')}/cpu.stat"


def cpu_of(pid: str) -> float:
    """Return CPU seconds of a process, its children that have ended included; 0 if it is gone."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) * TICK_S
    except (OSError, ValueError, IndexError):
        return 0.0


def resident(pid: str) -> int:
    """Return a process's resident memory in bytes; 0 if it is gone."""
    try:
        return int(read(f"/proc/{pid}/statm").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0
