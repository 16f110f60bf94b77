"""A cloud on two emulated Grid'5000 sites, by the unmodified EnOSlib, from plan to release."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery_xp.store import runs_under
from tests.real.conftest import HOME, Cli
from tests.real.emulated_nodes import Grid, emulated_grid
from tests.waiting import wait_until

DEPLOY_S = 900

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(DEPLOY_S + 120),
    # The emulated nodes are started in this process, and nobody waits for them.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

# On one site a job starts at once; on two, a minute from now at the earliest.
ALONE = "name: cloud\nsites: [{name: west, computes: 1}]\n"
CLOUD = "name: cloud\nsites: [{name: west, computes: 1}, {name: south, computes: 1}]\n"


@pytest.fixture(scope="module")
def grid(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOVERY_XP_HOME", str(HOME))
        patch.setenv("NO_PROXY", "127.0.0.1")
        home = tmp_path_factory.mktemp("alice")
        hosts = emulated_grid(cli, home)
        made = next(hosts)
        patch.setenv("HOME", str(home))
        yield made
        for _ in hosts:
            pass


@pytest.fixture(scope="module")
def topology(cli: Cli, grid: Grid) -> str:
    return cli.topology("cloud", CLOUD + grid.provider(spares=1))


def hurried(
    cli: Cli, *arguments: str, code: int = 0, ready_within_s: int = 300
) -> subprocess.CompletedProcess[str]:
    """The command line with less patience: the emulated platform's clockwork is quick."""
    program = (
        "from discovery_xp.cli.main import main; "
        "from discovery_xp.providers.grid5000 import nodes, slots; "
        f"nodes.READY_WITHIN_S, slots.LEAD_S = {ready_within_s}, 5; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=cli.environment,
        timeout=DEPLOY_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HOME / "testbeds/cloud/grid5000.json").read_text())
    return found


def test_a_cloud_boots_vms_at_both_sites_though_nodes_fail(
    cli: Cli, grid: Grid, topology: str
) -> None:
    planned = json.loads(cli.run("plan", "--json", topology).stdout)["requests"]
    assert grid.server.calls == [], "a plan asks the API nothing"
    grid.emulator.faults.fail_to_deploy(["econome-1.nantes.grid5000.fr"])
    done = cli.run("deploy", topology, timeout_s=DEPLOY_S)
    sys.stdout.write(done.stderr)  # its stages, if this fails
    assert re.findall(r"^ *(\w+) .*ACTIVE", done.stdout, re.MULTILINE) == ["west", "south"]
    with grid.emulator.lock:
        jobs = {site: grid.emulator.jobs.of(site) for site in ("rennes", "nantes")}
    for request in planned:
        (job,) = jobs[request["site"]]
        assert job.asked.resources == request["body"]["resources"]
        assert list(job.asked.types) == request["body"]["types"]
        assert job.asked.name == "discovery-xp-cloud"
    assert len({job.asked.reservation for (job,) in jobs.values()}) == 1, "a common start"
    found = record()
    assert {host: node["fqdn"].split(".")[0] for host, node in found["nodes"].items()} == {
        "west-master-1": "paravance-1",
        "west-controller-1": "paravance-2",
        "west-compute-1": "paravance-3",
        "south-controller-1": "econome-2",
        "south-compute-1": "econome-3",
    }
    assert found["lost"] == ["econome-1.nantes.grid5000.fr"]
    assert [node["fqdn"] for node in found["spares"]["rennes paravance"]] == [
        "paravance-4.rennes.grid5000.fr"
    ]


def test_status_tells_jobs_and_their_cost(cli: Cli, grid: Grid, topology: str) -> None:
    told = cli.run("status", "--testbed", "cloud").stdout
    assert re.search(r"job \d+ on rennes: running, 4 nodes since .*node-hours used of 8\.0", told)
    assert re.search(r"job \d+ on nantes: running, 3 nodes since", told)
    assert "econome-1.nantes.grid5000.fr didn't come up" in told


def test_a_bench_that_is_refused_leaves_the_testbed(cli: Cli, grid: Grid, topology: str) -> None:
    edited = cli.topology("edited", CLOUD + grid.provider(spares=0))
    said = cli.run("bench", edited, "--vms", "2", code=2).stderr
    assert "a testbed 'cloud' with other hosts is there" in said
    assert grid.states() == {"rennes": ["running"], "nantes": ["running"]}


def test_deploy_again_neither_reserves_nor_deploys(cli: Cli, grid: Grid, topology: str) -> None:
    before = grid.posts("/jobs"), grid.posts("/deployments")
    cli.run("deploy", topology, timeout_s=DEPLOY_S)
    assert (grid.posts("/jobs"), grid.posts("/deployments")) == before
    deployment = json.loads((HOME / "testbeds/cloud/deployment.json").read_text())
    assert deployment["changes"] == 0


@pytest.mark.long
def test_a_node_that_dies_is_replaced_by_a_spare(cli: Cli, grid: Grid, topology: str) -> None:
    with grid.emulator.lock:
        node = grid.emulator.jobs.node("paravance-3.rennes.grid5000.fr")
        assert node is not None
        grid.nodes.release(node)
    assert "west-compute-1" in cli.run("status", "--testbed", "cloud", code=1).stdout
    done = cli.run("deploy", topology, timeout_s=DEPLOY_S)
    assert done.stdout.count("ACTIVE") == 2
    assert record()["nodes"]["west-compute-1"]["fqdn"] == "paravance-4.rennes.grid5000.fr"
    assert "paravance-3.rennes.grid5000.fr" in record()["lost"]


@pytest.mark.long
def test_the_platform_ends_a_job_in_the_middle_of_a_bench(
    cli: Cli, grid: Grid, topology: str, tmp_path: Path
) -> None:
    process = cli.start(
        "bench", topology, "--vms", "40", "--probes", "none", "--keep", "--results", str(tmp_path)
    )
    try:
        wait_until(
            lambda: [run.table("vms").num_rows >= 3 for run in runs_under(tmp_path)] == [True],
            within_s=DEPLOY_S,
        )
        with grid.emulator.lock:
            (job,) = grid.emulator.jobs.of("rennes")
            grid.emulator.jobs.kill(job, "maintenance")
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, "Traceback" in said) == (1, False)
    assert f"the platform ended job {job.uid} on rennes" in said
    (run,) = runs_under(tmp_path)
    assert f"the platform ended job {job.uid} on rennes" in str(run.load().reason)
    assert run.table("vms").num_rows >= 3
    assert run.load().is_partial
    assert "a partial run" in said
    told = cli.run("status", "--testbed", "cloud", code=1).stdout
    assert f"job {job.uid} on rennes: error" in told
    assert "west-controller-1" in told


@pytest.mark.long
def test_a_new_deployment_starts_clean(cli: Cli, grid: Grid) -> None:
    grid.emulator.faults.clear()
    topology = cli.topology("cloud", CLOUD + grid.provider())
    before = grid.posts("/jobs")
    hurried(cli, "up", topology)
    assert grid.posts("/jobs") == before + 2
    assert not (HOME / "testbeds/cloud/deployment.json").exists()
    assert record()["lost"] == []
    assert len(grid.running()) == 5


def test_destroy_gives_all_back(cli: Cli, grid: Grid) -> None:
    cli.run("destroy", "--testbed", "cloud")
    assert {state for states in grid.states().values() for state in states} == {"error"}
    wait_until(lambda: grid.running() == set(), within_s=DEPLOY_S)
    assert not (HOME / "testbeds/cloud").exists()


@pytest.mark.parametrize(
    "network", [pytest.param("kavlan", marks=pytest.mark.long), "kavlan-global"]
)
def test_nodes_in_vlans(cli: Cli, grid: Grid, network: str) -> None:
    grid.emulator.faults.clear()  # of the tests above
    alone = network == "kavlan"
    provider = grid.provider(alone, network=network)
    hurried(cli, "up", cli.topology("cloud", (ALONE if alone else CLOUD) + provider))
    fqdns = [node["fqdn"] for node in record()["nodes"].values()]
    assert all("-kavlan-" in fqdn for fqdn in fqdns)
    vlans = {fqdn.split("-kavlan-")[1].split(".")[0] for fqdn in fqdns}
    assert vlans == ({"4"} if network == "kavlan" else {"11"})
    cli.run("destroy", "--testbed", "cloud")


def test_a_node_that_never_answers_is_named_and_all_is_given_back(cli: Cli, grid: Grid) -> None:
    grid.emulator.faults.stay_silent(["paravance-2.rennes.grid5000.fr"])
    topology = cli.topology("cloud", ALONE + grid.provider(True))
    done = hurried(cli, "up", topology, code=1, ready_within_s=20)
    grid.emulator.faults.clear()
    last = done.stderr.splitlines()[-1]
    assert "paravance-2.rennes.grid5000.fr didn't come up, so nodes are missing: 1 of " in last
    assert "write 'spares: 1'" in last
    assert {state for states in grid.states().values() for state in states} == {"error"}
    assert not (HOME / "testbeds/cloud").exists()
