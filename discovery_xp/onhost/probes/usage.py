"""CPU and memory of a host's units, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from .. import systemd

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def processes_of(groups: Mapping[str, str]) -> dict[str, list[int]]:
    """Return process ids by unit, found by the units' control groups as the processes name them.

    It reads the same under either version of control groups, wherever they are mounted.
    """
    pids: dict[str, list[int]] = {name: [] for name in groups}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cgroup", encoding="utf-8") as file:
                paths = {line.rstrip("\n").split(":", 2)[2] for line in file}
        except (OSError, IndexError):
            continue
        for name, group in groups.items():
            if group and any(path == group or path.startswith(f"{group}/") for path in paths):
                pids[name].append(int(entry))
    return pids


def cpu_of(pid: int) -> float:
    """Return CPU seconds of a process, its children that have ended included."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) * TICK_S


def memory_of(pid: int) -> int:
    """Return its proportional share of memory in bytes: a page of n processes counts 1/n."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def now(units: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return CPU seconds of each unit since it was started, its memory, and its main process."""
    states = systemd.show(units)
    groups = {name: state["ControlGroup"] for name, state in states.items()}
    used = {}
    for name, pids in processes_of(groups).items():
        cpu, memory = 0.0, 0
        for pid in pids:
            try:
                cpu += cpu_of(pid)
                memory += memory_of(pid)
            except (OSError, ValueError, IndexError):  # it has ended meanwhile
                continue
        used[name] = {"main": states[name]["MainPID"], "cpu_s": round(cpu, 3), "memory": memory}
    return used
