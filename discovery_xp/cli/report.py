"""`discovery-xp report`: runs to a report; registered by `cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from discovery_xp.store import find_runs
from discovery_xp.text import printable

if TYPE_CHECKING:
    from discovery_xp.analysis.measurements import Measurements
    from discovery_xp.site.content import CampaignState

# pandas and matplotlib are loaded by the command, not by every other one.


@click.command()
@click.argument("run", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the page there.")  # fmt: skip
@click.option("--csv", "csv", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write every table as CSV there.")  # fmt: skip
@click.option("--latex", "latex", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the tables for a paper there.")  # fmt: skip
@click.option("--figures", "figures", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the figures as PDF and PNG there.")  # fmt: skip
@click.option("--prometheus", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the series there, in OpenMetrics' text format.")  # fmt: skip
@click.option("--site", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write a site there: pages that open offline.")  # fmt: skip
@click.option(
    "--logs/--no-logs", "with_logs", default=True, help="Whether the site has each run's logs."
)
@click.option("--light", is_flag=True,
              help="A site for a repository: images alone, none on runs' pages.")  # fmt: skip
@click.option("--paper", "whole", is_flag=True,
              help="All published values, also those that no run stands beside.")  # fmt: skip
def report(
    run: tuple[Path, ...],
    page: Path | None,
    csv: Path | None,
    latex: Path | None,
    figures: Path | None,
    prometheus: Path | None,
    site: Path | None,
    with_logs: bool,
    light: bool,
    whole: bool,
) -> None:
    """Print what runs measured, beside the published values; write pages and tables.

    RUN is a run's folder, or a folder of runs. Without --html, --csv, --latex, --figures,
    --prometheus and --site the page is written into the run's folder, or with several runs into
    this one.
    """
    chosen_runs = find_runs(run)  # first: loading what draws takes longer than refusing a run
    from rich.console import Console

    from discovery_xp.analysis import export, pictures
    from discovery_xp.analysis import prometheus as openmetrics
    from discovery_xp.analysis import report as reports
    from discovery_xp.analysis.measurements import measured

    runs = measured(chosen_runs)
    if prometheus is not None:
        openmetrics.families(runs)  # before anything is printed: one may have no series
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    reports.print_report(console, runs, whole)
    drawn = pictures.pictures_of(runs)
    written = []
    if page is csv is latex is figures is prometheus is site is None:
        page = reports.default_page(runs)
    # All folders first: a later one that can't be made would leave a half behind.
    with export.new_folders(csv, latex, figures):
        if page is not None:
            written.append(reports.write_html(page, runs, whole, drawn))
        if csv is not None:
            export.write_csv(csv, runs, whole)
            written.append(csv)
        if latex is not None:
            export.write_latex(latex, runs, whole)
            written.append(latex)
        if figures is not None:
            export.write_pictures(figures, drawn)
            written.append(figures)
        if prometheus is not None:
            written.append(openmetrics.write(prometheus, runs))
        if site is not None:
            written.append(write_site(site, runs, with_logs, light))
    click.echo("written: " + ", ".join(printable(str(path)) for path in written), err=True)


def write_site(
    folder: Path,
    runs: Sequence[Measurements],
    with_logs: bool,
    light: bool = False,
    campaign: CampaignState | None = None,
) -> Path:
    """Write a site of runs, and return its first page."""
    from discovery_xp.site.content import Content
    from discovery_xp.site.writing import write_site as write

    names = sorted({run.record.experiment for run in runs})
    title = f"Campaign {campaign.name}" if campaign else ", ".join(names[:3])
    return write(folder, Content(runs, title, campaign, with_logs, not light, not light))


def write_page(folder: Path) -> Path:
    """Write a run's page into its folder, and return its path."""
    from discovery_xp.analysis import report as reports
    from discovery_xp.analysis.measurements import read_runs

    runs = read_runs([folder])
    return reports.write_html(reports.default_page(runs), runs, whole=False)
