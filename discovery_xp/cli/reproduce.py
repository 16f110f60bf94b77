"""`discovery-xp reproduce`: a run again from its stored recipe; registered by `cli`."""

from __future__ import annotations

from pathlib import Path

import click

from discovery_xp.cli.bench import run_one
from discovery_xp.cli.common import console, echo
from discovery_xp.cli.compare import Percentage
from discovery_xp.errors import Failed
from discovery_xp.store import open_run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the new run's folder goes.")  # fmt: skip
@click.option("--tolerance", type=Percentage(), default="10%", show_default=True, metavar="SHARE",
              help="How far a figure of the run as a whole may be off.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
def reproduce(run: Path, results: Path, tolerance: float, keep: bool) -> None:
    """Make a stored run again, and say for each figure whether it came out as it did then.

    RUN is a run's folder. The code is 0 where all figures are within their intervals, 1 where one
    isn't or the new run is partial.
    """
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
    judged = reproduction.judge(old, new, tolerance)
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
