"""What is common to EnOSlib's other providers, on machines that answer.

Vagrant isn't here: in its provider's place stands one that hands over emulated hosts, as it
would hand over its machines.  Its configuration is the real one, checked by EnOSlib's schema.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import HOME, Cli

pytestmark = [pytest.mark.real, pytest.mark.alone]

HOSTS = """
name: boxes
sites: [{name: a, controllers: 0, computes: 3}]
provider: {type: local, network: 10.88.0.0/16}
"""
TOPOLOGY = """
name: boxed
sites: [{name: west, computes: 1}, {name: east, computes: 0}]
provider: {type: vagrant, network: 10.88.0.0/16}
"""
# The command line, with the one thing put in its place.
SCRIPT = """
import json, sys
import enoslib as en
from discovery_xp.cli.main import main
from discovery_xp.providers import enoslib_machines

told, taken_back = json.loads(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

class Machines:
    def __init__(self, conf):
        self.conf = conf
    def init(self):
        roles, free = en.Roles(), list(told["addresses"])
        for machine in self.conf.machines:
            for number in range(machine.number):
                host = en.Host(free.pop(0), alias=f"{machine.name_prefix}-{number + 1}",
                               user="root", keyfile=told["key"],
                               extra={"ansible_ssh_common_args": "-o StrictHostKeyChecking=no "
                                      "-o UserKnownHostsFile=/dev/null"})
                roles[machine.roles[0]] += [host]
        return roles, en.Networks()
    def destroy(self, wait=False):
        open(taken_back, "w").close()

made = enoslib_machines.enoslib_configuration
enoslib_machines._provider = lambda plan: Machines(made(plan))
main()
"""


class Boxed:
    """Runs commands on a testbed of such machines."""

    def __init__(self, cli: Cli, addresses: list[str], taken_back: Path) -> None:
        self.cli, self.taken_back = cli, taken_back
        self.told = {"key": f"{HOME}/testbeds/boxes/login_key", "addresses": addresses}

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(self.told), str(self.taken_back), *arguments],
            capture_output=True,
            text=True,
            env=self.cli.environment,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def boxed(cli: Cli, tmp_path: Path) -> Iterator[Boxed]:
    cli.run("up", cli.topology("boxes", HOSTS))
    state = json.loads((HOME / "testbeds/boxes/state.json").read_text())
    yield Boxed(cli, [host["address"] for host in state["plan"]["hosts"]], tmp_path / "taken")
    cli.run("destroy", "--testbed", "boxes")


def test_machines_play_the_plan_s_hosts_and_are_taken_back(boxed: Boxed) -> None:
    topology = boxed.cli.topology("boxed", TOPOLOGY)
    boxed.run("up", topology)
    played = json.loads((HOME / "testbeds/boxed/machines.json").read_text())["nodes"]
    assert {host: node["address"] for host, node in played.items()} == dict(
        zip(("west-master-1", "west-controller-1", "west-compute-1", "east-controller-1"),
            boxed.told["addresses"], strict=True)
    )  # fmt: skip
    assert "1 pairs" in boxed.run("up", topology), "once more, on the same machines"
    assert "4 machines are borrowed from vagrant" in boxed.run("status", "--testbed", "boxed")
    assert not boxed.taken_back.exists()
    boxed.run("destroy", "--testbed", "boxed")
    assert boxed.taken_back.exists()
    assert not (HOME / "testbeds/boxed").exists()


def test_too_few_machines_are_told_and_taken_back(boxed: Boxed) -> None:
    boxed.told["addresses"] = boxed.told["addresses"][:3]
    said = boxed.run("up", boxed.cli.topology("boxed", TOPOLOGY), code=1)
    assert "EnOSlib's provider for 'vagrant' failed: IndexError" in said
    assert "Traceback" not in said
    assert boxed.taken_back.exists()
    assert not (HOME / "testbeds/boxed").exists()
