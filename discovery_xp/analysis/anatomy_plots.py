"""What boots of several runs waited for, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from discovery_xp.analysis import plots
from discovery_xp.analysis.anatomy import WITHIN, Boot
from discovery_xp.analysis.anatomy_tables import WORDS
from discovery_xp.analysis.drawing import LIGHT, Theme, drawing, plain
from discovery_xp.analysis.measurements import Measurements, group, groups, labels
from discovery_xp.analysis.tables import digits
from discovery_xp.store import ACTIVITIES

# By activity: the place of its colour among a theme's.
COLOURS = {"processor": 2, "waiting": 7, "queue": 3, "database": 0, "cache": 4, "http": 5, "bus": 1}
_MOST_BARS = 24


def mean_seconds(boots: Sequence[Boot]) -> dict[tuple[str, bool], float]:
    """Return the mean boot's seconds by activity, and whether they passed between sites."""
    sums: dict[tuple[str, bool], float] = {}
    for boot in boots:
        for (activity, where), seconds in boot.seconds_by().items():
            key = activity, where != WITHIN
            sums[key] = sums.get(key, 0.0) + seconds / len(boots)
    return sums


def by_configuration(runs: Sequence[Measurements]) -> list[tuple[str, list[Boot]]]:
    """Return the boots that were followed by name of their configuration, repeats pooled."""
    names = labels(runs)
    pooled = [
        (names[group(repeated[0].record)], [boot for run in repeated for boot in run.boots])
        for repeated in groups(runs)
    ]
    return [(name, boots) for name, boots in pooled if boots]


@drawing
def activities(runs: Sequence[Measurements], theme: Theme = LIGHT) -> Figure:
    """Draw the mean boot's time of each configuration by what it went to.

    Hatched is what passed between sites: for round trips, servers' own time included.
    """
    found = by_configuration(runs)
    bars = found[:_MOST_BARS]
    if not bars:
        return plots.words_alone(theme, "No boots were followed.")
    drawn, axes = plots.blank(theme, 7.6, 1.5 + 0.42 * len(bars))
    used: set[str] = set()
    passes_between = False
    longest = 0.0
    for place, (_, boots) in enumerate(bars):
        sums, left = mean_seconds(boots), 0.0
        for key in sorted(sums, key=lambda key: (ACTIVITIES.index(key[0]), key[1])):
            activity, is_between = key
            axes.barh(
                place, sums[key], 0.7, left=left, color=theme.series[COLOURS[activity]],
                hatch="////" if is_between else None, edgecolor=theme.background, linewidth=0.4,
            )  # fmt: skip
            left += sums[key]
            used |= {activity} if sums[key] > 0 else set()
            passes_between |= is_between
        axes.text(left, place, f" {digits(left)} s", va="center", fontsize=9, color=theme.ink)
        longest = max(longest, left)
    axes.set_yticks(range(len(bars)), [plain(name) for name, _ in bars], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * longest or 1.0)
    more = len(found) - len(bars)
    axes.set_xlabel("s of the mean boot's critical path"
                    + (f"; {more} more configurations aren't drawn" if more else ""))  # fmt: skip
    axes.grid(axis="x")
    key_to(drawn, used, passes_between, theme)
    return drawn


def key_to(drawn: Figure, used: set[str], passes_between: bool, theme: Theme) -> None:
    """Say above a figure which colour is which activity, and what is hatched."""
    handles = [
        Patch(color=theme.series[COLOURS[each]], label=WORDS[each])
        for each in ACTIVITIES
        if each in used
    ]
    if passes_between:
        handles.append(
            Patch(facecolor=theme.faint, hatch="////", edgecolor=theme.ink, label="between sites")
        )
    drawn.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8,
                 labelcolor=theme.ink)  # fmt: skip
