"""OpenStack's own tests on a real cloud: a few of each service, what they leave, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.onhost.wire.verification import SERVICES
from discovery_xp.store import runs_under
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.verification import UNIT
from discovery_xp.verification.configuration import FOLDER
from tests.real.cloud import on
from tests.real.conftest import Cli
from tests.real.pair.bench import MASTER, NAME

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

# Quick ones of each service: some pass, some are skipped, one is excluded.
FEW = (
    r"test_services\.|test_list_flavors|ServersTestJSON\.test_(list|verify)|"
    r"test_images_tags|ImportCopyImages|"
    r"network\.test_networks\.NetworksTest\.test_(list|show)|test_agent_management_negative"
)
LISTS = ("server list --all-projects", "image list", "flavor list --all", "network list",
         "project list", "user list", "role list", "keypair list")  # fmt: skip


def verify(cli: Cli, results: Path, *more: str) -> tuple[str, ...]:
    return ("verify", "--testbed", NAME, "--results", str(results), *more)


def contents(cli: Cli) -> dict[str, Any]:
    """All that users of the cloud see in it."""
    return {
        words: sorted(
            json.dumps(each, sort_keys=True)
            for each in json.loads(cli.run("openstack", *words.split(), "-f", "json").stdout)
        )
        for words in LISTS
    }


def leftovers(cli: Cli) -> str:
    """What is left on the master of the tests."""
    return on(
        cli, MASTER,
        f"ls -A {FOLDER} 2>/dev/null; pgrep -af '/opt/tempes[t]'; "
        f"systemctl is-active {UNIT} | grep -v inactive; true",
    )  # fmt: skip


@pytest.mark.usefixtures("cloud")
def test_a_few_tests_of_each_service_have_verdicts_and_leave_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    before = contents(cli)
    said = cli.run(*verify(cli, tmp_path, "--regex", FEW, "--region", "site2"), timeout_s=900)
    (run,) = runs_under(tmp_path)
    record = run.load()
    assert (record.status, record.scenario["region"]) == ("complete", "site2"), record.reason
    assert record.versions["tempest"].startswith("47.")
    rows = run.table("verdicts").to_pylist()
    by_status: dict[str, set[str]] = {}
    for row in rows:
        by_status.setdefault(row["status"], set()).add(row["service"])
    assert by_status["passed"] == set(SERVICES), by_status
    assert by_status["excluded"] == {"image"}
    assert "failed" not in by_status
    assert all(row["reason"] for row in rows if row["status"] != "passed")
    assert "OpenStack's own tests by service" in said.stdout
    assert contents(cli) == before
    assert leftovers(cli) == ""
    kept = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    for password in passwords.ensure(Testbed(NAME)).values():
        assert password.encode() not in kept


@pytest.mark.usefixtures("cloud")
def test_ctrl_c_keeps_what_was_found_and_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    before = contents(cli)
    process = cli.start(*verify(cli, tmp_path, "--only", "identity,compute"))
    latest = time.monotonic() + 300
    while not any(run.table("verdicts").num_rows > 2 for run in runs_under(tmp_path)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < latest
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=400)
    assert process.returncode == 130, err
    (run,) = runs_under(tmp_path)
    record = run.load()
    assert (record.status, record.reason) == ("partial", "interrupted")
    assert run.table("verdicts").num_rows > 2
    assert contents(cli) == before
    assert leftovers(cli) == ""
