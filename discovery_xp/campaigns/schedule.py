"""The order of a campaign's runs: blocks with one run of each point, drawn from its seed.

What changes slowly on the machine meets all points of a block alike.  Points that may share a
cloud stay together: their order is drawn, and that of their groups.  Groups with a point that
comes first are made before the others: those are what is there when the time is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from discovery_xp.inputs.campaign_values import Campaign, Point
from discovery_xp.load.placement import shuffled


@dataclass(frozen=True)
class Job:
    """One run that a campaign wants: a point's in a block, from 1."""

    point: Point
    block: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it apart: the point's digest, and the block."""
        return self.point.digest, self.block

    def shares_with(self, other: Job) -> bool:
        """Say whether the two may be run on one cloud, one after the other."""
        return self.block == other.block and self.point.deployment == other.point.deployment


def jobs(campaign: Campaign, blocks: Iterable[int] | None = None) -> list[Job]:
    """Return the runs of some blocks, by default of all, in the order in which they are made."""
    wanted = range(1, campaign.blocks + 1) if blocks is None else blocks
    return [Job(point, block) for block in wanted for point in _ordered(campaign, block)]


def _ordered(campaign: Campaign, block: int) -> Iterator[Point]:
    groups: dict[str, dict[str, Point]] = {}
    for point in campaign.points:
        if campaign.is_endless or point.repeats >= block:
            groups.setdefault(point.deployment, {})[point.digest] = point
    drawn = shuffled(groups, f"{campaign.seed}/{block}")
    is_later = {
        deployment: not any(point.comes_first for point in group.values())
        for deployment, group in groups.items()
    }
    for deployment in sorted(drawn, key=is_later.__getitem__):  # stable: the draw's order stays
        group = groups[deployment]
        for digest in shuffled(group, f"{campaign.seed}/{block}/{deployment}"):
            yield group[digest]
