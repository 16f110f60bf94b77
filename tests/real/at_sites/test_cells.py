"""A cell of Nova at each of two sites: which bus and database each service talks to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from discovery_xp.onhost import catalogue
from tests.real import listening
from tests.real.at_sites.hosts import DATA, FOLDER, MASTER, NAME, SITES
from tests.real.cloud import deploy, files_with, kill_in, on, small_bench, status
from tests.real.conftest import Cli

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

CELLS = "openstack: {layout: cells, placement: availability-zones}\n"


@pytest.fixture(scope="module")
def cloud(cli: Cli, testbed: str) -> str:
    """A cloud whose making was killed while its schemas were made, and resumed."""
    path = cli.topology("cells", SITES + CELLS)
    kill_in(cli, "schemas", "deploy", path)
    said = deploy(cli, path).stdout
    assert "ACTIVE" in said, said
    return path


def sql(cli: Cli, site: str, statement: str) -> str:
    words = f'mariadb --batch --skip-column-names --execute="{statement}"'
    return on(cli, DATA[site], words).strip()


def boot(cli: Cli, name: str, region: str) -> str:
    """Ask for a VM at a site; returns the host that it got to."""
    said = cli.run("openstack", "--os-region-name", region, "server", "create",
                   "--flavor", "m1.tiny", "--image", "discovery", "--no-network", "--wait",
                   "-f", "json", name).stdout  # fmt: skip
    server = json.loads(said)
    assert server["status"] == "ACTIVE"
    return str(server["OS-EXT-SRV-ATTR:host"])


def readers(cli: Cli, host: str) -> set[str]:
    """The queues of a bus that are read and are of one host alone."""
    said = on(cli, host, "rabbitmqctl --quiet --formatter json list_queues name consumers")
    return {
        each["name"]
        for each in json.loads(said)
        if each["consumers"] and re.fullmatch("(compute|conductor|scheduler)[.].*", each["name"])
    }


def peers(cli: Cli, host: str, unit: str, port: int) -> set[str]:
    """The addresses to which processes of a unit have connections at a port."""
    of_unit = on(cli, host, f"grep -l '/{unit}[.]service' /proc/[0-9]*/cgroup || true")
    pids = {line.split("/")[2] for line in of_unit.split()}
    found = set()
    for line in on(cli, host, f"ss -Htnp state established dport = :{port}").splitlines():
        if set(re.findall(r"pid=(\d+)", line)) & pids:
            found.add(line.split()[3].rpartition(":")[0])
    return found


def addresses() -> dict[str, str]:
    plan = json.loads((FOLDER / "state.json").read_text())["plan"]
    return {host["name"]: host["address"] for host in plan["hosts"]}


def test_each_bus_is_read_by_its_own_cell(cli: Cli, cloud: str) -> None:
    for site, host in DATA.items():
        assert readers(cli, host) == {f"compute.{site}-compute-1", f"conductor.{site}-controller-1"}
    assert readers(cli, MASTER) == {
        f"{topic}.{site}-controller-1{suffix}"
        for site in DATA
        for topic, suffix in (("scheduler", ""), ("conductor", "-super"))
    }


def test_each_service_of_a_cell_talks_to_its_own_bus_and_database(cli: Cli, cloud: str) -> None:
    known = addresses()
    for site, host in DATA.items():
        own, controller = {known[host]}, f"{site}-controller-1"
        for unit, at in (("nova-compute", f"{site}-compute-1"), ("nova-conductor", controller)):
            assert peers(cli, at, unit, catalogue.RABBITMQ_PORT) == own, (unit, at)
        assert peers(cli, controller, "nova-conductor", catalogue.MARIADB_PORT) == own
        above = peers(cli, controller, "nova-super-conductor", catalogue.RABBITMQ_PORT)
        assert known[MASTER] in above


def test_a_vm_lands_in_the_cell_and_the_database_of_its_site(cli: Cli, cloud: str) -> None:
    for site in DATA:
        assert boot(cli, f"at-{site}", site) == f"{site}-compute-1"
        names = {
            other: sql(cli, other, f"SELECT display_name FROM nova_cell_{other}.instances "
                                   "WHERE deleted = 0").split()
            for other in DATA
        }  # fmt: skip
        assert [other for other, own in names.items() if f"at-{site}" in own] == [site]
    said = cli.run("openstack", "server", "list", "--all-projects", "-f", "json").stdout
    assert {each["Name"] for each in json.loads(said)} >= {"at-near", "at-far"}
    for site in DATA:
        cli.run("openstack", "--os-region-name", site, "server", "delete", "--wait", f"at-{site}")


def test_hosts_listen_where_the_table_says(cli: Cli, cloud: str) -> None:
    assert listening.differences(cli, NAME) == []


@pytest.mark.long
def test_a_bench_deploys_nothing_anew_and_counts_each_bus_and_both_conductors(
    cli: Cli, cloud: str, tmp_path: Path
) -> None:
    look = "systemctl show --value --property=MainPID mariadb rabbitmq-server"
    before = [on(cli, host, look) for host in DATA.values()]
    folder = small_bench(cli, cloud, tmp_path)
    assert json.loads((FOLDER / "deployment.json").read_text())["changes"] == 0
    assert [on(cli, host, look) for host in DATA.values()] == before
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["vms"]["active"]) == ("complete", 4)
    assert (record["options"]["layout"], record["options"]["cells"]) == ("cells", 2)
    queues: list[dict[str, Any]] = pq.read_table(folder / "messages.parquet").to_pylist()
    for host in (MASTER, *DATA.values()):
        assert any(row["queue"] == f"conductor on {host}" for row in queues), host
    calls = pq.read_table(folder / "calls.parquet").to_pylist()
    assert {"nova-conductor", "nova-super-conductor"} <= {row["service"] for row in calls}
    vms = pq.read_table(folder / "vms.parquet").to_pylist()
    assert all(row["site"] == row["host_site"] for row in vms)


def test_backup_has_each_cells_database_and_no_password(
    cli: Cli, cloud: str, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    cli.run("backup", "--to", str(folder))
    passwords = json.loads((FOLDER / "passwords.json").read_text())
    assert files_with([*passwords.values()], folder) == []
    for site, host in DATA.items():
        dumps = [path.name for path in (folder / host / "mariadb").rglob("*.sql")]
        assert dumps == [f"nova_cell_{site}.sql"]
        assert (folder / host / "rabbitmq").is_dir()


def test_a_cell_without_its_bus_is_told_and_repaired(cli: Cli, cloud: str) -> None:
    on(cli, DATA["far"], "systemctl stop rabbitmq-server")
    down = {(each["unit"], each["host"]) for each in status(cli, code=1)["services"]
            if each["state"] != "active"}  # fmt: skip
    assert down == {("rabbitmq-server", DATA["far"])}
    assert boot(cli, "elsewhere", "near") == "near-compute-1"
    deploy(cli, cloud)
    assert boot(cli, "again", "far") == "far-compute-1"
