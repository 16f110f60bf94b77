"""How points of a campaign come on from run to run: a figure and a table over time and commits."""

from __future__ import annotations

from typing import Any

import pandas as pd

from discovery_xp.analysis.figures import FIGURES
from discovery_xp.analysis.tables import Table, or_nan
from discovery_xp.site.content import Content, tags_of
from discovery_xp.site.interactive import DASHES, Interactive, axis, choices_of, colour
from discovery_xp.text import printable


def figure(content: Content) -> Interactive | None:
    """Return a line for each point; a reader chooses what is on the y axis."""
    points = content.repeated
    choices = choices_of(points.values())
    if not choices:
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": printable(words),
            "x": [run.record.started for run in runs],
            "y": choices[0][1][number],
            "text": [
                printable(f"commit {(run.record.commit or 'unknown')[:12]}, {run.run.name}")
                for run in runs
            ],
            "hovertemplate": "%{y:.4g}<br>%{text}<extra>%{fullData.name}</extra>",
            "line": {
                "color": colour(runs[0].record.backend),
                "dash": DASHES[number % len(DASHES)],
            },
            "meta": {
                "points": [tags_of(run.record).as_json() for run in runs],
                "pages": [content.page_of(run) for run in runs],
            },
        }
        for number, (words, runs) in enumerate(points.items())
    ]
    return Interactive(
        "trends",
        traces,
        {"xaxis": axis("", type="date"), "yaxis": axis(choices[0][0], rangemode="tozero")},
        scales=("y",),
        choices=choices,
    )


def table(content: Content) -> Table:
    """Return a row for each run of a point that has several."""
    rows: list[dict[str, Any]] = []
    for words, runs in content.repeated.items():
        for run in runs:
            rows.append(
                {
                    "point": words,
                    "number": run.number,
                    "started": run.record.started,
                    "commit": (run.record.commit or "unknown")[:12],
                    "verdict": tags_of(run.record).verdict,
                    **{each.key: or_nan(each.of(run)) for each in FIGURES},
                }
            )
    return Table("trends", "Points from run to run", pd.DataFrame(rows))
