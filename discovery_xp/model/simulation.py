"""A load on a cloud, event by event: processes, cores, threads, locks, links.

Time is in seconds of the cloud, which a time scale stretches on the machine.  A process of Python
runs one thread at a time; waiting for the processor is first come, first served.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from discovery_xp.model.calibration import IDLE_CORES, Calibration
from discovery_xp.model.cloud import Cloud
from discovery_xp.model.machines import Machines
from discovery_xp.model.queues import Places
from discovery_xp.model.steps import (
    ABOVE,
    CALL,
    CAST,
    HTTP,
    THREAD,
    Activity,
    Lock,
    Send,
    Work,
)
from discovery_xp.model.tracing import BUILD

# Threads that take requests and messages in one process, as the services are configured: those of
# gunicorn (`api_threads`), oslo.messaging's, and builds that a compute has under way at a time.
API_THREADS = 16
RPC_THREADS = 64
BUILDS = 10
# Between hosts of a site.
LOCAL_RTT_S = 0.0003

# From here on whoever is so busy is what a load waits for.
BUSY_AT = 0.85

# What a boot's time goes to.
PROCESSOR, QUEUE, THREADS, BUILD_SLOT, CLAIM, STORE, NETWORK = WAITS = (
    "on the processor", "waiting for a processor", "waiting for a thread",
    "waiting for a build's slot", "waiting for the compute's claim", "at the stores",
    "on the network",
)  # fmt: skip

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Load:
    """What is asked for: so many VMs, all at once or so many at a time."""

    vms: int
    concurrency: int | None = None
    poll_s: float = 1.0


@dataclass
class Outcome:
    """What one simulated run came to.

    Counts are of all VMs.  `waits` are seconds of all boots by what they went to; `busy_s` is by
    process (host and service), in seconds of a core.
    """

    boots_s: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    round_trips: float = 0.0
    crossings: float = 0.0
    cpu_s: float = 0.0
    waits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    busy_s: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class _Process:
    """A service on a host: `running` is its interpreter's lock, or its cores."""

    host: str
    service: str
    site: str
    running: Places
    threads: Places
    builds: Places


@dataclass
class _Vm:
    calibration: Calibration
    api: str
    compute: str
    claims: Places
    done: simpy.Event
    started: float = 0.0


def simulate(
    cloud: Cloud,
    load: Load,
    machines: Machines,
    calibrations: Sequence[Calibration],
    seed: int = 1,
) -> Outcome:
    """Return what a load takes; each boot has the steps of one of the calibrations, drawn."""
    return _Run(cloud, load, machines, calibrations, seed).outcome()


class _Run:
    def __init__(
        self,
        cloud: Cloud,
        load: Load,
        machines: Machines,
        calibrations: Sequence[Calibration],
        seed: int,
    ) -> None:
        self._cloud, self._load, self._machines = cloud, load, machines
        self._random = random.Random(seed)
        self._env = simpy.Environment()
        self._result = Outcome()
        self._processes: dict[tuple[str, str], _Process] = {}
        self._hosts: dict[str, Places] = {}
        self._claims: dict[str, Places] = {}
        self._given: Counter[str] = Counter()
        self._calibrations = calibrations
        self._machine, self._slowness = self._shared(machines)

    def _shared(self, machines: Machines) -> tuple[Places | None, float]:
        """Return the cores that all hosts share, in scaled time, and how much slower they are.

        What idle processes and the emulation take is lost to all of them alike.
        """
        if machines.shared_cores is None:
            return None, 1.0
        kept = machines.shared_cores * machines.kept - IDLE_CORES * self._cloud.idle_processes
        share = max(0.1, kept / machines.shared_cores)
        if machines.time_scale == 1:
            return Places(self._env, max(1, round(machines.shared_cores))), 1 / share
        slots = max(1, round(machines.shared_cores * machines.time_scale * share))
        return Places(self._env, slots), 1.0

    # ------------------------------------------------------------ the load

    def outcome(self) -> Outcome:
        """Run it to the end of the last VM."""
        load = self._load
        slots = Places(self._env, load.concurrency or max(1, load.vms))
        last = [self._env.process(self._boot(number, slots)) for number in range(load.vms)]
        self._env.run(until=simpy.AllOf(self._env, last))
        self._result.duration_s = self._env.now
        return self._result

    def _boot(self, number: int, slots: Places) -> Events:
        cloud, result = self._cloud, self._result
        if (wait := slots.take()) is not None:
            yield wait
        api = cloud.apis[number % len(cloud.apis)]
        compute = self._random.choice(cloud.computes_for(api))
        vm = _Vm(
            self._random.choice(self._calibrations),
            api,
            compute,
            self._claims.setdefault(compute, Places(self._env, 1)),
            self._env.event(),
            self._env.now,
        )
        asked = Send(HTTP, vm.calibration.steps)
        self._env.process(self._ask(vm, asked, cloud.master, cloud.master_site))
        yield vm.done
        # The client sees it at its next look, and waits between two.
        yield self._env.timeout(self._load.poll_s * self._random.random())
        slots.give_back()
        result.boots_s.append(self._env.now - vm.started)

    # ------------------------------------------------------------ steps

    def _steps(self, vm: _Vm, activity: Activity, process: _Process) -> Events:
        beside: list[simpy.Process] = []
        last_save = _last_save(activity) if activity.name == BUILD else -1
        for index, step in enumerate(activity.steps):
            if isinstance(step, Work):
                if beside and not _goes_on_beside(activity, index):
                    yield simpy.AllOf(self._env, beside)
                    beside = []
                yield from self._work(vm, step, process)
            elif isinstance(step, Lock):
                yield from self._lock(vm, step)
            else:
                if step.beside:
                    beside.append(
                        self._env.process(self._ask(vm, step, process.host, process.site))
                    )
                    continue
                times = self._given[vm.compute] - 1 if step.for_each_vm else 1
                for _ in range(times):
                    if step.cpu_ms:
                        yield from self._work(vm, Work(step.cpu_ms), process)
                    if _goes_on_beside(activity, index + 1):
                        beside.append(
                            self._env.process(self._ask(vm, step, process.host, process.site))
                        )
                    else:
                        yield from self._ask(vm, step, process.host, process.site)
                if index == last_save and not vm.done.triggered:
                    vm.done.succeed()
        if beside:
            yield simpy.AllOf(self._env, beside)

    def _lock(self, vm: _Vm, step: Lock) -> Events:
        if not step.takes:
            vm.claims.give_back()
            return
        since = self._env.now
        if (wait := vm.claims.take()) is not None:
            yield wait
        self._result.waits[CLAIM] += self._env.now - since

    def _work(self, vm: _Vm, work: Work, process: _Process) -> Events:
        calibration = vm.calibration
        cost = self._machines.cost_of(calibration.time_scale) / 1000
        factor = calibration.factors.get(process.service, 1.0)
        yield from self._compute(process, work.cpu_ms * cost * factor)
        site, delay_s = process.site, 0.0
        if work.cached:
            delay_s += work.cached * self._rtt(site, self._cloud.master_site, work.cached)
        nodes: list[tuple[_Process, float]] = []
        for where, trips in work.trips.items():
            store = self._cloud.store(
                process.service, process.host, vm.compute if where != ABOVE else None
            )
            self._result.round_trips += trips
            delay_s += trips * self._rtt(site, self._cloud.site_of[store.host], trips)
            if store.farthest_rtt_s:
                share = trips / sum(work.trips.values())
                delay_s += share * store.farthest_rtt_s * (
                    work.selects * calibration.select_rtts
                    + work.commits * calibration.commit_rtts
                )  # fmt: skip
            nodes.append((self._process(store.host, store.unit), trips))
        if delay_s:
            self._result.waits[NETWORK] += delay_s
            yield self._env.timeout(delay_s)
        for node, trips in nodes:
            yield from self._compute(node, trips * calibration.store_ms * cost, STORE)

    def _rtt(self, one: str, other: str, trips: float = 1.0) -> float:
        if one == other:
            return LOCAL_RTT_S
        self._result.crossings += 2 * trips
        return self._cloud.rtt_s(one, other)

    def _compute(self, process: _Process, seconds: float, word: str = PROCESSOR) -> Events:
        """Have a process on a core for so long, of a core of the traced machine."""
        if seconds <= 0:
            return
        env, result = self._env, self._result
        taken_s = seconds / self._machines.speed
        result.cpu_s += taken_s
        result.busy_s[process.host, process.service] += taken_s
        taken_s *= self._slowness
        since = env.now
        held = [process.running]
        if process.host in self._hosts:
            held.append(self._hosts[process.host])
        if self._machine is not None:
            held.append(self._machine)
        for places in held:
            if (wait := places.take()) is not None:
                yield wait
        yield env.timeout(taken_s)
        for places in held:
            places.give_back()
        result.waits[word] += taken_s
        result.waits[QUEUE] += env.now - since - taken_s

    # ------------------------------------------------------------ requests and messages

    def _ask(self, vm: _Vm, send: Send, host: str, site: str) -> Events:
        """Have a step's work done by whom it is for, and wait for it unless it is a message."""
        activity = send.activity
        if send.way == THREAD:
            process = self._process(host, activity.service)
            if activity.name == BUILD:
                yield from self._held(process.builds, BUILD_SLOT, vm, activity, process)
            else:
                yield from self._steps(vm, activity, process)
            return
        receiver = self._receiver(vm, activity)
        if send.way in (CALL, CAST):
            yield from self._message(vm, send, host, site, receiver)
            return
        if site != receiver.site:
            yield self._way(site, receiver.site)
        yield from self._held(receiver.threads, THREADS, vm, activity, receiver)
        if site != receiver.site:
            yield self._way(receiver.site, site)

    def _message(self, vm: _Vm, send: Send, host: str, site: str, receiver: _Process) -> Events:
        bus = self._process(self._cloud.bus(receiver.service, vm.compute, site), "rabbitmq-server")
        cost_s = (
            vm.calibration.message_ms / 1000 * self._machines.cost_of(vm.calibration.time_scale)
        )
        if site != bus.site:
            yield self._way(site, bus.site)
        yield from self._compute(bus, cost_s)
        if send.way == CAST:
            self._env.process(self._delivered(vm, send.activity, bus, receiver))
            if bus.site != site:
                yield self._way(bus.site, site)  # the broker says it has it
            return
        yield from self._delivered(vm, send.activity, bus, receiver)
        if receiver.site != bus.site:
            yield self._way(receiver.site, bus.site)
        yield from self._compute(bus, cost_s)
        if bus.site != site:
            yield self._way(bus.site, site)

    def _delivered(self, vm: _Vm, activity: Activity, bus: _Process, to: _Process) -> Events:
        if bus.site != to.site:
            yield self._way(bus.site, to.site)
        yield from self._held(to.threads, THREADS, vm, activity, to)
        if activity.name == "select_destinations":
            self._given[vm.compute] += 1

    def _held(
        self, threads: Places, word: str, vm: _Vm, activity: Activity, process: _Process
    ) -> Events:
        since = self._env.now
        if (wait := threads.take()) is not None:
            yield wait
        self._result.waits[word] += self._env.now - since
        yield from self._steps(vm, activity, process)
        threads.give_back()

    def _way(self, one: str, other: str) -> simpy.Event:
        """Return the event of something's arrival at another site."""
        self._result.crossings += 1
        seconds = self._cloud.rtt_s(one, other) / 2
        self._result.waits[NETWORK] += seconds
        return self._env.timeout(seconds)

    # ------------------------------------------------------------ processes

    def _receiver(self, vm: _Vm, activity: Activity) -> _Process:
        hosts = self._cloud.hosts_for(activity.service, vm.api, vm.compute)
        host = hosts[0] if len(hosts) == 1 else self._random.choice(hosts)
        return self._process(host, activity.service)

    def _process(self, host: str, service: str) -> _Process:
        key = host, service
        if key not in self._processes:
            cores = self._cloud.cores_of(service, self._machines.host_cores)
            is_api = service.endswith("-api")
            workers = self._cloud.workers(service)
            self._processes[key] = _Process(
                host,
                service,
                self._cloud.site_of[host],
                Places(self._env, max(1, cores)),
                Places(self._env, workers * (API_THREADS if is_api else RPC_THREADS)),
                Places(self._env, BUILDS),
            )
            limit = self._machines.host_cores
            if limit is not None and host not in self._hosts and limit < 8:
                self._hosts[host] = Places(self._env, max(1, round(limit)))
        return self._processes[key]


def _goes_on_beside(activity: Activity, index: int) -> bool:
    """Tell whether the next thing that is asked for, from a step on, goes on beside."""
    for step in activity.steps[index : index + 2]:
        if isinstance(step, Send):
            return step.beside
    return False


def _last_save(activity: Activity) -> int:
    """Return the index of the step that makes the VM ACTIVE."""
    saves = [
        index
        for index, step in enumerate(activity.steps)
        if isinstance(step, Send) and step.activity.name == "Instance.save"
    ]
    return saves[-1] if saves else len(activity.steps) - 1
