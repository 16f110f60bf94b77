"""`discovery-xp trace`: what it prints and writes, and what it refuses in a line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from tests.unit.synthetic_run import make_run


def traced(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["trace", *arguments])


def refused(*arguments: str) -> Refused:
    error = traced(*arguments).exception
    assert isinstance(error, Refused)
    assert len(str(error).splitlines()) <= 2
    return error


def test_it_prints_the_tables_and_the_waterfall_of_the_median_boot(tmp_path: Path) -> None:
    run = make_run(tmp_path, sites=2, latency_ms=50)
    done = traced(str(run.folder))
    assert done.exit_code == 0, done.exception
    assert "Where the time of a boot went" in done.output
    assert "1 of 18 VMs" in done.output
    assert "vm-0: 3.20 s from Nova's API at site2 to ACTIVE at site2, 20 crossings" in done.output
    assert "calls Instance.save" in done.output


def test_it_writes_tables_and_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", sites=2, latency_ms=50)
    folder = tmp_path / "out"
    options = [word for kind in ("csv", "latex", "figures") for word in (f"--{kind}", str(folder))]
    done = traced(str(run.folder), "--vm", "id-0", *options)
    assert done.exit_code == 0, done.exception
    names = {"anatomy", "anatomy-steps", "anatomy-boots", "anatomy-path"}
    assert {path.stem for path in folder.glob("*.csv")} == names
    assert {path.suffix for path in folder.glob("a-boot-critical-path.*")} == {".pdf", ".png"}
    assert "\\label{tab:anatomy}" in (folder / "anatomy.tex").read_text()
    with (folder / "anatomy-path.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(3.2)
    assert sum(int(row["crossings"]) for row in rows) == 20


def test_a_run_without_spans_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=("calls",))
    error = refused(str(run.folder))
    assert "has no spans: its probe 'spans' was off" in str(error)
    assert "--probes all" in str(error)


def test_a_run_whose_vms_all_failed_has_no_boot_to_show(tmp_path: Path) -> None:
    run = make_run(tmp_path, asked=2, failed=2)
    assert "of no VM from the request to ACTIVE" in str(refused(str(run.folder)))


@pytest.mark.parametrize(
    ("vm", "words"),
    [("nobody", "VM 'nobody' is none of the run's"), ("vm-3", "wasn't followed until ACTIVE"),
     ("\x1b[2J", "\\x1b[2J")],
)  # fmt: skip
def test_a_vm_that_isnt_there_names_some_that_are(tmp_path: Path, vm: str, words: str) -> None:
    run = make_run(tmp_path)
    error = refused(str(run.folder), "--vm", vm)
    assert words in str(error) and "name one of vm-0" in str(error)


def test_one_run_is_traced_at_a_time(tmp_path: Path) -> None:
    make_run(tmp_path)
    make_run(tmp_path, started="2026-11-23T17:00:00Z")
    assert "has 2 runs" in str(refused(str(tmp_path)))
