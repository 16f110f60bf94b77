"""What the experiments of 2016 published: every value once, each with its source.

These stand beside our own measurements; none of them is a target.  What isn't known
about them is in CAVEATS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VMS = 500  # asked for at once, in every published run
CONTROLLERS_PER_SITE = 1
COMPUTES_PER_SITE = 6


@dataclass(frozen=True)
class Source:
    """Where a value was published; `key` is what tables print."""

    key: str
    citation: str


TALK = Source(
    "talk",
    "J. Pastor, M. Simonin, A. Lebre, T. Carrez: Revising OpenStack Internals to Operate "
    "Massively Distributed Clouds. OpenStack Summit, Austin, 2016.",
)
IC2E = Source(
    "ic2e",
    "A. Lebre, J. Pastor, A. Simonet, F. Desprez: Revising OpenStack to Operate Fog/Edge "
    "Computing Infrastructures. IEEE International Conference on Cloud Engineering (IC2E), "
    "2017, section IV.",
)
SOURCES = (TALK, IC2E)

CAVEATS = (
    "OpenStack Kilo (2015.1) on Grid'5000 at Rennes, one machine of two 8-core processors "
    "and 128 GB for each role; a site had 1 controller and 6 computes.",
    "It isn't stated whether the inter-site latency of 10 ms and 50 ms was one-way or a round "
    "trip; it was imposed by tc, whose delays are one-way, and is compared as such here.",
    "The number of repeats, variance, virt driver, image and flavor were not reported.",
    "The API response time is that of a call of Nova's database API, not of a REST request; "
    "the relationships that were loaded later were missing from the published one.",
)

# The columns below, by backend.
REDIS, MYSQL, GALERA = "redis", "mysql", "galera"
# Our back ends that stand beside a column of another name: what was published under Redis is
# the first ROME, which took the place of Nova's database layer.
_COLUMNS = {"rome": REDIS}


def column(backend: str) -> str:
    """Return the column that runs with this back end are compared to."""
    return _COLUMNS.get(backend, backend)


@dataclass(frozen=True)
class Published:
    """A value of a table, and the cell it stands in.

    `nodes` and `replicas` are the key/value store's; `clusters` are our sites;
    `latency_ms` is None with one cluster; `aggregates` None where that wasn't varied.
    """

    table: int
    backend: str
    value: float
    source: Source
    nodes: int = 1
    replicas: int = 0
    clusters: int = 1
    latency_ms: float | None = None
    aggregates: bool | None = None


def _mono_site(table: int, rows: tuple[tuple[int, int, float, float | None], ...]) -> Iterator[
    Published
]:  # fmt: skip
    """Yield the values of rows of (nodes, replicas, Redis, MySQL)."""
    for nodes, replicas, redis, mysql in rows:
        yield Published(table, REDIS, redis, TALK, nodes, replicas)
        if mysql is not None:
            yield Published(table, MYSQL, mysql, TALK, nodes, replicas)


def _multi_site(
    table: int,
    latency_ms: float,
    rows: tuple[tuple[int, float, float, float | None], ...],
) -> Iterator[Published]:
    """Yield the values of rows of (clusters, Redis, MySQL, Galera).

    Redis and Galera had a node at each cluster.
    """
    for clusters, redis, mysql, galera in rows:
        yield Published(table, REDIS, redis, TALK, clusters, 0, clusters, latency_ms)
        yield Published(table, MYSQL, mysql, TALK, 1, 0, clusters, latency_ms)
        if galera is not None:
            yield Published(table, GALERA, galera, IC2E, clusters, 0, clusters, latency_ms)


def _aggregates(rows: tuple[tuple[int, float, float], ...]) -> Iterator[Published]:
    """Yield the values of rows of (clusters, with, without)."""
    for clusters, with_aggregates, without in rows:
        for aggregates, value in ((True, with_aggregates), (False, without)):
            yield Published(6, REDIS, value, TALK, clusters, 0, clusters, 10, aggregates)


PUBLISHED: tuple[Published, ...] = (
    # 1: average response time to API requests, mono-site, ms
    *_mono_site(1, ((1, 0, 83, 37), (4, 0, 82, None), (4, 1, 91, None))),
    # 2: time to create 500 VMs, single cluster, s
    *_mono_site(2, ((1, 0, 322, 298), (4, 0, 327, None), (4, 1, 413, None))),
    # 3 and 4: time to create 500 VMs, s; Galera's column is figure 9 of [ic2e]
    *_multi_site(
        3, 10, ((2, 271, 209, 2199), (4, 263, 139, 2011), (6, 229, 123, 1811), (8, 223, 422, 1988))
    ),
    *_multi_site(
        4, 50, ((2, 723, 268, None), (4, 427, 203, None), (6, 341, 184, None), (8, 302, 759, None))
    ),
    # 5: data exchanged over the network, MB
    *_mono_site(5, ((1, 0, 2190, 1794), (4, 0, 2382, None), (4, 1, 4186, None))),
    # 6: time to create 500 VMs, 10 ms, with and without host aggregates, s
    *_aggregates(((4, 582, 532), (8, 492, 588))),
)


def published(table: int) -> tuple[Published, ...]:
    """Return the values of one table, in its order."""
    return tuple(value for value in PUBLISHED if value.table == table)


@dataclass(frozen=True)
class Quantile:
    """A point of a published distribution of response times: `share` took at most `at_ms`."""

    backend: str
    share: float
    at_ms: float
    source: Source


QUANTILES = (
    Quantile(REDIS, 0.75, 40, TALK),
    Quantile(MYSQL, 0.75, 59, TALK),
    Quantile(REDIS, 0.90, 222, IC2E),
    Quantile(MYSQL, 0.90, 86, IC2E),
)

# Share of VMs at each of 4 sites without availability zones; with them, evenly.
SPREAD_OF_FOUR_SITES = (0.26, 0.20, 0.22, 0.32)
SPREAD_SOURCE = IC2E
