"""Galera's files, as text and settings: MariaDB's, the arbitrator's, HAProxy's.

Pure.  Nothing in them is secret, and none of it comes from a user: names of hosts and testbeds
are checked names, addresses are addresses.  Security is that of docs/ports.md: the group's ports
are for the testbed's hosts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases
from discovery_xp.planning.databases import Store
from discovery_xp.planning.galera import GaleraLayout, Timeouts
from discovery_xp.planning.layout import CloudLayout

PROVIDER = "/usr/lib/galera/libgalera_smm.so"
# What a node that was away can catch up with, without a whole copy: about 800 boots.
GCACHE = "128M"
APPLIERS = 4
# Messages on their way at once; Galera's 4 and 2 allow a node 20 commits a second at 100 ms.
SEND_WINDOW, USER_SEND_WINDOW = 512, 256
_MOST_OF_GROUP = 32  # characters


@dataclass(frozen=True)
class GaleraNode:
    """A node: `settings` are of the sections [mysqld] and [sst] of MariaDB's configuration."""

    host: str
    address: str
    settings: Mapping[str, Mapping[str, str | int]]


@dataclass(frozen=True)
class GaleraVariables:
    """Galera of a cloud: its nodes in their order, the first of which starts the cluster.

    `by_host` has the node of a host; `members` is the number of nodes and arbitrators;
    `arbitrator` is the configuration of garbd on `arbitrator_host`, both None where there is none;
    `proxies` has HAProxy's configuration for each host with clients.
    """

    nodes: tuple[GaleraNode, ...]
    by_host: Mapping[str, GaleraNode]
    members: int
    arbitrator_host: str | None
    arbitrator: str | None
    proxies: Mapping[str, str]


def galera_variables(
    testbed: str, layout: CloudLayout, addresses: Mapping[str, str]
) -> GaleraVariables | None:
    """Return what the roles are told of Galera; None of a cloud without it."""
    galera = layout.galera
    if galera is None:
        return None
    store = next(each for each in layout.stores if each.kind == databases.GALERA)
    group = group_of(testbed)
    nodes = tuple(
        GaleraNode(
            node.host,
            addresses[node.host],
            {
                "mysqld": _settings(group, node.host, layout, galera, store, addresses),
                # Where socat listens for a copy; at all addresses without this.
                "sst": {"sockopt": f",bind={addresses[node.host]}"},
            },
        )
        for node in store.nodes
    )
    host = galera.arbitrator
    return GaleraVariables(
        nodes=nodes,
        by_host={node.host: node for node in nodes},
        members=len(nodes) + (host is not None),
        arbitrator_host=host,
        arbitrator=None if host is None else arbitrator(group, host, galera, store, addresses),
        proxies={
            each: proxy([(name, addresses[name]) for name in order], galera.timeouts)
            for each, order in galera.proxies.items()
        },
    )


def group_of(testbed: str) -> str:
    """Return the name of a testbed's group: of a long one the beginning and a digest.

    Galera's nodes don't understand each other where it has more than 32 characters.
    """
    name = f"discovery-xp-{testbed}"
    if len(name) <= _MOST_OF_GROUP:
        return name
    digest = hashlib.sha256(testbed.encode()).hexdigest()[:12]
    return f"{name[: _MOST_OF_GROUP - 13]}-{digest}"


def _settings(
    group: str,
    host: str,
    layout: CloudLayout,
    galera: GaleraLayout,
    store: Store,
    addresses: Mapping[str, str],
) -> dict[str, str | int]:
    return {
        "binlog_format": "ROW",
        "innodb_autoinc_lock_mode": 2,
        "wsrep_on": "ON",
        "wsrep_provider": PROVIDER,
        "wsrep_cluster_name": group,
        "wsrep_cluster_address": f"gcomm://{_members(store, addresses)}",
        "wsrep_node_name": host,
        "wsrep_node_address": addresses[host],
        # A donor answers its clients meanwhile, which it doesn't with rsync.
        "wsrep_sst_method": "mariabackup",
        # MariaDB's own user, known by the socket: there is no password.
        "wsrep_sst_auth": "mysql:",
        "wsrep_sst_receive_address": f"{addresses[host]}:{catalogue.GALERA_SST_PORT}",
        "wsrep_slave_threads": APPLIERS,
        # A node that can't make a table, as its disk is full, must not go on without it.
        "wsrep_ignore_apply_errors": 0,
        "wsrep_sync_wait": layout.options.galera.sync_wait,
        "transaction_isolation": layout.options.galera.isolation.upper(),
        # Which two transactions wanted what is in the server's journal.
        "wsrep_log_conflicts": "ON",
        "wsrep_provider_options": provider_options(
            addresses[host], catalogue.GALERA_PORT, galera.segments[host], galera.timeouts, GCACHE
        ),
    }


def _members(store: Store, addresses: Mapping[str, str]) -> str:
    return ",".join(f"{addresses[node.host]}:{catalogue.GALERA_PORT}" for node in store.nodes)


def provider_options(
    address: str, port: int, segment: int, timeouts: Timeouts, gcache: str | None = None
) -> str:
    """Return the options of a member of the group; an arbitrator caches nothing."""
    options: dict[str, str | int] = {
        "gmcast.listen_addr": f"tcp://{address}:{port}",
        "gmcast.segment": segment,
        "gmcast.peer_timeout": _period(timeouts.peer_s),
        "evs.keepalive_period": _period(timeouts.keepalive_s),
        "evs.join_retrans_period": _period(timeouts.retransmit_s),
        "evs.suspect_timeout": _period(timeouts.suspect_s),
        "evs.inactive_timeout": _period(timeouts.inactive_s),
        "evs.install_timeout": _period(timeouts.install_s),
        "evs.send_window": SEND_WINDOW,
        "evs.user_send_window": USER_SEND_WINDOW,
    }
    if gcache is not None:
        options["gcache.size"] = gcache
        options["cert.log_conflicts"] = "YES"
        options["ist.recv_addr"] = f"{address}:{catalogue.GALERA_IST_PORT}"
    return "; ".join(f"{name}={value}" for name, value in options.items())


def _period(seconds: float) -> str:
    """Write a time as Galera reads it, by ISO 8601."""
    return f"PT{seconds:g}S"


def arbitrator(
    group: str, host: str, galera: GaleraLayout, store: Store, addresses: Mapping[str, str]
) -> str:
    """Return the configuration of garbd."""
    options = provider_options(
        addresses[host], catalogue.ARBITRATOR_PORT, galera.segments[host], galera.timeouts
    )
    return (
        f"group = {group}\nname = {host}-arbitrator\n"
        f"address = gcomm://{_members(store, addresses)}\noptions = {options}\n"
    )


def proxy(nodes: Sequence[tuple[str, str]], timeouts: Timeouts) -> str:
    """Return HAProxy's configuration; `nodes` are names and addresses, the first one asked first.

    A donor is asked only where no other node takes clients.  A connection to a node that no longer
    does is cut, so that its client connects again; so is one to a stand-in once the first is back.
    """
    check_ms, every_ms, connect_ms = (
        round(seconds * 1000)
        for seconds in (timeouts.check_s, timeouts.check_every_s, timeouts.connect_s)
    )
    port = catalogue.DATABASE_PROXY_PORT
    lines = f"""\
global
    user haproxy
    group haproxy
    maxconn 8000
    log stdout format raw daemon notice

defaults
    mode tcp
    log global
    option tcpka
    option redispatch
    retries 3
    timeout connect {connect_ms}ms
    timeout check {check_ms}ms
    # Longer than MariaDB's own, so that it is the server that ends what is idle.
    timeout client 9h
    timeout server 9h
    default-server port {catalogue.GALERA_CHECK_PORT} inter {every_ms}ms fall 3 rise 2 \
observe layer4 error-limit 5 on-error mark-down on-marked-down shutdown-sessions

frontend databases
    bind 127.0.0.1:{port}
    use_backend donors if {{ nbsrv(nodes) eq 0 }}
    default_backend nodes

backend nodes
    option httpchk GET /
""".splitlines()
    lines += [f"    {_server(number, *node)}" for number, node in enumerate(nodes)]
    lines += ["", "backend donors", "    option httpchk GET /donor"]
    lines += [
        f"    server {name} {address}:{catalogue.MARIADB_PORT} check{' backup' if number else ''}"
        for number, (name, address) in enumerate(nodes)
    ]
    return "\n".join(lines) + "\n"


def _server(number: int, name: str, address: str) -> str:
    words = f"server {name} {address}:{catalogue.MARIADB_PORT} check"
    return f"{words} backup" if number else f"{words} on-marked-up shutdown-backup-sessions"
