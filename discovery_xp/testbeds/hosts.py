"""What a provider hands over: hosts as EnOSlib's roles and networks.

This is the contract between providers and everything that runs on hosts.
Whatever works through `Hosts` works on every provider.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import Link, SshHost
from discovery_xp.planning.plan import Plan, PlannedHost, PlannedLink
from discovery_xp.testbeds.transport import Transport

if TYPE_CHECKING:  # it loads Ansible, which wants space on the disk: `destroy` goes without
    import enoslib as en

# (what is being done, how many are done, out of how many; 0 where it isn't countable)
Progress = Callable[[str, int, int], None]


class Stopwatch:
    """A progress that also takes the time of each stage, and hands everything on."""

    def __init__(self, onward: Progress) -> None:
        self.onward = onward
        self.stages_s: dict[str, float] = {}
        self._stage = ""
        self._started = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.stop()
            self._stage, self._started = stage, time.monotonic()
        self.onward(stage, done, total)

    def stop(self) -> None:
        """The last stage ends now."""
        if self._stage:
            elapsed_s = time.monotonic() - self._started
            self.stages_s[self._stage] = round(self.stages_s.get(self._stage, 0.0) + elapsed_s, 2)
        self._stage = ""


@dataclass(frozen=True)
class Reading:
    """What was read back for one direction: at `place`, packets of `source` to `target`."""

    place: str
    source: str
    target: str
    link: Link


@dataclass(frozen=True)
class Usage:
    """What a host uses of a quota, by name: 'disk' and 'memory' in bytes, 'processes'.

    `refusals` counts how often the host wanted more, where the kernel counts it.
    """

    quota: str
    used: int
    limit: int
    refusals: int = 0

    @property
    def is_at_limit(self) -> bool:
        """True where the host has 98 % of it: nothing much can be done there any more."""
        return self.used >= 0.98 * self.limit


@dataclass(frozen=True)
class HostStatus:
    """How a host is: `memory_bytes` is None where it isn't counted; `usage` is of its quotas."""

    name: str
    is_running: bool
    answers: bool
    memory_bytes: int | None
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True)
class PageMerging:
    """Whether the kernel keeps equal pages of the hosts' memory once (KSM), and its figures.

    `reason` says why not, None where it does.  `hosts_memory_bytes` is what the hosts use, page
    cache aside, None where it isn't counted.  `saved_bytes`, what merged pages would take more,
    and the CPU seconds of the kernel's thread ksmd are the whole machine's.
    """

    is_on: bool
    reason: str | None
    hosts_memory_bytes: int | None
    saved_bytes: int
    ksmd_cpu_s: float | None

    def since(self, before: PageMerging) -> PageMerging:
        """Return the same with the CPU seconds that ksmd took since `before`."""
        cpu_s = None
        if self.ksmd_cpu_s is not None and before.ksmd_cpu_s is not None:
            cpu_s = round(self.ksmd_cpu_s - before.ksmd_cpu_s, 2)
        return dataclasses.replace(self, ksmd_cpu_s=cpu_s)


class Wan(Protocol):
    """A way to impose links between sites, e.g. tc netem on the hosts."""

    kind: str

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Make exactly these links hold, whatever held before."""

    def read_back(self) -> list[Reading]:
        """What holds now, for every direction at every place that has a say in it."""

    def reset(self) -> None:
        """Remove all that `impose` ever made."""


@dataclass(frozen=True)
class Hosts:
    """Hosts that answer over ssh.

    `roles` holds each host under its roles, its site and 'SITE_ROLE'; `networks` one
    network for each site.  `wan` is the provider's own way to impose links, None where
    tc on the hosts is the way.  `is_prepared` says that the software is on the hosts, and
    `is_guarded` that others are kept from them without a firewall of their own.  `transport`
    is the provider's own way to its hosts, None where Ansible over ssh is the way.
    """

    plan: Plan
    roles: en.Roles
    networks: en.Networks
    wan: Wan | None = None
    is_prepared: bool = False
    is_guarded: bool = False
    transport: Transport | None = None

    def by_name(self) -> dict[str, en.Host]:
        """EnOSlib's hosts by their names."""
        return {host.alias: host for group in self.roles.values() for host in group}


def hosts_at(plan: Plan, ssh: Mapping[str, SshHost], ssh_config: Path) -> Hosts:
    """The hosts of a plan that learned its addresses late: from `ssh`, by host.

    Raises Refused where one isn't in `ssh`: the record of what was lent is damaged or gone.
    """
    lost = [host.name for host in plan.hosts if host.name not in ssh]
    if lost:
        raise Refused(
            f"where {lost[0]} is, and {len(lost) - 1} more of {len(plan.hosts)} hosts, isn't known",
            f"'discovery-xp destroy --testbed {plan.name}', then make it again",
        )
    bound = dataclasses.replace(
        plan,
        hosts=tuple(
            dataclasses.replace(host, address=ssh[host.name].address, ssh=ssh[host.name])
            for host in plan.hosts
        ),
    )
    return Hosts(bound, *to_roles_and_networks(bound, ssh, ssh_config))


def to_roles_and_networks(
    plan: Plan, ssh: Mapping[str, SshHost], ssh_config: Path
) -> tuple[en.Roles, en.Networks]:
    """Existing ssh hosts as EnOSlib's Static provider offers them.

    `ssh` tells how to reach each host of the plan, `ssh_config` holds the rest.
    """
    from discovery_xp.testbeds import ansible_runs  # it comes before EnOSlib

    import enoslib as en  # isort: skip

    extra = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": f"-F {shlex.quote(str(ssh_config))}",
    }
    conf = en.StaticConf()
    for host in plan.hosts:
        reach = ssh[host.name]
        settings: dict[str, Any] = {
            "address": reach.address,
            "user": reach.user,
            "port": reach.port,
            "extra": {**extra, "site": host.site},
        }
        if reach.key:
            settings["keyfile"] = reach.key
        conf.add_machine(alias=host.name, roles=_roles_of(host), **settings)
    for site in plan.sites:
        cidr = site.network or _common_network(plan.hosts_of(site.name))
        gateway = site.gateway or str(ipaddress.IPv4Network(cidr)[-1])
        conf.add_network(roles=[site.name], cidr=cidr, gateway=gateway, dns=gateway)
    roles, networks = en.Static(conf.finalize()).init()
    for group in roles.values():
        for machine in group:
            ansible_runs.mark(machine)
    return roles, networks


def inventory(roles: en.Roles) -> str:
    """Return Ansible's inventory of these hosts, as YAML; no value in it is a template."""
    from discovery_xp.testbeds import ansible_runs  # it comes before EnOSlib

    from ansible.utils.unsafe_proxy import AnsibleUnsafeText  # isort: skip
    from enoslib.enos_inventory import EnosInventory  # isort: skip

    class Dumper(yaml.SafeDumper):
        """Writes marked texts so that whoever reads them marks them again."""

    Dumper.add_representer(
        AnsibleUnsafeText,
        lambda dumper, text: dumper.represent_scalar("!unsafe", text._strip_unsafe()),
    )
    hosts: dict[str, Any] = {}
    for host in EnosInventory(roles=roles).get_hosts():
        hidden = ("inventory_file", "inventory_dir")
        values = {key: value for key, value in host.vars.items() if key not in hidden}
        hosts[str(host.name)] = {key: ansible_runs.literal(value) for key, value in values.items()}
    groups: dict[str, Any] = {
        str(role): {"hosts": {str(host.alias): {} for host in group}}
        for role, group in roles.items()
    }
    text: str = yaml.dump({"all": {"hosts": hosts, "children": groups}}, Dumper=Dumper)
    return text


def _roles_of(host: PlannedHost) -> list[str]:
    return [*host.roles, host.site, *(f"{host.site}_{role}" for role in host.roles)]


def _common_network(hosts: Sequence[PlannedHost]) -> str:
    """The smallest network around the hosts' addresses."""
    addresses = [ipaddress.IPv4Address(host.address or "") for host in hosts]
    network = ipaddress.IPv4Network((addresses[0], 32))
    while any(address not in network for address in addresses):
        network = network.supernet()
    return str(network)
