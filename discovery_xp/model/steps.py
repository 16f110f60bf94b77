"""A boot as steps: what each service does for a VM, and whom it asks.

An `Activity` is the work that one service does for a request, a message or a thread; its steps
follow each other.  Processor time is in milliseconds of one core of the machine that was traced,
round trips are counts.  All of it are plain values that survive a trip through JSON.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from discovery_xp.errors import Refused

# Where a round trip to a database goes: to the store of the databases that all sites share, or
# to that of the VM's cell.
ABOVE, CELL = STORES = ("above", "cell")
# How work is handed on: an HTTP request, an RPC that is waited for, a message that isn't, a thread
# of the same process.
HTTP, CALL, CAST, THREAD = WAYS = ("http", "call", "cast", "thread")
# What one VM at a time has on a compute: Nova's lock of the resource tracker.
CLAIM = "claim"

_COUNTS = ("selects", "commits", "cached")


@dataclass(frozen=True)
class Work:
    """Time of the processor and round trips, on one thread.

    `trips` are by store; `selects` those of them that read, `commits` those that end a transaction
    that wrote; `cached` are round trips to memcached.
    """

    cpu_ms: float = 0.0
    trips: Mapping[str, float] = field(default_factory=dict)
    selects: float = 0.0
    commits: float = 0.0
    cached: float = 0.0


@dataclass(frozen=True)
class Lock:
    """The lock `name` of the process is taken, or given back."""

    name: str
    takes: bool


@dataclass(frozen=True)
class Send:
    """Work that another service or thread is asked for.

    `way` is one of WAYS.  `beside` is true of one that goes on beside the step before, and
    `for_each_vm` of what is asked once for each other VM that the scheduler gave the same compute:
    `cpu_ms` is what asking takes each time, which is in the work before other steps.
    """

    way: str
    activity: Activity
    beside: bool = False
    for_each_vm: bool = False
    cpu_ms: float = 0.0


Step = Work | Lock | Send


@dataclass(frozen=True)
class Activity:
    """What `service` does under a `name`, step by step."""

    service: str
    name: str
    steps: tuple[Step, ...] = ()

    def walk(self) -> Iterator[Activity]:
        """Yield it and all that is asked for below, in order."""
        yield self
        for step in self.steps:
            if isinstance(step, Send):
                yield from step.activity.walk()

    def totals(self, others: float = 0.0) -> Totals:
        """Return what all of it comes to, with so many other VMs on the compute."""
        totals = Totals()
        self._add(totals, 1.0, others)
        return totals

    def _add(self, totals: Totals, times: float, others: float) -> None:
        for step in self.steps:
            if isinstance(step, Work):
                totals.cpu_ms[self.service] += times * step.cpu_ms
                totals.round_trips += times * sum(step.trips.values())
            elif isinstance(step, Send):
                asked = times * (others if step.for_each_vm else 1)
                totals.cpu_ms[self.service] += asked * step.cpu_ms
                totals.messages += asked * {CALL: 2, CAST: 1}.get(step.way, 0)
                step.activity._add(totals, asked, others)


@dataclass
class Totals:
    """Sums over steps: `cpu_ms` is by service."""

    cpu_ms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    round_trips: float = 0.0
    messages: float = 0.0


def to_json(activity: Activity) -> dict[str, Any]:
    """Return plain values; `from_json` is the way back."""
    return {
        "service": activity.service,
        "name": activity.name,
        "steps": [_step_to_json(step) for step in activity.steps],
    }


def _step_to_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Lock):
        return {"lock": step.name, "takes": step.takes}
    if isinstance(step, Work):
        values: dict[str, Any] = {"cpu_ms": round(step.cpu_ms, 2)}
        if step.trips:
            values["trips"] = {store: round(count, 2) for store, count in step.trips.items()}
        for name in _COUNTS:
            if getattr(step, name):
                values[name] = round(getattr(step, name), 2)
        return values
    values = {"way": step.way, "activity": to_json(step.activity)}
    if step.beside:
        values["beside"] = True
    if step.for_each_vm:
        values["for_each_vm"] = True
        values["cpu_ms"] = round(step.cpu_ms, 2)
    return values


def from_json(values: Mapping[str, Any]) -> Activity:
    """Return the activity of plain values; raises Refused where they are none."""
    try:
        return _activity(values)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Refused(
            f"steps that can't be read: {type(error).__name__}: {error}",
            "write the calibration anew: 'benchmarks/prediction.py calibrate'",
        ) from None


def _activity(values: Mapping[str, Any]) -> Activity:
    steps = tuple(_step(each) for each in values["steps"])
    return Activity(str(values["service"]), str(values["name"]), steps)


def _step(values: Mapping[str, Any]) -> Step:
    if "lock" in values:
        return Lock(str(values["lock"]), bool(values["takes"]))
    if "way" not in values:
        trips = {str(store): float(count) for store, count in values.get("trips", {}).items()}
        if not set(trips) <= set(STORES):
            raise ValueError(f"no stores: {', '.join(sorted(trips))}")
        counts = [float(values.get(name, 0)) for name in _COUNTS]
        return Work(float(values["cpu_ms"]), trips, *counts)
    if values["way"] not in WAYS:
        raise ValueError(f"no way: {values['way']}")
    return Send(
        str(values["way"]), _activity(values["activity"]), bool(values.get("beside", False)),
        bool(values.get("for_each_vm", False)), float(values.get("cpu_ms", 0)),
    )  # fmt: skip
