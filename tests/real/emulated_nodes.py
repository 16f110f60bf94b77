"""An emulated Grid'5000 whose nodes are emulated hosts of this machine.

Each node is a host of one local testbed, `platform`: kadeploy boots it anew from an empty
layer, with the keys it was given.  Its names are only known on `access`, as on the real
platform: ssh has to jump through there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import Plan, PlannedHost, make_plan
from discovery_xp.providers import local
from discovery_xp.providers.local import containers
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import State, Testbed, now
from tests.grid5000 import Emulator, Platform, RunningClock, Server
from tests.grid5000.jobs import Pace
from tests.grid5000.platform import Node, User
from tests.grid5000.server import pool
from tests.real.conftest import HOME, Cli

# A real deployment takes minutes; these hosts boot in seconds.
PACE = Pace(scheduling_s=1, to_launch_s=0.5, launching_s=1, killing_s=1, deployment_s=3)
CLUSTERS = {"rennes": {"paravance": 4}, "nantes": {"econome": 3}}
HOSTS = """
name: platform
sites:
  - {name: rennes, controllers: 1, computes: 3}
  - {name: nantes, controllers: 0, computes: 3}
"""


class EmulatedNodes:
    """What `tests.grid5000.Machines` wants, on the hosts of a local testbed."""

    def __init__(self, plan: Plan, testbed: Testbed) -> None:
        self.plan, self.testbed = plan, testbed
        self.access = plan.hosts[0]
        self.host: dict[str, PlannedHost] = {}
        for site, clusters in CLUSTERS.items():
            own = [host for host in plan.hosts_of(site) if host is not self.access]
            for cluster, count in clusters.items():
                for number in range(1, count + 1):
                    self.host[f"{cluster}-{number}.{site}.grid5000.fr"] = own.pop(0)

    def deploy(self, node: Node, environment: str, public_key: str) -> None:
        """Boot the host anew, with nothing of what it wrote before."""
        host = self.host[node.fqdn]
        self.release(node)
        containers.prepare(self.testbed, self.plan, host)
        upper = containers.folder(self.testbed, host.name) / "files/upper"
        (upper / "etc/grid5000").mkdir(parents=True)
        release = environment.replace("-", "-x64-", 1)
        (upper / "etc/grid5000/release").write_text(f"{release}-2026010112\n")
        (upper / "root/.ssh/authorized_keys").write_text(public_key)
        image_key = self.testbed.load().image
        assert image_key is not None
        containers.boot(self.testbed, [host], image_key, lambda booted: None)

    def boot(self, node: Node) -> None:
        """Jobs without a deployment aren't tried on these hosts."""

    def release(self, node: Node) -> None:
        """Off, and empty."""
        host = self.host[node.fqdn]
        containers.stop(self.testbed, host)
        containers.wipe(self.testbed, host)

    def address(self, node: Node) -> IPv4Address:
        """Where the host is."""
        return IPv4Address(self.host[node.fqdn].address or "")

    def names(self) -> str:
        """Lines of /etc/hosts for all nodes, those in VLANs included."""
        lines = []
        for fqdn, host in self.host.items():
            name, _, rest = fqdn.partition(".")
            names = [fqdn, *(f"{name}-kavlan-{vlan}.{rest}" for vlan in range(1, 15))]
            lines.append(f"{host.address} {' '.join(names)}")
        return "\n".join(lines) + "\n"


@dataclass
class Grid:
    """The emulated platform, and a user of it: home, key, the topologies' provider."""

    server: Server
    nodes: EmulatedNodes
    home: Path
    jump_host: str

    @property
    def emulator(self) -> Emulator:
        return self.server.emulator

    @property
    def key(self) -> Path:
        return self.home / ".ssh/id_ed25519"

    def provider(self, alone: bool = False, **more: Any) -> str:
        """For a topology of sites 'west' at rennes and 'south' at nantes, or 'west' `alone`."""
        sites = {"west": {"site": "rennes", "cluster": "paravance"}}
        if not alone:
            sites["south"] = {"site": "nantes", "cluster": "econome"}
        told = {
            "type": "g5k",
            "sites": sites,
            "key": str(self.key),
            "jump_host": self.jump_host,
            **more,
        }
        return f"provider: {json.dumps(told)}\n"

    def posts(self, what: str) -> int:
        """How many were asked for."""
        return sum(method == "POST" and path.endswith(what) for method, path in self.server.calls)

    def states(self) -> dict[str, list[str]]:
        """The states of all jobs, site by site, the oldest first."""
        with self.emulator.lock:
            self.emulator.advance()
            return {
                site: [job.state for job in reversed(self.emulator.jobs.of(site))]
                for site in CLUSTERS
            }

    def running(self) -> set[str]:
        """The nodes that are on."""
        return {
            fqdn
            for fqdn, host in self.nodes.host.items()
            if containers.is_running(self.nodes.testbed, host)
        }


def platform_hosts() -> Hosts:
    """Hosts that have OpenStack's packages already, as emulated ones of a cloud have."""
    plan = make_plan(parse_topology(HOSTS), cloud=True)
    testbed = Testbed(plan.name)
    testbed.save(State(plan=plan, phase="acquiring", created=now()))
    found = local.acquire(plan, testbed, lambda stage, done, total: None)
    testbed.update(phase="up")
    return found


def emulated_grid(cli: Cli, home: Path) -> Iterator[Grid]:
    """A platform with hosts behind it; its jobs end, and its hosts stay, when this ends."""
    hosts = platform_hosts()
    nodes = EmulatedNodes(hosts.plan, Testbed(hosts.plan.name))
    (home / ".ssh").mkdir(mode=0o700)
    key = home / ".ssh/id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60
    )
    at_access = (
        "cat >>/etc/hosts && "
        f"echo '{key.with_suffix('.pub').read_text().strip()}' >>/root/.ssh/authorized_keys"
    )
    ssh = ["ssh", "-F", str(nodes.testbed.ssh_config), nodes.access.name, at_access]
    subprocess.run(ssh, input=nodes.names(), text=True, check=True, timeout=60)
    emulator = Emulator(
        Platform.of(CLUSTERS, [User("alice"), User("bob")]),
        clock=RunningClock(),
        machines=nodes,
        pace=PACE,
        executor=pool(),
    )
    with emulator.lock:  # nodes are off until somebody deploys them
        for site in emulator.platform.sites.values():
            for node in site.nodes:
                nodes.release(node)
    with Server(emulator, ask_password=True) as server:
        login = home / ".python-grid5000.yaml"
        login.write_text(f"uri: {server.uri}\nusername: alice\npassword: secret\n")
        yield Grid(server, nodes, home, f"root@{nodes.access.address}")
        cli.run("destroy", "--testbed", "cloud", "--forget", code=None)
        emulator.close()
    assert HOME.exists()
