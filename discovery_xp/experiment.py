"""The life of a testbed and its cloud, in order.

`bring_up` makes the hosts, `deploy_cloud` the cloud on them.  Each step is saved, so that
a killed run can be resumed or destroyed:

1. clear away what is left of hosts that their lender took back;
2. refuse a name that is taken by a testbed with other hosts;
3. save the state, before anything exists that it would have to name;
4. acquire the hosts from the provider, or repair them, until ssh answers on all;
5. write the inventory;
6. `deploy_cloud`: install the services while the links are still quick, or repair them;
7. impose the links between sites, and read them back;
8. measure every pair of sites, and refuse to go on outside the tolerance;
9. `deploy_cloud`, where time is scaled: hold the shares of the processor, and read them back;
10. `deploy_cloud`: boot a VM at each site, through the API that serves it;
    (9 and 10 are left to the load where there is to be one);
11. save the state as 'up'.

What was borrowed is given back when a step fails, unless it is to be kept.  How a testbed
ends is in `ending`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.testbeds import ansible_runs  # noqa: F401 (it comes before EnOSlib)

# isort: split
from discovery_xp import ending, files, probes, providers
from discovery_xp.deployment import deploy, description, status
from discovery_xp.deployment.backup import backup
from discovery_xp.deployment.deploy import Boot, Installed
from discovery_xp.deployment.description import Deployment
from discovery_xp.deployment.play import log_file
from discovery_xp.deployment.status import ServiceStatus
from discovery_xp.errors import Failed, InvalidInput, Refused, UserError
from discovery_xp.inputs.topology import Link
from discovery_xp.planning.plan import Plan, PlannedLink
from discovery_xp.planning.shares import shares_of
from discovery_xp.testbeds import links
from discovery_xp.testbeds.hosts import (
    Hosts,
    HostStatus,
    PageMerging,
    Progress,
    Reading,
    Stopwatch,
    inventory,
)
from discovery_xp.testbeds.pings import PairRtt, require_within_tolerance
from discovery_xp.testbeds.shares import HeldShare, disagreements
from discovery_xp.testbeds.testbed import State, Testbed, now

# What is read back right after it was set may be of before: a service's systemd takes a moment.
SHARE_READINGS = 10
SHARE_READ_EVERY_S = 0.5


@dataclass(frozen=True)
class RunningTestbed:
    """A testbed that is up: its state and the measurement that says so."""

    testbed: Testbed
    state: State
    pairs: list[PairRtt]


@dataclass(frozen=True)
class DeployedCloud:
    """A cloud that boots VMs at every site, and what says so.

    One that is made ready for a load says nothing by `boots`, as the load's warm-up will;
    `probed` are the hosts whose probes were put in with it, `is_disturbed` tells whether services
    were started or changed.
    """

    testbed: Testbed
    state: State
    deployment: Deployment
    pairs: list[PairRtt]
    boots: list[Boot]
    probed: frozenset[str] = frozenset()
    is_disturbed: bool = False


@dataclass(frozen=True)
class ForLoad:
    """A cloud is wanted for a load, which goes on with what `deploy` otherwise does at its end.

    `probes` are put in as services start.  Where `warms_up` is true the load itself boots a VM on
    computes of every site before it begins.  Shares of the processor are left lifted: the
    load has them held when its window opens, and until then takes the time that it takes.
    """

    probes: Collection[str]
    warms_up: bool


def bring_up(
    plan: Plan, progress: Progress, keep: bool = False, expose: bool = False
) -> RunningTestbed:
    """Make or repair the testbed of `plan`; see the module's docstring for the steps.

    Where it fails, nodes that it borrowed are given back, unless `keep`.  With `expose`,
    others than root of this machine reach emulated hosts, too; lent ones stay as they are.
    """
    testbed = Testbed(plan.name)
    with testbed.locked(make=True), _given_back(plan, testbed, keep, progress):
        if not providers.kind(plan.provider).guards:  # `deploy` makes and removes their firewall
            expose = testbed.exists() and testbed.load().exposed
        hosts = _make_hosts(plan, testbed, progress, expose)
        _impose_links(hosts, progress)
        pairs = _measure_within_tolerance(hosts, testbed, progress)
        hold_shares(hosts.plan, testbed, progress)
        return RunningTestbed(testbed, testbed.update(phase="up"), pairs)


def deploy_cloud(
    plan: Plan,
    progress: Progress,
    keep: bool = False,
    expose: bool = False,
    for_load: ForLoad | None = None,
) -> DeployedCloud:
    """Make or repair the hosts and the cloud of `plan`; see the module's docstring.

    Raises Failed when a VM doesn't get ACTIVE at some site.  Where it fails, nodes that it
    borrowed are given back, unless `keep`.  With `expose`, others than root of this machine
    and the hosts themselves reach them, too.  `for_load` says what is left to a load.
    """
    testbed = Testbed(plan.name)
    progress = stopwatch = Stopwatch(progress)
    with testbed.locked(make=True), _given_back(plan, testbed, keep, progress):
        hosts = _make_hosts(plan, testbed, progress, expose)
        lift_shares(hosts.plan, testbed)
        installed = _install_over_quick_links(hosts, testbed, progress, for_load)
        _impose_links_that_differ(hosts, progress)
        pairs = _measure_within_tolerance(hosts, testbed, progress)
        boots: list[Boot] = []
        if for_load is None:
            hold_shares(hosts.plan, testbed, progress)
        if for_load is None or not for_load.warms_up:
            boots = deploy.verify(hosts, testbed, progress)
        deployment = _save_with_stages(installed.deployment, testbed, stopwatch)
        deploy.require_active(boots)
        state = testbed.update(phase="up", deployed=now())
        return DeployedCloud(
            testbed, state, deployment, pairs, boots, installed.probed, installed.is_disturbed
        )


# ---------------------------------------------------------------- the steps


def _make_hosts(plan: Plan, testbed: Testbed, progress: Progress, expose: bool) -> Hosts:
    """Take steps 1 to 5, from whatever state the testbed is in to hosts that answer."""
    _clear_lost_hosts(testbed, progress)
    _require_same_hosts(plan, testbed)
    before = testbed.load() if testbed.exists() else None
    plan = _save_acquiring(plan, testbed, before, expose)
    with _undone_when_refused(plan, testbed, before):
        hosts = _acquire(plan, testbed, progress)
    write_inventory(hosts, testbed)
    return hosts


def _clear_lost_hosts(testbed: Testbed, progress: Progress) -> None:
    """Remove what is left of a testbed whose hosts were taken back by who lent them."""
    if ending.is_over(testbed):
        progress("what is left of lost nodes", 0, 0)
        ending.release(testbed)


def _require_same_hosts(plan: Plan, testbed: Testbed) -> None:
    """Raise Refused for a name that is taken, or half destroyed."""
    if not testbed.exists():
        return
    state = testbed.load()
    if state.phase == "releasing":
        raise Refused(
            f"'{plan.name}' is half destroyed", f"finish with 'destroy --testbed {plan.name}'"
        )
    if state.plan.time_scale != plan.time_scale:
        raise Refused(
            f"the testbed '{plan.name}' runs at a time scale of {state.plan.time_scale:g}, not "
            f"{plan.time_scale:g}",
            f"'discovery-xp destroy --testbed {plan.name}' first, or give a --name",
        )
    if not state.plan.has_hosts_of(plan):
        raise Refused(
            f"a testbed '{plan.name}' with other hosts is there since {state.created}",
            f"'discovery-xp destroy --testbed {plan.name}' first, or give a --name",
        )


def _save_acquiring(plan: Plan, testbed: Testbed, before: State | None, expose: bool) -> Plan:
    """Save the state that names all that is about to be made; returns the plan that holds."""
    if before is None:
        testbed.save(State(plan=plan, phase="acquiring", created=now(), exposed=expose))
        return plan
    if plan.cloud is None:  # `up` repairs hosts; what runs on them stays
        plan = dataclasses.replace(plan, cloud=before.plan.cloud)
    testbed.update(phase="acquiring", plan=plan, changed_links=None, exposed=expose)
    return plan


@contextlib.contextmanager
def _undone_when_refused(plan: Plan, testbed: Testbed, before: State | None) -> Iterator[None]:
    """Leave everything as it was where this is refused, as nothing was started then.

    No testbed stays behind that wasn't there; one that was up is up.
    """
    try:
        yield
    except Refused:
        if before is not None and before.phase == "up":
            testbed.save(before)
        elif testbed.load().image is None and not _is_lent(plan, testbed):
            ending.discard(testbed)
        raise


def _is_lent(plan: Plan, testbed: Testbed) -> bool:
    kind = providers.kind(plan.provider)
    return kind.lends and providers.of(plan.provider).is_lent(testbed)


def _acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """Have the provider make the hosts, and save how their links are imposed."""
    hosts = providers.of(plan.provider).acquire(plan, testbed, progress)
    testbed.update(wan=links.wan_of(hosts).kind)
    return hosts


def write_inventory(hosts: Hosts, testbed: Testbed) -> None:
    """Write Ansible's inventory of the testbed, with roles and sites as groups."""
    files.write_atomically(testbed.inventory, inventory(hosts.roles))


def _install_over_quick_links(
    hosts: Hosts, testbed: Testbed, progress: Progress, for_load: ForLoad | None
) -> Installed:
    """Install the cloud or repair it; the first time without the links of hosts that were up."""
    state = testbed.load()
    if state.deployed is None and state.observed:
        links.wan_of(hosts).reset()
    wanted = for_load.probes if for_load else ()
    told = probes.to_deploy_with(hosts.plan, wanted) if wanted else None
    return deploy.install(hosts, testbed, progress, told)


def _impose_links(hosts: Hosts, progress: Progress) -> None:
    progress("imposing links", 0, 0)
    links.impose(hosts, hosts.plan.links)


def _impose_links_that_differ(hosts: Hosts, progress: Progress) -> None:
    """Impose the links unless they hold: a running cloud must not see them go and come back."""
    if links.disagreements(hosts.plan.links, links.wan_of(hosts).read_back()):
        _impose_links(hosts, progress)


def _measure_within_tolerance(hosts: Hosts, testbed: Testbed, progress: Progress) -> list[PairRtt]:
    progress("measuring round trips", 0, 0)
    pairs = _measure_and_save(hosts, testbed, hosts.plan.links)
    require_within_tolerance(pairs)
    return pairs


def hold_shares(plan: Plan, testbed: Testbed, progress: Progress) -> None:
    """Hold the plan's shares of the processor, where it has some, and read them back.

    Processes that were started since the last time are found again.  Raises Failed where a share
    that is read back isn't the one that was planned.
    """
    planned = shares_of(plan)
    if not planned:
        return
    progress("holding shares of the processor", 0, 0)
    provider = providers.of(plan.provider)
    wrong: list[str] = []
    for _ in range(SHARE_READINGS):
        provider.impose_shares(plan, testbed)
        held = provider.held_shares(plan, testbed)
        wrong = [] if held is None else disagreements(planned, held)
        if not wrong:
            return
        time.sleep(SHARE_READ_EVERY_S)
    raise Failed(
        f"{len(wrong)} shares of the processor aren't held as planned: {'; '.join(wrong[:3])}",
        "see 'discovery-xp status'; leave time_scale out where this kernel can't hold them",
    )


def lift_shares(plan: Plan, testbed: Testbed) -> None:
    """Hold nothing: what is installed or restarted takes what time it takes."""
    if shares_of(plan):
        providers.of(plan.provider).lift_shares(plan, testbed)


def _save_with_stages(deployment: Deployment, testbed: Testbed, stopwatch: Stopwatch) -> Deployment:
    """Save with the deployment how long each stage took; returns it."""
    stopwatch.stop()
    deployment = dataclasses.replace(deployment, stages_s=stopwatch.stages_s)
    description.save(testbed, deployment)
    return deployment


# ---------------------------------------------------------------- where a step fails


@contextlib.contextmanager
def _given_back(plan: Plan, testbed: Testbed, keep: bool, progress: Progress) -> Iterator[None]:
    """Where this fails, give back what was borrowed meanwhile; say why, if it was taken away.

    What an earlier command borrowed, or was told to keep, stays.
    """
    if not providers.kind(plan.provider).lends:
        yield
        return
    had_it = _is_lent(plan, testbed) and not ending.is_over(testbed)
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != process:  # a library's forked helper, which ends when we have
            raise
        reason = ending.explained(testbed, error) if isinstance(error, UserError) else error
        if testbed.exists() and not keep and not had_it:
            with contextlib.suppress(OSError):  # nothing of this is worth a job that runs on
                if not isinstance(error, Refused | InvalidInput):
                    _keep_log(plan)
                progress("giving the nodes back", 0, 0)
            try:
                ending.release(testbed)
            except UserError as second:
                if not isinstance(reason, UserError):
                    raise
                raise Failed(
                    f"{str(reason).splitlines()[0]}; and then: {second.message}", second.remedy
                ) from None
        raise reason from None


def _keep_log(plan: Plan) -> None:
    """Save what Ansible said in the working directory, as the testbed's folder goes."""
    log = log_file(plan.name)
    # In a folder that others may write in: no link is followed.
    if log.exists():
        text = log.read_text(errors="replace")
        files.write_atomically(Path(f"{plan.name}-ansible.log").absolute(), text)


# ---------------------------------------------------------------- a testbed that is there


def hosts_of(testbed: Testbed) -> Hosts:
    """Return a testbed's hosts, without touching them; raises Refused before all were made."""
    state = testbed.load()
    if state.phase == "releasing" or state.wan is None:
        raise Refused(f"'{testbed.name}' is not up ({state.phase})", "run 'discovery-xp up' again")
    return providers.of(state.plan.provider).hosts(state.plan, testbed)


@dataclass(frozen=True)
class Inspection:
    """How a testbed is: its hosts by name, the links that died, its cloud's services.

    `services` is None where no cloud is wanted; `remarks` are lines on what was borrowed.
    `merging` is None where hosts have machines of their own; `shares` of the processor are None
    where none are to be held.
    """

    name: str
    phase: str
    hosts: dict[str, HostStatus]
    broken_links: list[str]
    services: list[ServiceStatus] | None = None
    remarks: list[str] = dataclasses.field(default_factory=list)
    merging: PageMerging | None = None
    shares: list[HeldShare] | None = None

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
    provider = providers.of(state.plan.provider)
    states = {host.name: host for host in provider.status(state.plan, testbed)}
    broken = provider.broken_links(state.plan, testbed)
    services = None
    if description.deployment_file(testbed).exists():
        answering = {host.name for host in states.values() if host.answers}
        services = status.inspect(hosts_of(testbed), answering)
    remarks = provider.remarks(testbed)
    merging = provider.page_merging(state.plan, testbed)
    shares = provider.held_shares(state.plan, testbed) if shares_of(state.plan) else None
    return Inspection(testbed.name, state.phase, states, broken, services, remarks, merging, shares)


# ---------------------------------------------------------------- links of a running testbed


def show_links(testbed: Testbed) -> list[Reading]:
    """What holds now, read back from where it was imposed."""
    return links.wan_of(hosts_of(testbed)).read_back()


def set_links(testbed: Testbed, planned: Sequence[PlannedLink]) -> list[PairRtt]:
    """Impose other links, read them back and measure; the caller judges the round trips."""
    with testbed.locked():
        hosts = hosts_of(testbed)
        # Saved first: what a killed run left half imposed is set right by the next one.
        testbed.update(changed_links=tuple(planned), observed=())
        links.impose(hosts, planned)
        return _measure_and_save(hosts, testbed, planned)


def reset_links(testbed: Testbed) -> None:
    """Remove everything imposed, on all hosts; raises Failed if something stayed."""
    with testbed.locked():
        hosts = hosts_of(testbed)
        plain = [dataclasses.replace(link, link=Link()) for link in hosts.plan.links]
        testbed.update(changed_links=tuple(plain), observed=())
        links.wan_of(hosts).reset()
        links.impose(hosts, plain)


def measure_links(testbed: Testbed) -> list[PairRtt]:
    """Measure every pair of sites and save what was seen; the caller judges."""
    with testbed.locked():
        return _measure_and_save(hosts_of(testbed), testbed, testbed.load().links)


def _measure_and_save(
    hosts: Hosts, testbed: Testbed, planned: Sequence[PlannedLink]
) -> list[PairRtt]:
    pairs = links.measure(hosts, planned)
    testbed.update(observed=tuple(pair.to_json() for pair in pairs))
    return pairs


# ---------------------------------------------------------------- the cloud's records


def backup_cloud(testbed: Testbed, target: Path, progress: Progress) -> int:
    """Fetch every component's records; returns the number of files.  See `backup.backup`."""
    with testbed.locked():
        return backup(hosts_of(testbed), testbed, target, progress)


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
