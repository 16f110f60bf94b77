"""The figure of a run's series: small multiples over one axis of time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from discovery_xp.analysis import plots, series
from discovery_xp.analysis.drawing import LIGHT, Theme, drawing, plain
from discovery_xp.analysis.measurements import Measurements
from discovery_xp.analysis.series import Curve, Curves
from discovery_xp.analysis.tables import digits

_MOST = 5  # curves of a panel; the others are drawn as their sum
_PANEL, _WIDTH = 1.5, 7.4  # inches; the names of curves are at the right
_STYLES: tuple[str, ...] = ("-", "--", "-.", ":", "-", "--", "-.", ":")


def panels(curves: Curves) -> list[tuple[str, str, list[Curve]]]:
    """Return what is drawn below the VMs: title, unit and curves of each; none without values."""
    connections = series.largest(curves.by_service("connections"), _MOST)
    candidates = [
        ("Queues of the message bus, ready and unacknowledged", "messages",
         series.queues(curves, _MOST)),
        ("Databases", "per second", series.databases(curves)),
        ("Connections that are open, by service", "connections",
         [curve for curve in connections if curve.most > 0]),
        ("CPU by service, hosts added up", "cores", series.cores(curves, _MOST)),
        ("Periods in which a service stood at its limit of CPU time", "%",
         series.throttled_shares(curves, _MOST)),
    ]  # fmt: skip
    return [(title, unit, found) for title, unit, found in candidates if found]


@drawing
def over_window(run: Measurements, theme: Theme = LIGHT) -> Figure:
    """Draw VMs ACTIVE, and below them queues, databases, connections, CPU and throttling."""
    if not len(run.series):
        return plots.words_alone(theme, "Series were not sampled.")
    curves = Curves(run)
    drawn = panels(curves)
    figure, all_axes = plots.small_multiples(theme, 1 + len(drawn), _PANEL)
    figure.set_size_inches(_WIDTH, figure.get_size_inches()[1])
    times, counts = series.active_vms(curves)
    all_axes[0].step(times, counts, where="post", color=theme.series[0], linewidth=1.6)
    _dress(all_axes[0], "VMs that are ACTIVE", "VMs", theme)
    for axes, (title, unit, found) in zip(all_axes[1:], drawn, strict=True):
        _panel(axes, title, unit, found, curves.grid, theme)
    all_axes[-1].set_xlim(0, float(curves.grid[-1]))
    scaled = "" if run.time_scale == 1 else f", divided by the time scale {run.time_scale:g}"
    all_axes[-1].set_xlabel(f"time since the load began, s{scaled}")
    return figure


def _panel(
    axes: Axes, title: str, unit: str, curves: Sequence[Curve], grid: np.ndarray, theme: Theme
) -> None:
    """Draw curves of one unit, with their names at the right."""
    for number, curve in enumerate(curves):
        axes.plot(
            grid, curve.values, color=theme.series[number % len(theme.series)],
            linestyle=_STYLES[number % len(_STYLES)], linewidth=1.6,
            label=plain(curve.words) or "-",  # a curve without a name is left out of a legend
        )  # fmt: skip
    _dress(axes, title, unit, theme)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5, frameon=False,
        labelcolor=theme.ink, handlelength=2.2, borderaxespad=0.3,
    )  # fmt: skip


def _dress(axes: Axes, title: str, unit: str, theme: Theme) -> None:
    axes.set_title(title, loc="left", color=theme.ink, fontsize=9)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    whole = unit in ("VMs", "messages", "connections")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=whole))
    axes.grid()


def caption(run: Measurements) -> str:
    """Return what the busiest of each panel were, in words."""
    words = []
    for title, unit, curves in panels(Curves(run)):
        busiest = series.busiest(curves)
        if busiest is not None:
            words.append(f"{title.split(',')[0]}: the most {busiest.words}, "
                         f"{digits(busiest.most)} {unit}")  # fmt: skip
    return "; ".join(words) + "."
