"""What a campaign's file says, as frozen values: its points, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from discovery_xp.boundary.names import TestbedName
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.inputs.topology import Topology


@dataclass(frozen=True)
class Point:
    """What one run, or several that repeat it, are made of.

    `levels` are words by factor; `digest` says the same of two points that ask for the same,
    whatever their campaigns' names; `deployment` does of those that may share a cloud.  Those
    that come first are made before the others of a block.
    """

    part: str
    levels: Mapping[str, str]
    topology: Topology
    scenario: Scenario
    digest: str
    deployment: str
    repeats: int
    comes_first: bool = False

    @property
    def words(self) -> str:
        """Its levels in words: 'backend rome, sites 8'."""
        return ", ".join(f"{factor} {level}" for factor, level in self.levels.items())


@dataclass(frozen=True)
class Excluded:
    """A combination of levels that is no point, and why."""

    part: str
    levels: Mapping[str, str]
    because: str


@dataclass(frozen=True)
class Campaign:
    """What a researcher wants to know: points, how often each is run, and what is left out.

    One that is endless has a further block each time that all of its blocks are done; its points'
    repeats say nothing.
    """

    name: TestbedName
    description: str
    seed: int
    attempts: int
    probes: str
    sample_every_s: float
    points: tuple[Point, ...]
    excluded: tuple[Excluded, ...]
    text: str = field(repr=False, default="")
    is_endless: bool = False

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors of all points, in the order in which they are met."""
        return tuple(dict.fromkeys(factor for point in self.points for factor in point.levels))

    @property
    def blocks(self) -> int:
        """The most repeats that a point has."""
        return max((point.repeats for point in self.points), default=0)
