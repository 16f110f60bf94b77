"""What of the processor each host and each service stands for, where time is scaled.  Pure.

With a time scale of K a second of the testbed takes K seconds, so what a core does in one is done
in K: a service gets the cores that it would use on a machine of its own divided by K, and a host
its cores divided by K.  Without a scale nothing is capped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discovery_xp.inputs.topology import OpenStack
from discovery_xp.onhost import catalogue
from discovery_xp.planning.plan import Plan

# The cores of a host whose limits say nothing.
HOST_CORES = 2.0
# Threads of one Python process share a core, and so do Redis's commands; RabbitMQ is run with one
# scheduler.  The others have a thread for each core: what their host has.
_ALL_OF_HOST = ("mariadb", "memcached")
# What the kernel takes: quota and period have to be of a millisecond or more, a period of a second
# at most.
LEAST_US = 1000
MOST_PERIOD_US = 1_000_000


@dataclass(frozen=True)
class HostShare:
    """A host's cores, and those of each of its units that serve the cloud, before the scale."""

    host: str
    cores: float
    units: Mapping[str, float]


def shares_of(plan: Plan) -> tuple[HostShare, ...]:
    """Return the share of each host of a plan, in its order; none where time isn't scaled."""
    if plan.time_scale == 1:
        return ()
    return tuple(
        HostShare(
            host.name,
            host.limit.cpus or HOST_CORES,
            {
                service.unit: unit_cores(
                    service.unit, host.limit.cpus or HOST_CORES, plan.cloud.options
                )
                for service in plan.cloud.services_on(host.name)
            }
            if plan.cloud is not None
            else {},
        )
        for host in plan.hosts
    )


def unit_cores(unit: str, host_cores: float, options: OpenStack) -> float:
    """Return the cores that a unit would use on a machine of its own: a process is one core's."""
    entry = catalogue.UNITS[unit]
    if entry.component in _ALL_OF_HOST:
        return host_cores
    workers = options.workers.get(entry.nova_binary, options.workers.get(entry.component, 1))
    return min(host_cores, float(workers))


def quota_and_period_us(cores: float, time_scale: float) -> tuple[int, int]:
    """Return how many microseconds of CPU a group of so many cores gets in how many.

    The period is as short as the kernel takes it: a millisecond of one core in K, so that what
    has used its share stands still for less than a millisecond of scaled time.
    """
    period_us = min(float(MOST_PERIOD_US), LEAST_US * time_scale / min(1.0, cores))
    return max(LEAST_US, round(period_us * cores / time_scale)), round(period_us)


def needed_cores(plan: Plan) -> float:
    """Return the cores that a machine needs so that all hosts could use all of theirs at once."""
    return sum(share.cores for share in shares_of(plan)) / plan.time_scale
