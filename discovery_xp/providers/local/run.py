"""Commands of this machine, run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from discovery_xp.errors import Failed


def run(command: Sequence[str], stdin: str = "", timeout_s: float = 120) -> str:
    """Run `command`; returns what it printed, raises Failed with its last line."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"'{' '.join(command)}' took over {timeout_s:.0f} s", "try again") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise Failed(f"'{' '.join(command)}' failed: {lines[-1]}", "correct it and try again")
    return done.stdout
