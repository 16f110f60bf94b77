"""What a bench is asked for, besides the plan; what is known of it before anything is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp import providers, store
from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import Scenario, read_scenario
from discovery_xp.inputs.units import QuantityError, parse_time_s
from discovery_xp.load import LONGEST_AFTER_RUN_S
from discovery_xp.load.shares import shares
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.plan_checks import needed_s
from discovery_xp.probes import Sampling
from discovery_xp.providers import preparation
from discovery_xp.text import short

# After services were started they are busy for a while with each other.
SETTLE_S = 15.0
# From a sample of the series to the next, and between what.
SAMPLE_EVERY_S = 5.0
LEAST_SAMPLE_EVERY_S, MOST_SAMPLE_EVERY_S = 1.0, 600.0
# Where there are no hosts, all of it takes a moment.
CANNED_S = 5.0


@dataclass(frozen=True)
class BenchRequest:
    """What a bench is asked for, besides the plan.

    `backend`, `layout`, `placement` and `time_scale` are what replaces the topology's, None where
    nothing does; the plan has them already.  `arm` is the run's place in a comparison,
    `in_campaign` that in a campaign.
    `sample_every_s` is before the time scale.
    """

    scenario: Scenario
    topology_text: str
    results: Path
    probes: Sequence[str]
    keep: bool
    settle_s: float = SETTLE_S
    expose: bool = False
    backend: str | None = None
    placement: str | None = None
    time_scale: float | None = None
    arm: store.Arm | None = None
    in_campaign: store.InCampaign | None = None
    sample_every_s: float = SAMPLE_EVERY_S
    layout: str | None = None

    @property
    def load(self) -> Scenario:
        """The scenario as it is run: VMs go with their hosts unless either is to be otherwise."""
        if self.scenario.delete_after is None:
            return dataclasses.replace(self.scenario, delete_after=self.keep)
        return self.scenario


def choose_scenario(
    path: Path | None, vms: int | None, small: bool, placement_seed: int | None = None
) -> Scenario:
    """The scenario of a file, or the paper's: all VMs at once, fairly over the controllers.

    `vms` and `placement_seed` replace the file's.
    """
    chosen = read_scenario(path) if path else Scenario(name="boot", kind="boot", vms=500)
    if path is None and small:
        chosen = dataclasses.replace(chosen, vms=20)
    if vms is not None:
        if not chosen.boots:
            raise Refused(
                f"--vms {vms}: scenario '{chosen.name}' boots no VMs, its kind is '{chosen.kind}'",
                "leave --vms out; 'iterations' in the scenario says how much is asked",
            )
        chosen = dataclasses.replace(chosen, vms=vms)
    if placement_seed is not None:
        if not chosen.boots:
            raise Refused(
                f"--placement-seed {placement_seed}: scenario '{chosen.name}' boots no VMs to "
                f"place, its kind is '{chosen.kind}'",
                "leave --placement-seed out",
            )
        chosen = dataclasses.replace(chosen, placement_seed=placement_seed)
    return chosen


def choose_probes(text: str) -> tuple[str, ...]:
    """The probes that a comma-separated list names; raises Refused for one that isn't there."""
    if text in ("all", "none"):
        return store.PROBES if text == "all" else ()
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in store.PROBES]
    if unknown:
        raise Refused(
            f"--probes: no probe '{short(unknown[0])}'",
            f"write 'all', 'none' or some of {', '.join(store.PROBES)}",
        )
    return tuple(probe for probe in store.PROBES if probe in named)


def choose_interval(text: str) -> float:
    """The seconds from a sample to the next that a text like '5s' says; raises Refused."""
    try:
        interval_s = parse_time_s(text)
    except QuantityError as error:
        raise Refused(f"--sample-every: {error.reason}", error.remedy) from None
    if not LEAST_SAMPLE_EVERY_S <= interval_s <= MOST_SAMPLE_EVERY_S:
        raise Refused(
            f"--sample-every {short(text)}: out of range",
            f"write {LEAST_SAMPLE_EVERY_S:g}s to {MOST_SAMPLE_EVERY_S / 60:g}min",
        )
    return interval_s


def sampling(plan: Plan, request: BenchRequest) -> Sampling:
    """How the hosts' series are sampled, in real time; the load's own end bounds it."""
    scenario = request.scenario
    longest_s = scenario.run_timeout_s + 3 * scenario.vm_timeout_s + LONGEST_AFTER_RUN_S
    return Sampling(plan.time_scale * request.sample_every_s, plan.time_scale * longest_s)


def check(plan: Plan, request: BenchRequest) -> None:
    """Raise Refused where it is known beforehand that the run can't be done or stored."""
    shares(plan, request.scenario)
    _require_walltime(plan, request)
    store.require_writable(request.results / plan.name)


def _require_walltime(plan: Plan, request: BenchRequest) -> None:
    """Raise Refused for nodes that aren't there for the whole bench."""
    job = plan.job
    if job is None:
        return
    needed = needed_s(plan.cloud is not None) + max(600.0, 1.5 * load_s(request))
    if job.walltime_s < needed:
        raise Refused(
            f"'{plan.name}' has a walltime of {job.walltime}, but deployment and load take "
            f"about {needed / 60:.0f} minutes",
            "write a longer 'walltime' for the provider, or ask for fewer VMs",
        )


def load_s(request: BenchRequest) -> float:
    """Estimate how long the load takes, in seconds."""
    scenario = request.scenario
    return scenario.count * (1.25 if scenario.boots else 0.2)  # VMs may be deleted, too


def expected_s(plan: Plan, request: BenchRequest) -> float:
    """Return about how long all of it takes on two cores, in seconds."""
    if providers.kind(plan.provider).is_canned:
        return CANNED_S
    return preparation.needed_s(plan) + _prepared_s(plan, request)


def _prepared_s(plan: Plan, request: BenchRequest) -> float:
    """Return about how long it takes with all packages fetched and the root tree built."""
    hosts = len(plan.hosts)
    deploy_s = 30 + 3.1 * hosts
    if plan.platform is not None:
        deploy_s = max(deploy_s, needed_s(plan.cloud is not None))
    around_s = 25 + (2.3 if request.probes else 1.2) * hosts
    return deploy_s + around_s + request.settle_s + plan.time_scale * load_s(request)


def foretell(plan: Plan, request: BenchRequest) -> list[str]:
    """What will happen and about how long it takes, before anything does."""
    scenario = request.scenario
    load = f"{scenario.count} VMs" if scenario.boots else f"{scenario.count} rounds"
    end = "the testbed stays up" if request.keep else "then all but the results is destroyed"
    return [
        f"{plan.name}: {len(plan.hosts)} hosts at {len(plan.sites)} sites are made, OpenStack is "
        f"deployed on them, '{scenario.name}' asks for {load}; {end}",
        f"probes: {', '.join(request.probes) or 'none'}; results go to "
        f"{request.results / plan.name}/",
        *(
            [f"time scale {plan.time_scale:g}: so many seconds by a clock stand for one"]
            if plan.time_scale != 1
            else []
        ),
        _duration_in_words(plan, request),
    ]


def _duration_in_words(plan: Plan, request: BenchRequest) -> str:
    if providers.kind(plan.provider).is_canned:
        return "this takes some seconds, and measures nothing: there are no hosts, all is canned"
    later = max(1, round(_prepared_s(plan, request) / 60))
    minutes = max(1, round(expected_s(plan, request) / 60))
    takes = f"this takes about {minutes} minutes on two cores"
    if preparation.needed_s(plan):
        takes += (
            " this first time, when packages are fetched and the hosts' root tree is built; "
            f"later about {later}"
        )
    return takes
