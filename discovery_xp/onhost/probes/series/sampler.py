"""The process that samples a host: `python3 -S -m discovery_xp.onhost.probes.series.sampler SPEC`.

SPEC is a file of JSON, see `Spec`; samples are appended to a file as lines of `wire.series`.  It
ends when it is told to, after one more sample, or when its time or its file's room is used up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ... import catalogue
from ...wire import series as wire
from . import servers, sockets, units

# Of the file of samples; what would go beyond ends the sampling.
FILE_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Spec:
    """What is sampled, and for how long at most.

    `groups` is the control group of each unit, `redis` the configuration of each Redis unit;
    `path` is the file that is written, which mustn't be there yet.
    """

    every_s: float
    longest_s: float
    groups: Mapping[str, str]
    redis: Mapping[str, str]
    path: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Spec:
        """Return the spec as `dataclasses.asdict` gave it."""
        return cls(**values)


class Source(Protocol):
    """What has something to sample."""

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield what is read now: subject, metric, value."""


class Load:
    """The machine's load average."""

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield what is read now: subject, metric, value."""
        yield wire.HOST, "load_1min", float(units.read("/proc/loadavg").split()[0])


class OwnCost:
    """What the sampling itself takes, the clients that it starts included."""

    def __init__(self, there: units.Mounts) -> None:
        group = units.groups_of(_read("/proc/self/cgroup")).get("", "")
        # Of a process outside of its own unit the group is everybody's.
        is_own = there.unified and group.endswith(".service")
        self.path = f"{there.unified}{group}/cpu.stat" if is_own else ""

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield what is read now: subject, metric, value."""
        stat = units.cpu_stat(units.read(self.path)) if self.path else {}
        yield wire.SAMPLER, "cpu_s", stat.get("cpu_s", time.process_time())


class Growing:
    """Counters that never go back: what began anew, as a server that was restarted, is added."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], float] = {}
        self.before: dict[tuple[str, str], float] = {}

    def value(self, subject: str, metric: str, value: float) -> float:
        """Return a value as it is written."""
        if not wire.METRICS[metric].is_counter:
            return value
        key = subject, metric
        last = self.last.get(key, 0.0)
        if value < last:
            self.before[key] = self.before.get(key, 0.0) + last
        self.last[key] = value
        return value + self.before.get(key, 0.0)


def sources(spec: Spec) -> list[Source]:
    """Return what there is to sample on this host, by its units."""
    mounts = units.mounts(_read("/proc/self/mountinfo"))
    there: list[Source] = [units.Units(spec.groups, mounts)]
    ports: dict[int, str] = {}
    clients: list[Source] = []
    for unit in spec.groups:
        known = catalogue.UNITS.get(unit)
        if known is None:
            continue
        if known.port is not None:
            ports[known.port] = catalogue.TRAFFIC[known.port]
        if known.component == "mariadb":
            clients.append(servers.MariaDB(unit))
        elif known.component == "rabbitmq":
            clients.append(servers.RabbitMQ(spec.every_s, spec.longest_s))
        elif known.component == "redis" and unit in spec.redis:
            clients.append(servers.Redis(unit, spec.redis[unit]))
    return [*there, sockets.Connections(ports), Load(), *clients, OwnCost(mounts)]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


class Sampler:
    """Takes samples of sources, and writes them to a descriptor."""

    def __init__(self, there: Sequence[Source], descriptor: int) -> None:
        self.there = there
        self.descriptor = descriptor
        self.growing = Growing()
        self.problems: dict[str, str] = {}
        self.written = 0

    def sample(self, at: float) -> bool:
        """Take one; returns whether there was room for it.

        A source that can't be read is left out, and noted once in the file.
        """
        lines = []
        for source in self.there:
            try:
                for subject, metric, value in source.readings():
                    value = self.growing.value(subject, metric, value)
                    lines.append(wire.line(at, subject, metric, value))
            except (OSError, ValueError, KeyError, IndexError) as error:
                self.problems.setdefault(type(source).__name__, str(error)[:200])
        data = "".join(lines).encode()
        if self.written + len(data) > FILE_LIMIT:
            return False
        os.write(self.descriptor, data)
        self.written += len(data)
        return True

    def run(self, every_s: float, longest_s: float, over: threading.Event) -> None:
        """Sample until it is over, and once more then; `longest_s` bounds it."""
        started = time.monotonic()
        number = 0
        while not over.is_set() and number * every_s <= longest_s:
            if not self.sample(time.time()):
                return
            number += 1
            # By the clock: what a sample takes doesn't add to the interval.
            over.wait(max(0.0, started + number * every_s - time.monotonic()))
        self.sample(time.time())


def main(arguments: Sequence[str]) -> None:
    """Sample what the spec names."""
    spec = Spec.from_json(json.loads(_read(arguments[0])))
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND
    descriptor = os.open(spec.path, flags, 0o600)
    there = sources(spec)
    sampler = Sampler(there, descriptor)
    try:
        sampler.run(spec.every_s, spec.longest_s, over)
    finally:
        for source in there:
            stop = getattr(source, "stop", None)
            if stop is not None:
                stop()
        if sampler.problems:
            with open(f"{spec.path}.problems", "w", encoding="utf-8") as file:
                file.writelines(f"{name}: {words}\n" for name, words in sampler.problems.items())


if __name__ == "__main__":
    main(sys.argv[1:])
