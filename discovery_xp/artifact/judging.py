"""Whether claims hold on runs: a verdict on each, with the figures that it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from discovery_xp.analysis.comparison import Side, compare
from discovery_xp.analysis.differences import disagreement
from discovery_xp.analysis.measurements import Measurements, loads
from discovery_xp.analysis.statistics import Interval
from discovery_xp.analysis.tables import Table
from discovery_xp.artifact.claims import Claim
from discovery_xp.artifact.levels import has, in_words
from discovery_xp.errors import Refused

Outcome = Literal["holds", "within tolerance", "FAILS", "not known"]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim on runs.

    `value` is what its bounds are of, None where it isn't known; `remark` says why then, or how
    far to trust it.  `of` and `to` are the figure's means; `interval` is the ratio's, where a
    spread is known.
    """

    claim: Claim
    outcome: Outcome
    value: float | None = None
    of: float | None = None
    to: float | None = None
    interval: Interval | None = None
    remark: str = ""

    @property
    def is_good(self) -> bool:
        """Tell whether the claim holds, within its tolerance at least."""
        return self.outcome in ("holds", "within tolerance")


def judge(claim: Claim, runs: Sequence[Measurements]) -> Verdict:
    """Return the verdict on a claim by those of the runs that it is about.

    Raises Refused where its levels choose runs that can't be averaged.
    """
    return judge_sides(claim, [chosen(claim, levels, runs) for levels in claim.sides])


def chosen(
    claim: Claim, levels: Mapping[str, str], runs: Sequence[Measurements]
) -> list[Measurements]:
    """Return the complete runs that have the levels of a side of a claim.

    Raises Refused where they differ in more than that.
    """
    side = [run for run in loads(runs) if not run.record.is_partial and has(run.record, levels)]
    differ = disagreement(side)
    if differ is not None:
        raise Refused(
            f"{claim.place}: claim {claim.number}: the runs with {in_words(levels)} aren't repeats "
            f"of each other: {differ.setting} {differ.a[0]} and {differ.b[0]}",
            "name the level of each factor that varies",
        )
    return side


def judge_sides(claim: Claim, sides: Sequence[Sequence[Measurements]]) -> Verdict:
    """Return the verdict on a claim by the runs of each of its sides."""
    for levels, runs in zip(claim.sides, sides, strict=True):
        if not runs:
            return _not_known(claim, f"there is no complete run with {in_words(levels)}")
        if all(claim.figure.of(run) is None for run in runs):
            return _not_known(claim, f"the runs with {in_words(levels)} didn't measure it")
    remark = _marks([run for runs in sides for run in runs])
    if len(sides) == 1:
        values = [each for run in sides[0] if (each := claim.figure.of(run)) is not None]
        value = sum(values) / len(values)
        return Verdict(claim, _outcome(claim, value), value, value, remark=remark)
    of, to = (
        Side(in_words(each), tuple(runs)) for each, runs in zip(claim.sides, sides, strict=True)
    )
    found = compare(to, of, figures=[claim.figure]).figures
    if not found:
        return _not_known(claim, "its seconds can't be compared: of other time scales, not good")
    (compared,) = found
    if compared.ratio is None:
        return _not_known(claim, "there is no ratio to a figure of 0")
    return Verdict(
        claim, _outcome(claim, compared.ratio), compared.ratio, compared.value_b, compared.value_a,
        compared.interval, remark,
    )  # fmt: skip


def _outcome(claim: Claim, value: float) -> Outcome:
    if claim.holds(value):
        return "holds"
    return "within tolerance" if claim.holds_within_tolerance(value) else "FAILS"


def _not_known(claim: Claim, why: str) -> Verdict:
    return Verdict(claim, "not known", remark=why)


def _marks(runs: Sequence[Measurements]) -> str:
    """Return what keeps the figures of runs from being what they seem."""
    marks = []
    if any(run.record.is_canned for run in runs):
        marks.append("CANNED")
    if any(run.record.is_busy for run in runs):
        marks.append("on a busy machine")
    return ", ".join(marks)


def table(verdicts: Sequence[Verdict], runs: str = "stored runs") -> Table:
    """Return a row for each claim with its verdict."""
    rows = [
        {
            "number": each.claim.number,
            "claim": each.claim.sentence,
            "figure": each.claim.figure.words,
            "of": each.of,
            "to": each.to,
            "value": each.value,
            "low": None if each.interval is None else each.interval.low,
            "high": None if each.interval is None else each.interval.high,
            "relation": each.claim.relation,
            "verdict": each.outcome,
            "remark": each.remark,
        }
        for each in verdicts
    ]
    columns = ["number", "claim", "figure", "of", "to", "value", "low", "high", "relation",
               "verdict", "remark"]  # fmt: skip
    notes = (
        "'value' is what the relation is of: the ratio of 'of' to 'to' where there are both. "
        "Intervals are those of 'discovery-xp compare'.",
    )
    return Table("claims", f"Claims on {runs}", pd.DataFrame(rows, columns=columns), notes)
