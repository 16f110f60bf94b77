"""The figures that runs are compared by, each with where it comes from.  A further one is a line.

`FIGURES` is the registry.  A figure that a run doesn't have, as its probe was off or its
version didn't measure it, is None there and isn't compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from discovery_xp.analysis import statistics
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.analysis.statistics import Statistic


@dataclass(frozen=True)
class Figure:
    """One figure of a run; of all of them, less is better.

    `key` is its column in `measurements.summary`.  `kind` is 'time' of what depends on how fast
    the machine is, 'count' of what doesn't.  `statistic` makes it of the VMs' boot durations; None
    where it is known of the run as a whole only.
    """

    key: str
    words: str
    kind: Literal["time", "count"]
    statistic: Statistic | None = None

    def of(self, run: Measurements) -> float | None:
        """Return it of a run, None where the run doesn't have it."""
        value = run.figures.get(self.key)
        if value is None or math.isnan(value):
            return None
        return float(value)

    def by_vm(self, run: Measurements) -> pd.Series[float] | None:
        """Return what it is made of, by the VM's name; None where VMs don't say it.

        All are above 0: of a run in which one isn't, nobody knows what to make.
        """
        if self.statistic is None or not len(run.vms):
            return None
        active = run.vms[run.vms["status"] == "ACTIVE"]
        boots: pd.Series[float] = active.set_index("name")["boot_duration_s"].astype(float)
        return boots if len(boots) and (boots > 0).all() else None


FIGURES = (
    Figure("boot_median_s", "boot, median, s", "time", statistics.median),
    Figure("boot_p90_s", "boot, P90, s", "time", statistics.p90),
    Figure("duration_s", "load, s", "time"),
    Figure("round_trips_per_vm", "database round trips per VM", "count"),
    Figure("statements_per_vm", "statements per VM", "count"),
    Figure("db_kb_per_vm", "database, kB per VM", "count"),
    Figure("network_mb_per_vm", "network, MB per VM", "count"),
    Figure("messages_per_vm", "messages per VM", "count"),
    Figure("cpu_ms_per_vm", "CPU, ms per VM", "count"),
    Figure("crossings_per_vm", "crossings between sites per VM", "count"),
    Figure("wan_wait_s_per_vm", "WAN wait, s per VM", "time"),
)

# What a claim may be about besides: figures that say the same of a run in other units, or nothing
# of what a VM costs, and so aren't compared with the others.
FURTHER = (
    Figure("s_per_vm", "load, s per VM", "time"),
    Figure("vms_failed", "VMs that failed", "count"),
    Figure("call_mean_ms", "call of Nova's database API, mean, ms", "time"),
    Figure("call_p90_ms", "call of Nova's database API, P90, ms", "time"),
    Figure("network_mb", "network, MB", "count"),
    Figure("inter_mb", "network between sites, MB", "count"),
)
