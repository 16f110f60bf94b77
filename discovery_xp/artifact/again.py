"""A claim's runs, made anew: what a bench is told for each of its sides.

Each side is a stored run that has its levels, the newest one, run again by its recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_xp import recipes
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.artifact.claims import Claim
from discovery_xp.artifact.judging import chosen
from discovery_xp.artifact.levels import in_words
from discovery_xp.bench_request import BenchRequest
from discovery_xp.errors import Refused
from discovery_xp.planning.plan import Plan


@dataclass(frozen=True)
class SideAgain:
    """One side of a claim: the levels in words, and the bench that makes its run."""

    words: str
    plan: Plan
    request: BenchRequest


def sides_again(
    claim: Claim, runs: Sequence[Measurements], results: Path, keep: bool = False
) -> list[SideAgain]:
    """Return the benches that make a claim's runs anew, into `results`.

    Raises Refused where a side has no stored run, or it is known that a bench can't be made.
    """
    sides = []
    for levels in claim.sides:
        stored = chosen(claim, levels, runs)
        if not stored:
            raise Refused(
                f"claim {claim.number}: there is no complete run with {in_words(levels)}, so it "
                "isn't known what to run",
                "name a claim that has runs; 'discovery-xp artifact --check' lists them",
            )
        plan, request = recipes.request_of(stored[-1].run, results, keep)
        sides.append(SideAgain(in_words(levels), plan, request))
    return sides
