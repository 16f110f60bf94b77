"""Machines that EnOSlib's other providers make: VMonG5k, Vagrant, Chameleon.

One adapter for all: the plan becomes the provider's own configuration, which EnOSlib checks
against its schema, and each site's machines become the plan's hosts, in the order of their
names.  What is learned of them is kept in a file of the testbed's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import ipaddress
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import enoslib as en
import jsonschema
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError
from pydantic import TypeAdapter

from discovery_xp import files
from discovery_xp.boundary import writers
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.inputs.platforms import (
    ChameleonProvider,
    PlatformProvider,
    VagrantProvider,
    VMonG5kProvider,
)
from discovery_xp.inputs.topology import SshHost
from discovery_xp.onhost.catalogue import SSH_PORT
from discovery_xp.planning import oar
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.contract import Provider
from discovery_xp.providers.kinds import MACHINES_RECORD
from discovery_xp.testbeds import ansible_runs
from discovery_xp.testbeds.hosts import Hosts, HostStatus, Progress, hosts_at
from discovery_xp.testbeds.remote import answering, output_of, plainly
from discovery_xp.testbeds.testbed import Testbed, write_atomically

NETWORK = "discovery_xp"
# Where EnOSlib has what, and which of its extras brings what that needs.
_MODULES = {
    "vmong5k": ("enos_vmong5k", "VMonG5k", None),
    "vagrant": ("enos_vagrant", "Enos_vagrant", "vagrant"),
    "kvm": ("enos_chameleonkvm", "Chameleonkvm", "chameleon"),
    "baremetal": ("enos_chameleonbaremetal", "Chameleonbaremetal", "chameleon"),
}
_LOOK = "id -u; ip -4 -o addr show scope global"


@dataclass(frozen=True)
class Machines:
    """What a testbed has: `asked` once the provider was, `nodes` by host of the plan."""

    asked: bool = True
    nodes: Mapping[str, SshHost] = field(default_factory=dict)


_MACHINES = TypeAdapter(Machines)


def _path(testbed: Testbed) -> Path:
    return testbed.folder / MACHINES_RECORD


def _load(testbed: Testbed) -> Machines:
    try:
        return _MACHINES.validate_json(files.read_text(_path(testbed)))
    except FileNotFoundError:
        return Machines(asked=False)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{_path(testbed)}: the record is damaged ({type(error).__name__})",
            f"run 'discovery-xp destroy --testbed {testbed.name}'",
        ) from None


def _save(testbed: Testbed, machines: Machines) -> None:
    write_atomically(_path(testbed), json.dumps(dataclasses.asdict(machines), indent=1) + "\n")


# ---------------------------------------------------------------- EnOSlib's configuration


def configuration(plan: Plan) -> dict[str, Any]:
    """Return the plan as the dictionary that EnOSlib's provider takes.

    Raises Refused for a value that isn't plain: EnOSlib pastes them into a Vagrantfile, its
    own playbooks and shell commands.
    """
    options = _configuration(plan)
    for key, value in _texts(options):
        try:
            writers.plain(value)
        except writers.Unwritable as error:
            raise Refused(
                f"EnOSlib can't be given the provider's '{key}': {error}",
                "correct the topology's provider",
            ) from None
    return options


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a configuration, each with its key."""
    if isinstance(value, Mapping):
        for name, inside in value.items():
            yield from _texts(inside, str(name))
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside, key)
    elif isinstance(value, str):
        yield key, value


def _require_rc_file(path: str) -> None:
    """Raise Refused unless an RC file sets nothing but OpenStack's own variables.

    EnOSlib puts what it exports into the environment of this process and of those it starts.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"{path} can't be read ({type(error).__name__})", "correct the provider's 'rc_file'"
        ) from None
    for number, line in enumerate(lines, start=1):
        if "export" in line and not re.match(r"export OS_[A-Z0-9_]+=", line):
            raise Refused(
                f"{path}:{number}: this line says 'export' and sets none of OpenStack's variables",
                "name an RC file whose lines are 'export OS_NAME=VALUE'",
            )


def _configuration(plan: Plan) -> dict[str, Any]:
    assert plan.platform is not None
    counts = {site.name: len(plan.hosts_of(site.name)) for site in plan.sites}
    counts = {site: count for site, count in counts.items() if count}
    platform = plan.platform
    if isinstance(platform, VMonG5kProvider):
        return _vmong5k(plan.name, platform, counts)
    if isinstance(platform, VagrantProvider):
        return {
            "backend": platform.backend,
            "box": platform.box,
            "user": platform.user,
            "name_prefix": plan.name,
            "resources": {
                "machines": [
                    {
                        "roles": [site],
                        "number": count,
                        "name_prefix": f"{plan.name}-{site}",
                        "flavour_desc": {"core": platform.cores, "mem": platform.memory_mib},
                    }
                    for site, count in counts.items()
                ],
                "networks": [{"cidr": platform.network, "roles": [NETWORK]}],
            },
        }
    assert isinstance(platform, ChameleonProvider)
    options = {
        "rc_file": platform.rc_file,
        "key_name": platform.key_name,
        "image": platform.image,
        "user": platform.user,
        "gateway_user": platform.user,
        "prefix": plan.name,
        "resources": {
            "machines": [
                {"roles": [site], "flavour": platform.flavour, "number": count}
                for site, count in counts.items()
            ],
            "networks": [NETWORK],
        },
    }
    if platform.kind == "baremetal":
        options |= {"lease_name": plan.name, "walltime": platform.walltime}
    return options


def _vmong5k(name: str, platform: VMonG5kProvider, counts: Mapping[str, int]) -> dict[str, Any]:
    options = {
        "job_name": oar.job_name(name),
        "job_type": list(platform.job.types),
        "walltime": platform.job.walltime,
        "queue": platform.job.queue,
        "project": platform.job.project,
        "reservation": platform.job.reservation,
        "image": platform.image,
        "resources": {
            "machines": [
                {
                    "roles": [site],
                    "cluster": platform.clusters[site].cluster,
                    "number": count,
                    "flavour_desc": {"core": platform.cores, "mem": platform.memory_mib},
                }
                for site, count in counts.items()
            ],
            "networks": [NETWORK],
        },
    }
    return {key: value for key, value in options.items() if value is not None}


def _names(platform: PlatformProvider) -> tuple[str, str, str | None]:
    kind = platform.kind if isinstance(platform, ChameleonProvider) else platform.type
    return _MODULES[kind]


def enoslib_configuration(plan: Plan) -> Any:
    """The same as EnOSlib's own object; raises Refused where its schema isn't content."""
    assert plan.platform is not None
    folder, _, _ = _names(plan.platform)
    module = importlib.import_module(f"enoslib.infra.{folder}.configuration")
    options = configuration(plan)
    try:
        return module.Configuration.from_dictionary(options)
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        raise Refused(
            f"EnOSlib doesn't take this for '{plan.provider}': {place}: {error.message[:150]}",
            "correct the topology's provider",
        ) from None


def _provider(plan: Plan) -> Any:
    assert plan.platform is not None
    folder, name, extra = _names(plan.platform)
    try:
        module = importlib.import_module(f"enoslib.infra.{folder}.provider")
    except ImportError as error:
        raise Refused(
            f"provider '{plan.provider}' needs a package that isn't there: {error.name}",
            f"install it with: pip install 'enoslib[{extra}]'" if extra else "install it",
        ) from None
    if isinstance(plan.platform, ChameleonProvider):
        _require_rc_file(plan.platform.rc_file)
    return getattr(module, name)(enoslib_configuration(plan))


# ---------------------------------------------------------------- the contract


def acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """Have EnOSlib's provider make the machines, or find them again; learn where they are."""
    provider = _provider(plan)
    _save(testbed, dataclasses.replace(_load(testbed), asked=True))
    progress(f"asking {plan.provider} for machines", 0, len(plan.hosts))
    with _in_folder(testbed), _told(plan.provider), plainly():
        roles, _ = provider.init()
        by_site = {
            site.name: sorted(roles[site.name], key=lambda host: _natural(host.alias))
            for site in plan.sites
        }
        _require_enough(plan, by_site)
        progress("waiting for ssh", 0, len(plan.hosts))
        for machine in (host for hosts in by_site.values() for host in hosts):
            ansible_runs.mark(machine)
        machines = en.Roles(all=[host for hosts in by_site.values() for host in hosts])
        en.wait_for(machines, retries=20)
        addresses = _let_root_in(machines, plan.platform)
    nodes: dict[str, SshHost] = {}
    for site in plan.sites:
        for host, machine in zip(plan.hosts_of(site.name), by_site[site.name], strict=False):
            nodes[host.name] = _ssh_host(machine, addresses[machine.alias], plan.platform)
    _save(testbed, Machines(nodes=nodes))
    testbed.write_ssh_config(nodes, check_keys="accept-new")
    return hosts(plan, testbed)


def _require_enough(plan: Plan, machines: Mapping[str, Sequence[Any]]) -> None:
    for site in plan.sites:
        needed, there = len(plan.hosts_of(site.name)), len(machines[site.name])
        if there < needed:
            raise Failed(
                f"{plan.provider} made {there} of {needed} machines for {site.name}",
                "deploy again, or ask for fewer",
            )


def _let_root_in(machines: Any, platform: PlatformProvider | None) -> dict[str, str]:
    """Root gets the keys of the user who may log in; returns each machine's address."""
    copy = (
        'test "$(id -u)" = 0 || sudo sh -c "install -d -m 700 /root/.ssh && '
        'cp $HOME/.ssh/authorized_keys /root/.ssh/authorized_keys"'
    )
    results = en.run(f"{copy}; {_LOOK}", roles=machines, raw=True, gather_facts=False)
    network = platform.network if isinstance(platform, VagrantProvider) else None
    return {
        result.host: address_in(output_of(result.payload).stdout, network) for result in results
    }


def address_in(text: str, network: str | None) -> str:
    """The address of `ip -4 -o addr` that lies in a network; the first where none is given."""
    addresses = re.findall(r"\binet (\d+\.\d+\.\d+\.\d+)/", text)
    for address in addresses:
        with contextlib.suppress(ipaddress.AddressValueError):  # it only looks like one
            parsed = ipaddress.IPv4Address(address)
            if network is None or parsed in ipaddress.IPv4Network(network):
                return str(parsed)
    raise Failed(
        f"a machine has no address in {network}", f"it has {', '.join(addresses[:8]) or 'none'}"
    )


def _ssh_host(machine: Any, address: str, platform: PlatformProvider | None) -> SshHost:
    key = getattr(platform, "key", None) or machine.keyfile
    access = getattr(platform, "access", None)
    gateway, user = machine.extra.get("gateway"), machine.extra.get("gateway_user")
    jump = f"{user}@{gateway}" if gateway and user else gateway
    return SshHost(address, "root", SSH_PORT, (access.key if access else None) or key, jump)


def _natural(name: str) -> list[Any]:
    """To sort vm-2 before vm-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@contextlib.contextmanager
def _in_folder(testbed: Testbed) -> Iterator[None]:
    """Vagrant keeps its files in the working directory: it is always the same one."""
    folder = testbed.folder / "enoslib"
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("enoslib").setLevel(logging.CRITICAL)
    with ansible_runs.workspace(folder), en.config_context(ansible_stdout="noop"):
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _told(kind: str) -> Iterator[None]:
    """EnOSlib's providers raise what their platforms' clients do: one line of it is enough."""
    try:
        yield
    except (UserError, EnosFailedHostsError, EnosUnreachableHostsError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise Failed(
            f"EnOSlib's provider for '{kind}' failed: {type(error).__name__}: {words}",
            "see that its platform works by itself, then deploy again",
        ) from error


def hosts(plan: Plan, testbed: Testbed) -> Hosts:
    """The hosts of a testbed that was acquired, without touching them."""
    return hosts_at(plan, _load(testbed).nodes, testbed.ssh_config)


def status(plan: Plan, testbed: Testbed) -> list[HostStatus]:
    """How every host of the plan is; a host that greets us is running."""
    there: set[str] = set()
    if _load(testbed).nodes:
        there = answering(hosts(plan, testbed).plan.hosts, testbed.ssh_config)
    return [
        HostStatus(host.name, host.name in there, host.name in there, None) for host in plan.hosts
    ]


def remarks(testbed: Testbed) -> list[str]:
    """What was borrowed."""
    plan = testbed.load().plan
    return [f"{len(plan.hosts)} machines are borrowed from {plan.provider}"]


def is_lent(testbed: Testbed) -> bool:
    """True once the provider was asked, as far as the record knows."""
    try:
        return _load(testbed).asked
    except Refused:  # it is damaged: who knows
        return True


def release(plan: Plan | None, testbed: Testbed) -> None:
    """Have EnOSlib's provider take the machines back."""
    if not is_lent(testbed):
        return
    if plan is None:
        raise Failed("who lent its machines isn't known any more", "end them by hand")
    with _in_folder(testbed), _told(plan.provider):
        _provider(plan).destroy(wait=True)


class EnoslibMachines(Provider):
    """Machines that one of EnOSlib's own providers lends; which one, the plan says."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Have the machines made, or take those that are there; they answer over ssh then."""
        return acquire(plan, testbed, progress)

    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """Return the hosts of a testbed that was acquired, without touching them."""
        return hosts(plan, testbed)

    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """Say how every host of the plan is, in the plan's order."""
        return status(plan, testbed)

    def remarks(self, testbed: Testbed) -> list[str]:
        """Say what was borrowed and what it costs, in lines for a person."""
        return remarks(testbed)

    def is_lent(self, testbed: Testbed) -> bool:
        """Return True when there is anything to give back."""
        return is_lent(testbed)

    def release(self, plan: Plan | None, testbed: Testbed) -> None:
        """Have EnOSlib's provider take the machines back."""
        release(plan, testbed)
