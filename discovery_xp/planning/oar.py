"""What OAR, Grid'5000's scheduler, is asked for, and whether the usage policy allows it.

Pure: the API is asked nothing, so it knows no cluster's size and no one else's jobs.  The
policy is https://www.grid5000.fr/w/Grid5000:UsagePolicy as of 2025.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from discovery_xp.errors import Refused
from discovery_xp.inputs.platforms import Cluster, G5kProvider, Job

# Dates of jobs are in this zone on every site, wherever they are asked for.
PARIS = ZoneInfo("Europe/Paris")
# Tells our jobs from others of the same user.
ORIGIN = "origin=discovery_xp"
JOB_PREFIX = "discovery-xp-"
# A job lasts as long as its command: longer than any walltime.
COMMAND = "sleep 31536000"
VLAN_TYPES = {"kavlan": "kavlan", "kavlan-global": "kavlan-global"}

DAY_STARTS, DAY_ENDS = dt.time(9), dt.time(19)
DAY_S = 10 * 3600
NIGHT_S = 14 * 3600
WEEKEND_S = 62 * 3600
CLUSTER_SHARE_S = 2 * 3600


@dataclass(frozen=True)
class Request:
    """One request to Grid'5000's API, as it is sent: `POST /sites/SITE/jobs`.

    `clusters` are the nodes wanted by cluster.
    """

    site: str
    nodes: int
    clusters: Mapping[str, int]
    body: Mapping[str, Any]


def job_name(testbed: str) -> str:
    """What the jobs of a testbed are called."""
    return f"{JOB_PREFIX}{testbed}"


def requests(provider: G5kProvider, placed: Sequence[str], testbed: str) -> tuple[Request, ...]:
    """A request for each Grid'5000 site; `placed` names the site of each host in turn."""
    counts: dict[str, dict[str, int]] = {}
    for site in placed:
        cluster = provider.clusters[site]
        nodes = counts.setdefault(cluster.site, {})
        nodes[cluster.cluster] = nodes.get(cluster.cluster, provider.spares) + 1
    made = []
    for index, (site, clusters) in enumerate(counts.items()):
        for name in (site, *clusters):  # they become parts of OAR's own language, and of URLs
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise Refused(
                    f"{ascii(name)[:60]} is no name of a Grid'5000 site or cluster",
                    "write e.g. 'site: rennes' and 'cluster: paravance'",
                )
        criteria = [f"{{cluster='{name}'}}/nodes={count}" for name, count in clusters.items()]
        vlan = VLAN_TYPES.get(provider.network)
        if vlan == "kavlan" or (vlan == "kavlan-global" and index == 0):
            criteria.append(f"{{type='{vlan}'}}/vlan=1")
        body: dict[str, Any] = {
            "name": job_name(testbed),
            "types": ["deploy", *provider.job.types, ORIGIN],
            "resources": f"{'+'.join(criteria)},walltime={provider.job.walltime}",
            "command": COMMAND,
            "queue": provider.job.queue,
        }
        if provider.job.project:
            body["project"] = provider.job.project
        if provider.job.reservation:
            body["reservation"] = provider.job.reservation
        made.append(Request(site, sum(clusters.values()), clusters, body))
    return tuple(made)


def node_hours(requested: Iterable[Request], walltime_s: float) -> float:
    """What the requests cost, if their jobs last their whole walltime."""
    return sum(request.nodes for request in requested) * walltime_s / 3600


def at(request: Request, start: float) -> Request:
    """The same request, to start at a date in seconds since 1970."""
    return dataclasses.replace(request, body={**request.body, "reservation": paris(start)})


def start_of(job: Job) -> float | None:
    """When a job is to start, in seconds since 1970; None for as soon as possible."""
    return None if job.reservation is None else timestamp(job.reservation)


def timestamp(date: str) -> float:
    """A date as OAR writes it, in seconds since 1970."""
    naive = dt.datetime.strptime(date, "%Y-%m-%d %H:%M:%S")
    return naive.replace(tzinfo=PARIS).timestamp()


# ---------------------------------------------------------------- the usage policy


def policy_warnings(job: Job, clusters: Mapping[Cluster, int]) -> list[str]:
    """What of the usage policy a job may break, in words; `clusters` are the nodes of each.

    Holidays count as working days here.
    """
    if job.queue == "besteffort" or "besteffort" in job.types:
        return ["jobs of type besteffort end whenever somebody else asks for their nodes"]
    if job.queue != "default":
        return [f"queue '{job.queue}' has rules of its own, which aren't checked"]
    return [*_too_long(job), *_too_much_by_day(job, clusters)]


def policy_at(job: Job, start: float) -> str:
    """A word on a job that would start at `start`: whose share it is of."""
    dated = dataclasses.replace(job, reservation=paris(start))
    if _too_long(dated):
        return "too long"
    by_day_s = by_day(dated)
    return f"{by_day_s / 3600:.1f} h of a working day" if by_day_s else "fits"


def paris(at: float) -> str:
    """A date as OAR writes it."""
    return dt.datetime.fromtimestamp(at, PARIS).strftime("%Y-%m-%d %H:%M:%S")


def _too_long(job: Job) -> list[str]:
    longest_s = WEEKEND_S if _is_in_weekend(job) else NIGHT_S
    if job.walltime_s <= longest_s:
        return []
    remedy = "split the experiment"
    if job.walltime_s <= WEEKEND_S:
        remedy = "start at a weekend: 'reservation' on a Friday from 19:00 on"
    return [
        f"{job.walltime} is longer than the {longest_s // 3600} hours that a job may last "
        f"{'at a weekend' if longest_s == WEEKEND_S else 'outside of weekends'}; {remedy}"
    ]


def _too_much_by_day(job: Job, clusters: Mapping[Cluster, int]) -> list[str]:
    by_day_s = by_day(job)
    if by_day_s <= CLUSTER_SHARE_S:
        return []
    when = "that it takes" if job.reservation else "that it takes if it starts then"
    return [
        f"{nodes} nodes of {cluster.cluster} for the {by_day_s / 3600:g} hours between 9:00 and "
        f"19:00 {when} are over a user's share, two hours of the whole cluster a day, unless "
        f"{cluster.cluster} has {math.ceil(nodes * by_day_s / CLUSTER_SHARE_S)} nodes; write "
        "'job_types: [night]', or a 'reservation' from 19:00 on"
        for cluster, nodes in clusters.items()
    ]


def by_day(job: Job) -> float:
    """The most seconds between 9:00 and 19:00 of one working day that a job lasts.

    A job without a start may start at any time, so it counts as if it were all by day.
    """
    if "night" in job.types:
        return 0.0
    start = start_of(job)
    if start is None:
        return min(job.walltime_s, DAY_S)
    end, most = start + job.walltime_s, 0.0
    day = dt.datetime.fromtimestamp(start, PARIS).date()
    while (opening := _at(day, DAY_STARTS)) < end:
        if day.weekday() < 5:
            most = max(most, min(end, _at(day, DAY_ENDS)) - max(start, opening))
        day += dt.timedelta(days=1)
    return most


def _is_in_weekend(job: Job) -> bool:
    """True when a job lies between Friday, 19:00, and Monday, 9:00."""
    start = start_of(job)
    if start is None:
        return False
    day = dt.datetime.fromtimestamp(start, PARIS).date()
    monday = day + dt.timedelta(days=(7 - day.weekday()) % 7)
    opens = _at(monday - dt.timedelta(days=3), DAY_ENDS)
    return opens <= start and start + job.walltime_s <= _at(monday, DAY_STARTS)


def _at(day: dt.date, time: dt.time) -> float:
    return dt.datetime.combine(day, time, PARIS).timestamp()
