"""Figures that answer to a reader, as plain values for Plotly in the browser.

Plotly, as it is one file that works offline and evaluates no text, its figures are plain data, and
readers of this field know its controls.  Each figure has a twin that matplotlib draws, for print
and for pages without a script.

A trace's `meta.tags` say what the pages' controls choose it by; where its points are of several
runs, `meta.points` has the tags of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery_xp.analysis import anatomy_plots, paper, paper_tables, plots
from discovery_xp.analysis.anatomy_tables import WORDS
from discovery_xp.analysis.drawing import LIGHT
from discovery_xp.analysis.figures import FIGURES
from discovery_xp.analysis.measurements import Measurements, group, groups, label, labels
from discovery_xp.analysis.tables import is_empty
from discovery_xp.site.content import Content, tags_of
from discovery_xp.store import ACTIVITIES
from discovery_xp.text import printable

Trace = dict[str, Any]
Choice = tuple[str, list[list[float | None]]]

DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Interactive:
    """A figure for Plotly; `scales` are the axes that a reader may make linear or logarithmic.

    `choices` are the figures that a reader may put on the y axis: their words, and the values of
    each trace.
    """

    name: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    scales: tuple[str, ...] = ()
    choices: Sequence[Choice] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for the pages' script."""
        return {
            "data": list(self.traces),
            "layout": dict(self.layout),
            "scales": list(self.scales),
            "choices": [{"words": words, "y": list(y)} for words, y in self.choices],
        }


def interactives(content: Content) -> dict[str, Interactive]:
    """Return the figures by the names of their twins."""
    makers: tuple[Callable[[Content], Interactive | None], ...] = (
        creation_times, activities, response_times, timeline,
    )  # fmt: skip
    made = [maker(content) for maker in makers]
    return {each.name: each for each in made if each is not None}


def colour(backend: str) -> str:
    """Return a back end's colour, which is that of its figures for print."""
    return plots.backend_colour(LIGHT, backend)


def _tags(run: Measurements) -> dict[str, str]:
    return tags_of(run.record).as_json()


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": title}, **more}


# ---------------------------------------------------------------- bars


def creation_times(content: Content) -> Interactive | None:
    """Return the time to create the VMs by latency and clusters, published values beside."""
    runs = content.loads
    frames = [(10.0, paper_tables.table_3(runs, whole=True).frame),
              (50.0, paper_tables.table_4(runs, whole=True).frame)]  # fmt: skip
    own = paper_tables.other_latencies(runs).frame
    for value in sorted(set(own["latency_ms"].dropna())) if len(own) else ():
        frames.append((float(value), own[own["latency_ms"] == value]))
    rows: list[dict[str, Any]] = [
        {"at": f"{latency_ms:g} ms", **{str(key): value for key, value in row.items()}}
        for latency_ms, frame in frames
        if len(frame) and (frame["runs"] > 0).any()
        for row in frame.to_dict("records")
    ]
    if not rows:
        return None
    # Where the paper's number of VMs wasn't asked for, seconds per VM can be compared.
    asked = {row["vms_asked"] for row in rows if row["runs"] > 0}
    is_whole = asked == {float(paper.VMS)}
    ours, theirs = ("measured_s", "published_s") if is_whole else ("s_per_vm", "published_s_per_vm")
    by_number = {f"#{run.number}": run for run in runs}
    bars: dict[str, Trace] = {}
    for row in rows:
        if row["runs"] > 0:
            run = by_number[row["numbers"].split()[0]]
            name = f"{row['backend']}{', ' + row['status'] if row['status'] else ''}"
            trace = bars.setdefault(name, _bar(name, row["backend"], is_published=False))
            has_interval = is_whole and not is_empty(row["low"])
            low, high = (row["low"], row["high"]) if has_interval else (row[ours], row[ours])
            whiskers = row[ours] - low, high - row[ours]
            words = f"{row['numbers']}: {row['vms_active']:g} of {row['vms_asked']:g} VMs"
            _add_bar(trace, row, row[ours], whiskers, _tags(run), words)
        published = row.get(theirs)
        if published is not None and not is_empty(published):
            backend = paper.column(row["backend"])
            name = f"{backend}, published"
            trace = bars.setdefault(name, _bar(name, backend, is_published=True))
            tags = {"backend": _OWN.get(backend, backend), "layout": "shared", "verdict": ""}
            _add_bar(trace, row, published, (0.0, 0.0), tags, f"Kilo on Grid'5000 {row['source']}")
    return Interactive(
        "time-to-create-the-vms",
        sorted(bars.values(), key=lambda trace: _bar_order(trace["name"])),
        {
            "barmode": "group",
            "xaxis": axis("one-way latency, clusters", type="multicategory"),
            "yaxis": axis(f"s for {paper.VMS} VMs" if is_whole else "s per VM"),
        },
        scales=("y",),
    )


# Which of our back ends a published column stands beside.
_OWN = {paper.REDIS: "rome"}


def _bar_order(name: str) -> tuple[int, bool, str]:
    """Put what was published of a back end after what was measured of it."""
    column = paper.column(name.split(",")[0])
    place = plots.BACKENDS.index(column) if column in plots.BACKENDS else len(plots.BACKENDS)
    return place, name.endswith("published"), name


def _bar(name: str, backend: str, is_published: bool) -> Trace:
    marker: dict[str, Any] = {"color": colour(backend)}
    if is_published:
        marker = {
            "color": "rgba(0,0,0,0)",
            "line": {"color": colour(backend), "width": 1.5},
            "pattern": {"shape": "/", "fgcolor": colour(backend)},
        }
    return {
        "type": "bar", "name": printable(name), "x": [[], []], "y": [], "text": [],
        "hovertemplate": "%{y:.4g} s, %{text}<extra>%{fullData.name}</extra>",
        "textposition": "none", "marker": marker, "meta": {"points": []},
        "error_y": {"type": "data", "symmetric": False, "array": [], "arrayminus": []},
    }  # fmt: skip


def _add_bar(
    trace: Trace,
    row: Mapping[str, Any],
    value: float,
    whiskers: tuple[float, float],
    tags: Mapping[str, str],
    words: str,
) -> None:
    trace["x"][0].append(row["at"])
    trace["x"][1].append(str(int(row["clusters"])))
    trace["y"].append(float(value))
    trace["text"].append(printable(words))
    trace["error_y"]["arrayminus"].append(float(whiskers[0]))
    trace["error_y"]["array"].append(float(whiskers[1]))
    trace["meta"]["points"].append(dict(tags))


def activities(content: Content) -> Interactive | None:
    """Return the mean boot's time by what it went to, a bar for each configuration."""
    runs = content.loads
    found = anatomy_plots.by_configuration(runs)
    if not found:
        return None
    names = labels(runs)
    tags = {names[group(run.record)]: _tags(run) for run in runs}
    sums = [(name, anatomy_plots.mean_seconds(boots)) for name, boots in found]
    keys = sorted({key for _, each in sums for key in each},
                  key=lambda key: (ACTIVITIES.index(key[0]), key[1]))  # fmt: skip
    traces: list[Trace] = []
    for activity, is_between in keys:
        shade = LIGHT.series[anatomy_plots.COLOURS[activity]]
        where = "between sites" if is_between else "within a site"
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{WORDS[activity]}, {where}",
                "y": [printable(name) for name, _ in sums],
                "x": [each.get((activity, is_between), 0.0) for _, each in sums],
                "hovertemplate": "%{x:.3g} s<extra>%{fullData.name}</extra>",
                "marker": {"color": shade, "pattern": {"shape": "/" if is_between else ""}},
                "meta": {"points": [tags[name] for name, _ in sums]},
            }
        )
    return Interactive(
        "where-the-time-of-a-boot-went",
        traces,
        {
            "barmode": "stack",
            "xaxis": axis("s of the mean boot's critical path"),
            "yaxis": {"automargin": True, "autorange": "reversed"},
        },
    )


# ---------------------------------------------------------------- lines


def response_times(content: Content) -> Interactive | None:
    """Return the distribution of calls of the database API, repeats pooled."""
    runs = [run for run in content.loads if len(run.calls)]
    names = labels(runs)
    traces: list[Trace] = []
    for repeated in groups(runs):
        pooled = pd.concat([run.calls for run in repeated])
        values = pooled.loc[~pooled["lazy"].astype(bool), "duration_ms"]
        if not len(values):
            continue
        x, shares = plots.distribution(values)
        traces.append(_line(names[group(repeated[0].record)], repeated[0], x, shares,
                            "%{x:.3g} ms: %{y:.0f} % of the calls", traces))  # fmt: skip
    if not traces:
        return None
    for backend in (paper.MYSQL, paper.REDIS):
        points = [q for q in paper.QUANTILES if q.backend == backend]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{backend}, published",
                "x": [q.at_ms for q in points],
                "y": [q.share * 100 for q in points],
                "hovertemplate": "%{x:.3g} ms: %{y:.0f} %<extra>%{fullData.name}</extra>",
                "marker": {"symbol": "diamond-open", "size": 10, "color": colour(backend)},
                "meta": {"tags": {"backend": _OWN.get(backend, backend), "layout": "shared",
                                  "verdict": ""}},
            }
        )  # fmt: skip
    return Interactive(
        "response-time-of-nova-database-api",
        traces,
        {
            "xaxis": axis("response time of a call, ms", type="log"),
            "yaxis": axis("calls, %", range=[0, 101]),
        },
        scales=("x",),
    )


def timeline(content: Content) -> Interactive | None:
    """Return the VMs that are ACTIVE by time since the first request, a line for each run."""
    runs = [run for run in content.loads if len(run.vms)]
    names = labels(runs)
    traces: list[Trace] = []
    for run in runs:
        x, count = plots.becoming_active(run)
        trace = _line(f"{names[group(run.record)]} #{run.number}", run, x, count,
                      "%{y} ACTIVE after %{x:.3g} s", traces)  # fmt: skip
        trace["line"]["shape"] = "hv"
        trace["meta"]["page"] = content.page_of(run)
        traces.append(trace)
    if not traces:
        return None
    return Interactive(
        "vms-becoming-active",
        traces,
        {
            "xaxis": axis("time since the first request, s", rangemode="tozero"),
            "yaxis": axis("VMs", rangemode="tozero"),
        },
        scales=("x",),
    )


def _line(
    name: str, run: Measurements, x: Any, y: Any, words: str, before: Sequence[Trace]
) -> Trace:
    shade = colour(run.record.backend)
    dash = sum(1 for trace in before if trace.get("line", {}).get("color") == shade)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": printable(name),
        "x": [round(float(value), 4) for value in x],
        "y": [round(float(value), 4) for value in y],
        "hovertemplate": f"{words}<extra>%{{fullData.name}}</extra>",
        "line": {"color": shade, "dash": DASHES[dash % len(DASHES)]},
        "meta": {"tags": _tags(run)},
    }


# ---------------------------------------------------------------- a point for each run


def costs(content: Content) -> Interactive | None:
    """Return a point for each run, by what it was; a reader chooses what is on the y axis."""
    runs = content.loads
    by_backend: dict[str, list[Measurements]] = {}
    for run in runs:
        by_backend.setdefault(run.record.backend, []).append(run)
    choices = choices_of(by_backend.values())
    if not choices:
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": printable(backend),
            "x": [printable(_place(run)) for run in each],
            "y": choices[0][1][number],
            "text": [
                printable(f"#{run.number} {label(run.record)}<br>{run.run.name}") for run in each
            ],
            "hovertemplate": "%{y:.4g}<br>%{text}<extra></extra>",
            "marker": {"color": colour(backend), "size": 10, "opacity": 0.75,
                       "symbol": number % 6},
            "meta": {
                "points": [_tags(run) for run in each],
                "pages": [content.page_of(run) for run in each],
            },
        }
        for number, (backend, each) in enumerate(by_backend.items())
    ]  # fmt: skip
    places = sorted({(run.record.sites, run.record.latency_ms or 0.0) for run in runs})
    return Interactive(
        "each-run",
        traces,
        {
            "xaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": [_place_words(*place) for place in places],
                "automargin": True,
            },
            "yaxis": axis(choices[0][0], rangemode="tozero"),
        },
        scales=("y",),
        choices=choices,
    )


def choices_of(traces: Collection[Sequence[Measurements]]) -> list[Choice]:
    """Return the figures that some runs have, each with its values of every trace's runs."""
    choices = []
    for figure in FIGURES:
        values = [[_finite(figure.of(run)) for run in runs] for runs in traces]
        if any(value is not None for row in values for value in row):
            choices.append((figure.words, values))
    return choices


def _place(run: Measurements) -> str:
    return _place_words(run.record.sites, run.record.latency_ms or 0.0)


def _place_words(sites: int, latency_ms: float) -> str:
    return "1 site" if sites == 1 else f"{sites} sites, {latency_ms:g} ms"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
