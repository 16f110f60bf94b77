"""Network namespaces of a testbed: hosts on a bridge for each site, sites on a backbone.

    host --veth-- [site: bridge, gateway] --veth-- [backbone: router] --veth-- this machine

Nothing but one interface, one route and the rules of `access` exists outside the
namespaces, so that removing those removes everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from discovery_xp.errors import Failed
from discovery_xp.planning.plan import Plan, PlannedSite
from discovery_xp.providers.local import access
from discovery_xp.providers.local.run import run

_NAMESPACES = Path("/run/netns")
T = TypeVar("T")


def host_namespace(testbed: str, host: str) -> str:
    """Name of a host's network namespace."""
    return f"dxp.{testbed}.host.{host}"


def site_namespace(testbed: str, site: str) -> str:
    """Name of the network namespace of a site's gateway."""
    return f"dxp.{testbed}.site.{site}"


def backbone_namespace(testbed: str) -> str:
    """Name of the backbone's network namespace."""
    return f"dxp.{testbed}.backbone"


def machine_device(testbed: str) -> str:
    """This machine's interface to the backbone (15 characters are the kernel's limit)."""
    return f"dxp{hashlib.sha256(testbed.encode()).hexdigest()[:10]}"


def namespaces(testbed: str) -> set[str]:
    """Those of a testbed that exist."""
    if not _NAMESPACES.is_dir():
        return set()
    return {
        entry.name for entry in _NAMESPACES.iterdir() if entry.name.startswith(f"dxp.{testbed}.")
    }


def testbeds() -> set[str]:
    """Names of the testbeds that have namespaces."""
    if not _NAMESPACES.is_dir():
        return set()
    return {
        entry.name.split(".")[1]
        for entry in _NAMESPACES.iterdir()
        if entry.name.startswith("dxp.") and entry.name.count(".") >= 2
    }


def build(plan: Plan) -> None:
    """Make all namespaces, links, addresses and routes; what was there goes first."""
    remove(plan.name)
    names = [backbone_namespace(plan.name)]
    names += [site_namespace(plan.name, site.name) for site in plan.sites]
    names += [host_namespace(plan.name, host.name) for host in plan.hosts]

    def add(name: str) -> None:
        run(["ip", "netns", "add", name])

    in_parallel(add, names)
    _build_backbone(plan)
    in_parallel(lambda site: _build_site(plan, site), plan.sites)


def guard(plan: Plan, exposed: bool) -> None:
    """Keep this machine's other users and the hosts apart, unless the hosts are `exposed`."""
    if not access.apply(plan, exposed):
        return
    rule = access.site_rule(plan)

    def set_rule(site: PlannedSite) -> None:
        namespace = site_namespace(plan.name, site.name)
        with contextlib.suppress(Failed):  # it has none
            batch(namespace, [f"rule del {rule}"])
        if not exposed:
            batch(namespace, [f"rule add {rule}"])

    in_parallel(set_rule, plan.sites)


def in_parallel(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do `work` on all items, some at once; raises the first error."""
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        list(pool.map(work, items))


def batch(namespace: str, lines: Iterable[str]) -> None:
    """Run lines of ip(8) inside a namespace."""
    run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _forward(namespace: str) -> None:
    settings = (
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; "
        # What joins sites in user space sends datagrams: ten in a queue would drop bursts.
        "echo 2048 >/proc/sys/net/unix/max_dgram_qlen"
    )
    run(["ip", "netns", "exec", namespace, "sh", "-ec", settings])


def _build_backbone(plan: Plan) -> None:
    backbone, device = backbone_namespace(plan.name), machine_device(plan.name)
    prefix = ipaddress.IPv4Network(plan.backbone or "").prefixlen
    _forward(backbone)
    run(["ip", "link", "add", device, "type", "veth", "peer", "name", "machine", "netns", backbone])
    lines = [
        "link set lo up",
        "link add sites type bridge",
        f"addr add {plan.router}/{prefix} dev sites",
        "link set sites up",
        "link set machine master sites up",
    ]
    for site in plan.sites:
        namespace = site_namespace(plan.name, site.name)
        lines.append(f"link add site{site.number} type veth peer name backbone netns {namespace}")
        lines.append(f"link set site{site.number} master sites up")
        lines.append(f"route add {site.network} via {site.backbone_address}")
    batch(backbone, lines)
    run(["ip", "addr", "add", f"{plan.machine}/{prefix}", "dev", device])
    run(["ip", "link", "set", device, "up"])
    run(["ip", "route", "add", plan.network or "", "via", plan.router or "", "dev", device])


def _build_site(plan: Plan, site: PlannedSite) -> None:
    namespace = site_namespace(plan.name, site.name)
    prefix = ipaddress.IPv4Network(site.network or "").prefixlen
    backbone_prefix = ipaddress.IPv4Network(plan.backbone or "").prefixlen
    hosts = plan.hosts_of(site.name)
    _forward(namespace)
    lines = [
        "link set lo up",
        "link add hosts type bridge",
        f"addr add {site.gateway}/{prefix} dev hosts",
        "link set hosts up",
        f"addr add {site.backbone_address}/{backbone_prefix} dev backbone",
        "link set backbone up",
        f"route add default via {plan.router}",
    ]
    for index, host in enumerate(hosts, start=1):
        inside = host_namespace(plan.name, host.name)
        lines.append(f"link add host{index} type veth peer name eth0 netns {inside}")
        lines.append(f"link set host{index} master hosts up")
    batch(namespace, lines)
    for host in hosts:
        batch(
            host_namespace(plan.name, host.name),
            [
                "link set lo up",
                f"addr add {host.address}/{prefix} dev eth0",
                "link set eth0 up",
                f"route add default via {site.gateway}",
            ],
        )


def remove_stray_devices() -> None:
    """Remove interfaces of ours whose testbed is gone; for when no testbed is left."""
    for entry in Path("/sys/class/net").iterdir():
        if access.DEVICE.fullmatch(entry.name):
            with contextlib.suppress(Failed):
                run(["ip", "link", "delete", entry.name])
    access.remove_strays()


def is_whole(plan: Plan) -> bool:
    """True when every namespace is there, and this machine's way into them."""
    names = {backbone_namespace(plan.name)}
    names |= {site_namespace(plan.name, site.name) for site in plan.sites}
    names |= {host_namespace(plan.name, host.name) for host in plan.hosts}
    if not names <= namespaces(plan.name):
        return False
    # A namespace whose mount is gone (after a reboot) is an empty file that nobody can enter.
    if not all(os.path.ismount(_NAMESPACES / name) for name in names):
        return False
    try:
        routes = run(["ip", "-4", "route", "show", "dev", machine_device(plan.name)])
    except Failed:
        return False
    return (plan.network or "") in routes


def remove(testbed: str) -> None:
    """Remove the testbed's namespaces and interface, whole or half-made."""
    for name in sorted(namespaces(testbed)):
        try:
            run(["ip", "netns", "delete", name])
        except Failed:
            with contextlib.suppress(OSError):  # its mount is gone: only the file is left
                (_NAMESPACES / name).unlink()
    device = machine_device(testbed)
    if (Path("/sys/class/net") / device).exists():
        # Its other end's namespace takes it along, a moment later or before us.
        with contextlib.suppress(Failed):
            run(["ip", "link", "delete", device])
    access.remove_strays()  # the rules of this testbed, as its interface is gone
