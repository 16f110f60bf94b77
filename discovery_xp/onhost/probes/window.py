"""A window of the probes on this host: begun, ended, and collected.

`start` keeps what all counters are at, so does `stop`, and `collect` says how far they came.
`args` are the options of Ansible's module `probes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from .. import catalogue
from ..process import Failure
from ..wire import counters as wire
from . import messages, places, records, traffic, usage
from .series import control as series

Args = Mapping[str, Any]

# Counters at the window's two ends are kept under these names.
START, STOP = "start", "stop"


def start(args: Args) -> dict[str, Any]:
    """Begin the window, which may when this is through; raises Failure where it can't."""

    def give_up(failure: Failure) -> None:
        raise failure

    if not os.path.isdir(places.RECORDS):
        raise Failure("the probes aren't laid down here")
    if "traffic" in args["wanted"] and not traffic.has_table():
        traffic.make_table()  # a host that was restarted has lost it
    records.forget()
    places.forget(STOP)
    series.stop()
    series.forget()
    places.save(START, read_counters(args, give_up))
    if places.SERIES in args["wanted"]:
        series.start(args["units"], args["every_s"], args["longest_s"])
    return {}


def stop(args: Args) -> dict[str, Any]:
    """End the window; returns `problems`, what couldn't be read."""
    series.stop()
    problems: list[str] = []
    now = read_counters(args, lambda failure: problems.append(str(failure)))
    if os.path.isdir(places.RECORDS):
        places.save(STOP, {**now, "problems": problems})
    return {"problems": problems}


def collect(args: Args) -> dict[str, Any]:
    """Return what there is of the window, and `problems`: what isn't."""
    now, before = places.saved(STOP), places.saved(START)
    problems: list[str] = list(now.get("problems", ()))
    if not now:  # nobody ended it: it ends now
        now = read_counters(args, lambda failure: problems.append(str(failure)))
    collected: dict[str, Any] = {"problems": problems}
    for name, difference in _DIFFERENCES.items():
        if name in now and name not in before:
            problems.append(f"{name} wasn't read here when the window began")
        elif name in now:
            collected[name] = difference(before[name], now[name])
    if any(unit["probes"] for unit in args["units"].values()):
        collected["records"] = records.packed(args["since"], args["until"])
    if places.SERIES in args["wanted"]:
        series.stop()  # where nobody ended the window
        try:
            collected[places.SERIES] = series.packed()
        except Failure as failure:
            problems.append(str(failure))
        problems += series.problems()
    return collected


def read_counters(args: Args, complain: Callable[[Failure], None]) -> dict[str, Any]:
    """Return all that is read from outside the services; the quick ones first."""
    readers: dict[str, Callable[[], Any]] = {
        "usage": lambda: usage.now(args["units"]),
        "traffic": traffic.now,
        "messages": messages.now,
    }
    counters: dict[str, Any] = {}
    for name, reader in readers.items():
        if name not in args["wanted"] or (name == "messages" and not _has_bus(args)):
            continue
        try:
            counters[name] = reader()
        except Failure as failure:
            complain(failure)
    return counters


def _has_bus(args: Args) -> bool:
    """Tell whether this is the host of the message bus."""
    return any(
        catalogue.UNITS[unit].component == "rabbitmq"
        for unit in args["units"]
        if unit in catalogue.UNITS
    )


def differences(
    before: Mapping[str, list[int]], now: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """Return how far each counter came; one that began anew, or is new, came all its way."""
    came = {}
    for key, values in now.items():
        old = before.get(key, [0] * len(values))
        if values[0] < old[0]:
            old = [0] * len(values)
        if values != old:
            came[key] = [max(0, new - was) for new, was in zip(values, old, strict=True)]
    return came


def used(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return CPU over the window and memory at both ends; a restarted unit began at zero."""
    result = {}
    for name, at_end in now.items():
        at_start = before.get(name, {"main": "", "cpu_s": 0.0, "memory": 0})
        began = at_start["cpu_s"] if at_start["main"] == at_end["main"] else 0.0
        result[name] = wire.usage(
            cpu_s=round(max(0.0, at_end["cpu_s"] - began), 3),
            memory_bytes=at_end["memory"],
            memory_start_bytes=at_start["memory"],
        )
    return result


_DIFFERENCES: Mapping[str, Callable[[Any, Any], dict[str, Any]]] = {
    "usage": used,
    "traffic": differences,
    "messages": differences,
}
