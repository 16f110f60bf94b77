"""The quick campaign on emulated hosts: killed in the middle, started again, complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.places import checkout
from discovery_xp.store import runs_under
from tests.real.cloud import kill_in
from tests.real.conftest import Cli
from tests.real.traces import traces

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

FILE = str(checkout() / "campaigns/quick.yaml")


@pytest.fixture(scope="module")
def results(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The results of a campaign that was killed while it deployed its first point."""
    folder = tmp_path_factory.mktemp("quick")
    words = ("campaign", "run", FILE, "--results", str(folder))
    kill_in(cli, "database, message bus, cache", *words)
    assert cli.run("campaign", "status", FILE, "--results", str(folder), code=1).stdout
    cli.run(*words, timeout_s=1500)
    yield folder


def states(cli: Cli, results: Path) -> list[dict[str, Any]]:
    said = cli.run("campaign", "status", FILE, "--results", str(results), "--json")
    found: list[dict[str, Any]] = json.loads(said.stdout)["runs"]
    return found


def test_what_was_killed_is_made_and_all_is_done(cli: Cli, results: Path) -> None:
    assert [row["state"] for row in states(cli, results)] == ["done", "done"]
    records = [run.load() for run in runs_under(results)]
    complete = [record for record in records if not record.is_partial]
    assert sorted(record.backend for record in complete) == ["mysql", "rome"]
    assert [(record.vms.asked, record.vms.active) for record in complete] == [(4, 4), (4, 4)]


def test_nothing_of_it_is_left(results: Path) -> None:
    assert traces("quick") == []


def test_a_campaign_that_is_done_makes_nothing_more(cli: Cli, results: Path) -> None:
    before = len(runs_under(results))
    cli.run("campaign", "run", FILE, "--results", str(results))
    assert len(runs_under(results)) == before


def test_its_site_shows_both_back_ends(cli: Cli, results: Path) -> None:
    cli.run("campaign", "report", FILE, "--results", str(results))
    (page,) = results.rglob("site/index.html")
    text = page.read_text()
    assert "mysql" in text and "rome" in text
