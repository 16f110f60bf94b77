"""`discovery-xp reproduce`: a run again from its recipe, or a claim's; registered by `cli`."""

from __future__ import annotations

from pathlib import Path

import click

from discovery_xp.cli.artifact import claims_option, in_words, subject
from discovery_xp.cli.bench import run_one
from discovery_xp.cli.common import console, echo
from discovery_xp.cli.compare import Percentage
from discovery_xp.errors import Failed, Refused
from discovery_xp.store import open_run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--claim", type=click.IntRange(min=1), metavar="N",
              help="Make the runs of this claim of an artifact anew.")  # fmt: skip
@claims_option
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the new runs' folders go.")  # fmt: skip
@click.option("--tolerance", type=Percentage(), metavar="SHARE",
              help="How far a figure of the run as a whole may be off (default: 10%).")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
def reproduce(
    run: Path,
    claim: int | None,
    claims: Path | None,
    results: Path,
    tolerance: float | None,
    keep: bool,
) -> None:
    """Make a stored run again, and say for each figure whether it came out as it did then.

    RUN is a run's folder; with --claim it is an artifact, its archive, or a folder of results that
    has claims. The code is 0 where all figures are within their intervals, or the claim holds
    within its tolerance; 1 where one isn't, or a new run is partial.
    """
    if claim is not None:
        if tolerance is not None:
            raise Refused("--tolerance: a claim has its own", "leave it out")
        _reproduce_claim(run, claim, claims, results, keep)
        return
    if claims is not None:
        raise Refused("--claims says nothing without a claim", "name one with --claim")
    _reproduce_run(run, results, tolerance, keep)


def _reproduce_run(run: Path, results: Path, tolerance: float | None, keep: bool) -> None:
    """Make a run again; raise Failed where a figure isn't within its interval."""
    stored = open_run(run)
    from discovery_xp import recipes

    plan, request = recipes.request_of(stored, results, keep)
    if stored.load().recipe is None:
        echo("the run has no recipe: what was told comes from its files and options", err=True)
    made = run_one(plan, request)

    from discovery_xp.analysis import comparison_tables, differences, reproduction
    from discovery_xp.analysis.comparison import Side
    from discovery_xp.analysis.measurements import measured
    from discovery_xp.analysis.report import rich_table

    old, new = measured([stored, made])
    judged = reproduction.judge(old, new, tolerance or reproduction.TOLERANCE)
    out = console(180)
    sides = Side("then", (old,)), Side("now", (new,))
    differ = differences.differences([old], [new])
    out.print(rich_table(comparison_tables.differences_table(differ, *sides)))
    out.print(rich_table(reproduction.table(judged)))
    if new.record.is_partial:
        raise Failed(
            f"the new run is partial: {new.record.why_partial}",
            "what was measured is kept; the same command makes another run",
        )
    wrong = [each for each in judged if not each.is_within]
    if wrong:
        first = wrong[0]
        raise Failed(
            f"{len(wrong)} of {len(judged)} figures weren't reproduced: {first.figure.words}: "
            f"{first.new:.4g}, outside {first.interval.low:.4g} to {first.interval.high:.4g}",
            "look at what differs in what was run first",
        )
    echo(f"reproduced: {len(judged)} figures are within their intervals")


def _reproduce_claim(
    named: Path, number: int, claims: Path | None, results: Path, keep: bool
) -> None:
    """Make a claim's runs anew; raise Failed where it doesn't hold within its tolerance."""
    from discovery_xp.analysis.measurements import measured
    from discovery_xp.analysis.report import rich_table
    from discovery_xp.artifact import judging
    from discovery_xp.artifact.again import sides_again

    with subject(named, results, claims) as found:
        claim = found.claims.numbered(number)
        stored = measured(found.runs)
        sides = sides_again(claim, stored, results, keep)
        then = judging.judge(claim, stored)
        echo(f"claim {number}: {claim.sentence}")
        echo(f"{claim.figure.words}: {claim.relation}")
        made = []
        for side in sides:
            echo(f"now the run with {side.words}")
            made.append(run_one(side.plan, side.request))
    new = measured(made)
    out = console(180)
    now = judging.judge_sides(claim, [[each] for each in new])
    out.print(rich_table(judging.table([then])))
    out.print(rich_table(judging.table([now], "new runs")))
    for each in new:
        if each.record.is_partial:
            raise Failed(
                f"a new run is partial: {each.record.why_partial}",
                "what was measured is kept; the same command makes other runs",
            )
    if not now.is_good:
        raise Failed(
            f"it doesn't hold: {in_words(now)}", "look at what differs with 'discovery-xp compare'"
        )
    echo(f"it holds: {in_words(now)}")
