"""The tables of verifications: what became of OpenStack's own tests, by run and side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from discovery_xp.analysis.measurements import Measurements
from discovery_xp.analysis.tables import Table
from discovery_xp.onhost.wire.verification import (
    EXCLUDED,
    FAILED,
    PASSED,
    SERVICES,
    SKIPPED,
    STATUSES,
)

Cells = dict[str, str | int | float]
_TRACEBACK_LINES = 3  # that a table shows; the stored run has more


def of_one(run: Measurements) -> list[Table]:
    """Return the tables of a single verification."""
    return [outcomes([run]), failures(run), unstable(run), reasons(run)]


def side_by_side(runs: Sequence[Measurements]) -> list[Table]:
    """Return the tables of several verifications; none without one."""
    return [outcomes(runs), differences(runs)] if runs else []


def _labels(runs: Sequence[Measurements]) -> list[str]:
    """Return what each run is called: its back end, with its number where that isn't enough."""
    backends = [run.record.backend for run in runs]
    return [
        backend if backends.count(backend) == 1 else f"{backend} #{run.number}"
        for backend, run in zip(backends, runs, strict=True)
    ]


def outcomes(runs: Sequence[Measurements]) -> Table:
    """A row for each service, and columns for each run: how many of its tests ended how."""
    rows: dict[str, Cells] = {service: {"service": service} for service in (*SERVICES, "all")}
    for run, label in zip(runs, _labels(runs), strict=True):
        prefix = f"{label}: " if len(runs) > 1 else ""
        for service in SERVICES:
            verdicts = run.verdicts[run.verdicts["service"] == service]
            _count(rows[service], prefix, verdicts)
        _count(rows["all"], prefix, run.verdicts)
    shown = [row for service, row in rows.items() if any(_numbers(row))]
    notes = [
        f"{label} (#{run.number}) is PARTIAL: {run.record.why_partial}."
        for run, label in zip(runs, _labels(runs), strict=True)
        if run.record.is_partial
    ]
    return Table("outcomes", "OpenStack's own tests by service", pd.DataFrame(shown), tuple(notes))


def _count(row: Cells, prefix: str, verdicts: pd.DataFrame) -> None:
    """Add a run's columns to a service's row."""
    for status in STATUSES:
        row[f"{prefix}{status}"] = int((verdicts["status"] == status).sum())
    row[f"{prefix}s in all"] = float(verdicts["duration_s"].sum())


def _numbers(row: Cells) -> list[float]:
    return [value for value in row.values() if not isinstance(value, str)]


def differences(runs: Sequence[Measurements]) -> Table:
    """A row for each test that ended differently in two runs; '-' where a run lacks it.

    A test that is in no more than one run differs from nothing, and one that is excluded isn't in
    the run.
    """
    labels = _labels(runs)
    columns = {
        label: run.verdicts.set_index("test")["status"]
        for label, run in zip(labels, runs, strict=True)
    }
    frame = pd.DataFrame(columns)
    frame = frame.where(frame != EXCLUDED)
    frame = frame[frame.nunique(axis=1) > 1].sort_index().reset_index(names="test")
    why = [_why(runs, str(test)) for test in frame["test"]]
    notes = ("Each test that ended alike in all runs that have it is left out.",)
    return Table("differences", "Tests that ended differently", frame.assign(reason=why), notes)


def _why(runs: Sequence[Measurements], test: str) -> str:
    """Return what a test failed with, in the first run where it did; else why it wasn't run."""
    rows = pd.concat([run.verdicts[run.verdicts["test"] == test] for run in runs])
    for status in (FAILED, SKIPPED, EXCLUDED):
        said = rows.loc[rows["status"] == status, "reason"].dropna()
        if len(said):
            return str(said.iloc[0])
    return ""


def failures(run: Measurements) -> Table:
    """A row for each test that failed: what it failed with, and its traceback's last lines."""
    failed = run.verdicts[run.verdicts["status"] == FAILED].sort_values("test", ignore_index=True)
    # A load's `duration_s` is called otherwise where people read it.
    frame = failed.rename(columns={"duration_s": "seconds"})[["test", "seconds", "reason"]].assign(
        traceback=[_end(text) for text in failed["traceback"]]
    )
    return Table("failures", "Tests that failed", frame)


def _end(traceback: object) -> str:
    lines = traceback.splitlines() if isinstance(traceback, str) else []
    return " / ".join(line.strip() for line in lines[-_TRACEBACK_LINES:])


def unstable(run: Measurements) -> Table:
    """A row for each test that passed only when it was run again, alone."""
    passed = run.verdicts[run.verdicts["status"] == PASSED]
    again = passed[passed["reason"].notna()].sort_values("test", ignore_index=True)
    return Table("unstable", "Tests that passed the second time", again[["test", "reason"]])


def reasons(run: Measurements) -> Table:
    """A row for each reason why tests were skipped or excluded, the most frequent first."""
    left_out = run.verdicts[run.verdicts["status"].isin([SKIPPED, EXCLUDED])]
    counts = left_out.groupby(["service", "status", "reason"], dropna=False).size()
    frame = counts.reset_index(name="tests").sort_values(
        ["tests", "reason"], ascending=[False, True], ignore_index=True
    )
    title = "Why tests weren't run"
    note = "'excluded': by the toolkit's list; 'skipped': by Tempest, for what the cloud lacks."
    return Table("reasons", title, frame[["tests", "service", "status", "reason"]], (note,))
