"""Shares of the processor that are held on a testbed's hosts: are they those that were planned?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from discovery_xp.planning.shares import HostShare

# How far a share that is read back may be off: systemd keeps hundredths of a percent.
CLOSE = 0.02


@dataclass(frozen=True)
class HeldShare:
    """What is held of a unit of a host, or of all of them together where `unit` is empty.

    `cores` are before the scale.  `strays` counts processes of the unit that aren't held.  Of
    `periods` of the kernel's control, since it began, the share was used up in `throttled`, and
    for `throttled_s` somebody stood still.
    """

    host: str
    unit: str
    cores: float
    strays: int = 0
    periods: int = 0
    throttled: int = 0
    throttled_s: float = 0.0

    @property
    def name(self) -> str:
        """Whose it is, in words."""
        return f"{self.unit} on {self.host}" if self.unit else self.host


def disagreements(planned: Iterable[HostShare], held: Sequence[HeldShare]) -> list[str]:
    """Say where what is held isn't what was planned."""
    by_place = {(each.host, each.unit): each for each in held}
    wrong = []
    for share in planned:
        for unit, cores in (("", share.cores), *share.units.items()):
            name = f"{unit} on {share.host}" if unit else share.host
            found = by_place.get((share.host, unit))
            if found is None:
                wrong.append(f"{name}: nothing is held of {cores:g} cores")
            elif abs(found.cores - cores) > CLOSE * cores:
                wrong.append(f"{name}: {found.cores:g} cores are held instead of {cores:g}")
            elif found.strays:
                wrong.append(f"{name}: {found.strays} processes aren't held")
    return wrong
