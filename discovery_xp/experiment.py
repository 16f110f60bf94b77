"""The life of a testbed and its cloud, in order.

`bring_up` makes the hosts, `deploy_cloud` the cloud on them.  Each step is saved, so that
a killed run can be resumed or destroyed:

1. refuse a name that is taken by a testbed with other hosts;
2. save the state, before anything exists that it would have to name;
3. acquire the hosts from the provider, or repair them, until ssh answers on all;
4. write the inventory;
5. `deploy_cloud`: install the services while the links are still quick, or repair them;
6. impose the links between sites, and read them back;
7. measure every pair of sites, and refuse to go on outside the tolerance;
8. `deploy_cloud`: boot a VM at each site, through the API that serves it;
9. save the state as 'up'.

`tear_down` removes all of it from whatever state it is in.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enoslib as en

from discovery_xp import deploy, network
from discovery_xp.deploy import Boot, Deployment, ServiceStatus
from discovery_xp.errors import Failed, Refused
from discovery_xp.hosts import Hosts, HostStatus, Progress, Reading, Stopwatch
from discovery_xp.network import PairRtt
from discovery_xp.plan import Plan, PlannedLink
from discovery_xp.providers import local, static
from discovery_xp.testbed import State, Testbed, now, testbeds, write_atomically
from discovery_xp.topology import Link


@dataclass(frozen=True)
class Brought:
    """A testbed that is up: its state and the measurement that says so."""

    testbed: Testbed
    state: State
    pairs: list[PairRtt]


def bring_up(plan: Plan, progress: Progress) -> Brought:
    """Make or repair the testbed of `plan`; see the module's docstring for the steps."""
    testbed = Testbed(plan.name)
    with testbed.locked():
        hosts = _make_hosts(plan, testbed, progress)
        progress("imposing links", 0, 0)
        network.impose(hosts, plan.links)
        pairs = _measure_within_tolerance(hosts, testbed, progress)
        return Brought(testbed, testbed.update(phase="up"), pairs)


@dataclass(frozen=True)
class Deployed:
    """A cloud that boots VMs at every site, and what says so."""

    testbed: Testbed
    state: State
    deployment: Deployment
    pairs: list[PairRtt]
    boots: list[Boot]


def deploy_cloud(plan: Plan, progress: Progress) -> Deployed:
    """Make or repair the hosts and the cloud of `plan`; see the module's docstring.

    Raises Failed when a VM doesn't get ACTIVE at some site.
    """
    testbed = Testbed(plan.name)
    progress = stopwatch = Stopwatch(progress)
    with testbed.locked():
        hosts = _make_hosts(plan, testbed, progress)
        if testbed.load().deployed is None and testbed.load().observed:
            # The hosts were up before: set-up over slow links would take its time.
            network.wan_of(hosts).reset()
        deployment = deploy.install(hosts, testbed, progress)
        # A cloud that runs already must not see its links go away and come back.
        if network.disagreements(plan.links, network.wan_of(hosts).read_back()):
            progress("imposing links", 0, 0)
            network.impose(hosts, plan.links)
        pairs = _measure_within_tolerance(hosts, testbed, progress)
        boots = deploy.verify(hosts, testbed, progress)
        stopwatch.stop()
        deployment = dataclasses.replace(deployment, stages_s=stopwatch.stages_s)
        deploy.save(testbed, deployment)
        deploy.require_active(boots)
        state = testbed.update(phase="up", deployed=now())
        return Deployed(testbed, state, deployment, pairs, boots)


def _make_hosts(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """Steps 1 to 4."""
    _require_same_hosts(plan, testbed)
    if testbed.exists():
        before = testbed.load().plan
        if plan.cloud is None:  # `up` repairs hosts; what runs on them stays
            plan = dataclasses.replace(plan, cloud=before.cloud)
        testbed.update(phase="acquiring", plan=plan, changed_links=None)
    else:
        testbed.save(State(plan=plan, phase="acquiring", created=now()))
    try:
        hosts = _acquire(plan, testbed, progress)
    except Refused as error:
        # Nothing was started: a refusal leaves no testbed behind that wasn't there.
        if error.exit_code == Refused.exit_code and testbed.load().image is None:
            testbed.remove()
            sweep()
        raise
    write_inventory(hosts, testbed)
    return hosts


def _measure_within_tolerance(hosts: Hosts, testbed: Testbed, progress: Progress) -> list[PairRtt]:
    progress("measuring round trips", 0, 0)
    pairs = _measure_and_save(hosts, testbed, hosts.plan.links)
    network.require_within_tolerance(pairs)
    return pairs


def _require_same_hosts(plan: Plan, testbed: Testbed) -> None:
    if not testbed.exists():
        return
    state = testbed.load()
    if state.phase == "releasing":
        raise Refused(
            f"'{plan.name}' is half destroyed", f"finish with 'destroy --testbed {plan.name}'"
        )
    if not state.plan.has_hosts_of(plan):
        raise Refused(
            f"a testbed '{plan.name}' with other hosts is there since {state.created}",
            f"'discovery-xp destroy --testbed {plan.name}' first, or give a --name",
        )


def _acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    if plan.provider == "local":
        return local.acquire(plan, testbed, progress)
    if plan.provider == "static":
        found = static.acquire(plan, testbed, progress)
        testbed.update(wan="netem")
        return found
    raise Refused(
        "reserving Grid'5000 nodes is not part of this version",
        "see the requests with 'discovery-xp plan', or use 'provider: local'",
    )


def hosts_of(testbed: Testbed) -> Hosts:
    """The hosts of a testbed, without touching them; raises Refused before all were made."""
    state = testbed.load()
    if state.phase == "releasing" or state.wan is None:
        raise Refused(f"'{testbed.name}' is not up ({state.phase})", "run 'discovery-xp up' again")
    return (
        local.hosts(state.plan, testbed)
        if state.plan.provider == "local"
        else static.hosts(state.plan, testbed)
    )


@dataclass(frozen=True)
class Inspection:
    """How a testbed is: its hosts by name, the links that died, its cloud's services.

    `services` is None where no cloud is wanted.
    """

    name: str
    phase: str
    hosts: dict[str, HostStatus]
    broken_links: list[str]
    services: list[ServiceStatus] | None = None

    @property
    def is_healthy(self) -> bool:
        """True when all that should be up is up."""
        everything_answers = all(host.answers for host in self.hosts.values())
        services_are_up = all(service.is_up for service in self.services or [])
        return (
            self.phase == "up" and everything_answers and not self.broken_links and services_are_up
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict included."""
        return {**dataclasses.asdict(self), "is_healthy": self.is_healthy}


def inspect(testbed: Testbed) -> Inspection:
    """Look at every host and link of a testbed."""
    state = testbed.load()
    if state.plan.provider == "local":
        looked = local.status(state.plan, testbed)
        broken = local.broken_links(state.plan, testbed)
    else:
        looked, broken = static.status(state.plan), []
    services = None
    if deploy.deployment_file(testbed).exists():
        answering = {host.name for host in looked if host.answers}
        services = deploy.inspect(hosts_of(testbed), answering)
    found = {host.name: host for host in looked}
    return Inspection(testbed.name, state.phase, found, broken, services)


def write_inventory(hosts: Hosts, testbed: Testbed) -> None:
    """Ansible's inventory of the testbed, with roles and sites as groups."""
    write_atomically(testbed.inventory, en.api._generate_inventory(hosts.roles))


# ---------------------------------------------------------------- links of a running testbed


def show_links(testbed: Testbed) -> list[Reading]:
    """What holds now, read back from where it was imposed."""
    return network.wan_of(hosts_of(testbed)).read_back()


def set_links(testbed: Testbed, links: Sequence[PlannedLink]) -> list[PairRtt]:
    """Impose other links, read them back and measure; the caller judges the round trips."""
    with testbed.locked():
        hosts = hosts_of(testbed)
        # Saved first: what a killed run left half imposed is set right by the next one.
        testbed.update(changed_links=tuple(links), observed=())
        network.impose(hosts, links)
        return _measure_and_save(hosts, testbed, links)


def reset_links(testbed: Testbed) -> None:
    """Remove everything imposed, on all hosts; raises Failed if something stayed."""
    with testbed.locked():
        hosts = hosts_of(testbed)
        links = [dataclasses.replace(link, link=Link()) for link in hosts.plan.links]
        testbed.update(changed_links=tuple(links), observed=())
        network.wan_of(hosts).reset()
        network.impose(hosts, links)


def measure_links(testbed: Testbed) -> list[PairRtt]:
    """Measure every pair of sites and save what was seen; the caller judges."""
    with testbed.locked():
        return _measure_and_save(hosts_of(testbed), testbed, testbed.load().links)


def _measure_and_save(
    hosts: Hosts, testbed: Testbed, links: Sequence[PlannedLink]
) -> list[PairRtt]:
    pairs = network.measure(hosts, links)
    testbed.update(observed=tuple(pair.to_json() for pair in pairs))
    return pairs


# ---------------------------------------------------------------- the cloud's records


def backup_cloud(testbed: Testbed, target: Path, progress: Progress) -> int:
    """Fetch every component's records; returns the number of files.  See `deploy.backup`."""
    with testbed.locked():
        return deploy.backup(hosts_of(testbed), testbed, target, progress)


def remove_cloud(testbed: Testbed, progress: Progress) -> None:
    """Take the cloud off its hosts, which stay; raises Failed when one can't be reached."""
    with testbed.locked():
        state = testbed.load()
        if state.plan.cloud is None:
            raise Refused(f"'{testbed.name}' has no cloud", "there is nothing to remove")
        hosts = hosts_of(testbed)
        testbed.update(deployed=None)
        deploy.remove(hosts, testbed, progress)
        testbed.update(plan=dataclasses.replace(state.plan, cloud=None))


# ---------------------------------------------------------------- the end


def known_testbeds() -> list[str]:
    """Names of all testbeds that have a state, or left anything on this machine.

    In the order in which they can be destroyed.
    """
    found = set(testbeds())
    if os.geteuid() == 0:
        found |= local.leftovers()

    def is_local(name: str) -> bool:
        state = _state_or_none(Testbed(name))
        return state is None or state.plan.provider == "local"

    # Others may stand on emulated hosts: they go first where all are destroyed.
    return sorted(found, key=lambda name: (is_local(name), name))


def sweep() -> None:
    """After the last testbed of this machine: remove what belongs to none."""
    if os.geteuid() == 0:
        local.sweep()


def tear_down(testbed: Testbed, forget: bool = False) -> None:
    """Remove the testbed and all its traces, whatever state it is in.

    Links on hosts that stay (static ones) are reset first; `forget` goes on when those
    can't be reached, which raises Failed otherwise.
    """
    if testbed.name not in known_testbeds():
        known = ", ".join(known_testbeds()) or "none"
        raise Refused(f"no testbed '{testbed.name}'", f"there is: {known}")
    with testbed.locked():
        _release(testbed, forget)


def _release(testbed: Testbed, forget: bool = False) -> None:
    state = _state_or_none(testbed)
    if state is not None:
        if state.plan.provider == "static" and state.wan is not None:
            try:
                hosts = static.hosts(state.plan, testbed)
                network.wan_of(hosts).reset()
                if state.plan.cloud is not None:
                    deploy.remove(hosts, testbed, lambda _stage, _done, _total: None)
            except Failed as error:
                if not forget:
                    raise Failed(
                        error.message,
                        "links and services on them may stay; "
                        "--forget removes the testbed all the same",
                    ) from None
        if state.plan.provider == "local" and os.geteuid() != 0:
            if state.image is None:  # it was refused before anything was made
                testbed.remove()
                return
            raise Refused("emulated hosts need root", "run it as root, e.g. with sudo")
        testbed.save(dataclasses.replace(state, phase="releasing"))
        if state.plan.provider != "local":
            testbed.remove()
            return
    local.release(testbed)


def _state_or_none(testbed: Testbed) -> State | None:
    """The state, or None where it is missing or damaged: then every trace is looked for."""
    try:
        return testbed.load()
    except Refused:
        return None
