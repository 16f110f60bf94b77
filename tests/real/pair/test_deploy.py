"""A real OpenStack over two sites: it boots VMs, is repaired, looked at and taken away."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.real import listening, strangers
from tests.real.cloud import deploy, files_with, kill_host, on, status
from tests.real.conftest import HOME, Cli
from tests.real.pair.bench import CLOUD, PWNED, STRANGE

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

FOLDER = HOME / "testbeds/pair"
UNITS = {
    "site1-master-1": ["mariadb", "rabbitmq-server", "memcached", "keystone-api", "glance-api",
                       "placement-api", "neutron-api"],
    "site1-controller-1": ["nova-api", "nova-conductor", "nova-scheduler"],
    "site2-controller-1": ["nova-api", "nova-conductor", "nova-scheduler"],
    "site1-compute-1": ["nova-compute"],
    "site2-compute-1": ["nova-compute"],
}  # fmt: skip


def openstack(cli: Cli, region: str, *arguments: str) -> Any:
    """What OpenStack's own client says at a site's API."""
    said = cli.run("openstack", "--os-region-name", region, *arguments, "-f", "json").stdout
    return json.loads(said)


def boot(cli: Cli, region: str, name: str, compute: str) -> str:
    """Ask a site's API for a VM on a compute, delete it; returns the status that it got to."""
    server = openstack(
        cli, region, "server", "create", "--flavor", "m1.tiny", "--image", "discovery",
        "--no-network", "--hypervisor-hostname", compute, "--wait", name,
    )  # fmt: skip
    cli.run("openstack", "--os-region-name", region, "server", "delete", "--wait", name)
    assert server["OS-EXT-SRV-ATTR:hypervisor_hostname"] == compute
    return str(server["status"])


def processes(cli: Cli) -> dict[str, str]:
    """The main process of every service, by host."""
    return {
        host: on(cli, host, f"systemctl show --value --property=MainPID {' '.join(units)}")
        for host, units in UNITS.items()
    }


def passwords() -> list[str]:
    return [*json.loads((FOLDER / "passwords.json").read_text()).values()]


def test_each_site_has_an_api_of_its_own(cli: Cli, cloud: str) -> None:
    description = json.loads((FOLDER / "deployment.json").read_text())
    urls = {endpoint["region"]: endpoint["url"] for endpoint in description["endpoints"]}
    assert list(urls) == ["site1", "site2"]
    assert len(set(urls.values())) == 2
    for region in urls:
        services = openstack(cli, region, "compute", "service", "list")
        found = {(service["Binary"], service["Host"], service["State"]) for service in services}
        for binary, host in (
            ("nova-compute", "site1-compute-1"),
            ("nova-compute", "site2-compute-1"),
            ("nova-conductor", "site2-controller-1"),
        ):
            assert (binary, host, "up") in found
        hosts = openstack(cli, region, "hypervisor", "list")
        names = {host["Hypervisor Hostname"] for host in hosts}
        assert names == {"site1-compute-1", "site2-compute-1"}
        assert openstack(cli, region, "server", "list", "--all-projects") == []
    catalog = openstack(cli, "site1", "catalog", "show", "nova")
    assert all(url in str(catalog["endpoints"]) for url in urls.values())


def test_the_links_were_imposed_under_the_cloud(cli: Cli, cloud: str) -> None:
    pairs = json.loads(cli.run("network", "measure", "--json").stdout)
    assert [pair["requested_ms"] for pair in pairs] == [20.0]
    cli.run("network", "show")


def test_status_says_per_site_and_service_what_is_up(cli: Cli, cloud: str) -> None:
    report = status(cli)
    assert report["is_healthy"]
    seen = {(service["host"], service["unit"]) for service in report["services"]}
    assert seen == {(host, unit) for host, units in UNITS.items() for unit in units}
    assert {service["nova"] for service in report["services"] if "compute" in service["unit"]} == {
        "up"
    }
    assert "nova-compute" in cli.run("status").stdout


def test_passwords_are_nowhere_but_where_they_must_be(cli: Cli, cloud: str, tmp_path: Path) -> None:
    assert files_with(passwords(), FOLDER) == ["clouds.yaml", "openrc", "passwords.json"]
    for name in ("clouds.yaml", "openrc", "passwords.json", "ansible.log"):
        assert (FOLDER / name).stat().st_mode & 0o077 == 0, name
    for host in UNITS:
        journal = on(cli, host, "journalctl --no-pager; ps -eo args; "
                     "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; systemctl show '*'")  # fmt: skip
        assert not [secret for secret in passwords() if secret in journal]


def addresses() -> dict[str, str]:
    plan = json.loads((FOLDER / "state.json").read_text())["plan"]
    return {host["name"]: host["address"] for host in plan["hosts"]}


def test_hosts_listen_where_the_table_says(cli: Cli, cloud: str) -> None:
    assert listening.differences(cli, "pair") == []


def test_nothing_lets_in_who_has_no_password(cli: Cli, cloud: str) -> None:
    at = addresses()
    places = (at["site1-master-1"], at["site1-controller-1"])
    assert strangers.run(cli, "site2-compute-1", strangers.KNOCK, *places) == "knocked\n"


def test_what_a_stranger_puts_into_the_caches_is_never_unpickled(cli: Cli, cloud: str) -> None:
    """Even one who has memcached's password, as a host with an API has."""
    at = addresses()
    hosts = ("site1-master-1", "site1-controller-1", "site2-controller-1")
    token = openstack(cli, "site1", "token", "issue")["id"]
    ask = (
        "import sys, urllib.request as http; "
        "print(http.urlopen(http.Request(sys.argv[1], headers={'X-Auth-Token': sys.argv[2]})).code)"
    )
    servers = f"http://{at['site1-controller-1']}:8774/v2.1/servers"
    for _ in range(2):  # cached; then overwritten
        assert strangers.run(cli, hosts[1], ask, servers, token) == "200\n"
        openstack(cli, "site1", "catalog", "list")
        entries = strangers.run(cli, hosts[1], strangers.OVERWRITE, at["site1-master-1"])
        assert int(entries) > 5
    assert strangers.run(cli, hosts[1], ask, servers, token) == "200\n"
    for region in ("site1", "site2"):
        openstack(cli, region, "token", "issue")
        openstack(cli, region, "server", "list")
    for host in hosts:
        assert on(cli, host, "find /tmp /dev/shm -name unpickled") == ""
    # They did read them.
    assert "isn't ours" in on(cli, hosts[0], "journalctl --no-pager --unit=keystone-api")
    assert "Invalid MAC" in on(cli, hosts[1], "journalctl --no-pager --unit=nova-api")


def test_backup_has_every_component_and_no_password(cli: Cli, cloud: str, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    cli.run("backup", "--to", str(folder))
    assert files_with(passwords(), folder) == []
    master = folder / "site1-master-1"
    components = {"mariadb", "rabbitmq", "memcached", "keystone", "glance", "placement", "neutron"}
    assert {path.name for path in master.iterdir()} == components
    for component in components:
        assert any((master / component / "configuration").rglob("*")), component
        assert any(path.stat().st_size for path in (master / component / "journal").iterdir())
    dump = (master / "mariadb/database/nova_api.sql").read_text()
    assert "INSERT INTO `cell_mappings`" in dump and "<database>" in dump
    assert (
        "connection"
        in (
            folder / "site2-controller-1/nova/configuration/etc/nova/nova-database.conf"
        ).read_text()
    )
    # Computes never touch the database, so nothing on them could.
    assert not (folder / "site2-compute-1/nova/configuration/etc/nova/nova-database.conf").exists()
    assert "nova==34" in (folder / "openstack.txt").read_text()
    refused = cli.run("backup", "--to", str(folder), code=2)
    assert "exists" in refused.stderr


READ_STRANGE = """
import json, sys
from oslo_config import cfg
sections = {}
cfg.ConfigParser(sys.argv[1], sections).parse()
print(json.dumps({name: values[0] for name, values in sections["strange"].items()}))
"""


def test_a_topologys_values_are_what_the_services_read_and_nothing_else(
    cli: Cli, cloud: str
) -> None:
    assert not PWNED.exists()
    for host, file in (
        ("site1-master-1", "/etc/keystone/keystone.conf"),
        ("site1-master-1", "/etc/nova/nova.conf"),
        ("site2-compute-1", "/etc/nova/nova.conf"),
    ):
        command = shlex.join(["/opt/openstack/bin/python", "-c", READ_STRANGE, file])
        assert json.loads(on(cli, host, command)) == STRANGE
        assert on(cli, host, f"ls {PWNED} 2>&1 || true").startswith("ls: cannot access")


def archive_of(*entries: tuple[str, bytes, bytes]) -> str:
    """A gzipped tar of (name, type, content) as base64, as a host sends its records."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, kind, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(data), str(PWNED.parent)
            tar.addfile(entry, io.BytesIO(data))
    return base64.b64encode(made.getvalue()).decode()


LINK = ("link", tarfile.SYMTYPE, b"")


@pytest.mark.parametrize(
    "says",
    [
        {"archive": archive_of((str(PWNED), tarfile.REGTYPE, b"x"))},
        {"archive": archive_of(LINK, (f"link/{PWNED.name}", tarfile.REGTYPE, b"x"))},
        {"archive": 5, "results": [5], "changes": "x", "ansible_facts": 7, "msg": []},
    ],
    ids=["absolute", "link", "types"],
)
def test_a_hostile_host_spoils_only_its_own_records(
    cli: Cli, cloud: str, tmp_path: Path, says: dict[str, Any]
) -> None:
    host, folder = "site2-compute-1", tmp_path / "backup"
    answer = shlex.quote(json.dumps(says))
    script = f"#!/bin/sh\ncat >/dev/null\nprintf '%s\\n' {answer}\n"
    on(cli, host, f"mv /usr/bin/python3 /usr/bin/python3.kept; printf %s {shlex.quote(script)} "
       ">/usr/bin/python3; chmod 755 /usr/bin/python3")  # fmt: skip
    try:
        failed = cli.run("backup", "--to", str(folder), code=1)
    finally:
        on(cli, host, "mv /usr/bin/python3.kept /usr/bin/python3")
    assert host in failed.stderr
    assert "Traceback" not in failed.stderr and "\x1b" not in failed.stderr
    assert not PWNED.exists()
    assert not (folder / host / "nova").exists()
    assert any((folder / "site1-compute-1/nova/configuration").rglob("nova.conf"))
    assert not [path for path in folder.rglob("*") if path.is_symlink()]


def test_the_client_leaves_nothing_of_ansible(cli: Cli, cloud: str, tmp_path: Path) -> None:
    # It takes this process' place, which never comes to an end of its own.
    environment = {**cli.environment, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = cli.command("openstack", "token", "issue")
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_deploy_again_changes_nothing(cli: Cli, cloud: str) -> None:
    before = processes(cli)
    said = deploy(cli, cloud).stdout
    assert re.search(r"site1 .*:8774/v2.1 .* ACTIVE .* site1-compute-1", said), said
    assert re.search(r"site2 .*:8774/v2.1 .* ACTIVE .* site2-compute-1", said), said
    assert json.loads((FOLDER / "deployment.json").read_text())["changes"] == 0
    assert processes(cli) == before


def test_a_boot_works_after_a_restart_of_the_database(cli: Cli, cloud: str) -> None:
    on(cli, "site1-master-1", "systemctl restart mariadb")
    assert boot(cli, "site2", "after-mariadb", "site2-compute-1") == "ACTIVE"


def test_a_boot_works_once_the_services_are_back_on_the_message_bus(cli: Cli, cloud: str) -> None:
    """Their queues end with RabbitMQ, and what is sent before they are made anew is lost."""
    # One of them doesn't connect anew until it may.
    on(cli, "site2-controller-1", "systemctl kill --signal=STOP nova-conductor")
    on(cli, "site1-master-1", "systemctl restart rabbitmq-server")
    seen = {(each["unit"], each["host"]): each for each in status(cli, code=1)["services"]}
    stopped = seen["nova-conductor", "site2-controller-1"]
    assert (stopped["state"], stopped["nova"], stopped["listens"]) == ("active", "up", False)
    on(cli, "site2-controller-1", "systemctl kill --signal=CONT nova-conductor")
    deploy(cli, cloud)  # waits for all, then boots a VM at each site
    assert status(cli)["is_healthy"]


def test_a_service_that_dies_at_its_start_is_shown_with_its_journal(cli: Cli, cloud: str) -> None:
    broken = "openstack: {config: {glance: {glance_store: {default_backend: nowhere}}}}\n"
    said = deploy(cli, cli.topology("broken", CLOUD + broken), code=1).stderr
    assert "site1-master-1" in said and "glance-api: died before port 9292 answered" in said
    assert "nowhere" in said.partition("the journal of glance-api")[2]
    assert str(FOLDER / "ansible.log") in said
    report = status(cli, code=1)
    assert not report["is_healthy"]
    down = [service["unit"] for service in report["services"] if service["state"] != "active"
            or service["answers"] is False]  # fmt: skip
    assert down == ["glance-api"]


def test_a_wrong_password_of_the_database_is_told_by_status(cli: Cli, cloud: str) -> None:
    """And by the services; the next test's `deploy` sets the right one again."""
    sql = "ALTER USER 'nova'@'%' IDENTIFIED BY 'another'"
    on(cli, "site1-master-1", f'mariadb --execute="{sql}" && systemctl restart mariadb')
    said = cli.run("status", code=1).stdout
    assert "nova-api on site1-controller-1: active, but it doesn't list Nova's services" in said
    # That grep finds nothing would be an error.
    words = "Access denied for user .nova"
    on(cli, "site1-controller-1", f"journalctl --no-pager --unit=nova-api | grep '{words}'")


def test_other_options_reach_a_cloud_that_they_repair(cli: Cli, cloud: str) -> None:
    """Zones for sites, a NIC for each VM, two workers, OpenStack's own periodic tasks."""
    options = (
        "openstack: {placement: availability-zones, nics: 1, periodic_tasks: default, "
        "workers: {nova-api: 2, nova-conductor: 2}}\n"
    )
    deploy(cli, cli.topology("options", CLOUD + options))
    assert status(cli)["is_healthy"]
    zones = openstack(cli, "site1", "availability", "zone", "list", "--compute")
    assert {"site1", "site2"} <= {zone["Zone Name"] for zone in zones}
    # The user of experiments names no compute: asked at site 2, the VM stays at site 2.
    server = json.loads(
        cli.run(
            "openstack", "--cloud", "discovery", "--os-region-name", "site2", "server", "create",
            "--flavor", "m1.tiny", "--image", "discovery", "--network", "discovery", "--wait",
            "-f", "json", "mine",
        ).stdout
    )  # fmt: skip
    assert (server["status"], server["OS-EXT-AZ:availability_zone"]) == ("ACTIVE", "site2")
    assert server["addresses"]["discovery"]
    cli.run("openstack", "--cloud", "discovery", "server", "delete", "--wait", "mine")
    assert on(cli, "site2-controller-1", "pgrep -fc '[g]unicorn: worker'").strip() == "2"


def test_a_killed_compute_is_named_and_vms_elsewhere_still_boot(cli: Cli, cloud: str) -> None:
    kill_host("pair", "site2-compute-1")
    report = status(cli, code=1)
    assert [host["name"] for host in report["hosts"].values() if not host["answers"]] == [
        "site2-compute-1"
    ]
    wrong = [service for service in report["services"] if service["state"] != "active"]
    assert [(service["unit"], service["host"]) for service in wrong] == [
        ("nova-compute", "site2-compute-1")
    ]
    assert "nova-compute on site2-compute-1: its host doesn't answer" in cli.run(
        "status", code=1
    ).stdout  # fmt: skip
    assert boot(cli, "site1", "elsewhere", "site1-compute-1") == "ACTIVE"
    # Repaired, and what the options made goes again.
    said = deploy(cli, cloud).stdout
    assert re.search(r"site2 .* ACTIVE .* site2-compute-1", said), said
    assert status(cli)["is_healthy"]
    zones = openstack(cli, "site1", "availability", "zone", "list", "--compute")
    assert [zone["Zone Name"] for zone in zones if zone["Zone Name"].startswith("site")] == []
