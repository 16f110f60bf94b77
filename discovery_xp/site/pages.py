"""The pages of a site, rendered: text by path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from discovery_xp.analysis import findings, paper, report, run_tables, tables
from discovery_xp.analysis.measurements import BUSY_WORDS, Measurements
from discovery_xp.analysis.pictures import Picture
from discovery_xp.analysis.tables import Table
from discovery_xp.site import trends
from discovery_xp.site.content import Content, Tags, tags_of
from discovery_xp.site.interactive import Interactive, costs, interactives

INDEX = "index.html"
CAMPAIGN_FILE = "campaign.yaml"
_PAGES = ((INDEX, "Overview"), ("tables.html", "Tables"), ("figures.html", "Figures"),
          ("runs.html", "Runs"))  # fmt: skip
_TRENDS = ("trends.html", "Trends")
_KEYS = {"backend": "back end", "layout": "layout", "verdict": "validity"}


@dataclass(frozen=True)
class _Plot:
    """A figure on a page: its twin's files, and its data for the script, if any."""

    name: str
    title: str
    caption: str
    alt: str
    image: bool
    data: Markup | None


def pages(content: Content) -> dict[str, str]:
    """Return the pages of all runs together, by their paths."""
    plots = _plots(content)
    common = _common(content)

    def page(path: str, template: str, title: str, **more: Any) -> str:
        return (
            report.environment(Path(__file__).parent / "templates")
            .get_template(template)
            .render({**common, "here": path, "page_title": title, "answers": False, **more})
        )

    over_time = trends.figure(content) if content.with_library else None
    first = next((plot for plot in plots if plot.data), plots[0] if plots else None)
    made = {
        INDEX: page(
            INDEX, "index.html.j2", content.title,
            facts=content.facts,
            description=content.campaign.description if content.campaign else "",
            sentences=_sentences(content),
            open=content.open_findings,
            words_of=findings.words_of,
            campaign_file=CAMPAIGN_FILE,
            first=first,
            answers=first is not None and first.data is not None,
        ),
        "tables.html": page(
            "tables.html", "all-tables.html.j2", "Tables",
            tables=[(table, _row_tags(content, table)) for table in content.tables],
            caveats=paper.CAVEATS,
        ),
        "figures.html": page("figures.html", "figures.html.j2", "Figures", figures=plots,
                             answers=any(plot.data for plot in plots)),
        "runs.html": page("runs.html", "runs.html.j2", "Runs", runs=_runs(content),
                          points=_points(content)),
    }  # fmt: skip
    if over_time is not None:
        shown = trends.table(content)
        plot = _Plot(
            over_time.name,
            "From run to run",
            "A point for each run; a click on one opens its page.",
            "The same figures are in the table.",
            False,
            _data(over_time),
        )
        path, title = _TRENDS
        made[path] = page(path, "trends.html.j2", title, figure=plot, answers=True,
                          table=shown, tags=_row_tags(content, shown))  # fmt: skip
    return made


def page_of(content: Content, run: Measurements, pictures: list[Picture]) -> str:
    """Return the page of one run, whose figures are files beside it."""
    return report.html(
        [run],
        pictures=pictures,
        links=[("../../index.html", "Overview"), ("../../runs.html", "All runs")]
        + [(file.path, file.words) for file in files_of(content, run)],
        images=lambda picture: (f"{picture.name}.svg", f"{picture.name}-dark.svg"),
    )


@dataclass(frozen=True)
class RunFile:
    """A file of a run that lies beside its page: its path there and in the run, and its words."""

    path: str
    of_run: str
    words: str


# The record has another name beside a page: a folder with a `run.json` is a run's.
_FILES = (
    RunFile("record.json", "run.json", "record"),
    RunFile("topology.yaml", "topology.yaml", "topology"),
    RunFile("scenario.yaml", "scenario.yaml", "scenario"),
    RunFile("links.json", "links.json", "round trips"),
)
_LOGS = RunFile("logs/records.tar.xz", "logs/records.tar.xz", "logs")


def files_of(content: Content, run: Measurements) -> list[RunFile]:
    """Return what of a run lies beside its page."""
    files = (*_FILES, _LOGS) if content.with_logs else _FILES
    return [file for file in files if (run.run.folder / file.of_run).is_file()]


def _common(content: Content) -> dict[str, Any]:
    records = [(f"#{run.number}", run.record) for run in content.runs]
    return {
        "title": content.title,
        "pages": (*_PAGES, _TRENDS) if content.repeated and content.with_library else _PAGES,
        "campaign": content.campaign,
        "choices": _choices(content),
        "key_words": _KEYS,
        "marks": tables.MARKS,
        "canned": [number for number, record in records if record.is_canned],
        "canned_words": run_tables.CANNED_WORDS,
        "partial": [number for number, record in records if record.is_partial],
        "busy": [number for number, record in records if record.is_busy],
        "busy_words": BUSY_WORDS,
        "sources": paper.SOURCES,
    }


def _choices(content: Content) -> dict[str, list[str]]:
    """Return the words that rows and figures may be chosen by."""
    tags = [tags_of(run.record).as_json() for run in content.runs]
    return {key: sorted({each[key] for each in tags}) for key in _KEYS}


# ---------------------------------------------------------------- figures


def _plots(content: Content) -> list[_Plot]:
    answering = interactives(content) if content.with_library else {}
    plots = [
        _Plot(
            picture.name,
            picture.title,
            picture.caption,
            picture.alt,
            True,
            _data(answering[picture.name]) if picture.name in answering else None,
        )
        for picture in content.pictures
    ]
    each_run = costs(content) if content.with_library else None
    if each_run is not None:
        plots.insert(
            min(1, len(plots)),
            _Plot(
                each_run.name,
                "Each run",
                "A point for each run; a click on one opens its page.",
                "The same figures are in the tables of runs and costs.",
                False,
                _data(each_run),
            ),
        )
    return plots


def _data(figure: Interactive) -> Markup:
    """Return a figure's data as they stand in a page: no text of anybody's ends the element."""
    text = json.dumps(figure.as_json(), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


# ---------------------------------------------------------------- words


def _sentences(content: Content) -> list[dict[str, Any]]:
    return [
        {
            "verdict": each.verdict,
            "sentence": each.sentence,
            "runs": [(run.number, content.page_of(run)) for run in (*each.a, *each.b)],
        }
        for each in content.judged
        if each.verdict != "open"
    ]


def _row_tags(content: Content, table: Table) -> list[Mapping[str, str]] | None:
    """Return what each row of a table is chosen by, as far as the row says it."""
    frame = table.frame
    by_number = {str(run.number): tags_of(run.record).as_json() for run in content.runs}
    by_backend = {tags["backend"]: tags for tags in by_number.values()}
    if "number" in frame:
        return [by_number.get(str(number), {}) for number in frame["number"]]
    if "numbers" in frame:
        first = [str(numbers).split(" ")[0].lstrip("#") for numbers in frame["numbers"]]
        return [
            by_number.get(number) or ({"backend": backend} if backend in by_backend else {})
            for number, backend in zip(first, frame["backend"], strict=True)
        ]
    return None


# ---------------------------------------------------------------- runs and points


def _runs(content: Content) -> list[dict[str, Any]]:
    rows = []
    for run in content.runs:
        page = content.page_of(run)
        tags: Tags = tags_of(run.record)
        folder = page.rsplit("/", 1)[0]
        rows.append(
            {
                "number": run.number,
                "href": page,
                "words": content.words_of(run).split(" ", 1)[1],
                "name": run.run.name,
                "tags": tags.as_json(),
                "verdict": tags.verdict,
                "units": f"{run.done} of {run.asked} {run.unit}s",
                "seconds": "-" if run.duration_s is None else tables.digits(run.duration_s),
                "files": [(f"{folder}/{file.path}", file.words) for file in files_of(content, run)],
            }
        )
    return rows


def _points(content: Content) -> list[dict[str, Any]]:
    by_number = {run.number: run for run in content.runs}
    points = []
    for point in content.campaign.points if content.campaign else ():
        run = by_number.get(point.run) if point.run is not None else None
        points.append(
            {
                "of": point,
                "href": None if run is None else content.page_of(run),
                "tags": {} if run is None else tags_of(run.record).as_json(),
            }
        )
    return points
