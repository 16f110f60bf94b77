import json
import subprocess
import sys
from pathlib import Path

import pytest

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def discovery_xp(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DISCOVERY_XP_HOME": str(home or "/x")}
    return subprocess.run(
        [sys.executable, "-m", "discovery_xp.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_validate_counts_sites_and_hosts() -> None:
    done = discovery_xp("validate", str(TOPOLOGIES / "eight-sites.yaml"))
    assert done.returncode == 0
    assert done.stdout.endswith("eight-sites.yaml: 8 sites, 65 hosts\n")


def test_plan_prints_hosts_links_and_order() -> None:
    done = discovery_xp("plan", str(TOPOLOGIES / "four-sites-uneven.yaml"))
    assert done.returncode == 0
    for words in (
        "rennes-controller-1",
        "10.109.1.2",
        "30ms",
        "0.1%",
        "20mbit",
        "42ms",
        "1. check",
    ):
        assert words in done.stdout


def test_plan_says_what_holds_which_database() -> None:
    server = discovery_xp("plan", "--sites", "2", "--backend", "rome").stdout
    for words in (
        "OpenStack on rome",
        "databases on one Redis server, on disk within a second: nova, nova_api, placement, "
        "keystone, neutron, glance, nova_cell0",
        "a Redis Cluster would need 3 data nodes, there are 2",
        "start Redis, the message bus",
    ):
        assert words in server
    assert "MariaDB" not in server
    cluster = discovery_xp("plan", "--sites", "3", "--backend", "rome").stdout
    assert "databases on a Redis Cluster of 3 masters, no copy of each, on disk" in cluster
    assert "  nova on site2-data-1\n" in cluster
    assert "would need" not in cluster
    assert "databases on" not in discovery_xp("plan", "--sites", "3", "--backend", "mysql").stdout


TWO_DATA_HOSTS = """sites: [{name: a, count: 2, data: 1}]
openstack: {backend: rome, rome: {store: %s}}
"""


def test_plan_says_which_server_has_which_database(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_DATA_HOSTS % "servers")
    servers = discovery_xp("plan", str(file)).stdout
    assert "databases on 2 Redis servers, on disk within a second\n" in servers
    assert "  nova, nova_cell0 on a2-data-1\n" in servers


def test_three_masters_on_two_data_hosts_are_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_DATA_HOSTS % "cluster")
    done = discovery_xp("plan", str(file))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "a Redis Cluster needs 3 data nodes, and there are 2; write 'data: 1'" in line


def test_plan_prints_the_requests_to_grid5000() -> None:
    done = discovery_xp("plan", str(TOPOLOGIES / "grid5000-eight-clusters.yaml"))
    assert done.returncode == 0
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("POST "))
    call, _, body = line.partition(" {")
    assert call == "POST /sites/rennes/jobs"
    assert json.loads(f"{{{body}") == {
        "name": "discovery-xp-grid5000-eight-clusters",
        "types": ["deploy", "origin=discovery_xp"],
        "resources": "{cluster='paravance'}/nodes=67,walltime=03:00:00",
        "command": "sleep 31536000",
        "queue": "default",
    }
    assert "67 nodes, 201 node-hours" in done.stdout
    assert "usage policy: 67 nodes of paravance for the 3 hours" in done.stdout
    assert "write 'job_types: [night]'" in done.stdout
    assert "deploy debian12-nfs on them" in done.stdout


def test_a_common_start_is_told_where_several_sites_are_asked() -> None:
    done = discovery_xp("plan", str(TOPOLOGIES / "grid5000-two-sites.yaml"))
    assert done.stdout.count("POST /sites/") == 2
    assert "each with the same 'reservation', the first slot that all sites have" in done.stdout


def test_plan_for_programs_is_json() -> None:
    done = discovery_xp("plan", "--json", "--sites", "3", "--latency", "50ms")
    plan = json.loads(done.stdout)
    assert len(plan["hosts"]) == 25
    assert {link["link"]["delay_ms"] for link in plan["links"]} == {50.0}


def test_a_plan_loads_neither_enoslib_nor_ansible() -> None:
    code = (
        "import sys; from discovery_xp.cli.main import cli; "
        f"cli(['plan', '{TOPOLOGIES / 'hundred-sites.yaml'}'], standalone_mode=False); "
        "sys.exit(bool({'enoslib', 'ansible'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_schema_is_json() -> None:
    assert json.loads(discovery_xp("schema").stdout)["title"] == "TopologyFile"


BAD = [
    (["validate", "nowhere.yaml"], "nowhere.yaml: no such file; "),
    (["plan"], "no topology was given; "),
    (["plan", "--sites", "0"], "--sites: '0' is not 1 to 250; "),
    (["plan", "--sites", "2", "--latency", "50"], "--latency: '50' has no unit; write '50ms'"),
    (["plan", "--sites", "2", "--name", "a b"], "--name: 'a b' is not a name; "),
    (["plan", str(TOPOLOGIES / "two-sites.yaml"), "--sites", "2"], "both describe the topology; "),
    (["status", "--testbed", "none"], "no testbed 'none'; "),
    (["network", "show"], "there is no testbed; "),
    (["ssh", "host"], "there is no testbed; "),
    (["destroy", "--testbed", "none"], "no testbed 'none'; "),
    (["destroy", "--name", "none"], "no testbed 'none'; "),
    (["inventory"], "there is no testbed; "),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = discovery_xp(*arguments, home=tmp_path / "home")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "home").exists()


def test_all_problems_of_a_file_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("sites: [{name: a, computes: x}]\nnetwork: {delay: 10}\n")
    done = discovery_xp("validate", str(path))
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [f"{path}:1", f"{path}:2"]


def test_unknown_commands_are_click_errors() -> None:
    assert discovery_xp("fly").returncode == 2
