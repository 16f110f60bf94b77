"""A cloud on hosts that have nothing yet: Debian's packages and the wheels are installed there.

Redis is among them, which Debian starts with a configuration of its own, and ROME's wheel.

The hosts are emulated ones of the plain root tree, lent to the static provider.  They have
no way to the outside: a mirror on this machine has the packages that they lack.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import software
from discovery_xp.places import cache
from discovery_xp.providers.local import image, recipes
from discovery_xp.providers.local.recipes import Recipe
from tests.real.conftest import HOME, Cli

DEPLOY_S = 1500

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(DEPLOY_S + 300)]

PLAIN = """
name: plain
sites: [{name: north, computes: 1}]
"""

HOSTS = ("north-master-1", "north-controller-1", "north-compute-1")


class Mirror(http.server.ThreadingHTTPServer):
    """Serves a folder of Debian packages."""

    daemon_threads = True

    def __init__(self, address: str, folder: Path) -> None:
        handler = functools.partial(Quiet, directory=str(folder))
        super().__init__((address, 0), handler)

    @property
    def line(self) -> str:
        """For a host's sources.list."""
        address, port = self.server_address[:2]
        return f"deb [trusted=yes] http://{address!s}:{port} ./"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Prints nothing."""

    def log_message(self, *_: Any, **__: Any) -> None:
        """Not here."""


@pytest.fixture(scope="module")
def plan(cli: Cli) -> dict[str, Any]:
    """Of hosts that have nothing of OpenStack."""
    cli.run("up", cli.topology("plain", PLAIN))
    state: dict[str, Any] = json.loads((HOME / "testbeds/plain/state.json").read_text())
    for host in HOSTS:
        on(cli, host, "echo >/etc/apt/sources.list; test ! -e /opt/openstack")
    return dict(state["plan"])


@pytest.fixture(scope="module")
def lent(cli: Cli, plan: dict[str, Any]) -> str:
    """The same hosts, as the static provider has them."""
    provider = {
        "type": "static",
        "key": f"{HOME}/testbeds/plain/login_key",
        "hosts": {"north": [host["address"] for host in plan["hosts"]]},
    }
    text = PLAIN.replace("plain", "lent") + f"provider: {json.dumps(provider)}\n"
    text += "openstack: {backend: rome}\n"
    return cli.topology("lent", text)


@pytest.fixture(scope="module")
def mirror(plan: dict[str, Any]) -> Iterator[Mirror]:
    """Ends with the tests; only the testbed's hosts reach it."""
    packages = packages_folder(software.debian_packages(), image.tree(recipes.key(Recipe.HOSTS)))
    with Mirror(plan["machine"], packages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def packages_folder(wanted: tuple[str, ...], tree: Path) -> Path:
    """All packages that a root tree lacks for the wanted ones, with an index; cached."""
    status = tree / "var/lib/dpkg/status"
    digest = hashlib.sha256(repr(wanted).encode() + status.read_bytes()).hexdigest()[:12]
    folder = cache() / f"test-debs-{digest}"
    if folder.is_dir():
        return folder
    for other in cache().glob("test-debs-*"):
        shutil.rmtree(other)
    with tempfile.TemporaryDirectory(prefix="test-debs-", dir=cache()) as work:
        for part in ("state/lists/partial", "cache/archives/partial"):
            (Path(work) / part).mkdir(parents=True)
        apt = ["apt-get", "--quiet", "--option=APT::Sandbox::User=root",
               f"--option=Dir::State={work}/state", f"--option=Dir::State::status={status}",
               f"--option=Dir::Cache={work}/cache", "--option=Acquire::Retries=3"]  # fmt: skip
        output([*apt, "update"])
        output([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *wanted])
        packages = Path(work) / "cache/archives"
        (packages / "partial").rmdir()
        (packages / "Packages").write_text("\n".join(map(stanza, sorted(packages.glob("*.deb")))))
        packages.rename(folder)
    return folder


def stanza(package: Path) -> str:
    """A package in a mirror's index."""
    data = package.read_bytes()
    return (
        f"{output(['dpkg-deb', '--field', str(package)])}"
        f"Filename: ./{package.name}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


def output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def deploy(cli: Cli, path: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return cli.run("deploy", path, code=code, timeout_s=DEPLOY_S)


def installed() -> list[str]:
    """What the last run's log says of the software's stage."""
    log = (HOME / "testbeds/lent/ansible.log").read_text()
    return log.rpartition("STAGE OpenStack's software")[2].partition(" STAGE ")[0].splitlines()


def on(cli: Cli, host: str, command: str) -> str:
    return cli.on(host, command, "plain")


def test_a_package_that_cannot_be_had_is_named_in_a_line(cli: Cli, lent: str) -> None:
    *before, last = deploy(cli, lent, code=1).stderr.splitlines()
    assert all(host in last for host in HOSTS)
    # Whoever answers first is quoted: the master lacks more than the others.
    assert re.search(r"failed: python3-venv[a-z0-9, -]* can't be installed: E: ", last), last
    assert not any("python3-venv" in line for line in before)
    assert on(cli, HOSTS[0], "ls -A /opt") == ""


def test_the_next_run_goes_on_to_a_vm(cli: Cli, lent: str, mirror: Mirror) -> None:
    for host in HOSTS:
        on(cli, host, f"echo '{mirror.line}' >/etc/apt/sources.list")
    # What a run leaves that is killed meanwhile; and a server that the same one left.
    on(cli, HOSTS[2], "mkdir -p /opt/openstack/bin; echo unfinished >/opt/openstack/.lock")
    on(cli, HOSTS[2], "echo >/opt/openstack/half-made")
    on(cli, HOSTS[0], "systemd-run --unit=discovery-xp-wheels sleep 1000 2>&1")
    assert "ACTIVE" in deploy(cli, lent).stdout
    for host in HOSTS:
        stamp = on(cli, host, "cat /opt/openstack/.lock").strip()
        assert stamp == software.OPENSTACK.lock_digest
    for host in HOSTS[:2]:
        assert on(cli, host, "cat /opt/rally/.lock").strip() == software.RALLY.lock_digest
    assert on(cli, HOSTS[2], "ls -A /opt") == "openstack\n", "no load starts on a compute"


def test_only_the_master_has_servers(cli: Cli, lent: str) -> None:
    names = ["memcached", "redis-server"]
    query = "dpkg-query --show --showformat '${Package} ' %s 2>&1; true"
    assert on(cli, HOSTS[0], query % " ".join(names)).split() == names
    assert "no packages found" in on(cli, HOSTS[2], query % " ".join(names))
    for host in HOSTS:
        assert "no packages found" in on(cli, host, query % "mariadb-server"), host


def test_redis_is_ours_and_rome_where_databases_are_asked(cli: Cli, lent: str) -> None:
    for host in HOSTS[:2]:
        assert on(cli, host, "cat /opt/openstack/.sqlalchemy_rome") == software.ROME.digest
    assert on(cli, HOSTS[2], "ls -A /opt/openstack | grep rome; true") == ""
    assert on(cli, HOSTS[0], "redis-cli ping").startswith("NOAUTH")


def test_nothing_is_left_of_the_installation(cli: Cli, lent: str) -> None:
    for host in HOSTS:
        assert on(cli, host, "systemctl is-active discovery-xp-wheels; true") == "inactive\n"
        assert "wheels" not in on(cli, host, "ls -A /var/lib/discovery-xp")
        assert "half-made" not in on(cli, host, "ls -A /opt/openstack")
    assert not list((HOME / "testbeds/lent").glob("*.tar"))


def test_deploy_again_installs_nothing(cli: Cli, lent: str, mirror: Mirror) -> None:
    made = "stat --format=%w /opt/openstack/.lock"
    before = {host: on(cli, host, made) for host in HOSTS}
    assert "ACTIVE" in deploy(cli, lent).stdout
    assert {host: on(cli, host, made) for host in HOSTS} == before
    said = [line for line in installed() if " after " in line and " skipped: " not in line]
    assert len(said) == len(HOSTS), "one look at each host is enough"
    assert all(" ok: " in line for line in said)
    assert json.loads((HOME / "testbeds/lent/deployment.json").read_text())["changes"] == 0


def reached(plan: dict[str, Any], ports: dict[int, int]) -> list[int]:
    """Those of the ports, by the place of their host, that this machine, a stranger, reaches."""
    found = []
    for port, place in ports.items():
        with socket.socket() as connection:
            connection.settimeout(10)
            answer = connection.connect_ex((plan["hosts"][place]["address"], port))
            assert answer in (0, errno.ECONNREFUSED), (port, os.strerror(answer))
            found += [port] * (answer == 0)
    return found


def test_the_clouds_ports_are_for_its_hosts_unless_they_are_exposed(
    cli: Cli, lent: str, plan: dict[str, Any]
) -> None:
    ports = {22: 0, 5672: 0, 11211: 0, 5000: 0, 6379: 0, 8774: 1}
    assert reached(plan, ports) == [22]
    tables = "nft list tables"
    assert "table inet discovery_xp_firewall\n" in on(cli, HOSTS[2], tables)
    assert "ACTIVE" in cli.run("deploy", lent, "--expose", timeout_s=DEPLOY_S).stdout
    assert reached(plan, ports) == list(ports)
    for host in HOSTS:
        assert "discovery_xp_firewall" not in on(cli, host, tables)


def test_a_folder_of_others_is_not_removed(cli: Cli, lent: str) -> None:
    on(cli, HOSTS[2], "mv /opt/openstack/.lock /root")
    last = deploy(cli, lent, code=1).stderr.splitlines()[-1]
    assert f"{HOSTS[2]}: " in last
    assert "/opt/openstack isn't of discovery-xp: move it away" in last
    on(cli, HOSTS[2], "test -x /opt/openstack/bin/nova-compute; mv /root/.lock /opt/openstack")


def test_destroy_leaves_the_hosts_with_debian_s_packages_alone(cli: Cli, lent: str) -> None:
    cli.run("destroy", "--testbed", "lent")
    for host in HOSTS:
        assert on(cli, host, "ls -A /opt; ls -A /var/lib | grep discovery; true") == ""
    assert "installed" in on(cli, HOSTS[0], "dpkg-query --show -f '${db:Status-Status}' memcached")
