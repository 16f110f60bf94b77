"""Condensed runs: smaller, and all that is said of them is the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from discovery_xp.analysis import anatomy_tables, report, run_tables
from discovery_xp.analysis.condensed import drawn
from discovery_xp.analysis.measurements import Measurements, group, measured
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.store import PROBES, Run, find_runs
from tests.unit.span_rows import boot_rows
from tests.unit.synthetic_run import make_run

VMS = 20


def traced_run(folder: Path, **options: Any) -> Run:
    """A run each of whose boots was followed; a later one takes longer."""
    run = make_run(folder, sites=2, latency_ms=50, asked=VMS, failed=0, **options)
    rows = []
    for number in range(VMS):
        for row in boot_rows(f"id-{number}", f"{number}-"):
            if row["name"] == "Instance.save":
                row["duration_ms"] += number
            rows.append(row)
    run.write_table("spans", rows)
    for name in ("report.html", "plan.json"):
        run.write_text(name, "{}")
    for name in ("rally/host/results.json", "logs/records.tar.xz"):
        run.path(name).write_text("much")
    return run


def condense(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["condense", *map(str, words)])


def condensed(tmp_path: Path, **options: Any) -> tuple[Measurements, Measurements]:
    """A run, and what it is condensed to."""
    run = traced_run(tmp_path / "whole", **options)
    done = condense(tmp_path / "whole", "--to", tmp_path / "small")
    assert done.exit_code == 0, done.exception
    assert done.output.startswith(f"1 runs in {tmp_path}/small: ")
    (small,) = measured(find_runs([tmp_path / "small"]))
    (whole,) = measured([run])
    return whole, small


@pytest.mark.parametrize("time_scale", [1.0, 4.0])
def test_all_that_is_said_of_a_condensed_run_is_the_same(tmp_path: Path, time_scale: float) -> None:
    whole, small = condensed(tmp_path, more_record={"time_scale": time_scale})
    assert not whole.is_condensed and small.is_condensed
    for name, value in whole.figures.items():
        is_nan = isinstance(value, float) and math.isnan(value)
        assert is_nan or small.figures[name] == value, name
    assert group(small.record) == group(whole.record)
    assert [boot.vm for boot in small.boots] == [boot.vm for boot in whole.boots]
    for one, other in zip(
        anatomy_tables.tables(whole.boots, whole.steps, whole.done),
        anatomy_tables.tables(small.boots, small.steps, small.done),
        strict=True,
    ):
        assert (one.cells(), one.notes) == (other.cells(), other.notes)
    each = [anatomy_tables.each_boot(run.boots).cells() for run in (whole, small)]
    assert each[0] == each[1]
    # The boots that are drawn have their paths.
    for boots in zip(drawn(whole.boots), drawn(small.boots), strict=True):
        assert boots[0].vm == boots[1].vm and boots[1].stretches
        paths = [anatomy_tables.stretches(boot).cells() for boot in boots]
        assert paths[0] == paths[1]
    assert sum(bool(boot.stretches) for boot in small.boots) == 4


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    whole, small = condensed(tmp_path)
    folder = small.run.folder
    assert folder == tmp_path / "small" / whole.run.name
    kept = {path.name for path in folder.iterdir()}
    assert {"run.json", "plan.json", "scenario.yaml", "links.json", "calls.parquet"} <= kept
    assert not kept & {"report.html", "rally", "logs", "requests.parquet", "series.parquet"}
    assert small.record.left_out == ("requests", "series")
    assert small.record.probes == PROBES
    assert small.record.notes[-1].startswith("condensed: logs, Rally's reports, the tables")
    assert "the spans of all but 4 boots" in small.record.notes[-1]
    assert small.run.table("spans").num_rows == 4 * len(boot_rows())
    assert small.run.table("requests").num_rows == 0, "it is no damage"
    assert "condensed: logs" in report.html([small])
    names = [table.name for table in run_tables.run_tables(small)]
    assert "anatomy" in names and "requests" not in names


def test_a_run_without_spans_is_condensed_as_well(tmp_path: Path) -> None:
    make_run(tmp_path / "whole", probes=("calls",))
    assert condense(tmp_path / "whole", "--to", tmp_path / "small").exit_code == 0
    (small,) = measured(find_runs([tmp_path / "small"]))
    assert not small.boots and not small.is_condensed
    assert small.record.left_out == ()


def test_what_cannot_be_condensed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    traced_run(tmp_path / "runs")
    traced_run(tmp_path / "runs", started="2026-11-24T16:00:00Z", status="partial", reason="why")
    small = tmp_path / "small"
    error = condense(tmp_path / "runs", "--to", small).exception
    assert isinstance(error, Refused)
    assert "is partial: why; leave it out" in str(error)
    assert not small.exists()
    whole = next(path.parent for path in sorted((tmp_path / "runs").rglob("run.json")))
    assert condense(whole, "--to", small).exit_code == 0
    assert "is there; name a new folder" in str(condense(whole, "--to", small).exception)
    again = condense(small, "--to", tmp_path / "smaller").exception
    assert "is condensed; copy it, or leave it out" in str(again)


def test_a_boot_of_which_only_sums_are_left_is_not_traced(tmp_path: Path) -> None:
    _, small = condensed(tmp_path)
    followed = {boot.vm for boot in small.boots if boot.stretches}
    other = next(boot.vm for boot in small.boots if boot.vm not in followed)
    words = ["trace", str(small.run.folder)]
    assert CliRunner().invoke(cli, words).exit_code == 0, "of the median boot"
    assert CliRunner().invoke(cli, [*words, "--vm", min(followed)]).exit_code == 0
    error = CliRunner().invoke(cli, [*words, "--vm", other]).exception
    assert isinstance(error, Refused)
    assert f"the run is condensed, and of VM '{other}' it has only sums" in str(error)
