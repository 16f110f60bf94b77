"""Stored verifications: read back as they were written, and shown, one and side by side."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from discovery_xp.analysis import report, verdict_tables
from discovery_xp.analysis.measurements import Measurements, measured, read_runs
from discovery_xp.errors import Refused
from discovery_xp.store import Run, Unfit
from tests.unit.synthetic_run import make_run
from tests.unit.synthetic_verification import PREFIX, ROWS, make_verification, row

LATER = "2026-11-23T17:00:00Z"


def printed(runs: list[Measurements]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    report.print_report(console, runs)
    return console.export_text()


# ---------------------------------------------------------------- stored


def test_verdicts_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = make_verification(tmp_path)
    assert run.table("verdicts").to_pylist() == list(ROWS)
    (read,) = read_runs([tmp_path])
    assert read.record.is_verification
    assert (read.unit, read.asked, read.done) == ("test", 4, 2)
    # A verification has no load, so lacks no table of one.
    assert read.vms.empty
    assert read.figures["vms_failed"] == 1


def test_a_complete_verification_without_verdicts_is_damaged(tmp_path: Path) -> None:
    run = make_verification(tmp_path)
    (run.folder / "verdicts.parquet").unlink()
    with pytest.raises(Refused, match=r"verdicts\.parquet: the run is damaged"):
        run.table("verdicts")
    assert make_run(tmp_path).table("verdicts").num_rows == 0, "a load has none"


def test_verdicts_that_come_one_after_the_other_outlive_their_run(tmp_path: Path) -> None:
    run = make_verification(tmp_path, (), status="running")
    (run.folder / "verdicts.parquet").unlink()
    for each in ROWS:
        run.append("verdicts", [each])
    assert Run(run.folder).table("verdicts").to_pylist() == list(ROWS)


@pytest.mark.parametrize(
    "hostile",
    [
        {"status": "great"}, {"service": "volume"}, {"duration_s": "long"}, {"test": None},
        {"duration_s": float("inf")}, {"reason": 1},
    ],
)  # fmt: skip
def test_a_verdict_that_no_test_has_is_not_stored(tmp_path: Path, hostile: dict[str, Any]) -> None:
    run = make_verification(tmp_path, (), status="running")
    with pytest.raises(Unfit):
        run.append("verdicts", [{**row("image.test_it"), **hostile}])


def test_a_strangers_verdicts_are_checked(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    run = make_verification(tmp_path)
    path = run.folder / "verdicts.parquet"
    table = pq.read_table(path).set_column(
        2, "status", pa.array(["great"] * len(ROWS))
    )  # fmt: skip
    pq.write_table(table, path, compression="zstd")
    with pytest.raises(Refused, match="'great' is not a value of column 'status'"):
        run.table("verdicts")


# ---------------------------------------------------------------- shown


def test_one_verification_is_shown_by_service_with_its_failures(tmp_path: Path) -> None:
    make_verification(tmp_path)
    text = printed(read_runs([tmp_path]))
    assert re.search(r"tests +4 asked for, 2 passed", text)
    assert re.search(r"compute .* 1 .* 1 .* 1 .* 0 ", text)
    assert "Traceback / here / ValueError: no" in text
    assert "no console" in text
    assert "has one store" in text
    assert "VM" not in text.replace("VMs", ""), "it is about tests"
    assert "Table 3" not in text, "no published value stands beside it"


def test_a_test_that_passed_the_second_time_is_named(tmp_path: Path) -> None:
    again = row("image.test_it", reason="only when it was run again, alone: first ValueError: no")
    make_verification(tmp_path, (*ROWS, again))
    (run,) = read_runs([tmp_path])
    assert list(verdict_tables.unstable(run).frame["test"]) == [f"{PREFIX}.image.test_it"]


def two(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Measurements]:
    make_verification(root)
    make_verification(root, tuple(map(change, ROWS)), backend="rome", started=LATER)
    return read_runs([root])


def test_back_ends_stand_side_by_side(tmp_path: Path) -> None:
    boots = f"{PREFIX}.compute.servers.test_boot"

    def fails_to_boot(verdict: dict[str, Any]) -> dict[str, Any]:
        if verdict["test"] != boots:
            return verdict
        return row("compute.servers.test_boot", "failed", "KeyError: 'x'")

    runs = two(tmp_path, fails_to_boot)
    table, different = verdict_tables.side_by_side(runs)
    compute = table.frame.set_index("service").loc["compute"]
    assert [compute[f"{backend}: {status}"] for backend in ("mysql", "rome")
            for status in ("passed", "failed", "skipped", "excluded")] == [
        1, 1, 1, 0, 0, 2, 1, 0,
    ]  # fmt: skip
    assert table.frame.set_index("service").loc["all", "rome: failed"] == 2
    assert different.frame.to_dict("records") == [
        {"test": boots, "mysql": "passed", "rome": "failed", "reason": "KeyError: 'x'"}
    ]
    text = printed(runs)
    assert "Tests that ended differently" in text
    page = report.html(runs)
    assert "Tests that ended differently" in page


def test_runs_that_agree_differ_in_nothing(tmp_path: Path) -> None:
    runs = two(tmp_path, lambda verdict: verdict)
    assert "Tests that ended differently" not in printed(runs)


def test_a_test_that_one_run_lacks_is_no_difference(tmp_path: Path) -> None:
    make_verification(tmp_path)
    make_verification(tmp_path, ROWS[:2], backend="rome", started=LATER)
    runs = read_runs([tmp_path])
    assert verdict_tables.differences(runs).frame.empty


def test_a_test_that_one_run_excludes_is_no_difference(tmp_path: Path) -> None:
    runs = two(tmp_path, lambda verdict: {**verdict, "status": "excluded", "traceback": None})
    assert verdict_tables.differences(runs).frame.empty


def test_runs_of_one_back_end_are_told_apart(tmp_path: Path) -> None:
    make_verification(tmp_path)
    make_verification(tmp_path, started=LATER)
    table = verdict_tables.outcomes(read_runs([tmp_path]))
    assert {"mysql #1: passed", "mysql #2: passed"} <= set(table.frame)


def test_a_verification_beside_loads_changes_no_table_of_theirs(tmp_path: Path) -> None:
    alone = measured([make_run(tmp_path)])
    both = measured([alone[0].run, make_verification(tmp_path)])
    tables = {table.name: table for table in report.tables_of(both)}
    for table in report.tables_of(alone):
        assert tables[table.name].cells() == table.cells()
    assert len(tables["outcomes"].frame)


def test_a_partial_verification_says_so(tmp_path: Path) -> None:
    make_verification(tmp_path, status="partial")
    make_verification(tmp_path, backend="rome", started=LATER)
    runs = read_runs([tmp_path])
    assert verdict_tables.outcomes(runs).notes == ("mysql (#1) is PARTIAL: interrupted.",)
    assert "PARTIAL" in printed(runs)
