"""Which VM boots on which compute, drawn once from a seed: `draw`.  Pure.

The draw follows from the seed, the regions' shares and the names of the computes alone, so
clouds that differ in nothing else, such as their back end, boot each VM on the same host.  It
comes from SHA-256 and not from a generator of random numbers, whose sequence may change with
the version of Python or numpy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discovery_xp.errors import Refused
from discovery_xp.onhost.wire.request import vm_name
from discovery_xp.planning.layout import CloudLayout, Region

_NAMED = 3  # of the VMs that landed elsewhere


@dataclass(frozen=True)
class Placement:
    """The compute of each VM of a load, by the VM's name, as `seed` drew it."""

    seed: int
    computes: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Return twelve hexadecimal digits that are equal for equal placements."""
        text = json.dumps(sorted(self.computes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def of(self, region: str, count: int) -> tuple[str, ...]:
        """Return the computes of a region's VMs, in the order of their numbers."""
        return tuple(self.computes[vm_name(region, number)] for number in range(1, count + 1))

    def differences(self, vms: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return in words which VMs landed on another host than the drawn one.

        `vms` are rows of the table; where a VM landed isn't known of each.
        """
        wrong = [
            f"{vm['name']} on {vm['host']} for {self.computes.get(vm['name'], 'none')}"
            for vm in vms
            if vm["host"] is not None and vm["host"] != self.computes.get(vm["name"])
        ]
        if not wrong:
            return []
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        return [f"{len(wrong)} VMs aren't where the placement drew them: "
                f"{', '.join(wrong[:_NAMED])}{more}"]  # fmt: skip


def draw(
    seed: int, cloud: CloudLayout, regions: Sequence[Region], counts: Sequence[int]
) -> Placement:
    """Draw a compute for each VM that is asked of each region.

    The VMs of a pool of computes take a random permutation of it after the other, in the order
    in which they are asked for: no two computes of a pool differ by more than one VM, at any
    moment of the load.  Raises Refused where a region's API reaches no compute.
    """
    pools: dict[tuple[str, ...], list[str]] = {}
    for region, number in _asked(regions, counts):
        pool = reached(cloud, region)
        if not pool:
            raise Refused(
                f"region '{region.name}' has no computes to place VMs on",
                "leave it out of 'spread', or go without a placement seed",
            )
        pools.setdefault(pool, []).append(vm_name(region.name, number))
    return Placement(
        seed,
        {
            name: compute
            for pool, names in pools.items()
            for name, compute in zip(names, _permutations(seed, pool), strict=False)
        },
    )


def reached(cloud: CloudLayout, region: Region) -> tuple[str, ...]:
    """Return the computes on which a region's API can boot a VM."""
    if cloud.zones:
        return tuple(cloud.computes.get(region.site, ()))
    return tuple(name for names in cloud.computes.values() for name in names)


def _asked(regions: Sequence[Region], counts: Sequence[int]) -> Iterator[tuple[Region, int]]:
    """Yield each VM as its region and its number there, over the regions in turn."""
    for number in range(1, max(counts, default=0) + 1):
        for region, count in zip(regions, counts, strict=True):
            if number <= count:
                yield region, number


def _permutations(seed: int, names: Sequence[str]) -> Iterator[str]:
    """Yield the names in one random order after the other, without end."""
    turn = 0
    while True:
        turn += 1
        yield from shuffled(names, f"{seed}/{turn}")


def shuffled(values: Iterable[str], key: str) -> list[str]:
    """Return different texts in the order that `key` draws, each order as likely as another."""
    return sorted(values, key=lambda value: hashlib.sha256(f"{key}/{value}".encode()).digest())
