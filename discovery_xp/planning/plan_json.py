"""A plan that was stored, read again: none whose parts don't fit each other gets through."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from discovery_xp.errors import Refused
from discovery_xp.inputs import platforms
from discovery_xp.planning import layout_checks
from discovery_xp.planning.plan import PLAN_FORMAT, Plan, PlannedLink

_PLAN = TypeAdapter(Plan)
_LINKS = TypeAdapter(tuple[PlannedLink, ...])


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """A plan as `Plan.to_json` wrote it.

    Raises Refused on another format, ValueError or BadName on what no plan is made of.
    """
    if data.get("format") != PLAN_FORMAT:
        raise Refused(
            f"a plan of format {data.get('format')}, but this version reads {PLAN_FORMAT}",
            "use the version that wrote it",
        )
    plan = _PLAN.validate_python(data)
    for fault in _faults(plan):
        raise ValueError(fault)
    return plan


def links_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[PlannedLink, ...]:
    """Links as `dataclasses.asdict` made them."""
    return _LINKS.validate_python(data)


def _faults(plan: Plan) -> Iterator[str]:
    """What of a damaged plan would stop whoever uses it; raises ValueError for addresses."""
    sites, hosts = [site.name for site in plan.sites], [host.name for host in plan.hosts]
    if len({*sites}) < len(sites) or len({*hosts}) < len(hosts):
        yield "a site or a host is there twice"
    if [site.number for site in plan.sites] != list(range(1, len(sites) + 1)):
        yield "the sites aren't numbered"
    if {host.site for host in plan.hosts} != {*sites}:
        yield "a host has no site, or a site no host"
    if sum("master" in host.roles for host in plan.hosts) != 1:
        yield "there isn't one master"
    ends = [(link.source, link.target) for link in plan.links]
    if sorted(ends) != sorted(itertools.permutations(sites, 2)):
        yield "there isn't one link for each pair of sites"
    yield from _faults_of_addresses(plan)
    if plan.provider == "static" and not all(host.ssh and host.address for host in plan.hosts):
        yield "the way to a host is missing"
    if plan.cloud is not None:
        yield from layout_checks.faults(plan.cloud, plan.hosts)
    lent = plan.provider in platforms.TYPES
    if not lent and plan.provider not in ("local", "static"):
        yield "the provider is unknown"
    if (plan.platform.type if plan.platform else None) != (plan.provider if lent else None):
        yield "it is of another provider"


def _faults_of_addresses(plan: Plan) -> Iterator[str]:
    networks = [plan.network, plan.backbone, *(site.network for site in plan.sites)]
    addresses = [plan.machine, plan.router, *(host.address for host in plan.hosts)]
    addresses += [each for site in plan.sites for each in (site.gateway, site.backbone_address)]
    if plan.provider == "local" and None in (*networks, *addresses):
        yield "an address is missing"
    for network in filter(None, networks):
        ipaddress.IPv4Network(network)
    for address in filter(None, addresses):
        ipaddress.IPv4Address(address)
