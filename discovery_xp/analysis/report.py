"""Runs as reports: for the terminal, and as one HTML page.

Both show the same tables; the page has the figures, too, and is a single file that needs
nothing else.  `export` writes the same as files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from discovery_xp.analysis import (
    paper,
    paper_tables,
    run_tables,
    tables,
    verdict_tables,
)
from discovery_xp.analysis.facts import facts, headline, missing
from discovery_xp.analysis.measurements import (
    BUSY_WORDS,
    Measurements,
    label,
    loads,
    verifications,
)
from discovery_xp.analysis.pictures import Picture, pictures_of
from discovery_xp.analysis.tables import Table
from discovery_xp.errors import Refused
from discovery_xp.store import replace_file
from discovery_xp.text import printable


def comparisons(runs: Sequence[Measurements]) -> list[Table]:
    """Return the tables of runs beside each other, without the published values."""
    loaded = loads(runs)
    candidates = verdict_tables.side_by_side(verifications(runs))
    if loaded:
        candidates = [
            run_tables.overview(loaded), run_tables.costs(loaded), run_tables.repeats(loaded),
            *candidates,
        ]  # fmt: skip
    return [table for table in candidates if len(table.frame)]


def tables_of(runs: Sequence[Measurements], whole: bool = False) -> list[Table]:
    """Return the tables of several runs; those of one run are `run_tables.run_tables`."""
    return comparisons(runs) + paper_tables.paper_tables(loads(runs), whole)


# ---------------------------------------------------------------- terminal


def terminal(runs: Sequence[Measurements], whole: bool = False) -> RenderableType:
    """Return the report for a terminal: one run in depth, or several beside each other."""
    parts: list[RenderableType] = []
    if len(runs) == 1:
        (run,) = runs
        parts.append(Text(run_tables.title(run), style="bold"))
        grid = RichTable.grid(padding=(0, 2))
        for subject, words in facts(run):
            warns = (
                subject == "CANNED"
                or (subject == "status" and run.record.is_partial)
                or (subject == "validity" and run.record.is_busy)
            )
            grid.add_row(Text(subject, style="dim"), Text(words, style="bold" if warns else ""))
        parts += [grid, Text()]
        for value, words in headline(run):
            parts.append(Text.assemble((f"{value:>12}", "bold"), f" {words}"))
        parts += [rich_table(table) for table in run_tables.run_tables(run)]
        if missing(run):
            parts.append(Text(missing(run)))
        parts += [rich_table(table) for table in paper_tables.paper_tables(loads(runs), whole)]
    else:
        parts += [rich_table(table) for table in tables_of(runs, whole)]
    if whole or paper_tables.paper_tables(loads(runs)):
        parts.append(Text())
        parts += [Text(f"[{source.key}] {source.citation}") for source in paper.SOURCES]
    return Group(*parts)


def rich_table(table: Table) -> RenderableType:
    """Return a table for a terminal, with its notes."""
    grid = RichTable(title=Text(printable(table.title)), title_justify="left", show_edge=False)
    for heading, right in zip(table.headings(), table.numeric(), strict=True):
        grid.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for row in table.cells():
        grid.add_row(*(Text(value) for value in row))
    return Group(Text(), grid, *(Text(f"  {printable(note)}", style="dim") for note in table.notes))


def print_report(console: Console, runs: Sequence[Measurements], whole: bool = False) -> None:
    """Print the terminal report."""
    console.print(terminal(runs, whole))


# ---------------------------------------------------------------- HTML


_TEMPLATES = Path(__file__).parent
STYLES = (_TEMPLATES / "page.css", _TEMPLATES / "links.css")


def environment(*folders: Path) -> jinja2.Environment:
    """Return what renders pages: from templates in `folders`, and those of this package."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html(
    runs: Sequence[Measurements],
    whole: bool = False,
    pictures: Sequence[Picture] | None = None,
    links: Sequence[tuple[str, str]] = (),
    images: Callable[[Picture], tuple[str, str]] = lambda picture: picture.sources,
) -> str:
    """Return one page without a script, that loads nothing from elsewhere.

    `pictures` are those of `pictures_of`, where they are at hand.  `links` are pairs of an address
    and its words, to what the page is a part of.  `images` says where a picture's two images are,
    for light pages and dark ones; by default they are in the page, which is one file then.
    """
    one = runs[0] if len(runs) == 1 else None
    shown = paper_tables.paper_tables(loads(runs), whole)
    compared = [] if one else comparisons(runs)
    drawn = pictures_of(runs) if pictures is None else pictures
    partial = [run for run in runs if run.record.is_partial]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            links=links,
            title=run_tables.title(one) if one else _title(runs),
            one=one,
            partial=[(f"#{run.number} {run.run.name}", run.record.why_partial) for run in partial],
            all_partial=len(partial) == len(runs),
            canned=[f"#{run.number}" for run in runs if run.record.is_canned],
            canned_words=run_tables.CANNED_WORDS,
            busy=[f"#{run.number} {run.run.name}" for run in runs if run.record.is_busy],
            busy_words=BUSY_WORDS,
            marks=tables.MARKS,
            facts=facts(one) if one else [],
            headline=headline(one) if one else [],
            missing=missing(one) if one else "",
            options=_yaml(one.record.options) if one else [],
            scenario=_yaml(one.record.scenario) if one else [],
            versions=sorted(one.record.versions.items()) if one else [],
            pictures=[(picture, *images(picture)) for picture in drawn],
            overview=compared[0] if compared else None,
            comparisons=compared[1:],
            paper_tables=shown,
            run_tables=run_tables.run_tables(one) if one else [],
            caveats=paper.CAVEATS,
            sources=paper.SOURCES,
            several=[(run.number, run.run.name, label(run.record)) for run in runs],
        )
    )


def write_html(
    path: Path,
    runs: Sequence[Measurements],
    whole: bool = False,
    pictures: Sequence[Picture] | None = None,
) -> Path:
    """Write the page of `html` to a file, and return its path."""
    page = html(runs, whole, pictures)
    try:
        replace_file(path, page)
    except OSError as error:
        raise Refused(
            f"{printable(str(path))}: can't be written ({error.strerror})",
            "name another file with --html",
        ) from None
    return path


def default_page(runs: Sequence[Measurements]) -> Path:
    """Return the page's default place: a run's own folder, or with several, this one."""
    if len(runs) == 1:
        return runs[0].run.path("report.html")
    names = {run.record.experiment for run in runs}
    which = names.pop() if len(names) == 1 else "runs"
    return Path(f"report-{which}-{len(runs)}.html")


def _title(runs: Sequence[Measurements]) -> str:
    names = sorted({run.record.experiment for run in runs})
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{some}: {len(runs)} runs"


def _yaml(data: object) -> list[str]:
    """Return the lines of values as YAML."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True) if data else ""
    return text.split("\n")[:-1]


def _shown(value: object) -> object:
    """Return a value as the page shows it; markup is what the template itself made."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
