"""What this machine's kernel has and knows, by looking only."""

from __future__ import annotations

import gzip
import ipaddress
import os
import re
import sys
from pathlib import Path


def netem_is_likely() -> bool | None:
    """True when tc netem can be had, None where looking doesn't tell."""
    if Path("/sys/module/sch_netem").exists():
        return True
    release = os.uname().release
    listed = [Path(f"/lib/modules/{release}/{name}") for name in ("modules.dep", "modules.builtin")]
    if any(path.exists() for path in listed):
        return any(path.exists() and "sch_netem" in path.read_text() for path in listed)
    config = Path("/proc/config.gz")
    if config.exists():
        text = gzip.decompress(config.read_bytes()).decode()
        return "CONFIG_NET_SCH_NETEM=" in text
    return None


def own_networks(table: str | None = None) -> list[tuple[str, ipaddress.IPv4Network]]:
    """This machine's routes but the default and those into emulated hosts: device, network.

    `table` is what /proc/net/route holds, by default this machine's.
    """
    if table is None:
        path = Path("/proc/net/route")
        table = path.read_text() if path.exists() else ""
    networks = []
    for line in table.splitlines()[1:]:
        words = line.split()
        # The kernel prints addresses as numbers in the order of this machine's bytes.
        address, mask = (int(word, 16).to_bytes(4, sys.byteorder) for word in (words[1], words[7]))
        network = ipaddress.IPv4Network((address, str(ipaddress.IPv4Address(mask))), strict=False)
        if network.prefixlen and not re.fullmatch("dxp[0-9a-f]{10}", words[0]):
            networks.append((words[0], network))
    return networks
