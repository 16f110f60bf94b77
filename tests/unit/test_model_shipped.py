"""The calibration and errors that ship, and `discovery-xp predict` with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.model import calibration, errors

ROOT = Path(__file__).resolve().parents[2]


def predicted(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["predict", *arguments])


def refused(*arguments: str) -> str:
    error = predicted(*arguments).exception
    assert isinstance(error, Refused)
    assert error.exit_code == 2
    return str(error)


def test_calibrations_are_of_runs_of_each_back_end() -> None:
    kinds = {each.kind for each in calibration.shipped()}
    assert {("mysql", "shared"), ("rome", "shared"), ("galera", "shared")} <= kinds


def test_calibrations_are_in_their_file_as_they_are_written() -> None:
    text = calibration.SHIPPED.read_text()
    assert calibration.dumps(calibration.shipped()) == text


def test_errors_are_those_of_the_benchmark() -> None:
    rows = json.loads((ROOT / "benchmarks/results/prediction.json").read_text())["held_out"]
    assert {row["run"]: row["error"]["duration_s"] for row in rows} == pytest.approx(
        {each.run: each.duration_s for each in errors.shipped()}
    )


def test_the_median_error_is_what_documents_may_say() -> None:
    """The median run that the model did not know was predicted within 15 %."""
    off = sorted(abs(each.duration_s) for each in errors.shipped())
    assert off[len(off) // 2] <= 0.15


def test_it_prints_figures_what_bounds_them_and_what_to_trust() -> None:
    done = predicted("--sites", "2", "--latency", "50ms", "--vms", "4", "--seeds", "1",
                     "--backend", "rome", "--machines", "16x1.4")  # fmt: skip
    assert done.exit_code == 0, done.exception
    for words in ("to create all VMs", "bound by: ", "trust: ", "beyond the runs", "placement-api"):
        assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no topology was given"),
        (("--sites", "2", "--machines", "fast"), "CORESxSPEED"),
        (("--sites", "2", "--machines", "0x1"), "out of range"),
        (("--sites", "2", "--scenario", "reads"), "kind 'reads'"),
        (("--sites", "2", "--vms", "90000"), "at most"),
    ],
)
def test_it_refuses_in_a_line(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)
