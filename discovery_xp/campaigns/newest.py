"""A campaign's newest runs, each beside the one before it: what a change made of its points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery_xp.analysis.comparison import Compared, Comparison, compare, side
from discovery_xp.analysis.tables import Table, or_nan
from discovery_xp.campaigns.ledger import Entry, Ledger
from discovery_xp.inputs.campaign_values import Point
from discovery_xp.store import Run


@dataclass(frozen=True)
class ComparedPoint:
    """A point's newest run, B, beside the one before it, A."""

    point: Point
    blocks: tuple[int, int]
    runs: tuple[Run, Run]
    comparison: Comparison

    @property
    def words(self) -> str:
        """Say which point it is."""
        return f"{self.point.part}: {self.point.words}"

    def worse(self, by: float) -> list[str]:
        """Return in words the figures that got worse by more than a share.

        A figure that counts needs no interval: it depends on no machine's speed.
        """
        return [
            f"{each.figure.words} {each.ratio:.2f} times"
            for each in self.comparison.figures
            if each.ratio is not None and _is_worse(each, by)
        ]


def _is_worse(compared: Compared, by: float) -> bool:
    if compared.interval is not None:
        return compared.is_worse(by)
    return compared.figure.kind == "count" and (compared.ratio or 0.0) > 1 + by


def compare_newest(ledger: Ledger) -> list[ComparedPoint]:
    """Return each point with its newest two runs; those with fewer are left out."""
    by_point: dict[str, list[Entry]] = {}
    for entry in ledger.of("done"):
        by_point.setdefault(entry.job.point.digest, []).append(entry)
    compared = []
    for entries in by_point.values():
        newest = sorted(entries, key=lambda entry: entry.job.block)[-2:]
        runs = [entry.done.run for entry in newest if entry.done is not None]
        if len(runs) == 2:
            a, b = runs
            compared.append(
                ComparedPoint(
                    newest[0].job.point,
                    (newest[0].job.block, newest[1].job.block),
                    (a, b),
                    compare(side(a.name, [a]), side(b.name, [b])),
                )
            )
    return compared


def table(compared: list[ComparedPoint]) -> Table:
    """Return a row for each figure of each point: then, now, ratio and interval."""
    rows: list[dict[str, Any]] = []
    for point in compared:
        for each in point.comparison.figures:
            interval = each.interval
            rows.append(
                {
                    "point": point.words,
                    "block": f"{point.blocks[0]}, {point.blocks[1]}",
                    "figure": each.figure.words,
                    "a": each.value_a,
                    "b": each.value_b,
                    "ratio": or_nan(each.ratio),
                    "low": or_nan(None if interval is None else interval.low),
                    "high": or_nan(None if interval is None else interval.high),
                }
            )
    return Table(
        "newest",
        "The newest run of each point, and the one before it",
        pd.DataFrame(rows),
        ("A is the earlier run, B the newest; 'ratio' is B / A.",),
    )
