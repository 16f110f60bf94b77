"""Counters of a window, read from outside the services: traffic, messages, CPU and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import checks

# The broker's own counters, beside those of its queues: they know of queues that are gone, too.
WHOLE_BROKER = ""
MESSAGES = ("published", "delivered", "acknowledged")

_USAGE: Mapping[str, checks.Check] = {
    "cpu_s": checks.number,
    "memory_bytes": checks.whole,
    "memory_start_bytes": checks.whole,
}


def usage(cpu_s: float, memory_bytes: int, memory_start_bytes: int) -> dict[str, Any]:
    """Return what a unit used: CPU over the window, memory at its end and its start."""
    return {
        "cpu_s": cpu_s,
        "memory_bytes": memory_bytes,
        "memory_start_bytes": memory_start_bytes,
    }


def parse_usage(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each unit and what it used; raises Unfit for anything else."""
    for unit, used in checks.mapping(value).items():
        values = checks.mapping(used)
        missing = [key for key in _USAGE if key not in values]
        if missing:
            raise checks.Unfit(f"usage lacks '{missing[0]}'")
        yield checks.name(unit), {key: check(values[key]) for key, check in _USAGE.items()}


def traffic_key(address: str, port: int) -> str:
    """Return what traffic to an address by a service's port is counted under."""
    return f"{address} {port}"


def parse_traffic(value: object) -> Iterator[tuple[str, int, int, int]]:
    """Yield address, port, bytes and packets; raises Unfit for anything else."""
    for key, counted in checks.mapping(value).items():
        sent, packets = _counts(counted, 2)
        address, _, words = key.partition(" ")
        port = checks.whole_of(words)
        yield checks.name(address), port, sent, packets


def parse_messages(value: object) -> dict[str, list[int]]:
    """Return the counts by queue, as MESSAGES names them; raises Unfit for anything else."""
    return {
        checks.name(queue): _counts(counts, len(MESSAGES))
        for queue, counts in checks.mapping(value).items()
    }


def _counts(value: object, length: int) -> list[int]:
    numbers = [checks.whole(each) for each in checks.listed(value)]
    if len(numbers) != length:
        raise checks.Unfit(f"{checks.shown(value)} isn't {length} counts")
    return numbers
