"""Two sides of runs beside each other: what differs in what was run, then figure by figure.

docs/comparing.md says how each number comes about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from discovery_xp.analysis import statistics
from discovery_xp.analysis.differences import (
    Difference,
    differences,
    disagreement,
    verdict_of,
)
from discovery_xp.analysis.figures import FIGURES, Figure
from discovery_xp.analysis.measurements import (
    BUSY,
    BUSY_WORDS,
    Measurements,
    label,
    measured,
)
from discovery_xp.analysis.statistics import Interval, Values
from discovery_xp.errors import Refused
from discovery_xp.store import Run, find_runs

SEED = 1
PRECISION = 0.05
# A verdict under which the seconds of a run are those of the network, not of the machine.
GOOD = "good"


@dataclass(frozen=True)
class Side:
    """The runs of one side, which are averaged."""

    name: str
    runs: tuple[Measurements, ...]

    @property
    def is_single(self) -> bool:
        """Tell whether it has one run, whose spread to others isn't known."""
        return len(self.runs) == 1

    @property
    def time_scale(self) -> float:
        """Return the time scale of its runs, which is the same in all."""
        return self.runs[0].record.time_scale

    @property
    def verdicts(self) -> set[str]:
        """Return the verdicts on its runs; an empty word of a run without one."""
        return {verdict_of(run.record) for run in self.runs}


@dataclass(frozen=True)
class Compared:
    """A figure on both sides.

    `points_a` and `points_b` are the runs', in pairs where they are `paired`.  `ratio` is that of
    their geometric means, None where a value isn't positive; `interval` None where no spread is
    known.  `over` says what was resampled and what Cliff's `delta` is of.  `more_runs` is how many
    more each side needs for the precision; None where one side has a single run.
    """

    figure: Figure
    points_a: tuple[float, ...]
    points_b: tuple[float, ...]
    ratio: float | None
    interval: Interval | None
    over: str
    delta: float | None
    more_runs: int | None
    paired: bool

    @property
    def value_a(self) -> float:
        """Return A's figure: the geometric mean of its runs."""
        return _mean(self.points_a)

    @property
    def value_b(self) -> float:
        """Return B's figure."""
        return _mean(self.points_b)

    def is_worse(self, by: float) -> bool:
        """Tell whether B is worse than A by more than a share, over the whole interval."""
        return self.interval is not None and self.interval.low > 1 + by


@dataclass(frozen=True)
class Comparison:
    """All of a comparison; `pairs` are the places of A's and B's runs that belong together."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    figures: tuple[Compared, ...]
    notes: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    precision: float
    seed: int

    def worse(self, by: float) -> list[Compared]:
        """Return the figures in which B is worse than A by more than a share."""
        return [each for each in self.figures if each.is_worse(by)]


def _mean(points: Sequence[float]) -> float:
    if min(points) > 0:
        return float(statistics.geometric_mean(np.asarray(points, dtype=np.float64)))
    return float(np.mean(points))


# ---------------------------------------------------------------- sides


def sides(path_a: Path, path_b: Path) -> tuple[Side, Side]:
    """Return the runs of two folders as sides.

    Raises Refused where there are none, a run is on both sides, or those of one can't be averaged.
    """
    found = [find_runs([path]) for path in (path_a, path_b)]
    common = {run.folder.resolve() for run in found[0]} & {run.folder.resolve() for run in found[1]}
    if common:
        raise Refused(
            f"{path_a} and {path_b} are both of run {sorted(common)[0].name}",
            "name two folders that have no run in common",
        )
    return side(str(path_a), found[0]), side(str(path_b), found[1])


def arms(path: Path) -> tuple[Side, Side]:
    """Return the two arms of the comparison whose runs are in a folder, that named first as A.

    Raises Refused where the runs aren't those of a bench with two back ends.
    """
    runs = measured(find_runs([path]))
    of_arms = [run for run in runs if run.record.arm is not None]
    names = {run.record.arm.arms for run in of_arms if run.record.arm is not None}
    if len(of_arms) < len(runs) or len(names) != 1 or len(named := next(iter(names))) != 2:
        raise Refused(
            f"{path}: not the runs of one bench with two back ends",
            "name two folders, one for each side",
        )
    both = [[run.run for run in runs if run.record.backend == backend] for backend in named]
    if not all(both):
        raise Refused(f"{path}: there is no run of {named[0] if not both[0] else named[1]}",
                      "name two folders, one for each side")  # fmt: skip
    return side(named[0], both[0]), side(named[1], both[1])


def side(name: str, runs: Sequence[Run]) -> Side:
    """Return runs as a side; raises Refused where they can't be averaged."""
    made = tuple(measured(runs))
    differ = disagreement(made)
    if differ is not None:
        what = f"{differ.setting} {differ.a[0]} and {differ.b[0]}"
        raise Refused(
            f"{name}: its runs aren't repeats of each other: {what}",
            "name a folder with the runs of one configuration",
        )
    return Side(name, made)


# ---------------------------------------------------------------- comparing


def compare(
    a: Side,
    b: Side,
    precision: float = PRECISION,
    seed: int = SEED,
    figures: Sequence[Figure] | None = None,
) -> Comparison:
    """Compare two sides, figure by figure; the same runs and seed give the same numbers.

    `figures` are those of `FIGURES` by default.
    """
    pairs = _pairs(a, b)
    by_vm = _is_paired_by_vm(a, b)
    notes = [*_marks(a, b), *_notes_on_pairs(a, b, pairs, by_vm)]
    kinds = {"count"} if _are_seconds_apart(a, b) else {"count", "time"}
    if a.time_scale != b.time_scale:
        notes.append(_note_on_scales(a, b, "time" in kinds))
    compared = []
    for figure in FIGURES if figures is None else figures:
        if figure.kind in kinds:
            # A stream for each figure: a further one changes no other's numbers.
            random = np.random.default_rng([seed, *figure.key.encode()])
            if (each := _compared(figure, a, b, pairs, by_vm, precision, random)) is not None:
                compared.append(each)
    return Comparison(
        a, b, tuple(differences(a.runs, b.runs)), tuple(compared), tuple(notes), tuple(pairs),
        precision, seed,
    )  # fmt: skip


def _pairs(a: Side, b: Side) -> list[tuple[int, int]]:
    """Return the places of runs of one block of one comparison; none unless there are two."""
    places_b = _by_block(b)
    found = [(place, places_b[block]) for block, place in _by_block(a).items() if block in places_b]
    return found if len(found) > 1 else []


def _by_block(side: Side) -> dict[tuple[str, int], int]:
    arms = [run.record.arm for run in side.runs]
    keys = [(arm.comparison, arm.block) if arm else None for arm in arms]
    return {key: place for place, key in enumerate(keys) if key and keys.count(key) == 1}


def _is_paired_by_vm(a: Side, b: Side) -> bool:
    """Tell whether both are single runs whose VMs were placed by one draw."""
    drawn = [each.runs[0].record.drawn for each in (a, b)]
    return a.is_single and b.is_single and drawn[0] is not None and drawn[0] == drawn[1]


def _marks(a: Side, b: Side) -> list[str]:
    """Return a line for each run that isn't what it seems: partial, canned, on a busy machine."""
    notes = []
    for name, each in (("A", a), ("B", b)):
        for run in each.runs:
            if run.record.is_canned:
                notes.append(f"{name}: {run.run.name} is CANNED: nothing was measured.")
            if run.record.is_partial:
                notes.append(f"{name}: {run.run.name} is PARTIAL: {run.record.why_partial}.")
            if run.record.is_busy:
                notes.append(f"{name}: {run.run.name} is {BUSY}: {BUSY_WORDS}.")
    return notes


def _notes_on_pairs(a: Side, b: Side, pairs: Sequence[tuple[int, int]], by_vm: bool) -> list[str]:
    notes = []
    if pairs:
        left_out = len(a.runs) + len(b.runs) - 2 * len(pairs)
        notes.append(
            f"Runs are paired by block: {len(pairs)} pairs"
            + (f"; {left_out} without a partner are left out." if left_out else ".")
        )
        at_best, subject = statistics.attainable_paired(len(pairs)), f"{len(pairs)} pairs"
    elif a.is_single or b.is_single:
        which = "on each side" if a.is_single and b.is_single else "on one side"
        paired = ", paired by VM, as one draw placed them" if by_vm else ""
        return [
            f"There is a single run {which}: there the interval covers how VMs of a run differ "
            f"from each other{paired}, and not how one run differs from the next. Figures of a run "
            "as a whole have no interval."
        ]
    else:
        at_best = statistics.attainable(len(a.runs), len(b.runs))
        subject = f"{len(a.runs)} and {len(b.runs)} runs"
    if at_best < statistics.CONFIDENCE:
        notes.append(
            f"{subject} can't give 95 %: the intervals have a confidence of at most "
            f"{100 * at_best:.0f} %."
        )
    return notes


def _are_seconds_apart(a: Side, b: Side) -> bool:
    """Tell whether seconds of the sides mean different things: other scales, not both good."""
    return a.time_scale != b.time_scale and a.verdicts | b.verdicts != {GOOD}


def _note_on_scales(a: Side, b: Side, with_seconds: bool) -> str:
    scales = f"Time scale {a.time_scale:g} and {b.time_scale:g}: "
    if with_seconds:
        return f"{scales}seconds are those of the cloud, as all verdicts are good."
    return f"{scales}only counts are compared, as seconds agree only where all verdicts are good."


# ---------------------------------------------------------------- one figure


def _compared(
    figure: Figure,
    a: Side,
    b: Side,
    pairs: Sequence[tuple[int, int]],
    by_vm: bool,
    precision: float,
    random: np.random.Generator,
) -> Compared | None:
    """Return a figure on both sides; None where a side doesn't have it."""
    runs_a = [a.runs[place] for place, _ in pairs] if pairs else list(a.runs)
    runs_b = [b.runs[place] for _, place in pairs] if pairs else list(b.runs)
    values = [(figure.of(x), figure.of(y)) for x, y in zip(runs_a, runs_b, strict=False)]
    if pairs and any(None in pair for pair in values):
        return None
    points_a = tuple(each for run in runs_a if (each := figure.of(run)) is not None)
    points_b = tuple(each for run in runs_b if (each := figure.of(run)) is not None)
    if not points_a or not points_b:
        return None
    known = Compared(figure, points_a, points_b, None, None, "", None, None, bool(pairs))
    if min(points_a + points_b) <= 0:
        return known
    known = dataclasses.replace(known, ratio=known.value_b / known.value_a)
    if min(len(points_a), len(points_b)) > 1:
        return _over_runs(known, precision, random)
    return _over_vms(known, runs_a, runs_b, by_vm, random)


def _over_runs(known: Compared, precision: float, random: np.random.Generator) -> Compared:
    """Add what the spread between runs says."""
    a, b, mean = known.points_a, known.points_b, statistics.geometric_mean
    if known.paired:
        ratios = [y / x for x, y in zip(a, b, strict=True)]
        draws = statistics.resampled(ratios, mean, random)
        at_best, over = statistics.attainable_paired(len(a)), f"{len(a)} pairs of runs"
    else:
        draws = statistics.resampled(b, mean, random) / statistics.resampled(a, mean, random)
        at_best, over = statistics.attainable(len(a), len(b)), f"{len(a)} and {len(b)} runs"
    needed = statistics.runs_needed(a, b, precision, known.paired)
    return dataclasses.replace(
        known,
        interval=statistics.interval_of(draws, min(len(a), len(b)), at_best),
        over=over,
        delta=statistics.cliffs_delta(a, b),
        more_runs=max(0, needed - min(len(a), len(b))),
    )


def _over_vms(
    known: Compared,
    runs_a: Sequence[Measurements],
    runs_b: Sequence[Measurements],
    by_vm: bool,
    random: np.random.Generator,
) -> Compared:
    """Add what VMs say where a side has one run; the other's runs are resampled if it has more."""
    figure = known.figure
    of_a, of_b = figure.by_vm(runs_a[0]), figure.by_vm(runs_b[0])
    if figure.statistic is None or of_a is None or of_b is None:
        return known
    if by_vm:
        names = of_a.index.intersection(of_b.index)
        a, b = of_a[names].to_numpy(), of_b[names].to_numpy()
        if not len(names):
            return known
        draws = statistics.resampled_together([a, b], figure.statistic, random)
        return dataclasses.replace(
            known,
            interval=statistics.interval_of(draws[1] / draws[0], len(names)),
            over=f"{len(names)} VMs, paired",
            delta=statistics.cliffs_delta(a, b),
        )
    side_draws: list[Values] = []
    over, counts = [], []
    for points, of_vms in ((known.points_a, of_a), (known.points_b, of_b)):
        single = len(points) == 1
        values = of_vms.to_numpy() if single else np.asarray(points)
        statistic = figure.statistic if single else statistics.geometric_mean
        side_draws.append(statistics.resampled(values, statistic, random))
        over.append(f"{len(values)} {'VMs' if single else 'runs'}")
        counts.append(len(values))
    both_single = over[0].endswith("VMs") and over[1].endswith("VMs")
    runs = [len(points) for points in (known.points_a, known.points_b) if len(points) > 1]
    at_best = min((statistics.attainable_paired(count) for count in runs), default=1.0)
    return dataclasses.replace(
        known,
        interval=statistics.interval_of(side_draws[1] / side_draws[0], min(counts), at_best),
        over=" and ".join(over),
        delta=statistics.cliffs_delta(of_a.to_numpy(), of_b.to_numpy()) if both_single else None,
    )


# ---------------------------------------------------------------- as plain values


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for programs."""

    def of_side(side: Side) -> dict[str, Any]:
        runs = [
            {"run": run.run.name, "status": run.record.status, "verdict": verdict_of(run.record)}
            for run in side.runs
        ]
        return {"name": side.name, "label": label(side.runs[0].record), "runs": runs}

    return {
        "format": 1,
        "a": of_side(comparison.a),
        "b": of_side(comparison.b),
        "method": METHOD,
        "seed": comparison.seed,
        "resamples": statistics.RESAMPLES,
        "precision": comparison.precision,
        "pairs": [list(pair) for pair in comparison.pairs],
        "differences": [dataclasses.asdict(each) for each in comparison.differences],
        "figures": [_figure_to_json(each) for each in comparison.figures],
        "notes": list(comparison.notes),
    }


METHOD = "expanded percentile bootstrap"


def _figure_to_json(compared: Compared) -> dict[str, Any]:
    interval = compared.interval
    return {
        "figure": compared.figure.key,
        "kind": compared.figure.kind,
        "a": compared.value_a,
        "b": compared.value_b,
        "points_a": list(compared.points_a),
        "points_b": list(compared.points_b),
        "ratio": compared.ratio,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "confidence": None if interval is None else interval.confidence,
        "over": compared.over or None,
        "cliffs_delta": compared.delta,
        "magnitude": None if compared.delta is None else statistics.magnitude(compared.delta),
        "more_runs": compared.more_runs,
    }
