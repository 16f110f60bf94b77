"""OpenStack's databases on Galera over two sites: a node dies, all of them die, a disk is full."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases
from tests.real import listening
from tests.real.at_sites.hosts import DATA, FOLDER, MASTER, NAME, SITES
from tests.real.cloud import deploy, files_with, fill_disk, kill_in, on, small_bench, status
from tests.real.conftest import Cli

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(1800)]

GALERA = "openstack: {backend: galera}\n"
NODES = tuple(DATA.values())
FILL = "/var/lib/mysql/fill"


@pytest.fixture(scope="module")
def cloud(cli: Cli, testbed: str) -> str:
    """A cloud whose making was killed while its cluster was made, and resumed.

    That of the cells, which is there unless this module's tests run by themselves, goes first.
    """
    path = cli.topology("nodes", SITES + GALERA)
    kill_in(cli, "Galera", "deploy", path)
    said = deploy(cli, path).stdout
    assert "ACTIVE" in said, said
    return path


def sql(cli: Cli, host: str, statement: str) -> str:
    words = f'mariadb --batch --skip-column-names --execute="{statement}"'
    return on(cli, host, words).strip()


def nodes(cli: Cli) -> dict[str, tuple[str, str, int]]:
    """What `status` says of each node."""
    report = json.loads(cli.run("status", "--json", code=None).stdout)
    return {
        each["host"]: (each["node"]["status"], each["node"]["state"], each["node"]["members"])
        for each in report["services"]
        if each["node"] is not None
    }


def boot(cli: Cli, name: str, region: str = "near") -> str:
    """Ask for a VM, delete it; returns the status that it got to."""
    said = cli.run("openstack", "--os-region-name", region, "server", "create",
                   "--flavor", "m1.tiny", "--image", "discovery", "--no-network", "--wait",
                   "-f", "json", name).stdout  # fmt: skip
    cli.run("openstack", "--os-region-name", region, "server", "delete", "--wait", name)
    return str(json.loads(said)["status"])


def wait_for(cli: Cli, host: str, answer: int) -> None:
    """Wait until the check of a node answers with a status of HTTP's."""
    ask = f"exec 3<>/dev/tcp/127.0.0.1/{catalogue.GALERA_CHECK_PORT}"
    ask += "; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3"
    for _ in range(120):
        if f" {answer} " in on(cli, host, f'bash -c "{ask}"'):
            return
        time.sleep(1)
    raise AssertionError(f"{host} never answered with {answer}")


def kill(cli: Cli, *hosts: str) -> None:
    """Kill MariaDB, and keep systemd from starting it again: the host is taken for lost."""
    for host in hosts:
        on(cli, host, "systemctl kill -s KILL mariadb; systemctl stop mariadb; true")


def test_two_nodes_and_an_arbitrator_are_one_cluster(cli: Cli, cloud: str) -> None:
    assert nodes(cli) == dict.fromkeys(NODES, ("Primary", "Synced", 3))
    assert on(cli, MASTER, "systemctl is-active garb").strip() == "active"
    system = {"information_schema", "mysql", "performance_schema", "sys"}
    for host in NODES:
        assert set(sql(cli, host, "SHOW DATABASES").split()) - system == set(databases.OWNERS)


def test_another_layout_leaves_nothing_of_the_cells(cli: Cli, cloud: str) -> None:
    for host in NODES:
        assert on(cli, host, "systemctl is-active rabbitmq-server || true").strip() != "active"
        assert on(cli, host, "ls -d /var/lib/mysql/nova_cell_* 2>/dev/null || true") == ""
    for site in DATA:
        units = on(cli, f"{site}-controller-1", "systemctl list-units --plain 'nova-*'")
        assert "nova-super-conductor" not in units
        assert "nova-conductor.service" in units


def test_services_ask_their_own_sites_node(cli: Cli, cloud: str) -> None:
    for controller, node in (("near-controller-1", NODES[0]), ("far-controller-1", NODES[1])):
        own = on(cli, controller, "hostname -I").split()[0]
        query = f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE HOST LIKE '{own}:%'"
        for host in NODES:
            assert bool(int(sql(cli, host, query))) is (host == node), (controller, host)


def test_hosts_listen_where_the_table_says(cli: Cli, cloud: str) -> None:
    assert listening.differences(cli, NAME) == []


def test_a_bench_deploys_nothing_anew_and_counts_what_galera_did(
    cli: Cli, cloud: str, tmp_path: Path
) -> None:
    look = "systemctl show --value --property=MainPID mariadb galera-check"
    before = [on(cli, host, look) for host in NODES]
    folder = small_bench(cli, cloud, tmp_path)
    assert json.loads((FOLDER / "deployment.json").read_text())["changes"] == 0
    assert [on(cli, host, look) for host in NODES] == before
    record = json.loads((folder / "run.json").read_text())
    assert (record["backend"], record["vms"]["active"], record["options"]["nodes"]) == (
        "galera",
        4,
        2,
    )
    assert record["options"]["galera"]["arbitrator"] == MASTER
    assert {"mariadb-server", "haproxy", "galera-arbitrator-4"} <= record["versions"].keys()
    sent: list[dict[str, Any]] = pq.read_table(folder / "traffic.parquet").to_pylist()
    assert {row["host"] for row in sent if row["service"] == "galera"} >= {*NODES}


def test_backup_has_one_dump_of_each_database_and_no_password(
    cli: Cli, cloud: str, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    cli.run("backup", "--to", str(folder))
    passwords = json.loads((FOLDER / "passwords.json").read_text())
    assert files_with([*passwords.values()], folder) == []
    dumps = sorted(path.relative_to(folder).parts[0] for path in folder.rglob("nova.sql"))
    assert dumps == [NODES[0]]
    assert "wsrep_on = ON" in next((folder / NODES[1]).rglob("90-discovery-xp.cnf")).read_text()
    assert next((folder / "far-controller-1/haproxy").rglob("discovery-xp.cfg")).stat().st_size


def test_a_node_that_dies_is_stood_in_for_and_repaired(cli: Cli, cloud: str) -> None:
    kill(cli, NODES[1])
    lost = {each["host"] for each in status(cli, code=1)["services"] if each["unit"] == "mariadb"
            and each["state"] != "active"}  # fmt: skip
    assert lost == {NODES[1]}
    time.sleep(15)  # until it is suspected
    assert boot(cli, "stood-in", "far") == "ACTIVE"
    deploy(cli, cloud)
    assert nodes(cli) == dict.fromkeys(NODES, ("Primary", "Synced", 3))
    rows = "SELECT COUNT(*) FROM nova.instances"
    assert sql(cli, NODES[0], rows) == sql(cli, NODES[1], rows)


def test_after_all_were_killed_the_most_advanced_starts(cli: Cli, cloud: str) -> None:
    kill(cli, NODES[0])
    time.sleep(15)
    assert boot(cli, "advances") == "ACTIVE"
    newest = sql(cli, NODES[1], "SELECT MAX(id) FROM nova.instances")
    kill(cli, NODES[1])
    deploy(cli, cloud)
    assert nodes(cli) == dict.fromkeys(NODES, ("Primary", "Synced", 3))
    log = (FOLDER / "ansible.log").read_text()
    assert f"a cluster started by {NODES[1]}" in log
    for host in NODES:
        assert int(sql(cli, host, "SELECT MAX(id) FROM nova.instances")) >= int(newest)


def test_a_node_whose_disk_is_full_leaves_and_the_cloud_goes_on(cli: Cli, cloud: str) -> None:
    fill_disk(cli, NODES[1], FILL)
    sql(cli, NODES[0], "CREATE TABLE nova.full (a LONGTEXT)")
    sql(cli, NODES[0], "INSERT INTO nova.full SELECT REPEAT('x', 1000000) FROM nova.seq_1_to_16")
    wait_for(cli, NODES[1], 503)
    time.sleep(10)  # until the proxies know
    assert boot(cli, "half") == "ACTIVE"
    on(cli, NODES[1], f"rm {FILL}")
    deploy(cli, cloud)
    assert nodes(cli) == dict.fromkeys(NODES, ("Primary", "Synced", 3))
    assert sql(cli, NODES[1], "SELECT COUNT(*) FROM nova.full") == "16"
    sql(cli, NODES[0], "DROP TABLE nova.full")


def test_the_cloud_goes_and_its_hosts_stay(cli: Cli, cloud: str) -> None:
    """As it does where a deployment's databases are elsewhere."""
    cli.run("destroy", "--cloud-only")
    left = (
        "ls -d /var/lib/mysql /usr/local/lib/discovery-xp; pgrep -l 'mariadbd|haproxy|garbd'; "
        "systemctl is-active mariadb galera-check garb haproxy | grep -v inactive; true"
    )
    for host in (MASTER, *NODES, "near-controller-1"):
        assert on(cli, host, left) == "", host
    assert status(cli)["services"] is None
