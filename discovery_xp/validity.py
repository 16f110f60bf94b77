"""Whether a run's seconds mean something: how full the machine was while the load ran.

Only where all hosts are on this machine: then what is slow may be so for want of a processor, and
not for what is measured.  A thread looks at /proc/stat again and again; what it saw, and how often
shares of the processor were used up, makes the verdict.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp import store
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.shares import needed_cores, shares_of
from discovery_xp.testbeds.shares import HeldShare

SLICE_S = 0.25
# A machine without so much of its time left is full: what comes has to wait.
SATURATED = 0.95
# More than this, of the slices and of all of the time, and seconds are the machine's own.
MOST_SATURATED = 0.10
MOST_BUSY = 0.90
# Processes that a unit started anew are looked for so often; the kernel counts meanwhile.
KEEP_EVERY_S = 10.0


@dataclass(frozen=True)
class CpuTimes:
    """Where the processors' time went until a moment of a monotonic clock, in ticks."""

    at: float
    idle: int
    stolen: int
    total: int


def parse_stat(text: str, at: float) -> CpuTimes:
    """Read /proc/stat's first line: what waits for a disk is idle, what a hypervisor took is not.

    Raises ValueError for anything else.
    """
    words = text.split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu":
        raise ValueError("that is no /proc/stat")
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    total = user + nice + system + idle + iowait + irq + softirq + steal
    return CpuTimes(at, idle + iowait, steal, total)


def cpu_times() -> CpuTimes:
    """Look at this machine's processors."""
    return parse_stat(Path("/proc/stat").read_text(), time.monotonic())


@dataclass(frozen=True)
class Occupation:
    """How full the machine was: shares of its time, and of the slices that it was looked at in."""

    busy: float = 0.0
    saturated: float = 0.0
    stolen: float = 0.0
    busiest_second: float = 0.0
    slices: int = 0


def occupation(times: Sequence[CpuTimes]) -> Occupation:
    """Return how full the machine was between the first look and the last."""
    slices = [
        (later.at - earlier.at, later.total - earlier.total, later.idle - earlier.idle)
        for earlier, later in itertools.pairwise(times)
        if later.total > earlier.total
    ]
    if not slices:
        return Occupation()
    total = times[-1].total - times[0].total
    return Occupation(
        busy=_share(total - (times[-1].idle - times[0].idle), total),
        # By their length: on a full machine whoever looks comes late.
        saturated=_share(
            sum(s for s, all_, idle in slices if 1 - idle / all_ >= SATURATED),
            sum(s for s, _, _ in slices),
        ),
        stolen=_share(times[-1].stolen - times[0].stolen, total),
        busiest_second=_busiest(times),
        slices=len(slices),
    )


def _busiest(times: Sequence[CpuTimes], length_s: float = 1.0) -> float:
    """Return the busy share of the busiest second, or of all there is where that is shorter."""
    most, first = 0.0, 0
    for last, look in enumerate(times):
        while first + 1 < last and look.at - times[first + 1].at >= length_s:
            first += 1
        total = look.total - times[first].total
        if total and (look.at - times[first].at >= length_s or last == len(times) - 1):
            most = max(most, _share(total - (look.idle - times[first].idle), total))
    return most


def _share(part: float, whole: float) -> float:
    return round(min(1.0, max(0.0, part / whole)), 4) if whole else 0.0


def verdict_of(seen: Occupation) -> str:
    """Return 'busy' where the machine, and not the cloud, decided how long things took."""
    return "busy" if seen.saturated > MOST_SATURATED or seen.busy > MOST_BUSY else "good"


def validity(
    plan: Plan, cores: int, seen: Occupation,
    before: Sequence[HeldShare] | None, after: Sequence[HeldShare] | None,
) -> store.Validity:  # fmt: skip
    """Return what run.json says of a window: `before` and `after` are the shares that were held."""
    used_up = throttled(before or (), after or ())
    most = {is_unit: max((each for each in used_up if bool(each.unit) is is_unit),
                         key=lambda each: each.share, default=None)
            for is_unit in (True, False)}  # fmt: skip
    units: dict[str, float] = {}
    for host in shares_of(plan):
        units |= host.units
    return store.Validity(
        verdict="busy" if verdict_of(seen) == "busy" else "good",
        busy=seen.busy,
        saturated=seen.saturated,
        stolen=seen.stolen,
        busiest_second=seen.busiest_second,
        slices=seen.slices,
        slice_s=SLICE_S,
        cores=cores,
        needed_cores=round(needed_cores(plan), 3),
        unit_cores=units,
        host_cores={share.host: share.cores for share in shares_of(plan)},
        throttled_unit=_described(most[True]),
        throttled_host=_described(most[False]),
    )


@dataclass(frozen=True)
class Throttled:
    """How often a share was used up: the part of the kernel's periods, and how long it stood."""

    name: str
    unit: str
    share: float
    stood_s: float


def throttled(before: Sequence[HeldShare], after: Sequence[HeldShare]) -> list[Throttled]:
    """Return for each share that was held all the time how often it was used up meanwhile.

    The kernel counts periods in which somebody of the group ran.
    """
    first = {(each.host, each.unit): each for each in before}
    result = []
    for each in after:
        earlier = first.get((each.host, each.unit))
        periods = each.periods - earlier.periods if earlier else 0
        if earlier is not None and periods > 0:
            share = _share(each.throttled - earlier.throttled, periods)
            stood_s = max(0.0, each.throttled_s - earlier.throttled_s)
            result.append(Throttled(each.name, each.unit, share, round(stood_s, 3)))
    return result


def _described(most: Throttled | None) -> store.ThrottledShare | None:
    return None if most is None else store.ThrottledShare(most.name, most.share, most.stood_s)


class MachineWatch:
    """Looks at this machine in slices, in a thread of its own, between two moments."""

    def __init__(
        self,
        look: Callable[[], CpuTimes] = cpu_times,
        keep: Callable[[], None] = lambda: None,
        keep_every_s: float = KEEP_EVERY_S,
    ) -> None:
        """`keep` is called now and then meanwhile; what it raises ends nothing."""
        self.times: list[CpuTimes] = []
        self.failures: list[str] = []
        self._look, self._keep, self._keep_every_s = look, keep, keep_every_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to look."""
        self.times.append(self._look())
        self._thread = threading.Thread(target=self._watch, name="machine watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look a last time; further calls do nothing."""
        if self._thread is not None and not self._over.is_set():
            self._over.set()
            self._thread.join()
            self.times.append(self._look())

    def _watch(self) -> None:
        kept_at = time.monotonic()
        while not self._over.wait(SLICE_S):
            self.times.append(self._look())
            if time.monotonic() - kept_at >= self._keep_every_s:
                kept_at = time.monotonic()
                try:
                    self._keep()
                except Exception as error:  # the load goes on; it is a note of the run
                    self.failures.append(f"{type(error).__name__}: {error}")
