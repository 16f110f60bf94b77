"""OpenStack's databases on a Redis Cluster over three sites: it boots VMs, fails over, moves.

A master is killed under load: one that systemd starts again, one that its replica replaces, one
whose replica is dead, too.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from discovery_xp import software
from discovery_xp.deployment import schemas
from discovery_xp.onhost.cloud import schema_dumps
from discovery_xp.planning import databases
from discovery_xp.testbeds.testbed import State, Testbed
from tests.real import listening
from tests.real.cloud import (
    deploy,
    files_with,
    fill_disk,
    is_loaded,
    keep_schemas,
    kill_host,
    kill_in,
    on,
    small_bench,
    status,
)
from tests.real.conftest import HOME, Cli
from tests.real.traces import traces

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

CLOUD = """
name: keys
sites:
  - {name: near, data: 1}
  - {name: far, count: 2, controllers: 0, computes: 0, data: 1}
network: {delay: 5ms}
provider: {type: local, limits: {data: {disk: 1GiB}}}
"""
# Each VM has a port, so that Neutron's database is written, too.
ROME = "openstack: {backend: rome, nics: 1, rome: {replicas: 1}}\n"
FOLDER = HOME / "testbeds/keys"
MASTER = "near-master-1"
NODES = ("near-data-1", "far1-data-1", "far2-data-1")
AT_ONCE = 4


@pytest.fixture(scope="module")
def cloud(cli: Cli) -> Iterator[str]:
    """A cloud whose making was killed while its cluster was made, and resumed."""
    path = cli.topology("keys", CLOUD + ROME)
    kill_in(cli, "key/value store", "deploy", path)
    said = deploy(cli, path).stdout
    assert re.search(r"near .* ACTIVE .* near-compute-1", said), said
    yield path
    cli.run("destroy")
    assert traces("keys") == []


def load_state() -> State:
    testbed = Testbed("keys")
    testbed.folder = FOLDER
    return testbed.load()


def store() -> databases.Store:
    found = load_state().plan.require_cloud().redis
    assert found is not None
    return found


def passwords() -> dict[str, str]:
    return dict(json.loads((FOLDER / "passwords.json").read_text()))


def redis(cli: Cli, host: str, *words: str, user: str = "default", port: int = 6379) -> str:
    """What a Redis process answers; the password is on the command line of a test alone."""
    password = passwords()["redis" if user == "default" else "database"]
    login = f"--no-auth-warning --user {user} --pass {password} -p {port}"
    return on(cli, host, f"redis-cli {login} {' '.join(words)}").strip()


def ask_for_vms(cli: Cli, name: str) -> None:
    """Ask for some VMs at once, and don't wait for them."""
    cli.run("openstack", "server", "create", "--flavor", "m1.tiny", "--image", "discovery",
            "--no-network", "--min", str(AT_ONCE), "--max", str(AT_ONCE), name)  # fmt: skip


def vms(cli: Cli, name: str) -> list[str]:
    """The status of each of the VMs that were asked for at once."""
    said = cli.run("openstack", "server", "list", "--all-projects", "--name", name, "-f", "json")
    return [each["Status"] for each in json.loads(said.stdout)]


def faults(cli: Cli, name: str) -> list[str]:
    """What Nova says of those of the VMs that are in ERROR."""
    names = [f"{name}-{number}" for number in range(1, AT_ONCE + 1)]
    asked = [cli.run("openstack", "server", "show", each, "-f", "json", code=None)
             for each in names]  # fmt: skip
    shown = [json.loads(done.stdout) for done in asked if done.returncode == 0]
    return [str(each.get("fault")) for each in shown if each["status"] == "ERROR"]


def wait_for_vms(cli: Cli, name: str) -> None:
    """Wait until all of them are ACTIVE; none may be in ERROR meanwhile, or be lost."""
    for _ in range(60):
        found = vms(cli, name)
        assert len(found) == AT_ONCE and "ERROR" not in found, (found, faults(cli, name))
        if set(found) == {"ACTIVE"}:
            return
        time.sleep(2)
    raise AssertionError(f"{name}: {vms(cli, name)}")


def delete_vms(cli: Cli, name: str) -> None:
    names = [f"{name}-{number}" for number in range(1, AT_ONCE + 1)]
    cli.run("openstack", "server", "delete", "--wait", *names)


def kill(cli: Cli, host: str, unit: str = "redis-server") -> None:
    """Kill a Redis process, and keep systemd from starting it again: its host is taken for lost."""
    on(cli, host, f"systemctl kill -s KILL {unit}; systemctl stop {unit}; true")


def assert_as_planned(cli: Cli) -> None:
    """Each host has a master with its own share and a replica of another's."""
    for host in NODES:
        assert "role:master" in redis(cli, host, "info", "replication"), host
        assert "role:slave" in redis(cli, host, "info", "replication", port=6380), host
    assert_databases_are_where_the_plan_says(cli)


def assert_consistent(cli: Cli) -> None:
    """ROME finds rows, index entries and constraints of Nova's databases right."""
    script = "set -e; for url in $(sed -n 's/^connection *= *//p' /etc/nova/nova-database.conf)"
    script += '; do /opt/openstack/bin/rome check "$url"; done'
    on(cli, "near-controller-1", script)


def boot(cli: Cli, name: str) -> str:
    """Ask for a VM with a port, delete it; returns the status that it got to."""
    said = cli.run("openstack", "server", "create", "--flavor", "m1.tiny", "--image", "discovery",
                   "--network", "discovery", "--wait", "-f", "json", name).stdout  # fmt: skip
    cli.run("openstack", "server", "delete", "--wait", name)
    return str(json.loads(said)["status"])


def test_the_nodes_are_one_cluster_each_with_a_master_and_a_copy_of_another(
    cli: Cli, cloud: str
) -> None:
    for host in NODES:
        assert "cluster_state:ok" in redis(cli, host, "cluster", "info")
        assert "role:master" in redis(cli, host, "info", "replication")
        assert "master_link_status:up" in redis(cli, host, "info", "replication", port=6380)
        assert redis(cli, host, "config", "get", "appendfsync").split() == [
            "appendfsync",
            "everysec",
        ]


def test_each_database_is_on_the_master_that_the_plan_says_and_nothing_else_is(
    cli: Cli, cloud: str
) -> None:
    assert_databases_are_where_the_plan_says(cli)


def assert_databases_are_where_the_plan_says(cli: Cli) -> None:
    laid_out = store()
    for host in NODES:
        own = {tag for name, tag in laid_out.tags.items() if laid_out.master_of(name).host == host}
        keys = redis(cli, host, "--scan | cut -d '}' -f 1 | sort -u").split()
        assert keys
        assert set(keys) == {f"{{{tag}" for tag in own}


def test_no_host_has_mariadb(cli: Cli, cloud: str) -> None:
    left = (
        "ls -d /var/lib/mysql /etc/mysql 2>/dev/null; "
        "pgrep -l 'mariadb|mysqld'; ss -Hltn 'sport = :3306'; systemctl is-active mariadb; "
        "dpkg-query --show --showformat '${Package}\\n' | grep -E 'mariadb|mysql|galera'; "
        "ls /usr/bin /usr/sbin /usr/lib/*-linux-gnu | grep -E 'mariadb|mysql|galera|garbd'; true"
    )
    for host in (MASTER, *NODES, "near-controller-1", "near-compute-1"):
        assert on(cli, host, left).split() == ["inactive"], host
    connections = on(cli, MASTER, "cat /etc/*/*.conf 2>/dev/null | grep '^connection = '")
    assert connections.count("rome+redis://") >= len(databases.OWNERS)
    assert "mysql" not in connections


def test_nobody_gets_in_without_a_password_and_services_do_not_administer(
    cli: Cli, cloud: str
) -> None:
    there = on(cli, NODES[0], "hostname -I").split()[0]
    for host in (NODES[0], MASTER):
        for port in (6379, 6380):
            ask = "printf 'PING\\r\\nCONFIG GET dir\\r\\nQUIT\\r\\n' >&3; cat <&3"
            said = on(cli, host, f'bash -c "exec 3<>/dev/tcp/{there}/{port}; {ask}"')
            assert said.count("NOAUTH") == 2 and "PONG" not in said
    assert "NOPERM" in redis(cli, NODES[0], "config", "set", "maxmemory", "1", user="rome")
    assert redis(cli, NODES[0], "ping", user="rome") == "PONG"


def test_hosts_listen_where_the_table_says(cli: Cli, cloud: str) -> None:
    assert listening.differences(cli, "keys") == []


def test_rome_is_where_databases_are_asked_and_nowhere_else(cli: Cli, cloud: str) -> None:
    for host in (MASTER, "near-controller-1"):
        assert on(cli, host, "cat /opt/openstack/.sqlalchemy_rome") == software.ROME.digest
    assert on(cli, "near-compute-1", "ls /opt/openstack/.sqlalchemy_rome 2>&1; true").startswith(
        "ls: cannot access"
    )


@pytest.mark.long
def test_a_wrong_password_of_redis_is_told_in_a_line_with_what_helps(cli: Cli, cloud: str) -> None:
    host = store().master_of("nova").host
    redis(cli, host, "acl", "setuser", "rome", "resetpass", "'>another'")
    said = deploy(cli, cloud, code=1).stderr
    (line,) = [line for line in said.splitlines() if "refuses the user or password" in line]
    assert "database 'nova' can't be asked" in line and "restart Redis there" in line
    assert "Traceback" not in said
    on(cli, host, "systemctl restart redis-server")
    deploy(cli, cloud)
    assert boot(cli, "after-restart") == "ACTIVE"


def test_a_full_disk_is_refused_by_redis_until_there_is_room(cli: Cli, cloud: str) -> None:
    laid_out, fill = store(), "/var/lib/redis/discovery-xp/fill"
    host, key = laid_out.master_of("nova").host, f"'{{{laid_out.tags['nova']}}}full'"

    def write_until(words: str) -> None:
        for _ in range(60):
            if redis(cli, host, "-x", "set", key, "</usr/bin/redis-cli").startswith(words):
                return
            time.sleep(0.5)
        raise AssertionError(f"Redis never said {words}")

    fill_disk(cli, host, fill)
    write_until("MISCONF Errors writing to the AOF file: No space left on device")
    on(cli, host, f"rm {fill}")
    write_until("OK")
    redis(cli, host, "del", key)
    assert boot(cli, "with-room") == "ACTIVE"


def test_status_and_backup_have_redis_and_no_password(cli: Cli, cloud: str, tmp_path: Path) -> None:
    seen = {(service["host"], service["unit"]) for service in status(cli)["services"]}
    assert {(host, unit) for host in NODES for unit in ("redis-server", "redis-replica-1")} <= seen
    folder = tmp_path / "backup"
    cli.run("backup", "--to", str(folder))
    assert files_with([*passwords().values()], folder) == []
    mappings = [
        json.loads(line)
        for line in (folder / MASTER / "rome/database/nova_api.jsonl").read_text().splitlines()
        if '"cell_mappings"' in line
    ]
    assert {row["name"] for row in mappings} == {"cell0", "cell1"}
    assert all("<database>" in row["database_connection"] or "{password}" in
               row["database_connection"] for row in mappings)  # fmt: skip
    redis_records = folder / "far1-data-1/redis"
    assert "appendonly yes" in next((redis_records / "configuration").rglob("*.conf")).read_text()
    assert (redis_records / "journal/redis-server.log").stat().st_size


def test_a_bench_deploys_nothing_anew_and_counts_what_rome_and_redis_did(
    cli: Cli, cloud: str, tmp_path: Path
) -> None:
    look = "systemctl show --value --property=MainPID redis-server redis-replica-1"
    before = [on(cli, host, look) for host in NODES]
    folder = small_bench(cli, cloud, tmp_path)
    assert json.loads((FOLDER / "deployment.json").read_text())["changes"] == 0
    assert [on(cli, host, look) for host in NODES] == before
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["backend"], record["vms"]["active"]) == ("complete", "rome", 4)
    assert record["options"]["databases"] == dict.fromkeys(databases.OWNERS, "rome")
    assert (record["options"]["nodes"], record["options"]["replicas"]) == (3, 1)
    assert {"sqlalchemy-rome", "apsw", "redis-server"} <= record["versions"].keys()
    assert not {"mariadb-server", "pymysql"} & record["versions"].keys()

    def rows(table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(folder / f"{table}.parquet").to_pylist()
        return found

    counted = [row for row in rows("statements") if row["service"].startswith("nova")]
    assert sum(row["round_trips"] for row in counted) > 50
    assert {"SELECT", "INSERT", "UPDATE", "COMMIT"} <= {row["kind"] for row in counted}
    assert all(row["bytes_sent"] for row in counted if row["round_trips"])
    of_ports = [row for row in rows("statements") if row["service"] == "neutron-api"]
    assert {"SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT"} <= {row["kind"] for row in of_ports}
    sent = [row for row in rows("traffic") if row["service"] == "redis"]
    assert {row["host"] for row in sent} >= {*NODES, MASTER, "near-controller-1"}
    used = {(row["service"], row["host"]) for row in rows("usage") if row["cpu_s"]}
    assert {("redis-server", host) for host in NODES} <= used
    page = (folder / "report.html").read_text()
    assert "on mysql" not in page


def test_a_master_that_is_killed_under_load_is_started_again(cli: Cli, cloud: str) -> None:
    """Before its replica takes its place; it has all that it had acknowledged."""
    ask_for_vms(cli, "restarted")
    on(cli, store().master_of("nova").host, "systemctl kill -s KILL redis-server")
    wait_for_vms(cli, "restarted")


def test_a_replica_takes_the_place_of_a_master_until_deploy_gives_it_back(
    cli: Cli, cloud: str
) -> None:
    host = store().master_of("nova").host
    ask_for_vms(cli, "replaced")
    kill_host("keys", host)
    lost = {(each["host"], each["unit"]) for each in status(cli, code=1)["services"]
            if each["state"] != "active"}  # fmt: skip
    assert lost == {(host, "redis-server"), (host, "redis-replica-1")}
    wait_for_vms(cli, "replaced")
    deploy(cli, cloud)
    assert status(cli)["is_healthy"]
    assert_as_planned(cli)
    assert vms(cli, "restarted") == vms(cli, "replaced") == ["ACTIVE"] * AT_ONCE
    assert_consistent(cli)
    delete_vms(cli, "replaced")


def test_a_master_without_a_living_copy_comes_back_with_its_data(cli: Cli, cloud: str) -> None:
    laid_out = store()
    host = laid_out.master_of("nova").host
    (copy,) = [node for node in laid_out.nodes if node.copies == host]
    ask_for_vms(cli, "in-vain")  # what becomes of these nobody can say
    kill(cli, host)
    kill(cli, copy.host, copy.unit)
    deploy(cli, cloud)
    assert status(cli)["is_healthy"]
    assert vms(cli, "restarted") == ["ACTIVE"] * AT_ONCE
    assert_consistent(cli)
    delete_vms(cli, "restarted")
    assert boot(cli, "again") == "ACTIVE"


@dataclass(frozen=True)
class Moved:
    """The deployment of a cloud whose databases were Redis's and are MariaDB's now."""

    passwords_before: dict[str, str]
    given: dict[str, dict[str, str]]
    said: subprocess.CompletedProcess[str]
    kept: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def moved(cli: Cli, cloud: str) -> Moved:
    """It is given dumps of all databases: one that a server refuses, one that is behind."""
    if schemas.read().keys() != databases.OWNERS.keys():
        keep_schemas(cli)
        cli.run("destroy", "--testbed", "schemas")
    good, before = schemas.read(), passwords()
    hostile = "CREATE TABLE `x` (`a` INT);\nDROP DATABASE `keystone`;\n"
    behind = (
        "CREATE TABLE `images` (`a` INT);\nCREATE TABLE `alembic_version` (`version_num` TEXT);\n"
        "INSERT INTO `alembic_version` VALUES ('liberty');\n"
    )
    bad = {name: {**good[name], "sql": schema_dumps.pack(sql)}
           for name, sql in (("placement", hostile), ("glance", behind))}  # fmt: skip
    schemas.keep(bad)
    try:
        said = deploy(cli, cli.topology("moved", CLOUD))
        return Moved(before, good | bad, said, schemas.read())
    finally:
        schemas.keep(good)


def test_databases_that_go_elsewhere_begin_anew(cli: Cli, moved: Moved) -> None:
    assert "other databases: the cloud goes first" in moved.said.stderr
    assert "ACTIVE" in moved.said.stdout
    assert moved.passwords_before.items().isdisjoint(passwords().items())
    report = status(cli)
    assert report["is_healthy"]
    assert not [each for each in report["services"] if each["unit"].startswith("redis")]
    for host in NODES:
        left = "ls -d /etc/redis/discovery-xp /var/lib/redis/discovery-xp; pgrep -l redis; true"
        assert on(cli, host, left) == ""


def test_kept_schemas_are_loaded_and_those_that_are_bad_are_migrated(
    cli: Cli, moved: Moved
) -> None:
    loaded = dict.fromkeys(databases.OWNERS, True) | {"placement": False, "glance": False}
    assert is_loaded("keys") == loaded
    assert moved.kept == moved.given, "hosts on which playbooks ran before make no dumps"
    query = "SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME IN ('x', '{}')"
    query = query.format(schema_dumps.LOADING_TABLE)
    assert on(cli, MASTER, f"mariadb -N -e {shlex.quote(query)}") == ""


def test_the_cloud_goes_and_its_hosts_stay(cli: Cli, cloud: str) -> None:
    cli.run("destroy", "--cloud-only")
    report = status(cli)
    assert report["is_healthy"] and report["services"] is None
    for host in (MASTER, *NODES, "near-controller-1", "near-compute-1"):
        left = on(
            cli, host,
            "ls -d /etc/nova /etc/keystone /var/lib/nova /var/lib/mysql /var/lib/discovery-xp; "
            "ps -eo user= | grep -E 'nova|keystone|glance|placement|neutron|mysql|rabbitmq'; true",
        )  # fmt: skip
        assert left == "", host
    assert not (FOLDER / "passwords.json").exists()
    refused = cli.run("openstack", "server", "list", code=2)
    assert "has no cloud" in refused.stderr
    state = load_state()
    assert state.deployed is None and state.plan.cloud is None
    cli.run("network", "measure")
