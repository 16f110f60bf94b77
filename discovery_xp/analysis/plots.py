"""The paper's figures, drawn from runs; published values stand beside where there are any.

Each function returns a matplotlib `Figure` of its own, without pyplot, so that drawing
needs no display and leaves nothing behind.  Colours are Okabe and Ito's, which people with
any colour vision tell apart; hatches and line styles say the same once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from discovery_xp.analysis import paper, paper_tables, summaries, tables
from discovery_xp.analysis.drawing import DARK as DARK
from discovery_xp.analysis.drawing import LIGHT as LIGHT
from discovery_xp.analysis.drawing import PlainFigure, axis_label, drawing, plain
from discovery_xp.analysis.drawing import Theme as Theme
from discovery_xp.analysis.measurements import (
    Measurements,
    group,
    groups,
    labels,
    latency,
    placement,
    status_word,
)

BACKENDS = ("mysql", "redis", "galera")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
_WIDTH = 5.6  # inches: text stays readable on a phone, and fits a column of a page
_POINTS = 200  # of a curve; more can't be seen


def _figure(theme: Theme, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many axes above each other that share their x axis."""
    with mpl.rc_context(settings(theme)):
        figure = PlainFigure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.set_axisbelow(True)
    return figure, list(axes)


def settings(theme: Theme) -> Any:
    """Return matplotlib's settings of a theme."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.labelsize": 10,
        "axes.titlesize": 10,
        "legend.fontsize": 9,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "legend.frameon": False,
        "hatch.linewidth": 0.8,
    }


def _legend(figure: Figure, all_axes: Sequence[Axes], theme: Theme, columns: int = 2) -> None:
    """Draw the legend above the figure, each name once, and grow the figure by its rows."""
    merged: dict[str, Any] = {}
    for axes in all_axes:
        handles, names = axes.get_legend_handles_labels()
        merged |= {name: each for name, each in zip(names, handles, strict=True)
                   if name not in merged}  # fmt: skip
    if all(", " in name for name in merged):  # what has a colour in common, in a column
        merged = dict(sorted(merged.items(), key=lambda item: item[0].split(", ")[0]))
    rows = math.ceil(len(merged) / columns)
    if not rows:
        return
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 * rows)
    figure.legend(
        list(merged.values()),
        list(merged),
        loc="outside upper left",
        ncols=min(columns, len(merged)),
        frameon=False,
        fontsize=9,
        labelcolor=theme.ink,
        handlelength=2.4,
        columnspacing=1.4,
    )


def _nothing(theme: Theme, words: str) -> Figure:
    figure, (axes,) = _figure(theme, 1.2)
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color=theme.ink)
    return figure


def blank(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of one pair of axes, for what other modules draw; sizes are in inches."""
    figure, (axes,) = _figure(theme, height)
    figure.set_size_inches(width, height)
    return figure, axes


def small_multiples(theme: Theme, rows: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many axes of this height in inches, which share their x axis."""
    return _figure(theme, 0.5 + height * rows, rows)


def words_alone(theme: Theme, words: str) -> Figure:
    """Make a figure that says why there is nothing to be seen."""
    return _nothing(theme, words)


_MOST_BARS = 64  # that have room beside each other
_MOST_PANELS = 12  # a figure of hundreds is no picture, nor can it be drawn
_ONE_PANEL = 6  # configurations in one set of axes; more are told apart by latency


def _panels(runs: Sequence[Measurements]) -> list[tuple[str, list[Measurements]]]:
    """Return the runs by the axes they are drawn in, with their title: all, or by latency."""
    if len(groups(runs)) <= _ONE_PANEL:
        return [("", list(runs))]
    panels: dict[str, list[Measurements]] = {}
    ordered = sorted(runs, key=lambda run: (run.record.sites > 1, run.record.latency_ms or 0.0))
    for run in ordered:
        record = run.record
        panels.setdefault(f"{latency(record)} one-way" if record.sites > 1 else "one site",
                         []).append(run)  # fmt: skip
    # The rest is in the tables; the last title says so.
    drawn = list(panels.items())[:_MOST_PANELS]
    if len(panels) > len(drawn):
        drawn[-1] = (f"{drawn[-1][0]}; {len(panels) - len(drawn)} more aren't drawn", drawn[-1][1])
    return drawn


def _names(runs: Sequence[Measurements]) -> dict[str, str]:
    """Return the groups' names, without the latency where that is a panel's title."""
    return labels(runs, with_latency=len(groups(runs)) <= _ONE_PANEL)


def _styles(runs: Sequence[Measurements], theme: Theme) -> dict[str, tuple[str, Any]]:
    """Return colour and line by name: by back end where there are several."""
    backends = {run.record.backend for run in runs}
    names = _names(runs)
    styles: dict[str, tuple[str, Any]] = {}
    for repeated in groups(runs):
        record, name = repeated[0].record, names[group(repeated[0].record)]
        if name in styles:
            continue
        if len(backends) == 1:
            colour, line = theme.series[len(styles) % len(theme.series)], len(styles)
        else:
            colour = backend_colour(theme, record.backend)
            line = sum(1 for used, _ in styles.values() if used == colour)
        styles[name] = (colour, _LINES[line % len(_LINES)])
    return styles


def backend_colour(theme: Theme, backend: str) -> str:
    """Return the colour that a back end keeps in every figure."""
    column = paper.column(backend)
    index = BACKENDS.index(column) if column in BACKENDS else len(BACKENDS)
    return theme.series[index]


# ---------------------------------------------------------------- several runs


@drawing
def creation_times(runs: Sequence[Measurements], theme: Theme = LIGHT) -> Figure:
    """Draw the time to create the VMs by clusters, latency and back end (tables 2 to 4).

    Published values are hatched bars beside.  Seconds where every run asked for as many
    VMs as the paper, seconds per VM otherwise.  Whiskers: bootstrap interval of repeats.
    """
    frames = [
        paper_tables.table_3(runs, whole=True).frame,
        paper_tables.table_4(runs, whole=True).frame,
    ]
    latencies = [10.0, 50.0]
    own = paper_tables.other_latencies(runs).frame
    for value in sorted(set(own["latency_ms"].dropna())) if len(own) else ():
        frames.append(own[own["latency_ms"] == value])
        latencies.append(float(value))
    groups = [
        (value, frame)
        for value, frame in zip(latencies, frames, strict=True)
        if (frame["runs"] > 0).any()
    ][:_MOST_PANELS]
    if not groups:
        return _nothing(theme, "No run over several sites.")
    vm_counts = {count for _, frame in groups for count in frame["vms_asked"].dropna()}
    whole = vm_counts == {float(paper.VMS)}
    clusters = sorted({int(n) for _, frame in groups for n in frame[frame["runs"] > 0]["clusters"]})
    figure, all_axes = _figure(theme, 0.7 + 2.3 * len(groups), len(groups))
    for axes, (value, frame) in zip(all_axes, groups, strict=True):
        _creation_bars(axes, frame, clusters, whole, theme)
        axes.set_title(f"{value:g} ms one-way", loc="left", color=theme.ink, fontsize=10)
        axes.set_ylabel(f"{paper.VMS} VMs, s" if whole else "s per VM")
        axes.tick_params(labelbottom=True)
    all_axes[-1].set_xlabel("clusters")
    _legend(figure, all_axes, theme)
    return figure


def _creation_bars(
    axes: Axes, frame: pd.DataFrame, clusters: Sequence[int], whole: bool, theme: Theme
) -> None:
    measured, published = (
        ("measured_s", "published_s") if whole else ("s_per_vm", "published_s_per_vm")
    )
    ours = frame[frame["runs"] > 0]
    backends = list(dict.fromkeys(ours["backend"]))
    bars: list[tuple[str, bool, int, int]] = []  # backend, published, clusters, row of frame
    for backend in backends:
        for count in clusters:
            here = ours[(ours["backend"] == backend) & (ours["clusters"] == count)]
            bars += [(backend, False, count, int(index)) for index in here.index]
            with_value = here[here[published].notna()] if published in here else here.head(0)
            bars += [(backend, True, count, int(index)) for index in with_value.index[:1]]
    for place, count in enumerate(clusters):
        here_bars = [bar for bar in bars if bar[2] == count]
        width = 0.84 / max(2, len(here_bars))
        for offset, (backend, is_published, _, index) in enumerate(here_bars):
            row: dict[Any, Any] = frame.loc[index].to_dict()
            colour = backend_colour(theme, backend)
            height = row[published] if is_published else row[measured]
            partial = f" {row['status']}" if row["status"] and not is_published else ""
            x = place + (offset - (len(here_bars) - 1) / 2) * width
            axes.bar(
                x,
                height,
                width * 0.92,
                color="none" if is_published else colour,
                edgecolor=colour,
                hatch="////" if is_published else ("xx" if partial else None),
                alpha=0.55 if partial else 1,
                label=f"{paper.column(backend)}, published"
                if is_published
                else f"{backend}, measured{partial}",
            )
            top = height
            if not is_published and whole and not math.isnan(row["low"]):
                top = row["high"]
                axes.errorbar(x, height, yerr=[[height - row["low"]], [row["high"] - height]],
                              color=theme.ink, capsize=3, linewidth=1)  # fmt: skip
            axes.annotate(
                tables.digits(height), (x, top), ha="center", va="bottom", fontsize=7.5,
                xytext=(0, 1), textcoords="offset points", color=theme.ink,
            )  # fmt: skip
    axes.set_xticks(range(len(clusters)), [str(count) for count in clusters])
    axes.set_xlim(-0.6, len(clusters) - 0.4)
    axes.grid(axis="y")


@drawing
def response_times(runs: Sequence[Measurements], theme: Theme = LIGHT) -> Figure:
    """Draw the cumulative distribution of calls of Nova's database API by duration, log x.

    A curve for each configuration, repeats pooled; marks are the published quantiles.
    Lazy loads aren't in it: they are no calls.
    """
    if not any(len(run.calls) for run in runs):
        return _nothing(theme, "Calls of the database API were not measured.")
    panels = [(title, [run for run in part if len(run.calls)]) for title, part in _panels(runs)]
    panels = [(title, part) for title, part in panels if part]
    names, styles = _names(runs), _styles(runs, theme)
    figure, all_axes = _figure(theme, 0.6 + 2.4 * len(panels), len(panels))
    for axes, (title, part) in zip(all_axes, panels, strict=True):
        for repeated in groups(part):
            name = names[group(repeated[0].record)]
            pooled = pd.concat([run.calls for run in repeated])
            x, share = distribution(pooled.loc[~pooled["lazy"].astype(bool), "duration_ms"])
            colour, line = styles[name]
            axes.plot(x, share, color=colour, linestyle=line, linewidth=1.8, label=name)
        _published_quantiles(axes, theme)
        axes.set_title(title, loc="left", color=theme.ink, fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("calls, %")
        axes.set_ylim(0, 101)
        axes.yaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 90, 100]))
        axes.grid(which="major")
    all_axes[-1].set_xlabel("response time of a call, ms (log)")
    _legend(figure, all_axes, theme)
    return figure


def _published_quantiles(axes: Axes, theme: Theme) -> None:
    for backend, marker in ((paper.MYSQL, "D"), (paper.REDIS, "s")):
        points = [q for q in paper.QUANTILES if q.backend == backend]
        axes.plot(
            [q.at_ms for q in points], [q.share * 100 for q in points], linestyle="none",
            marker=marker, markersize=6, markerfacecolor="none", markeredgewidth=1.5,
            color=backend_colour(theme, backend), label=f"{backend}, published", zorder=3,
        )  # fmt: skip


def distribution(values: pd.Series[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the cumulative distribution, in percent, zeros lifted for the log axis."""
    shares = np.linspace(0, 1, min(_POINTS, max(2, len(values))))
    x = np.quantile(values.to_numpy(dtype=float), shares)
    return np.maximum(x, 1e-3), shares * 100


def becoming_active(run: Measurements) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the number of VMs that are ACTIVE by time since the first request, s."""
    active = np.sort(run.vms["active_at"].dropna() - run.vms["requested_at"].min())
    count = np.arange(len(active) + 1)
    points = np.unique(np.linspace(0, len(active), min(_POINTS, len(count))).astype(int))
    return np.concatenate([[0.0], active])[points], count[points]


@drawing
def timeline(runs: Sequence[Measurements], theme: Theme = LIGHT) -> Figure:
    """Draw the VMs that are ACTIVE by time since the first request, a line for each run.

    With one run, the requests as they were sent, too.
    """
    started = [run for run in runs if len(run.vms)]
    if not started:
        return _nothing(theme, "No VM was asked for.")
    panels, names, styles = _panels(started), _names(started), _styles(started, theme)
    figure, all_axes = _figure(theme, 0.6 + 2.4 * len(panels), len(panels))
    for axes, (title, part) in zip(all_axes, panels, strict=True):
        if len(started) == 1:
            requested = np.sort(part[0].vms["requested_at"] - part[0].vms["requested_at"].min())
            axes.step(requested, np.arange(1, len(requested) + 1), where="post", color=theme.ink,
                      linestyle=":", linewidth=1.4, label="asked for")  # fmt: skip
        for run in part:
            name = names[group(run.record)]
            colour, line = styles[name]
            if len(started) == 1:
                words = status_word(run.record.is_partial, run.record.is_busy)
                name = "ACTIVE" + (f" ({words} run)" if words else "")
            x, count = becoming_active(run)
            axes.step(x, count, where="post", color=colour, linestyle=line, linewidth=1.8,
                      label=name)  # fmt: skip
        axes.set_title(title, loc="left", color=theme.ink, fontsize=10)
        axes.set_ylabel("VMs")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid()
    all_axes[-1].set_xlim(left=0)  # last: it ends the scaling of all of them
    all_axes[-1].set_xlabel("time since the first request, s")
    _legend(figure, all_axes, theme)
    return figure


@drawing
def cpu_shares(runs: Sequence[Measurements], theme: Theme = LIGHT) -> Figure:
    """Draw who used the CPU while the load ran, of all that the processors had."""
    rows = []
    for run in runs:
        shares = summaries.cpu_shares(run.record)
        busy = shares["machine_busy"]
        if busy is not None:
            parts = [(shares[f"{key}_share"] or 0) * busy * 100
                     for key in ("openstack", "load", "other")]  # fmt: skip
            rows.append((f"#{run.number}", [*parts, max(0.0, 100 - sum(parts))]))
    if not rows:
        return _nothing(theme, "CPU time was not measured.")
    figure, (axes,) = _figure(theme, 0.9 + 0.24 * len(rows))
    names = ("OpenStack", "load generator", "other (harness, system)", "idle")
    colours = (theme.series[0], theme.series[5], theme.series[3], theme.faint)
    hatches = (None, "//", "\\\\", None)
    left = np.zeros(len(rows))
    for index, name in enumerate(names):
        widths = np.array([parts[index] for _, parts in rows])
        axes.barh(range(len(rows)), widths, 0.62, left=left, label=name, color=colours[index],
                  hatch=hatches[index], edgecolor=theme.background, linewidth=0.5)  # fmt: skip
        left += widths
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    if len(rows) == 1:
        axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the processors' time, %")
    _legend(figure, [axes], theme)
    return figure


# ---------------------------------------------------------------- one run


@drawing
def vms_by_site(run: Measurements, theme: Theme = LIGHT) -> Figure:
    """Draw the VMs that got ACTIVE by the site they landed at, and an even share.

    With four sites and one pool of computes, the published shares beside.
    """
    frame = summaries.vms_by_site(run.vms)
    if frame.empty or not frame["active"].sum():
        return _nothing(theme, "No VM got ACTIVE.")
    count, total, even = len(frame), int(frame["active"].sum()), frame["active"].mean()
    frame = frame.head(_MOST_BARS)
    figure, (axes,) = _figure(theme, 2.7)
    places = np.arange(len(frame))
    beside = len(frame) == 4 and placement(run.record) == "shared"
    width = 0.38 if beside else 0.64
    bars = axes.bar(places - (width / 2 if beside else 0), frame["active"], width * 0.94,
                    color=backend_colour(theme, run.record.backend), label="measured")  # fmt: skip
    paper_behind = {"facecolor": theme.background, "edgecolor": "none", "pad": 0.6}
    axes.bar_label(bars, fontsize=8, color=theme.ink, padding=2, bbox=paper_behind)
    if beside:
        published = axes.bar(
            places + width / 2, [share * total for share in paper.SPREAD_OF_FOUR_SITES],
            width * 0.94, color="none", hatch="////", edgecolor=theme.series[7],
            label="published shares",
        )  # fmt: skip
        shares = [f"{share * 100:.0f} %" for share in paper.SPREAD_OF_FOUR_SITES]
        axes.bar_label(published, shares, fontsize=8, color=theme.ink, padding=2,
                       bbox=paper_behind)  # fmt: skip
    axes.axhline(even, color=theme.ink, linestyle="--", linewidth=1.2,
                 label=f"even share ({tables.digits(even)})")  # fmt: skip
    rotate = len(frame) > 8
    axes.set_xticks(places, [plain(site) for site in frame["site"]], rotation=60 if rotate else 0,
                    ha="right" if rotate else "center")  # fmt: skip
    axes.set_ylabel("VMs ACTIVE")
    axes.set_xlabel(axis_label("site of the host", len(frame), count))
    axes.grid(axis="y")
    _legend(figure, [axes], theme, columns=3)
    return figure


@drawing
def traffic_by_service(run: Measurements, theme: Theme = LIGHT) -> Figure:
    """Draw the megabytes between hosts by service, within and between sites."""
    frame = summaries.traffic_by_service(run.traffic)
    frame = frame[frame["network_mb"] > 0].reset_index(drop=True)
    if frame.empty:
        return _nothing(theme, "Traffic was not measured.")
    figure, (axes,) = _figure(theme, 0.9 + 0.28 * len(frame))
    places = np.arange(len(frame))
    axes.barh(places, frame["intra_mb"], 0.66, color=theme.series[4], label="within sites")
    axes.barh(places, frame["inter_mb"], 0.66, left=frame["intra_mb"], color=theme.series[1],
              hatch="//", edgecolor=theme.background, linewidth=0,
              label="between sites")  # fmt: skip
    _bar_ends(axes, frame["network_mb"], theme)
    axes.set_yticks(places, list(frame["service"]))
    axes.invert_yaxis()
    axes.set_xlabel("sent over the network, MB")
    axes.grid(axis="x")
    _legend(figure, [axes], theme)
    return figure


@drawing
def cpu_by_service(run: Measurements, theme: Theme = LIGHT) -> Figure:
    """Draw the CPU milliseconds of each service per VM that got ACTIVE."""
    frame = summaries.cpu_by_service(run.usage, run.done)
    frame = frame[frame["cpu_ms_per_vm"] > 0].reset_index(drop=True)
    if frame.empty:
        return _nothing(theme, f"CPU time per {run.unit} was not measured.")
    count, frame = len(frame), frame.head(_MOST_BARS)
    figure, (axes,) = _figure(theme, 0.9 + 0.28 * len(frame))
    places = np.arange(len(frame))
    axes.barh(places, frame["cpu_ms_per_vm"], 0.66, color=theme.series[0])
    _bar_ends(axes, frame["cpu_ms_per_vm"], theme)
    names = [
        plain(f"{service} ({instances})" if instances > 1 else str(service))
        for service, instances in zip(frame["service"], frame["instances"].astype(int), strict=True)
    ]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(axis_label(f"CPU, ms per {run.unit}", len(frame), count, "services"))
    axes.grid(axis="x")
    return figure


def _bar_ends(axes: Axes, values: pd.Series[Any], theme: Theme) -> None:
    """Write the value after each bar, and make room for it."""
    for place, value in enumerate(values):
        axes.annotate(tables.digits(float(value)), (value, place), va="center", fontsize=8,
                      xytext=(3, 0), textcoords="offset points", color=theme.ink)  # fmt: skip
    axes.set_xlim(0, float(values.max()) * 1.14 or 1)
