"""What a cloud's hosts are: their cores, how fast those are, and whether hosts share them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from discovery_xp.errors import Refused
from discovery_xp.planning.shares import HOST_CORES
from discovery_xp.text import short

# Two Intel Xeon E5-2630 v3 of 8 cores each.  One thread of that processor does about 0.8 of what a
# core of the traced ones can, by estimate, and those did 1 / 2.1 of what they
# can, under load and with all probes: in runs of the same kind of machine with fewer probes the
# same work took that much less of the processor (`validation`).
PAPER_CORES = 16.0
PAPER_SPEED = 1.7

# Of the work of a machine with emulated hosts what is the cloud's: the rest are links, probes, the
# load and the toolkit.  `validation` takes it from runs where there are any.
KEPT = 0.85
# The same work takes more of a processor in scaled time, where it stands still after each
# millisecond.  Runs of one back end with 1 and 6 s for one ask for exponents of 0.14 to 0.28;
# `benchmarks/time_scale.py` for 0.33, with fewer services.
SCALE_EXPONENT = 0.2

MOST_CORES = 4096
MOST_SPEED = 100.0
_CORES_AND_SPEED = re.compile(r"([0-9]{1,4})x([0-9]{1,3}(?:\.[0-9]{1,4})?)")


@dataclass(frozen=True)
class Machines:
    """Machines that hosts are, or are emulated on.

    `host_cores` is what each host has, None where only the machine limits it.  `speed` is how much
    a core does in a second, the traced machines' being 1.  `shared_cores` are those of the one
    machine that all hosts are emulated on, None where each host is a machine; `kept` is the part
    of them that is left for the cloud's services, and `time_scale` of its seconds stand for one.
    """

    name: str
    host_cores: float | None
    speed: float = 1.0
    shared_cores: float | None = None
    kept: float = 1.0
    time_scale: float = 1.0

    def cost_of(self, time_scale: float) -> float:
        """Return what work takes here, over what it took where it was traced in scaled time."""
        return math.pow(self.time_scale / time_scale, SCALE_EXPONENT)


PAPER = Machines("paper", PAPER_CORES, PAPER_SPEED)


def emulated(
    cores: float, time_scale: float = 1.0, kept: float = KEPT, speed: float = 1.0
) -> Machines:
    """Return one machine of so many cores that all hosts share."""
    host_cores = HOST_CORES if time_scale != 1 else None
    return Machines("emulated", host_cores, speed, cores, kept, time_scale)


def parse(text: str, time_scale: float = 1.0, cores: float = 2.0) -> Machines:
    """Return the machines that 'paper', 'emulated' or CORESxSPEED says; raises Refused."""
    if text == "paper":
        return PAPER
    if text == "emulated":
        return emulated(cores, time_scale)
    match = _CORES_AND_SPEED.fullmatch(text)
    if match is None:
        raise Refused(
            f"--machines: '{short(text)}' is neither 'paper' nor 'emulated' nor CORESxSPEED",
            "write the cores of a host and their speed, that of the traced machine being 1, "
            "such as 16x0.8",
        )
    own_cores, speed = float(match[1]), float(match[2])
    if not 1 <= own_cores <= MOST_CORES or not 0 < speed <= MOST_SPEED:
        raise Refused(
            f"--machines: '{short(text)}' is out of range",
            f"write 1 to {MOST_CORES} cores, and a speed above 0 of at most {MOST_SPEED:g}",
        )
    return Machines(text, own_cores, speed)
