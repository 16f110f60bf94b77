"""What a benchmark's file says of itself: when, on what machine, at which commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMAT = 1
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"


def describe(command: str) -> dict[str, Any]:
    """Return the facts that stand before a benchmark's own figures."""
    return {
        "format": FORMAT,
        "command": command,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
    }


def write(path: Path, command: str, figures: dict[str, Any]) -> None:
    """Write a benchmark's figures with their provenance; `./xp docs` shows them then.

    The file is replaced in one step: a benchmark that goes on with it may be killed at any moment.
    """
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps({**describe(command), **figures}, indent=1) + "\n")
    new.replace(path)


def _commit() -> str | None:
    """Return the commit, with '+' where the tree has changes; None outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
