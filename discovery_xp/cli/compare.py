"""`discovery-xp compare`: two sides of runs beside each other; registered by `cli`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from discovery_xp.cli.common import console, echo
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.inputs.scenario import MAX_SEED
from discovery_xp.store import Run, replace_file
from discovery_xp.text import printable, short

if TYPE_CHECKING:
    from discovery_xp.analysis.comparison import Compared, Comparison

# pandas and matplotlib are loaded by the command, not by every other one.

_FORMATS = (".pdf", ".png", ".svg")


class Percentage(click.ParamType[float]):
    """A share of a hundred, such as 5%, as a number: 0.05."""

    name = "percentage"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Take the number out of it; refuse what is none, or isn't above 0 % and up to 1000 %."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", str(value))
        if match is None:
            self.fail(f"'{short(str(value))}' is no percentage; write e.g. 5%", param, ctx)
        share = float(match[1]) / 100
        if not 0 < share <= 10 or not math.isfinite(share):
            self.fail(f"'{short(str(value))}' is out of range; write e.g. 5%", param, ctx)
        return share


@click.command()
@click.argument("runs_a", type=click.Path(path_type=Path))
@click.argument("runs_b", required=False, type=click.Path(path_type=Path))
@click.option("--fail-over", type=Percentage(), metavar="SHARE",
              help="End with code 1 where B is worse than A by more than this, e.g. 5%, over the "
              "whole interval of a figure.")  # fmt: skip
@click.option("--precision", type=Percentage(), default="5%", show_default=True, metavar="SHARE",
              help="Say how many more runs this precision of a ratio would take.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=1, show_default=True,
              metavar="N", help="What the intervals' resamples are drawn from.")  # fmt: skip
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE",
              help="Plot all points there: a .pdf, .png or .svg.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write everything there, for programs.")  # fmt: skip
def compare(
    runs_a: Path,
    runs_b: Path | None,
    fail_over: float | None,
    precision: float,
    seed: int,
    figure: Path | None,
    json_file: Path | None,
) -> None:
    """Compare runs: what differs in what was run first, then ratios with their intervals.

    RUNS_A and RUNS_B are each a run's folder, or a folder of runs. With one folder, of a bench
    with two back ends, these are compared.
    """
    if figure is not None and figure.suffix not in _FORMATS:
        raise Refused(
            f"--figure {figure}: a figure can't be written as '{figure.suffix}'",
            f"end its name in {', '.join(_FORMATS)}",
        )
    from discovery_xp.analysis import comparison as comparisons

    a, b = comparisons.arms(runs_a) if runs_b is None else comparisons.sides(runs_a, runs_b)
    made = comparisons.compare(a, b, precision, seed)
    print_comparison(made)
    written = []
    if figure is not None:
        written.append(_write_figure(figure, made))
    if json_file is not None:
        text = json.dumps(comparisons.to_json(made), indent=1) + "\n"
        written.append(_write(json_file, text, "--json"))
    if written:
        echo("written: " + ", ".join(str(path) for path in written), err=True)
    if fail_over is not None:
        _require_no_worse(made, fail_over)


def print_comparison(comparison: Comparison) -> None:
    """Print the tables of a comparison."""
    from discovery_xp.analysis import comparison_tables
    from discovery_xp.analysis.report import rich_table

    out = console(180)
    for table in comparison_tables.tables_of(comparison):
        out.print(rich_table(table))


def print_arms(names: Sequence[str], runs: Sequence[tuple[str, Run]]) -> None:
    """Compare the arms of a bench, each with the one that was named first.

    Those without a run aren't compared, nor are those that can't be.
    """
    from discovery_xp.analysis import comparison as comparisons

    of_arm = {name: [run for backend, run in runs if backend == name] for name in names}
    first, *others = (name for name in names)
    for name in others:
        if not of_arm[first] or not of_arm[name]:
            echo(f"{first} and {name} aren't compared: one of them has no run", err=True)
            continue
        try:
            sides = [comparisons.side(each, of_arm[each]) for each in (first, name)]
            print_comparison(comparisons.compare(sides[0], sides[1]))
        except UserError as error:
            echo(f"{first} and {name} aren't compared: {error}", err=True)


def _require_no_worse(comparison: Comparison, by: float) -> None:
    """Raise Failed where B is worse in a figure; say which figures have no interval to tell."""
    untold = [each.figure.words for each in comparison.figures if each.interval is None]
    if untold:
        echo(f"not judged, as they have no interval: {'; '.join(untold)}", err=True)
    worse = comparison.worse(by)
    if worse:
        raise Failed(
            f"B is worse than A by more than {100 * by:g} %: "
            + "; ".join(_in_words(each) for each in worse),
            "look at what differs in what was run first",
        )


def _in_words(compared: Compared) -> str:
    assert compared.interval is not None and compared.ratio is not None
    low, high = compared.interval.low, compared.interval.high
    return f"{compared.figure.words}: {compared.ratio:.2f} ({low:.2f} to {high:.2f})"


def _write_figure(path: Path, comparison: Comparison) -> Path:
    from discovery_xp.analysis import comparison_tables
    from discovery_xp.analysis.drawing import image

    drawn = image(comparison_tables.figure_of(comparison), path.suffix[1:])
    return _write(path, drawn, "--figure")


def _write(path: Path, data: bytes | str, option: str) -> Path:
    try:
        replace_file(path, data)
    except OSError as error:
        raise Refused(
            f"{printable(str(path))}: can't be written ({error.strerror or error})",
            f"name another file with {option}",
        ) from None
    return path
