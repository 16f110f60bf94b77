"""`discovery-xp trace`: where the time of boots went; registered by `cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from discovery_xp.errors import Refused
from discovery_xp.store import find_runs
from discovery_xp.text import printable, short

if TYPE_CHECKING:
    from discovery_xp.analysis.anatomy import Boot
    from discovery_xp.analysis.measurements import Measurements

_NAMED = 5  # VMs that a message names

# pandas and matplotlib are loaded by the command, not by every other one.


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--vm", metavar="NAME", help="One VM's boot, by its name or its id in Nova.")
@click.option("--csv", "csv", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the tables, and each boot's path, as CSV there.")  # fmt: skip
@click.option("--latex", "latex", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the tables for a paper there.")  # fmt: skip
@click.option("--figures", "figures", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the waterfall as PDF and PNG there.")  # fmt: skip
def trace(
    run: Path, vm: str | None, csv: Path | None, latex: Path | None, figures: Path | None
) -> None:
    """Show where the time of boots went: processor, database, HTTP, bus, and between which sites.

    RUN is a run's folder. Without --vm: all boots in a table, and the median boot's critical
    path as a waterfall; with it that VM's.
    """
    chosen_runs = find_runs([run])
    if len(chosen_runs) != 1:
        raise Refused(
            f"{printable(str(run))} has {len(chosen_runs)} runs, and one is traced at a time",
            f"name one, such as {printable(str(chosen_runs[-1].folder))}",
        )
    from rich.console import Console

    from discovery_xp.analysis import anatomy_tables, export, pictures, report, waterfall
    from discovery_xp.analysis.condensed import steps_of
    from discovery_xp.analysis.measurements import measured

    (one,) = measured(chosen_runs)
    boots = _boots_of(one)
    shown = _chosen(one, boots, vm)
    tables = (
        anatomy_tables.tables(boots, one.steps, one.done)
        if vm is None
        else anatomy_tables.tables([shown], steps_of([shown]), one.done)
    )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    for table in tables:
        console.print(report.rich_table(table))
    console.print(waterfall.terminal(shown))
    written: list[Path] = []
    with export.new_folders(csv, latex, figures):
        if csv is not None:
            listed = anatomy_tables.each_boot(boots if vm is None else [shown])
            path = anatomy_tables.stretches(shown)
            written += export.write_tables_csv(csv, [*tables, listed, path])
        if latex is not None:
            written += export.write_tables_latex(latex, tables)
        if figures is not None:
            picture = pictures.waterfall_picture(shown)
            written += export.write_pictures(figures, [picture])
    if written:
        click.echo("written: " + ", ".join(printable(str(path)) for path in written), err=True)


def _boots_of(run: Measurements) -> list[Boot]:
    """Return the boots that a run's probes followed; raises Refused where they did none."""
    if not run.measured("spans"):
        raise Refused(
            f"run {printable(run.run.name)} has no spans: its probe 'spans' was off",
            "bench again with '--probes all', or with 'spans' among them",
        )
    if not run.boots:
        raise Refused(
            f"run {printable(run.run.name)} has spans, but of no VM from the request to ACTIVE",
            "see the notes in its report for what went wrong",
        )
    return run.boots


def _followed(boot: Boot, boots: Sequence[Boot]) -> Boot:
    """Return a boot whose path is there; raises Refused where a condensed run has only its sums."""
    if boot.stretches:
        return boot
    names = ", ".join(printable(each.vm) for each in boots if each.stretches)
    raise Refused(
        f"--vm: the run is condensed, and of VM '{printable(boot.vm)}' it has only sums",
        f"name one of {names}, or trace the run that it was made of",
    )


def _chosen(run: Measurements, boots: list[Boot], vm: str | None) -> Boot:
    """Return the boot to show: the median one, or that of a VM.

    Raises Refused for a VM that isn't there or wasn't followed.
    """
    if vm is None:
        return boots[(len(boots) - 1) // 2]
    for boot in boots:
        if vm in (boot.vm, boot.server_id):
            return _followed(boot, boots)
    names = ", ".join(printable(boot.vm) for boot in boots[:_NAMED])
    more = f" and {len(boots) - _NAMED} more" if len(boots) > _NAMED else ""
    known = set(run.vms["name"]) | set(run.vms["server_id"].dropna())
    what = "wasn't followed until ACTIVE" if vm in known else "is none of the run's"
    raise Refused(f"--vm: VM '{short(vm)}' {what}", f"name one of {names}{more}")
