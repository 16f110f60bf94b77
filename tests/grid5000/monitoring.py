"""Jobs and the state of resources, as the jobs API and the monitoring API describe them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .jobs import Job, Jobs
from .platform import DEFAULT_VLAN, Cluster, Platform, Site

Document = dict[str, Any]


def job(one: Job, now: float, pace_s: float) -> Document:
    """A job without its resources; what has no value is left out, as the real API does."""
    asked = one.asked
    is_reserved = one.reservation_at is not None
    # The scheduler hasn't looked at a new job yet.
    is_planned = one.started_at is not None or is_reserved or now >= one.submitted_at + pace_s
    # A reservation has its start from the beginning, any other job 0 as long as it waits.
    started = one.started_at if one.started_at is not None else one.reservation_at or 0
    described = {
        "uid": one.uid,
        "user_uid": asked.user,
        "user": asked.user,
        "walltime": one.walltime_s,
        "queue": one.queue,
        "state": one.state,
        "project": one.project,
        "name": asked.name,
        "types": list(one.types),
        "mode": "PASSIVE",
        "command": asked.command,
        "submitted_at": int(one.submitted_at),
        "scheduled_at": int(one.starts_at) if one.starts_at and is_planned else None,
        "started_at": int(started),
        "stopped_at": None if one.stopped_at is None else int(one.stopped_at),
        "message": one.message,
        "properties": asked.properties,
        "directory": asked.directory or f"/home/{asked.user}",
        "events": list(one.events),
    }
    return {name: value for name, value in described.items() if value is not None}


def resources(one: Job, platform: Platform, now: float, pace_s: float) -> Document:
    """What a job has, or will have, by type."""
    site = platform.sites[one.asked.site]
    cores = {n.fqdn: c.spec.cores for c in site.clusters.values() for n in c.nodes}
    is_planned = one.reservation_at is not None or now >= one.submitted_at + pace_s
    if one.started_at is None and not is_planned:
        return {"resources_by_type": {}, "assigned_nodes": []}
    nodes = one.named("node")
    by_type = {
        "cores": [f"{node}/{core}" for node in nodes for core in range(cores[node])],
        "vlans": one.named("vlan"),
        "subnets": one.named("subnet"),
    }
    present = {kind: names for kind, names in by_type.items() if names}
    return {"resources_by_type": present, "assigned_nodes": nodes}


def status(
    site: Site,
    clusters: Iterable[Cluster],
    jobs: Jobs,
    platform: Platform,
    now: float,
    with_jobs: bool = True,
    with_waiting: bool = True,
    only_node: str | None = None,
    with_networks: bool = True,
) -> Document:
    """The state of nodes, and of VLANs and subnets when it is that of a site."""
    pace_s = jobs.pace.scheduling_s
    holders: dict[tuple[str, str], list[Job]] = {}
    for one in jobs.of(site.name):
        if one.is_active and (with_waiting or one.state != "waiting"):
            for resource in one.resources:
                holders.setdefault(resource, []).append(one)

    def reservations(kind: str, name: str) -> Document:
        if not with_jobs:
            return {}
        described = [job(one, now, pace_s) for one in holders.get((kind, name), ())]
        for one in described:
            del one["events"]
        return {"reservations": described}

    def is_busy(kind: str, name: str) -> list[Job]:
        return [one for one in holders.get((kind, name), ()) if one.state == "running"]

    nodes: Document = {}
    for cluster in clusters:
        for node in cluster.nodes:
            if only_node not in (None, node.fqdn):
                continue
            hard = jobs.hardware.get(node.fqdn, "alive")
            busy = is_busy("node", node.fqdn)
            cores = cluster.spec.cores
            besteffort = bool(busy) and all(one.is_besteffort for one in busy)
            soft = "busy" if busy else "unknown" if hard == "dead" else "free"
            nodes[node.fqdn] = {
                "hard": hard,
                "soft": soft + ("_besteffort" if besteffort else ""),
                "comment": "OK",
                "free_slots": cores if soft == "free" else 0,
                "freeable_slots": cores if besteffort else 0,
                "busy_slots": cores if busy and not besteffort else 0,
                **reservations("node", node.fqdn),
            }
    found: Document = {"uid": int(now), "nodes": nodes, "disks": {}}
    if with_networks:
        found["vlans"] = {
            vlan: {
                "hard": "alive",
                "soft": "busy" if is_busy("vlan", vlan) else "free",
                "type": of_type,
                **reservations("vlan", vlan),
            }
            for vlan, of_type in platform.vlans(site).items()
            if vlan != DEFAULT_VLAN and of_type != "kavlan-global-remote"
        }
        found["subnets"] = {
            str(subnet): {
                "hard": "alive",
                "soft": "busy" if is_busy("subnet", str(subnet)) else "free",
                **reservations("subnet", str(subnet)),
            }
            for subnet in site.subnets.subnets(new_prefix=22)
        }
    return found
