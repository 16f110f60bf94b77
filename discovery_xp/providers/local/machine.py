"""Is this machine fit for the plan?  Decided before anything is started."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from discovery_xp.errors import Failed, Refused
from discovery_xp.files import write_atomically
from discovery_xp.inputs.units import format_bytes
from discovery_xp.places import home
from discovery_xp.planning.plan import IMAGE_DISK_BYTES, Plan
from discovery_xp.providers.local import cgroups, disks, shares
from discovery_xp.providers.local.run import run

# Program -> Debian package that has it.
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "tc": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "wirefilter": "vde2",
    "vde_switch": "vde2",
}

MEMORY_RESERVE_BYTES = 256 * 2**20
# A host's systemd holds four or five inotify instances; the services on it want some more.
INOTIFY_INSTANCES_PER_HOST = 8
_SYSCTL = Path("/proc/sys")


def check(plan: Plan, hosts_to_start: int, image_is_cached: bool) -> None:
    """Refuse what can't work; raises Refused with the sum or the remedy."""
    if os.geteuid() != 0:
        raise Refused("emulated hosts need root", "run it as root, e.g. with sudo")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        raise Refused(
            f"missing programs of {', '.join(missing)}",
            f"install them: 'apt-get install {' '.join(missing)}', or start through ./xp",
        )
    if not Path("/dev/net/tun").exists() and not Path("/sys/class/misc/tun").exists():
        raise Refused("this kernel has no TUN/TAP devices", "load the module: 'modprobe tun'")
    disks.check()
    cgroups.check_limits(host.limit for host in plan.hosts)
    if plan.time_scale != 1:
        shares.check()
    share = hosts_to_start / max(1, len(plan.hosts))
    _check_memory(plan.needs.memory_bytes * share, hosts_to_start)
    needed = plan.needs.disk_bytes
    _check_disk((needed - IMAGE_DISK_BYTES) * share if image_is_cached else needed)
    _check_disk_limits(plan)


def _check_memory(needed: float, hosts: int) -> None:
    available = available_memory_bytes()
    if needed and needed + MEMORY_RESERVE_BYTES > available:
        raise Refused(
            f"{hosts} hosts need {format_bytes(needed)} of memory and a reserve of "
            f"{format_bytes(MEMORY_RESERVE_BYTES)}, but {format_bytes(available)} is available",
            "plan fewer hosts, or free some memory",
        )


def _disk() -> tuple[Path, int]:
    """What there is of home's path, and the bytes that are free there."""
    place = home()
    while not place.exists():
        place = place.parent
    return place, shutil.disk_usage(place).free


def _check_disk_limits(plan: Plan) -> None:
    """Refuse a host that may write more than there is, unless its disk is there already."""
    place, free = _disk()
    most = max(plan.hosts, key=lambda host: host.limit.disk_bytes or 0)
    there = home() / "testbeds" / plan.name / "hosts" / most.name
    if (most.limit.disk_bytes or 0) > free and not there.exists():
        raise Refused(
            f"{most.name} may fill {format_bytes(most.limit.disk_bytes or 0)} of disk, but {place} "
            f"has {format_bytes(free)}",
            "lower 'disk' in provider.limits, or set DISCOVERY_XP_HOME to a larger disk",
        )


def _check_disk(needed: float) -> None:
    place, free = _disk()
    if needed > free:
        raise Refused(
            f"the hosts need {format_bytes(needed)} of disk, but {place} has {format_bytes(free)}",
            "free some, or set DISCOVERY_XP_HOME and DISCOVERY_XP_CACHE to a larger disk",
        )


def available_memory_bytes() -> int:
    """What the kernel says can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise Refused("/proc/meminfo has no MemAvailable", "use a kernel of this century")


def check_addresses(plan: Plan, own_device: str) -> None:
    """Refuse a network that this machine already uses, except through `own_device`."""
    network = ipaddress.IPv4Network(plan.network or "")
    for route in json.loads(run(["ip", "-j", "-4", "route", "show"]) or "[]"):
        if route.get("dev") == own_device or route["dst"] == "default":
            continue
        if ipaddress.IPv4Network(route["dst"], strict=False).overlaps(network):
            raise Refused(
                f"the network {network} of '{plan.name}' meets {route['dst']} on "
                f"{route.get('dev', 'this machine')}",
                "choose another with 'provider: {type: local, network: 10.N.0.0/16}', "
                "or another --name",
            )


# ---------------------------------------------------------------- kernel limits


def raise_limits(hosts_in_all: int, neighbours: int) -> None:
    """Raise the kernel's limits for so many hosts; the first values are noted first.

    Raises Refused, and says how, where the kernel doesn't let us.
    """
    instances = 128 + hosts_in_all * INOTIFY_INSTANCES_PER_HOST
    limits = {
        "fs/inotify/max_user_instances": instances,
        "fs/inotify/max_user_watches": 65536 + 64 * instances,
        # One neighbour table serves all network namespaces of the machine.
        "net/ipv4/neigh/default/gc_thresh3": 1024 + 2 * neighbours,
        "net/ipv4/neigh/default/gc_thresh2": 512 + 2 * neighbours,
        "net/ipv4/neigh/default/gc_thresh1": 128 + 2 * neighbours,
    }
    current = {key: int((_SYSCTL / key).read_text()) for key in limits if (_SYSCTL / key).exists()}
    short = {key: limits[key] for key, value in current.items() if value < limits[key]}
    if not short:
        return
    before = _noted()
    _note({**{key: current[key] for key in short}, **before})
    for key, value in short.items():
        try:
            (_SYSCTL / key).write_text(str(value))
        except OSError:
            name = key.replace("/", ".")
            raise Refused(
                f"{name} is {current[key]}, {hosts_in_all} hosts need {value}, "
                "and this machine doesn't let us raise it",
                f"raise it outside: 'sysctl -w {name}={value}'",
            ) from None


def restore_limits() -> None:
    """Put the noted values back: for when the last testbed of this machine is gone."""
    for key, value in _noted().items():
        with contextlib.suppress(OSError):
            (_SYSCTL / key).write_text(str(value))
    _notes().unlink(missing_ok=True)


def _notes() -> Path:
    """Beside no testbed: limits belong to the machine, and end with its run, as this file."""
    return Path("/run/discovery-xp-limits-before.json")


def _noted() -> Mapping[str, int]:
    try:
        return dict(json.loads(_notes().read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _note(values: Mapping[str, int]) -> None:
    write_atomically(_notes(), json.dumps(values, indent=1) + "\n")


# ---------------------------------------------------------------- kernel abilities


def kernel_has_netem() -> bool:
    """Try sch_netem for real, in a network namespace that ends with the attempt.

    Raises Failed when no namespace can be made at all.
    """
    attempt = "ip link set lo up && tc qdisc add dev lo root netem delay 1ms 2>&1"
    done = run(["unshare", "--net", "sh", "-c", f"{attempt} || echo refused: $?"])
    if "Operation not permitted" in done:
        raise Failed("tc isn't permitted here", "run it as root")
    return "refused" not in done
