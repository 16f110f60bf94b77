"""A plan and a load to a prediction: what the load takes over several seeds, what bounds it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.model import calibration
from discovery_xp.model.calibration import IDLE_CORES, Calibration
from discovery_xp.model.cloud import Cloud
from discovery_xp.model.machines import Machines
from discovery_xp.model.simulation import BUSY_AT, Load, Outcome, simulate
from discovery_xp.planning.plan import Plan

SEEDS = 3
# More VMs take minutes to simulate, and were never run.
MOST_VMS = 4000


@dataclass(frozen=True)
class Figure:
    """The median over the seeds, and the least and the most of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What a load takes; times in seconds of the cloud, counts and CPU per VM.

    `waits` are seconds of the mean boot by what they went to.  `busy` is by process (host and
    service) the share of the time in which it was at work, of one core, the busiest first;
    `machine_busy` that of the machine that all hosts share, None where each is one.
    """

    duration_s: Figure
    boot_median_s: Figure
    boot_p90_s: Figure
    round_trips: Figure
    crossings: Figure
    cpu_ms: Figure
    waits: Mapping[str, float]
    busy: Mapping[tuple[str, str], float]
    machine_busy: float | None
    extrapolations: tuple[str, ...] = ()

    @property
    def bound(self) -> str:
        """Return in words what makes the load take so long."""
        host, service = next(iter(self.busy))
        share = self.busy[host, service]
        longest = max(self.waits, key=lambda word: self.waits[word])
        where = f"boots spend most of their time {longest} ({self.waits[longest]:.0f} s of each)"
        if self.machine_busy is not None and self.machine_busy >= BUSY_AT:
            return f"the machine, {self.machine_busy:.0%} busy; {where}"
        if share >= BUSY_AT:
            return f"{service} on {host}, {share:.0%} busy; {where}"
        return f"no processor: the busiest is {service} on {host}, {share:.0%}; {where}"


def load_of(scenario: Scenario) -> Load:
    """Return a scenario's load; raises Refused for one that does more than boot VMs."""
    if scenario.kind != "boot":
        raise Refused(
            f"scenario '{scenario.name}' is of kind '{scenario.kind}', and the model knows boots "
            "alone",
            "name a scenario of kind 'boot'",
        )
    if scenario.vms > MOST_VMS:
        raise Refused(
            f"scenario '{scenario.name}' asks for {scenario.vms} VMs",
            f"ask for at most {MOST_VMS}",
        )
    return Load(scenario.vms, scenario.concurrency, scenario.poll_interval_s)


def predict(
    plan: Plan,
    load: Load,
    machines: Machines,
    calibrations: Sequence[Calibration],
    seeds: int = SEEDS,
) -> Prediction:
    """Return what a load takes on a plan's cloud, from the calibrations of its kind."""
    cloud = Cloud(plan)
    options = plan.require_cloud().options
    chosen = calibration.of_kind(calibrations, options.backend, options.layout)
    outcomes = [simulate(cloud, load, machines, chosen, seed) for seed in range(1, seeds + 1)]
    middle = sorted(outcomes, key=lambda outcome: outcome.duration_s)[len(outcomes) // 2]
    vms = load.vms
    busy = {key: seconds / middle.duration_s for key, seconds in _busiest_first(middle)}
    return Prediction(
        _over([outcome.duration_s for outcome in outcomes]),
        _over([statistics.median(outcome.boots_s) for outcome in outcomes]),
        _over([_p90(outcome.boots_s) for outcome in outcomes]),
        _over([outcome.round_trips / vms for outcome in outcomes]),
        _over([outcome.crossings / vms for outcome in outcomes]),
        _over([1000 * _cpu_s(outcome, cloud, machines) / vms for outcome in outcomes]),
        {word: seconds / vms for word, seconds in middle.waits.items()},
        busy,
        _machine_busy(middle, cloud, machines),
        tuple(_extrapolations(plan, load, machines, chosen)),
    )


def _busiest_first(outcome: Outcome) -> list[tuple[tuple[str, str], float]]:
    return sorted(outcome.busy_s.items(), key=lambda item: (-item[1], item[0]))


def _over(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def _p90(values: Sequence[float]) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=10, method="inclusive")[-1]


def _cpu_s(outcome: Outcome, cloud: Cloud, machines: Machines) -> float:
    """Return all processor time, of processes that idle, too, as long as a clock runs."""
    clock_s = outcome.duration_s * machines.time_scale
    return outcome.cpu_s + IDLE_CORES * cloud.idle_processes * clock_s


def _machine_busy(outcome: Outcome, cloud: Cloud, machines: Machines) -> float | None:
    if machines.shared_cores is None:
        return None
    clock_s = outcome.duration_s * machines.time_scale
    return _cpu_s(outcome, cloud, machines) / (machines.shared_cores * machines.kept * clock_s)


def _extrapolations(
    plan: Plan, load: Load, machines: Machines, chosen: Sequence[Calibration]
) -> list[str]:
    """Return in words what of a prediction no calibrated run had."""
    words = []
    most_sites = max(each.sites for each in chosen)
    if len(plan.sites) > most_sites:
        words.append(f"{len(plan.sites)} sites: at most {most_sites} were traced")
    delays = {link.link.delay_ms for link in plan.links}
    traced = sorted({each.latency_ms for each in chosen})
    if delays and not (min(traced) <= min(delays) and max(delays) <= max(traced)):
        known = " and ".join(f"{value:g}" for value in traced)
        words.append(f"delays of {min(delays):g} to {max(delays):g} ms: traced were {known} ms")
    if machines.shared_cores is None:
        words.append(
            f"machines of {machines.host_cores:g} cores, a core as fast as {machines.speed:g} of "
            "the traced ones: no run on such machines was traced"
        )
    if load.vms > max(each.vms for each in chosen):
        words.append(f"{load.vms} VMs: at most {max(each.vms for each in chosen)} were traced")
    if load.concurrency is not None:
        words.append("VMs a few at a time: in all traced runs they were asked for at once")
    options = plan.require_cloud().options
    if any(workers != 1 for workers in options.workers.values()):
        words.append("more than one worker of a service: all traced runs had one")
    return words
