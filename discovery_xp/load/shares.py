"""Who asks for what: a scenario's load, shared out among load hosts and regions.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.load.placement import Placement, draw
from discovery_xp.planning.layout import CloudLayout, Region
from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds.remote import some


@dataclass(frozen=True)
class Share:
    """What one load host asks for: so many iterations and VMs of warm-up of each region.

    `computes` are those that boot a VM each in the warm-up, by the region that is asked.
    `clears` are the regions whose VMs of earlier loads it deletes.  `iterations_before` are
    those of the load hosts before it: numbers go through all hosts.  `placed` are the computes of
    each region's VMs, none where the scheduler chooses.
    """

    host: str
    regions: tuple[Region, ...]
    counts: tuple[int, ...]
    warm_ups: tuple[int, ...]
    computes: tuple[tuple[str, ...], ...]
    concurrency: int | None
    clears: tuple[str, ...]
    iterations_before: int = 0
    placed: tuple[tuple[str, ...], ...] = ()


def split(count: int, parts: int) -> list[int]:
    """Split `count` in `parts` that differ by one at most, the larger ones first."""
    return [count // parts + (index < count % parts) for index in range(parts)]


def placement(plan: Plan, scenario: Scenario) -> Placement | None:
    """Return where the scenario's seed places each VM; None where the scheduler chooses."""
    if scenario.placement_seed is None:
        return None
    cloud = plan.require_cloud()
    regions = asked_regions(cloud, scenario)
    return draw(scenario.placement_seed, cloud, regions, split(scenario.count, len(regions)))


def asked_regions(cloud: CloudLayout, scenario: Scenario) -> list[Region]:
    """Return the regions that a scenario asks; raises Refused for an unknown one."""
    by_name = {region.name: region for region in cloud.regions}
    unknown = [name for name in scenario.regions or () if name not in by_name]
    if unknown:
        raise Refused(
            f"scenario '{scenario.name}': the cloud has no region '{unknown[0]}'",
            f"its regions are {some(list(by_name))}",
        )
    return [by_name[name] for name in scenario.regions or by_name]


def shares(plan: Plan, scenario: Scenario) -> list[Share]:
    """Return what each load host asks of which region.

    Raises Refused for an unknown region, and for one whose VMs can't be placed.
    """
    cloud = plan.require_cloud()
    regions = asked_regions(cloud, scenario)
    names = [region.name for region in cloud.regions]
    drawn = placement(plan, scenario)
    counts = split(scenario.count, len(regions))
    warm_ups = split(len(regions) if scenario.warm_up is None else scenario.warm_up, len(regions))
    computes = [()] * len(regions) if scenario.warm_up is not None else warmed(cloud, regions)
    placed: list[tuple[str, ...]] = [
        () if drawn is None else drawn.of(region.name, count)
        for region, count in zip(regions, counts, strict=True)
    ]
    if scenario.starts_on == "master":
        return [
            Share(cloud.master, tuple(regions), tuple(counts), tuple(warm_ups),
                  tuple(computes), scenario.concurrency, tuple(names), placed=tuple(placed))
        ]  # fmt: skip
    nonempty = [index for index, count in enumerate(counts) if count]
    at_once = [None] * len(nonempty) if scenario.concurrency is None else [
        max(1, places) for places in split(scenario.concurrency, len(nonempty))
    ]  # fmt: skip
    homeless = [name for name in names if name not in [regions[index].name for index in nonempty]]
    return [
        Share(regions[index].controller, (regions[index],), (counts[index],), (warm_ups[index],),
              (computes[index],), places,
              (regions[index].name, *(homeless if index == nonempty[0] else ())),
              sum(counts[:index]), (placed[index],))
        for index, places in zip(nonempty, at_once, strict=True)
    ]  # fmt: skip


def warms_every_site(plan: Plan, scenario: Scenario) -> bool:
    """Tell whether a VM is booted on a compute of each site before the load begins."""
    cloud = plan.require_cloud()
    warm = {name for share in shares(plan, scenario) for names in share.computes for name in names}
    can_warm = scenario.boots or scenario.kind == "reads"
    return can_warm and all(warm & set(names) for names in cloud.computes.values() if names)


def warmed(cloud: CloudLayout, regions: Sequence[Region]) -> list[tuple[str, ...]]:
    """Return the computes that each of `regions` is asked to boot a VM on, before the load.

    A site's are asked for at the site's own API, so that any zones are kept to; those of
    sites without one, at the others' in turn, and not at all where sites are zones.
    """
    served: list[list[str]] = [[] for _ in regions]
    homeless: list[str] = []
    for site, names in cloud.computes.items():
        at_site = [index for index, region in enumerate(regions) if region.site == site]
        if at_site:
            served[at_site[0]] += names
        else:
            homeless += names
    if not cloud.zones:
        for index, name in enumerate(homeless):
            served[index % len(regions)].append(name)
    return [tuple(names) for names in served]
