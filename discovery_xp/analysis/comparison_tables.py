"""A comparison as people read it: its tables, and a figure with all its points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from discovery_xp.analysis import plots, statistics
from discovery_xp.analysis.comparison import METHOD, Compared, Comparison, Side
from discovery_xp.analysis.differences import Difference
from discovery_xp.analysis.drawing import LIGHT, PlainFigure, Theme, drawing, plain
from discovery_xp.analysis.measurements import label
from discovery_xp.analysis.tables import Table, digits, or_nan

_COLUMNS = 3  # of a figure's panels
_PANEL_INCHES = (2.3, 2.1)


def tables_of(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison: what differs first, then the figures."""
    return [
        differences_table(comparison.differences, comparison.a, comparison.b),
        _figures(comparison),
    ]


def differences_table(differences: Sequence[Difference], a: Side, b: Side) -> Table:
    """Return the settings that aren't the same on both sides."""
    rows = [
        {"setting": each.setting, "a": " | ".join(each.a), "b": " | ".join(each.b)}
        for each in differences
    ]
    notes = tuple(
        f"{letter}: {side.name}, {len(side.runs)} run{'' if side.is_single else 's'}: "
        f"{label(side.runs[0].record)}."
        for letter, side in (("A", a), ("B", b))
    )
    none = () if rows else ("Nothing that is recorded differs.",)
    frame = pd.DataFrame(rows, columns=["setting", "a", "b"])
    return Table("differences", "What differs in what was run", frame, (*none, *notes))


def _figures(comparison: Comparison) -> Table:
    rows = [_row(each) for each in comparison.figures]
    columns = ["figure", "a", "b", "ratio", "low", "high", "over", "delta", "more_runs"]
    notes = (
        f"'ratio' is B / A; 'interval': {METHOD}, 95 %, {statistics.RESAMPLES} resamples, seed "
        f"{comparison.seed}. 'more runs': of each side, for ± {100 * comparison.precision:g} %.",
        *comparison.notes,
    )
    return Table("comparison", "Figures", pd.DataFrame(rows, columns=columns), notes)


def _row(compared: Compared) -> dict[str, Any]:
    interval, delta = compared.interval, compared.delta
    return {
        "figure": compared.figure.words,
        "a": compared.value_a,
        "b": compared.value_b,
        "ratio": or_nan(compared.ratio),
        "low": or_nan(None if interval is None else interval.low),
        "high": or_nan(None if interval is None else interval.high),
        "over": compared.over,
        "delta": "" if delta is None else f"{delta:+.2f}, {statistics.magnitude(delta)}",
        "more_runs": "" if compared.more_runs is None else str(compared.more_runs),
    }


# ---------------------------------------------------------------- the figure


@drawing
def figure_of(comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Return a panel for each figure with all its points: runs, and of single runs their VMs.

    Lines join pairs; the dash is the side's figure.
    """
    shown = comparison.figures
    rows = max(1, -(-len(shown) // _COLUMNS))
    width, height = _PANEL_INCHES
    with mpl.rc_context(plots.settings(theme)):
        figure = PlainFigure(figsize=(_COLUMNS * width, rows * height + 0.4), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes, compared in zip(panels, shown, strict=False):
            _panel(axes, compared, comparison, theme)
        sides = (("A", comparison.a), ("B", comparison.b))
        names = [plain(f"{letter}: {label(side.runs[0].record)}") for letter, side in sides]
        figure.suptitle("\n".join(names), fontsize=9)
    return figure


def _panel(axes: Axes, compared: Compared, comparison: Comparison, theme: Theme) -> None:
    sides = (
        (comparison.a, compared.points_a, compared.value_a),
        (comparison.b, compared.points_b, compared.value_b),
    )
    for place, (side, points, value) in enumerate(sides):
        colour = theme.series[place]
        vms = compared.figure.by_vm(side.runs[0]) if side.is_single else None
        if vms is not None:
            axes.plot(_apart(place, len(vms)), vms.to_numpy(), ".", color=colour, markersize=3)
        axes.plot(_apart(place, len(points)), points, "o", color=colour, markersize=5)
        axes.plot([place - 0.3, place + 0.3], [value, value], "-", color=theme.ink, linewidth=1)
    if compared.paired:
        for pair in zip(compared.points_a, compared.points_b, strict=True):
            axes.plot([0, 1], pair, "-", color=theme.faint, linewidth=0.8, zorder=0)
    axes.set_xticks([0, 1], ["A", "B"])
    axes.set_xlim(-0.5, 1.5)
    axes.set_ylim(0, 1.1 * max(map(float, axes.yaxis.get_data_interval())) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(compared.figure.words, fontsize=8)
    if compared.ratio is not None:
        axes.set_xlabel(_ratio_in_words(compared), fontsize=8)


def _ratio_in_words(compared: Compared) -> str:
    interval = compared.interval
    spread = "" if interval is None else f" ({digits(interval.low)} to {digits(interval.high)})"
    return f"B / A {digits(compared.ratio or 0.0)}{spread}"


def _apart(place: int, count: int) -> list[float]:
    """Return where so many points of a side stand, so that all are seen; a single one amid."""
    if count == 1:
        return [float(place)]
    return [place + float(offset) for offset in np.linspace(-0.22, 0.22, count)]
