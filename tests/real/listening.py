"""What listens on a testbed's hosts, beside the table of docs/ports.md."""

from __future__ import annotations

from discovery_xp.planning import ports
from discovery_xp.testbeds.testbed import Testbed
from tests.real.conftest import HOME, Cli

SOCKETS = "ss --listening --tcp --udp --numeric --processes --no-header"


def differences(cli: Cli, testbed: str) -> list[str]:
    """Where hosts and table differ, a line each; every host of the testbed is asked."""
    made = Testbed(testbed)
    made.folder = HOME / "testbeds" / testbed
    plan, lines = made.load().plan, []
    for host in plan.hosts:
        told = cli.run("ssh", "--testbed", testbed, host.name, SOCKETS).stdout
        sockets = ports.read_sockets(told)
        roles = sorted(host.roles) if plan.cloud else []
        found = ports.differences(host.address or "", roles, sockets)
        lines += [f"{host.name}: {line}" for line in found]
    return lines
