"""OpenStack's own database tests on ROME: samples of the services' suites, and migrations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROME = Path(__file__).resolve().parent.parent
# Nova's share of what passes on SQLite must be larger: its suites were the measure all along.
SUITES = {
    "nova-unit": 99.0,
    "nova-functional": 99.0,
    "placement": 98.0,
    "glance": 98.0,
    "keystone": 98.0,
    "neutron": 98.0,
}


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands that rome/tests/openstack/README.md tells of."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.openstack.{module}", *arguments],
        cwd=ROME, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(1200)  # the first one makes the environment
@pytest.mark.parametrize(
    ("suite", "store", "size"),
    [
        ("nova-functional", "redis", 12),
        ("placement", "redis", 12),
        ("nova-unit", "etcd", 12),
        *(pytest.param(suite, "redis", 60, marks=pytest.mark.long) for suite in SUITES),
        *(
            pytest.param(suite, "etcd", 12, marks=pytest.mark.long)
            for suite in SUITES
            if suite != "nova-unit"
        ),
    ],
)
def test_a_sample_of_the_services_tests_passes(
    suite: str, store: str, size: int, tmp_path: Path
) -> None:
    done = command("run", suite, "--sample", str(size), "--store", store,
                   "--details", str(tmp_path))  # fmt: skip

    assert done.returncode in (0, 1), done.stderr
    data: dict[str, Any] = json.loads((tmp_path / f"{suite}.json").read_text())
    assert data["pass_on_sqlite"] == size
    assert data["with_statements_on_rome"] >= 0.9 * data["pass_on_sqlite"]  # they were on ROME
    assert data["per_cent"] >= SUITES[suite], done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("service", "store"),
    [
        # The one with the most tables, and on etcd the one that alters most.
        ("nova", "redis"),
        ("placement", "redis"),
        ("keystone", "etcd"),
        *(
            pytest.param(service, store, marks=pytest.mark.long)
            for service, store in (
                *((name, "redis") for name in ("keystone", "glance", "neutron")),
                ("nova", "etcd"),
            )
        ),
    ],
)
def test_the_services_migrations_run_on_an_empty_store(
    service: str, store: str, tmp_path: Path
) -> None:
    file = tmp_path / "migrations.json"

    done = command("migrations", service, "--store", store, "--json", str(file))

    assert done.returncode in (0, 1), done.stderr
    data: dict[str, Any] = json.loads(file.read_text())["services"][service]
    assert data["failures"] == []
    assert data["schema_differences"] == []
    assert data["repeat_changes_nothing"]
    assert all(tables > 0 for tables in data["tables"].values())


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("run", ("nova",), "no suite is called 'nova'"),
        ("run", ("--concurrency", "0"), "must be above 0"),
        ("run", ("--sample", "-1"), "--sample must be above 0"),
        ("run", ("--only", "("), "is no regular expression"),
        ("run", ("--save", "--sample"), "--save is for whole suites"),
        ("migrations", ("cinder",), "no service is called 'cinder'"),
        ("migrations", ("--url", "rome+redis://127.0.0.1/nova"), "needs DATABASE"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    module: str, arguments: tuple[str, ...], said: str
) -> None:
    done = command(module, *arguments)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
