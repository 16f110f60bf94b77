"""A boot's critical path as a waterfall: a row for each step, in the terminal and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from discovery_xp.analysis import anatomy_plots, plots
from discovery_xp.analysis.anatomy import Boot, Part, Stretch
from discovery_xp.analysis.anatomy_tables import WORDS
from discovery_xp.analysis.drawing import LIGHT, Theme, drawing, plain
from discovery_xp.analysis.span_trees import Node
from discovery_xp.analysis.tables import digits
from discovery_xp.store import ACTIVITIES
from discovery_xp.text import printable, shortened

_LEAST_SHARE = 0.004  # of the boot's time; shorter steps are summed up in a note
_MOST_STEPS = 48
_WIDTH = 48  # characters of a bar
_STEP = 44  # characters of a step's name
_LABEL = 28  # the same in a figure

# By activity: its colour in the terminal; figures have their own.
_COLOURS = {
    "processor": "green", "waiting": "white", "queue": "magenta", "database": "blue",
    "cache": "cyan", "http": "yellow", "bus": "red",
}  # fmt: skip


@dataclass
class Step:
    """A span of the path with its own stretches; `depth` is how many others it stands below."""

    node: Node
    depth: int
    stretches: list[Stretch] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Return its own time on the path."""
        return sum(each.end - each.start for each in self.stretches)

    @property
    def crossings(self) -> int:
        """Return the crossings in its own time."""
        return sum(part.crossings for each in self.stretches for part in each.parts)

    @property
    def words(self) -> str:
        """Return what it is, indented below what it is a part of."""
        asks = {"call": "calls ", "cast": "sends ", "client": "asks "}.get(self.node.kind, "")
        return f"{'  ' * min(self.depth, 6)}{asks}{self.node.name}"


def steps_of(boot: Boot) -> tuple[list[Step], list[Step]]:
    """Return the steps of a path that can be seen, as they begin, and those too short for that."""
    steps: dict[int, Step] = {}
    for stretch in boot.stretches:
        node = stretch.node
        if id(node) not in steps:
            steps[id(node)] = Step(node, _depth(node))
        steps[id(node)].stretches.append(stretch)
    longest = sorted(steps.values(), key=lambda step: step.seconds, reverse=True)
    seen = {
        id(step)
        for step in longest[:_MOST_STEPS]
        if step.seconds >= _LEAST_SHARE * boot.seconds or step.crossings
    }
    shown = [step for step in steps.values() if id(step) in seen]
    return shown, [step for step in steps.values() if id(step) not in seen]


def _depth(node: Node) -> int:
    depth, up = 0, node.up
    while up is not None:
        depth, up = depth + 1, up.up
    return depth


def title_of(boot: Boot) -> str:
    """Return a boot in a line."""
    return (
        f"{shortened(boot.vm, 60)}: {digits(boot.seconds)} s from Nova's API at {boot.root.site} "
        f"to ACTIVE at {boot.host_site}, {boot.crossings} crossings between sites on the way"
    )


# ---------------------------------------------------------------- terminal


def terminal(boot: Boot) -> RenderableType:
    """Return a waterfall for the terminal."""
    shown, rest = steps_of(boot)
    grid = RichTable(title=Text(printable(title_of(boot))), title_justify="left", show_edge=False)
    for heading, right in (("from, s", True), ("own, s", True), ("crossings", True),
                           ("service", False), ("step", False), ("", False)):  # fmt: skip
        grid.add_column(Text(heading), justify="right" if right else "left", no_wrap=True)
    for step in shown:
        node = step.node
        grid.add_row(
            Text(f"{step.stretches[0].start:.3f}"),
            Text(f"{step.seconds:.3f}"),
            Text(str(step.crossings or "")),
            Text(printable(f"{node.service} {node.site}")),
            Text(shortened(printable(step.words), _STEP)),
            _bar(step, boot.seconds),
        )
    legend = Text("  ")
    for activity in ACTIVITIES:
        legend.append("\N{FULL BLOCK} ", style=_COLOURS[activity])
        legend.append(f"{WORDS[activity]}   ")
    parts: list[RenderableType] = [Text(), grid, legend]
    if rest:
        parts.append(Text(f"  {_rest_words(rest)}", style="dim"))
    return Group(*parts)


def _rest_words(rest: Sequence[Step]) -> str:
    seconds = sum(step.seconds for step in rest)
    return f"{len(rest)} shorter steps aren't shown: {seconds:.3f} s in all."


def _bar(step: Step, total_s: float) -> Text:
    """Return when a step was at work, a character for each moment, coloured by activity."""
    cells: list[tuple[float, str]] = [(0.0, "")] * _WIDTH
    moment = total_s / _WIDTH or 1.0
    for stretch in step.stretches:
        for start, end, part in _laid_out(stretch):
            first = min(_WIDTH - 1, int(start / moment))
            last = min(_WIDTH - 1, int(max(start, end - 1e-9) / moment))
            for place in range(first, last + 1):
                within = min(end, (place + 1) * moment) - max(start, place * moment)
                cells[place] = max(cells[place], (within, part.activity))
    bar = Text()
    for _, activity in cells:
        if activity:
            bar.append("\N{FULL BLOCK}", style=_COLOURS[activity])
        else:
            bar.append(" ")
    return bar


def _laid_out(stretch: Stretch) -> list[tuple[float, float, Part]]:
    """Return start and end of each part of a stretch, one after the other.

    Within a stretch only their sums are known, not their order.
    """
    places, start = [], stretch.start
    for part in stretch.parts:
        places.append((start, start + part.seconds, part))
        start += part.seconds
    return places


# ---------------------------------------------------------------- figure


def _label(step: Step) -> str:
    """Return what a step is and where, short enough to stand beside its bar."""
    words = printable(step.words.strip())
    if len(words) > _LABEL:
        words = words[: _LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return plain(f"{words}, {step.node.service.removeprefix('nova-')} {step.node.site}", 64)


@drawing
def figure(boot: Boot | None, theme: Theme = LIGHT) -> Figure:
    """Draw a boot's waterfall; hatched is what passes between sites."""
    if boot is None:
        return plots.words_alone(theme, "No boot was followed.")
    shown, rest = steps_of(boot)
    width, height = 7.6, 1.4 + 0.17 * len(shown)
    drawn, axes = plots.blank(theme, width, height)
    for place, step in enumerate(shown):
        for stretch in step.stretches:
            for start, end, part in _laid_out(stretch):
                colour = theme.series[anatomy_plots.COLOURS[part.activity]]
                axes.barh(
                    place, end - start, 0.78, left=start, color=colour,
                    hatch="////" if part.pair else None,
                    # A line around it shows what is narrower than a pixel.
                    edgecolor=theme.background if part.pair else colour,
                    linewidth=0 if part.pair else 0.5,
                )  # fmt: skip
    axes.set_yticks(range(len(shown)), [_label(step) for step in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, boot.seconds or 1.0)
    axes.set_xlabel("s since the request's arrival"
                    + (f"\n{len(rest)} shorter steps not shown" if rest else ""))  # fmt: skip
    axes.grid(axis="x")
    used = {part.activity for part in boot.parts() if part.seconds > 0}
    anatomy_plots.key_to(drawn, used, any(part.pair for part in boot.parts()), theme)
    return drawn
