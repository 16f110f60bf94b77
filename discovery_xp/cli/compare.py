"""`discovery-xp compare`: two sides of runs; registered by `cli`."""

from __future__ import annotations

from collections.abc import Sequence

from discovery_xp.store import Run


def print_arms(names: Sequence[str], runs: Sequence[tuple[str, Run]]) -> None:
    """Compare the arms of a bench, each with the one that was named first."""
