"""What this machine's kernel has, by looking only."""

from __future__ import annotations

import gzip
import os
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
