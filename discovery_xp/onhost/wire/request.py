"""What a load host is told to do: its part of a load.

The control machine writes it into Rally's task, the load host reads it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What the names of all VMs of loads begin with.
PREFIX = "load-"


def vm_name(region: str, number: int) -> str:
    """Return the name of a region's VM of this number, from 1."""
    return f"{PREFIX}{region}-{number:05d}"


@dataclass(frozen=True)
class RegionRequest:
    """What is asked of one region's API: iterations, and VMs of the warm-up.

    `computes` boot a VM each in the warm-up, besides the `warm_up` that go anywhere.  `placed`
    are the hosts of its VMs in the order of their numbers, none where the scheduler chooses.
    """

    name: str
    site: str
    count: int
    warm_up: int
    computes: tuple[str, ...]
    placed: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadRequest:
    """A load host's part of a load; times are in seconds.

    `kind` is the scenario's.  `concurrency` is how many iterations go on at a time, None for all
    of them.  `clears` are the regions whose VMs of earlier loads are deleted.  Numbers of
    iterations go on from `iterations_before`.  `network` is empty for VMs without a port.
    `records` is the file that all that happens is written to, `words` the folder where 'go'
    and 'on' are said, each by a file that holds the moment it is meant for.  The load generator's
    own times are multiplied by `time_scale`; those of this request are already.
    """

    kind: str
    regions: tuple[RegionRequest, ...]
    concurrency: int | None
    clears: tuple[str, ...]
    iterations_before: int
    flavor: str
    image: str
    network: str
    poll_interval_s: float
    vm_timeout_s: float
    run_timeout_s: float
    delete_after: bool
    reads: tuple[str, ...]
    repeats: int
    records: str
    words: str
    time_scale: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoadRequest:
        """Return what `to_json` gave; raises TypeError for anything else."""
        regions = tuple(
            RegionRequest(
                **{
                    **region,
                    "computes": tuple(region["computes"]),
                    "placed": tuple(region.get("placed", ())),
                }
            )
            for region in values["regions"]
        )
        return cls(
            **{
                **values,
                "regions": regions,
                "clears": tuple(values["clears"]),
                "reads": tuple(values["reads"]),
            }
        )
