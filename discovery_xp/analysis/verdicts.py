"""What a run says of its own seconds, in words: the machine's verdict, and the time scale."""

from __future__ import annotations

from discovery_xp.analysis.measurements import Measurements
from discovery_xp.store import RunRecord


def verdict(record: RunRecord) -> str:
    """Return the verdict on the run's seconds, and what it is from."""
    found = record.validity
    if found is None:
        return ""
    words = (
        f"{found.verdict}: the machine was busy {found.busy:.0%} of the time and full "
        f"{found.saturated:.0%} of it, {found.busiest_second:.0%} busy in its busiest second"
    )
    if found.stolen >= 0.005:
        words += f"; its hypervisor took {found.stolen:.0%}"
    for most in (found.throttled_unit, found.throttled_host):
        if most is not None:
            words += f"; {most.name} used its share up in {most.share:.0%} of its periods"
            words += f" and stood still for {most.stood_s:.1f} s"
    return words


def time_scale(run: Measurements) -> str:
    """Return what the scale was and what was capped; empty where time was as it is."""
    if run.time_scale == 1:
        return ""
    words = (
        f"{run.time_scale:g}: so many seconds of a clock stood for one. All durations below are "
        "divided by it, but those that say 'by a clock'"
    )
    found = run.record.validity
    if found is None or not found.unit_cores:
        return words
    by_cores: dict[float, list[str]] = {}
    for unit, cores in found.unit_cores.items():
        by_cores.setdefault(cores, []).append(unit)
    held = "; ".join(f"{_cores(cores)} for {', '.join(names)}"
                     for cores, names in sorted(by_cores.items()))  # fmt: skip
    hosts = sorted({*found.host_cores.values()})
    return (
        f"{words}. Held, before the scale: {held}; at most {', '.join(map(_cores, hosts))} for "
        f"all of a host. If all hosts used all of theirs at once, {found.needed_cores:g} of the "
        f"machine's {found.cores} cores would do"
    )


def _cores(cores: float) -> str:
    return f"{cores:g} core{'' if cores == 1 else 's'}"
