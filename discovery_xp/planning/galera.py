"""How a cloud's databases are replicated by Galera: nodes, arbitrator, order of access, timeouts.

Pure, as plans are.  Each site has a node at most, or each of its data hosts is one; services ask
through HAProxy on their own host, which takes the nodes in the order that is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from discovery_xp.inputs.topology import Galera
from discovery_xp.planning.hosts import PlannedHost, PlannedLink

# The roles of a host that may have a node of its site, the first choice first.
ROLES_OF_NODES = ("data", "controller")
# The roles of hosts whose services ask databases.
ROLES_OF_CLIENTS = ("master", "controller")

# A node that wasn't heard of for so many of the longest round trips is suspected to be gone:
# 30 s at 300 ms, as in Codership's example for a WAN.
SUSPECTED_AFTER_ROUND_TRIPS = 100
# Below 10 s a node of a machine that is busy with others would be suspected, too.
LEAST_SUSPECTED_S = 10.0


@dataclass(frozen=True)
class Timeouts:
    """How long Galera's group communication and HAProxy wait, in seconds.

    `keepalive_s`, `retransmit_s`, `suspect_s`, `inactive_s` and `install_s` are Galera's
    `evs.keepalive_period`, `evs.join_retrans_period`, `evs.suspect_timeout` and so on; `peer_s` is
    `gmcast.peer_timeout`.  `check_every_s` is HAProxy's time between two checks of a node,
    `check_s` how long it waits for an answer, `connect_s` for a connection.
    """

    keepalive_s: float
    retransmit_s: float
    suspect_s: float
    inactive_s: float
    install_s: float
    peer_s: float
    check_every_s: float
    check_s: float
    connect_s: float


@dataclass(frozen=True)
class GaleraLayout:
    """Galera of a cloud; its nodes are those of the layout's store of kind 'galera'.

    `arbitrator` is the host of garbd, which has a vote and no data; None with an odd number of
    nodes.  `segments` is by host, of nodes and arbitrator: hosts of one site have one, all have 0
    where the topology wants none.  `proxies` has for each host with clients of a database the
    hosts of the nodes, in the order in which they are asked: the first, then those that stand in.
    `longest_rtt_ms` is the longest round trip between two sites with members, jitter included.
    """

    arbitrator: str | None
    segments: Mapping[str, int]
    proxies: Mapping[str, tuple[str, ...]]
    longest_rtt_ms: float
    timeouts: Timeouts


def node_hosts(
    hosts: Sequence[PlannedHost], master: PlannedHost, nodes: str = "site"
) -> list[PlannedHost]:
    """Choose the host of each site's node: its first data host, else its first controller.

    With `nodes` 'data' all data hosts of a site that has some are nodes.  A site with neither has
    no node.  The master's site comes first: its first node starts the cluster.
    """
    chosen: dict[str, list[PlannedHost]] = {}
    for role in ROLES_OF_NODES:
        for host in hosts:
            if role in host.roles and (
                host.site not in chosen or (nodes == "data" and role == "data")
            ):
                chosen.setdefault(host.site, []).append(host)
    sites = list(dict.fromkeys([master.site, *(host.site for host in hosts)]))
    return [host for site in sites for host in chosen.get(site, ())]


def decide(
    options: Galera,
    hosts: Sequence[PlannedHost],
    links: Iterable[PlannedLink],
    time_scale: float = 1.0,
) -> GaleraLayout:
    """Decide how the nodes that `node_hosts` chooses work together.

    With a `time_scale` everything takes so many times as long, and is waited for so long.
    """
    master = next(host for host in hosts if "master" in host.roles)
    nodes = node_hosts(hosts, master, options.nodes)
    arbitrator = _arbitrator(hosts, master, nodes)
    members = [*nodes, *([arbitrator] if arbitrator else [])]
    sites = list(dict.fromkeys(host.site for host in hosts))
    round_trips = _round_trips(links)
    member_sites = {host.site for host in members}
    longest_ms = max(
        (
            rtt_ms
            for (source, target), rtt_ms in round_trips.items()
            if {source, target} <= member_sites
        ),
        default=0.0,
    )
    return GaleraLayout(
        arbitrator=arbitrator.name if arbitrator else None,
        segments={host.name: sites.index(host.site) if options.segments else 0 for host in members},
        proxies={
            host.name: _order(host.site, nodes, round_trips, options.writers, turn)
            for turn, host in enumerate(_clients(hosts))
        },
        longest_rtt_ms=longest_ms,
        timeouts=timeouts(longest_ms, time_scale),
    )


def _arbitrator(
    hosts: Sequence[PlannedHost], master: PlannedHost, nodes: Sequence[PlannedHost]
) -> PlannedHost | None:
    """Choose a host for garbd where the nodes are even in number; never a node's.

    A host with both would take two of three votes with it.  The master goes first, then another
    host of its site, then any.
    """
    if len(nodes) % 2:
        return None
    free = [host for host in hosts if host not in nodes]
    return min(free, key=lambda host: (host is not master, host.site != master.site), default=None)


def _round_trips(links: Iterable[PlannedLink]) -> dict[tuple[str, str], float]:
    """Return the longest that a packet and its answer take between two sites, in ms."""
    one_way = {
        (each.source, each.target): each.link.delay_ms + each.link.jitter_ms for each in links
    }
    return {
        (source, target): delay_ms + one_way.get((target, source), 0.0)
        for (source, target), delay_ms in one_way.items()
    }


def _clients(hosts: Sequence[PlannedHost]) -> list[PlannedHost]:
    return [host for host in hosts if {*ROLES_OF_CLIENTS} & {*host.roles}]


def _order(
    site: str,
    nodes: Sequence[PlannedHost],
    round_trips: Mapping[tuple[str, str], float],
    writers: str,
    turn: int,
) -> tuple[str, ...]:
    """Return the nodes as a host's services ask them: those of its site, then the nearest.

    Of several nodes at its site each host begins with another, by its `turn`.  With one writer all
    hosts have the same order, so that they agree on the next one, too.
    """
    if writers == "one":
        return tuple(node.name for node in nodes)
    own = [node for node in nodes if node.site == site]
    first = turn % len(own) if own else 0
    others = sorted(
        (node for node in nodes if node.site != site),
        key=lambda node: round_trips.get((site, node.site), 0.0),
    )
    return tuple(node.name for node in (*own[first:], *own[:first], *others))


def timeouts(longest_rtt_ms: float, time_scale: float = 1.0) -> Timeouts:
    """Return timeouts fit for a round trip; all of Galera's that we set are decided here.

    Those of Galera's defaults that aren't set don't depend on the network.
    """
    rtt_s = longest_rtt_ms / 1000
    suspect_s = max(LEAST_SUSPECTED_S, SUSPECTED_AFTER_ROUND_TRIPS * rtt_s)
    values = {
        "keepalive_s": suspect_s / 10,
        "retransmit_s": max(1.0, 4 * rtt_s),
        "suspect_s": suspect_s,
        "inactive_s": 3 * suspect_s,
        "install_s": 1.5 * suspect_s,
        "peer_s": suspect_s / 2,
        "check_every_s": max(2.0, 4 * rtt_s),
        "check_s": max(5.0, 10 * rtt_s),
        "connect_s": max(5.0, 10 * rtt_s),
    }
    return Timeouts(**{name: round(value * time_scale, 3) for name, value in values.items()})
