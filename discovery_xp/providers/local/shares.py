"""Shares of the processor of hosts and their units, held by the kernel's CFS bandwidth control.

With control groups version 1 hosts see that tree read-only, so it is done from this machine: below
a host's own group there is one for all units of the cloud on it, with the host's share, and in that
one for each unit, where the unit's processes are moved to.  Those that a unit starts anew come up
outside of it: `impose` has to be called again.  What else runs on a host, a load generator among
it, stays outside and isn't capped.

With version 2 the host's systemd is told, for each unit and for the slice of all: it keeps the
shares over restarts.  A load generator has a slice of its own.

Whatever way, all of it ends with the host's group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from discovery_xp.errors import Refused
from discovery_xp.planning.shares import HostShare, quota_and_period_us
from discovery_xp.providers.local import cgroups
from discovery_xp.providers.local.cgroups import ROOT, TOP
from discovery_xp.testbeds.shares import HeldShare

# The group of all units of a host, with control groups version 1.
GROUP = "services"
# The unit of systemd in which all services are, with version 2.
SLICE = "system.slice"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
# Runs a line of sh on each of some hosts.
RunEach = Callable[[Mapping[str, str]], object]


def is_version_2() -> bool:
    """Tell whether this machine has one tree for all controllers."""
    return (ROOT / "cgroup.controllers").exists()


def check() -> None:
    """Raise Refused where this kernel can't hold shares of the processor."""
    if is_version_2():
        if "cpu" in (ROOT / "cgroup.controllers").read_text().split():
            return
    elif (tree := _cpu_tree()) is not None and _holds(tree):
        return
    raise Refused(
        "this kernel can't hold shares of the processor (no controller 'cpu', or one without CFS "
        "bandwidth control)",
        "leave time_scale out",
    )


def _cpu_tree() -> Path | None:
    """Return version 1's tree of the processor, None where there is none."""
    return next((tree for tree in cgroups.trees() if "cpu" in tree.name.split(",")), None)


def _holds(tree: Path) -> bool:
    """Tell whether a group of the tree has a quota; the file may be missing at the root."""
    folder = tree / f"{TOP}-{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.mkdir()
        try:
            return (folder / QUOTA).exists()
        finally:
            folder.rmdir()
    return False


def impose(
    testbed: str, groups: Mapping[str, str], shares: Sequence[HostShare], time_scale: float,
    run_each: RunEach,
) -> None:  # fmt: skip
    """Hold these shares; `groups` is the name of each host's control group."""
    if is_version_2():
        run_each({share.host: set_command(share, time_scale) for share in shares})
        return
    tree = _cpu_tree()
    if tree is None:
        check()
        return
    for share in shares:
        folder = tree / TOP / testbed / groups[share.host] / GROUP
        _bound(folder, share.cores, time_scale)
        # Beside what else runs on the host it weighs as much as its units.
        (folder / "cpu.shares").write_text(str(1024 * max(1, len(share.units))))
        running = _processes_of(testbed, groups[share.host], share.units)
        for unit, cores in share.units.items():
            _bound(folder / unit, cores, time_scale)
            for pid in running[unit] - _processes(folder / unit):
                with contextlib.suppress(OSError):  # it has ended
                    (folder / unit / "cgroup.procs").write_text(str(pid))


def _bound(folder: Path, cores: float, time_scale: float) -> None:
    """Have a group with this bound; nothing is written where it has it."""
    quota_us, period_us = quota_and_period_us(cores, time_scale)
    folder.mkdir(exist_ok=True)
    if _numbers(folder, QUOTA, PERIOD) == [quota_us, period_us]:
        return
    # One after the other each pair has to be lawful: without a quota any period is.
    for name, value in ((QUOTA, -1), (PERIOD, period_us), (QUOTA, quota_us)):
        (folder / name).write_text(str(value))


def lift(
    testbed: str, groups: Mapping[str, str], shares: Sequence[HostShare], run_each: RunEach
) -> None:
    """Let hosts and units have what there is; the groups stay, or go with the host's."""
    if is_version_2():
        run_each({share.host: unset_command(share) for share in shares})
        return
    tree = _cpu_tree()
    for share in shares if tree is not None else ():
        folder = tree / TOP / testbed / groups[share.host] / GROUP  # type: ignore[operator]
        for each in (folder, *(folder / unit for unit in share.units)):
            with contextlib.suppress(FileNotFoundError):
                (each / QUOTA).write_text("-1")


def held(
    testbed: str, groups: Mapping[str, str], shares: Sequence[HostShare], time_scale: float
) -> list[HeldShare]:
    """Read back what is held of these shares, and how often it was used up."""
    read = _held_2 if is_version_2() else _held_1
    return [each for share in shares
            for each in read(testbed, groups[share.host], share, time_scale)]  # fmt: skip


def _held_1(testbed: str, group: str, share: HostShare, time_scale: float) -> Iterator[HeldShare]:
    tree = _cpu_tree()
    if tree is None:
        return
    running = _processes_of(testbed, group, share.units)
    for unit in ("", *share.units):
        folder = tree / TOP / testbed / group / GROUP / unit
        numbers = _numbers(folder, QUOTA, PERIOD)
        if not numbers or numbers[0] <= 0:
            continue
        counts = _counts(folder)
        yield HeldShare(
            share.host, unit, numbers[0] / numbers[1] * time_scale,
            strays=len(running[unit] - _processes(folder)) if unit else 0,
            periods=counts.get("nr_periods", 0),
            throttled=counts.get("nr_throttled", 0),
            throttled_s=counts.get("throttled_time", 0) / 1e9,
        )  # fmt: skip


def _held_2(testbed: str, group: str, share: HostShare, time_scale: float) -> Iterator[HeldShare]:
    found = dict(_groups_below(ROOT / TOP / testbed / group))
    for unit in ("", *share.units):
        folder = found.get(f"{unit}.service" if unit else SLICE)
        if folder is None:
            continue
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            cores = int(quota) / int(period) * time_scale
        except (OSError, ValueError):  # without a bound it is called 'max'
            continue
        counts = _counts(folder)
        yield HeldShare(
            share.host, unit, cores,
            periods=counts.get("nr_periods", 0),
            throttled=counts.get("nr_throttled", 0),
            throttled_s=counts.get("throttled_usec", 0) / 1e6,
        )  # fmt: skip


def _processes_of(testbed: str, group: str, units: Iterable[str]) -> dict[str, set[int]]:
    """Return the processes of each unit of a host, by systemd's own tree."""
    found = dict(_groups_below(ROOT / "systemd" / TOP / testbed / group))
    pids: dict[str, set[int]] = {}
    for unit in units:
        own = found.get(f"{unit}.service")
        inside = [] if own is None else [own, *(each for each in own.rglob("*") if each.is_dir())]
        pids[unit] = {pid for folder in inside for pid in _processes(folder)}
    return pids


def _groups_below(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield systemd's slices and services, by name: they may be below a group of nspawn's."""
    pending = [top]
    while pending:
        folder = pending.pop()
        inside = []
        with contextlib.suppress(OSError):  # it may vanish as we look
            inside = [each for each in folder.iterdir() if each.is_dir()]
        for each in inside:
            if each.name.endswith((".service", ".slice")):
                yield each.name, each
            if not each.name.endswith((".service", ".scope", ".mount", ".socket")):
                pending.append(each)


def _processes(folder: Path) -> set[int]:
    with contextlib.suppress(OSError):
        return {int(pid) for pid in (folder / "cgroup.procs").read_text().split()} - {0}
    return set()


def _numbers(folder: Path, *names: str) -> list[int]:
    """Return what files of a group hold; nothing where one isn't there."""
    with contextlib.suppress(OSError, ValueError):
        return [int((folder / name).read_text()) for name in names]
    return []


def _counts(folder: Path) -> dict[str, int]:
    """Return what the kernel counts of a group's periods."""
    with contextlib.suppress(OSError, ValueError):
        lines = (folder / "cpu.stat").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}
    return {}


# ---------------------------------------------------------------- version 2: the host's systemd


def set_command(share: HostShare, time_scale: float) -> str:
    """Return a line of sh that has a host's systemd hold its shares until the host ends."""
    lines = []
    for unit, cores in ((SLICE, share.cores), *share.units.items()):
        quota_us, period_us = quota_and_period_us(cores, time_scale)
        lines.append(
            f"systemctl set-property --runtime {_unit(unit)} "
            f"CPUQuota={100 * quota_us / period_us:.2f}% CPUQuotaPeriodSec={period_us}us"
        )
    return " && ".join(lines)


def unset_command(share: HostShare) -> str:
    """Return a line of sh that has a host's systemd hold nothing; it may not know the units yet."""
    lines = [
        f"systemctl set-property --runtime {_unit(unit)} CPUQuota= 2>/dev/null"
        for unit in (SLICE, *share.units)
    ]
    return "; ".join([*lines, "true"])


def _unit(name: str) -> str:
    return name if name == SLICE else f"{name}.service"
