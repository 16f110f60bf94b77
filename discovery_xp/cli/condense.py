"""`discovery-xp condense`: runs without what hardly anybody reads; registered by `cli`."""

from __future__ import annotations

from pathlib import Path

import click

from discovery_xp.cli.common import echo
from discovery_xp.store import find_runs
from discovery_xp.text import printable

# pandas is loaded by the command, not by every other one.


@click.command()
@click.argument("run", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the smaller runs go, by testbed.")  # fmt: skip
def condense(run: tuple[Path, ...], folder: Path) -> None:
    """Write runs anew without logs, requests, series and most spans: a tenth of the bytes.

    RUN is a run's folder, or a folder of runs; each is to be complete. All figures and tables of
    boots come out the same; docs/results.md tells what is left out.
    """
    chosen_runs = find_runs(run)
    from discovery_xp.analysis.measurements import measured
    from discovery_xp.condensing import condense as condensed

    before = sum(_size(each.folder) for each in chosen_runs)
    made = [each.folder for each in condensed(measured(chosen_runs), folder)]
    after = sum(_size(place) for place in made)
    echo(
        f"{len(made)} runs in {printable(str(folder))}: {before / 1e6:.1f} MB are "
        f"{after / 1e6:.1f} MB"
    )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
