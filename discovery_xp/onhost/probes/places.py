"""Where the probes of a host are, and what they wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ..process import read, replace

CODE = "/etc/discovery-xp-probes"
RECORDS = "/var/lib/discovery-xp-probes"
# The probe that samples between a window's ends.
SERIES = "series"


def save(name: str, counters: Mapping[str, Any]) -> None:
    """Keep what counters are at, under a name, in one step."""
    replace(f"{RECORDS}/{name}.json", json.dumps(counters))


def saved(name: str) -> dict[str, Any]:
    """Return what was kept under a name; nothing where that is absent or damaged."""
    try:
        counters: dict[str, Any] = json.loads(read(f"{RECORDS}/{name}.json"))
    except (OSError, ValueError):
        return {}
    return counters


def forget(name: str) -> None:
    """Remove what was kept under a name."""
    if os.path.exists(f"{RECORDS}/{name}.json"):
        os.unlink(f"{RECORDS}/{name}.json")
