"""Tables of the stored verifications, from `results/reference`."""

from __future__ import annotations

from collections import Counter

from discovery_xp.analysis import verdict_tables
from discovery_xp.analysis.measurements import Measurements, read_runs
from discovery_xp.analysis.tables import Table
from discovery_xp.verification.exclusions import read_exclusions
from docs.generator.blocks import table
from docs.generator.reference import REFERENCE, provenance_of

NAMES = ("verify-mysql", "verify-galera", "verify-rome")


def _runs() -> list[Measurements]:
    """Return the verifications that documents show, MariaDB's first."""
    runs = read_runs([REFERENCE / name for name in NAMES])
    return sorted(runs, key=lambda run: NAMES.index(run.record.experiment))


def _markdown(shown: Table) -> str:
    return table(shown.headings(), shown.cells())


def outcomes() -> str:
    """Return how many tests of each service ended how, by back end."""
    return _markdown(verdict_tables.outcomes(_runs()))


def differences() -> str:
    """Return the tests that ended differently, or that there are none."""
    different = verdict_tables.differences(_runs())
    if different.frame.empty:
        return "Every test ended alike on all back ends.\n"
    return _markdown(different)


def unstable() -> str:
    """Return the tests that passed only when they were run again, by back end."""
    rows = [
        [run.record.backend, f"`{row['test']}`", str(row["reason"])]
        for run in _runs()
        for row in verdict_tables.unstable(run).frame.to_dict("records")
    ]
    if not rows:
        return "None had to be run again.\n"
    return table(["Back end", "Test", "First"], rows)


def provenance() -> str:
    """Return when, on what and with which versions they were made."""
    return provenance_of(_runs())


def exclusions() -> str:
    """Return how many lines exclude tests for which reason."""
    counts = Counter(each.reason for each in read_exclusions())
    rows = [[reason, str(count)] for reason, count in sorted(counts.items())]
    return table(["Reason", "Lines"], rows)


def skips() -> str:
    """Return why Tempest skips tests by itself, of the first run."""
    frame = verdict_tables.reasons(_runs()[0]).frame
    skipped = frame[frame["status"] == "skipped"]
    rows = [
        [str(row["tests"]), str(row["service"]), str(row["reason"])]
        for row in skipped.to_dict("records")
    ]
    return table(["Tests", "Service", "Reason"], rows)
