"""What a site says: its runs, the points of its campaign, tables and findings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from discovery_xp.analysis import findings, paper_tables, pictures, report
from discovery_xp.analysis.condensed import SLOW
from discovery_xp.analysis.export import file_names
from discovery_xp.analysis.findings import Judged
from discovery_xp.analysis.measurements import (
    Measurements,
    has_cells,
    label,
    loads,
)
from discovery_xp.analysis.pictures import Picture, pictures_of, waterfall_picture
from discovery_xp.analysis.tables import Table
from discovery_xp.store import RunRecord

State = Literal["done", "failed", "left"]
# Which of a run's boots have a figure besides the median one: shares of all, the shortest first.
_FURTHER_BOOTS = ((SLOW, "A slow boot's critical path (P90)"),
                  (1.0, "The slowest boot's critical path"))  # fmt: skip


@dataclass(frozen=True)
class PointState:
    """What became of one run of a campaign; `run` is the number of the run, if there is one."""

    part: str
    levels: Mapping[str, str]
    block: str
    state: State
    reason: str = ""
    run: int | None = None


@dataclass(frozen=True)
class CampaignState:
    """What a campaign asked for, and what became of it; `excluded` are pairs of points, reason."""

    name: str
    description: str
    text: str
    factors: Mapping[str, Sequence[str]]
    points: Sequence[PointState]
    excluded: Sequence[tuple[str, str]] = ()

    def count(self, state: State) -> int:
        """Return how many runs are in a state."""
        return sum(1 for point in self.points if point.state == state)


@dataclass(frozen=True)
class Tags:
    """What figures and rows are chosen by."""

    backend: str
    layout: str
    verdict: str

    def as_json(self) -> dict[str, str]:
        """Return them for the pages' script."""
        return dataclasses.asdict(self)


def tags_of(record: RunRecord) -> Tags:
    """Return what a run is chosen by."""
    verdict = "unknown" if record.validity is None else record.validity.verdict
    return Tags(record.backend, "cells" if has_cells(record) else "shared",
                "partial" if record.is_partial else verdict)  # fmt: skip


@dataclass
class Content:
    """All that a site shows; what is expensive is made once, when it is asked for.

    Without the library figures are images alone; without figures of runs their pages have tables.
    """

    runs: Sequence[Measurements]
    title: str
    campaign: CampaignState | None = None
    with_logs: bool = True
    with_library: bool = True
    with_run_figures: bool = True
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = file_names(self.runs)

    @property
    def loads(self) -> list[Measurements]:
        """The runs that had a load."""
        return loads(self.runs)

    @functools.cached_property
    def judged(self) -> list[Judged]:
        """The published findings, beside what the runs say."""
        return findings.judge(self.loads)

    @functools.cached_property
    def findings(self) -> Table:
        """The findings as a table."""
        return findings.table(self.judged)

    @functools.cached_property
    def paper_tables(self) -> list[Table]:
        """The six published tables, whole, and our other latencies."""
        return paper_tables.paper_tables(self.loads, whole=True)

    @functools.cached_property
    def comparisons(self) -> list[Table]:
        """The runs beside each other."""
        return report.comparisons(self.runs)

    @property
    def tables(self) -> list[Table]:
        """All tables of several runs."""
        return [self.findings, *self.paper_tables, *self.comparisons]

    @functools.cached_property
    def pictures(self) -> list[Picture]:
        """The figures of all runs together."""
        return pictures.pictures_of_several(self.loads) if self.loads else []

    def page_of(self, run: Measurements) -> str:
        """Return the path of a run's page in the site.

        Its folder isn't named like a run's, which would be taken for a damaged one.
        """
        return f"runs/page-{self.names[run.number - 1]}/index.html"

    def pictures_of(self, run: Measurements) -> list[Picture]:
        """Return the figures of one run, and the critical paths of its slow boots."""
        if not self.with_run_figures:
            return []
        made = pictures_of([run])
        boots = run.boots
        for share, title in _FURTHER_BOOTS if len(boots) > 2 else ():
            boot = boots[min(len(boots) - 1, int(share * len(boots)))]
            made.append(dataclasses.replace(waterfall_picture(boot), title=title))
        return made

    @functools.cached_property
    def repeated(self) -> dict[str, list[Measurements]]:
        """The runs of each point of the campaign that has several, in the order of time."""
        by_number = {run.number: run for run in self.runs}
        by_point: dict[str, list[Measurements]] = {}
        for point in self.campaign.points if self.campaign else ():
            if point.run in by_number:
                words = ", ".join((point.part, *point.levels.values()))
                by_point.setdefault(words, []).append(by_number[point.run])
        return {
            words: sorted(runs, key=lambda run: run.record.started)
            for words, runs in by_point.items()
            if len(runs) > 1
        }

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was run, where and when: pairs of subject and words."""
        records = [run.record for run in self.runs]
        started = sorted(record.started[:10] for record in records)
        machines = dict.fromkeys(
            f"{record.machine.cpus} processors, {record.machine.cpu_model}, provider "
            f"{record.machine.provider}"
            for record in records
        )
        nova = sorted({record.versions.get("nova", "") for record in records} - {""})
        commits = sorted({(record.commit or "unknown")[:12] for record in records})
        verdicts = [tags_of(record).verdict for record in records]
        asked = sum(run.record.vms.asked for run in self.loads)
        active = sum(run.record.vms.active for run in self.loads)
        pairs = [
            ("runs", f"{len(records)}, {started[0]} to {started[-1]}"),
            ("VMs", f"{active} of {asked} ACTIVE" if asked else ""),
            ("verdicts", ", ".join(f"{verdicts.count(each)} {each}"
                                   for each in dict.fromkeys(sorted(verdicts)))),
            ("machines", "; ".join(machines)),
            ("OpenStack", f"Nova {', '.join(nova)}" if nova else ""),
            ("commits", ", ".join(commits)),
        ]  # fmt: skip
        if self.campaign is not None:
            counts = ", ".join(f"{self.campaign.count(state)} {state}"
                               for state in ("done", "failed", "left"))  # fmt: skip
            pairs.insert(0, ("campaign", f"{self.campaign.name}: {counts}"))
        return [(subject, words) for subject, words in pairs if words]

    @property
    def open_findings(self) -> list[Judged]:
        """Findings that no run says anything of."""
        return [each for each in self.judged if each.verdict == "open"]

    def words_of(self, run: Measurements) -> str:
        """Return a run's name in a list."""
        return f"#{run.number} {label(run.record)}"
