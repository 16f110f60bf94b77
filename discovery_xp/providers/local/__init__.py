"""Emulated hosts on one machine: system containers in network namespaces.

`acquire` makes or repairs a testbed, `release` removes every trace of it, whatever
state it is in.  Ending one needs neither EnOSlib nor Ansible: nothing here loads them but
what talks to hosts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.files import write_atomically
from discovery_xp.inputs.topology import SshHost
from discovery_xp.onhost.catalogue import SSH_PORT
from discovery_xp.places import home
from discovery_xp.planning.plan import Plan, PlannedHost
from discovery_xp.planning.shares import shares_of
from discovery_xp.providers.contract import Provider
from discovery_xp.providers.local import (
    cgroups,
    claims,
    containers,
    disks,
    fabric,
    image,
    machine,
    merging,
    shares,
)
from discovery_xp.providers.local.recipes import recipe_of
from discovery_xp.providers.local.vde import VdeWan
from discovery_xp.testbeds.hosts import (
    Hosts,
    HostStatus,
    PageMerging,
    Progress,
    Usage,
    to_roles_and_networks,
)
from discovery_xp.testbeds.shares import HeldShare
from discovery_xp.testbeds.testbed import Testbed, testbeds


def choose_wan(plan: Plan) -> str:
    """'netem' or 'vde': what the topology wants, or what this kernel has.

    Raises Refused when the topology wants tc netem and the kernel has none.
    """
    if plan.wan == "vde":
        return "vde"
    if machine.kernel_has_netem():
        return "netem"
    if plan.wan == "netem":
        raise Refused("this kernel has no sch_netem", "write 'wan: auto' or 'wan: vde'")
    return "vde"


def acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """Make the hosts of `plan`, or repair them; they answer over ssh then.

    Raises Refused before anything is started, Failed when something didn't start.
    """
    machine.check(plan, hosts_to_start=0, image_is_cached=True)  # rights and tools first
    claims.claim(testbed)
    running = [host for host in plan.hosts if containers.is_running(testbed, host)]
    whole = fabric.is_whole(plan)
    recipe = recipe_of(plan)
    state = testbed.load()
    fit = image.serves(state.image, recipe)
    machine.check(
        plan,
        hosts_to_start=len(plan.hosts) - (len(running) if whole and fit else 0),
        image_is_cached=fit or image.is_cached(recipe),
    )
    machine.check_addresses(plan, fabric.machine_device(plan.name))
    _raise_limits(plan)

    # Once chosen it stays: what was imposed one way can only be changed the same way.
    wan = state.wan or choose_wan(plan)
    if not fit:
        key = image.ensure(testbed, recipe, progress)
        if state.image is not None:
            # What the hosts wrote belongs to the tree that they stood on.
            cgroups.kill(testbed.name)
            for host in plan.hosts:
                containers.wipe(testbed, host)
        testbed.update(image=key)
    if not whole:
        progress("network namespaces", 0, 0)
        cgroups.kill(testbed.name)  # whatever runs stands on a network that goes away
        fabric.build(plan)
    fabric.guard(plan, state.exposed)
    _write_ssh_files(plan, testbed)
    _boot_missing(plan, testbed, progress)
    testbed.update(wan=wan)
    return hosts(plan, testbed)


def _raise_limits(plan: Plan) -> None:
    """For this testbed and all the others on this machine together."""
    in_all, neighbours = len(plan.hosts), _neighbours(plan)
    for name in testbeds():
        if name != plan.name:
            with contextlib.suppress(Refused):  # a damaged state counts nothing
                other = Testbed(name).load().plan
                in_all += len(other.hosts)
                neighbours += _neighbours(other)
    machine.raise_limits(in_all, neighbours)


def _neighbours(plan: Plan) -> int:
    """How many entries the neighbour table needs at most: hosts see their own site."""
    return sum(len(plan.hosts_of(site.name)) ** 2 + 2 for site in plan.sites)


def _boot_missing(plan: Plan, testbed: Testbed, progress: Progress) -> None:
    up = _answering([host for host in plan.hosts if containers.is_running(testbed, host)])
    missing = [host for host in plan.hosts if host.name not in up]
    if not missing:
        return
    label = "booting hosts"
    progress(label, 0, len(missing))

    def prepare(host: PlannedHost) -> None:
        if cgroups.exists(testbed.name, containers.group(host.name)):
            containers.stop(testbed, host)
        containers.prepare(testbed, plan, host)

    fabric.in_parallel(prepare, missing)
    image_key = testbed.load().image
    if image_key is None:
        raise Failed("the root tree is unknown", "run 'up' again")
    merge = containers.merges(plan)
    if merge:
        merging.prepare()
    if plan.time_scale != 1:  # shares are held of services alone, see `shares`
        missing = [
            dataclasses.replace(host, limit=dataclasses.replace(host.limit, cpus=None))
            for host in missing
        ]
    containers.boot(
        testbed, missing, image_key, lambda done: progress(label, done, len(missing)), merge
    )


def _ssh_hosts(plan: Plan, testbed: Testbed) -> dict[str, SshHost]:
    key = str(testbed.folder / "login_key")
    return {host.name: SshHost(host.address or "", "root", SSH_PORT, key) for host in plan.hosts}


def hosts(plan: Plan, testbed: Testbed) -> Hosts:
    """The hosts of a testbed that was acquired, without touching them."""
    roles, networks = to_roles_and_networks(plan, _ssh_hosts(plan, testbed), testbed.ssh_config)
    wan = VdeWan(plan) if testbed.load().wan == "vde" else None
    return Hosts(plan, roles, networks, wan, is_prepared=True, is_guarded=True)


def _write_ssh_files(plan: Plan, testbed: Testbed) -> None:
    containers.make_keys(testbed)
    public = (testbed.folder / "host_key.pub").read_text().split()
    lines = "".join(f"{host.name},{host.address} {public[0]} {public[1]}\n" for host in plan.hosts)
    write_atomically(testbed.known_hosts, lines)
    testbed.write_ssh_config(_ssh_hosts(plan, testbed), check_keys="yes")


def status(plan: Plan, testbed: Testbed) -> list[HostStatus]:
    """How every host of the plan is, in the plan's order."""
    running = {host.name for host in plan.hosts if containers.is_running(testbed, host)}
    greeted = _answering([host for host in plan.hosts if host.name in running])
    return [
        HostStatus(
            host.name,
            host.name in running,
            host.name in greeted,
            cgroups.memory_bytes(testbed.name, containers.group(host.name))
            if host.name in running
            else None,
            _usage(testbed, host, host.name in running),
        )
        for host in plan.hosts
    ]


def _answering(hosts: Sequence[PlannedHost]) -> set[str]:
    from discovery_xp.testbeds.remote import answering  # it loads Ansible

    return answering(hosts)


def _usage(testbed: Testbed, host: PlannedHost, is_running: bool) -> tuple[Usage, ...]:
    """What a host uses of its disk; of its memory and processes while it runs."""
    init = containers.init_of(testbed, host) if is_running else None
    disk = disks.usage_bytes(containers.disk(testbed, host.name), init)
    usages = [] if disk is None else [Usage("disk", *disk)]
    group = containers.group(host.name)
    bounds = cgroups.bounds(testbed.name, group)
    if not is_running or bounds is None:
        return tuple(usages)
    refusals = cgroups.times_at_bound(testbed.name, group)
    for quota, used, limit in (
        ("memory", cgroups.memory_bytes(testbed.name, group), bounds.memory_bytes),
        ("processes", cgroups.process_count(testbed.name, group), bounds.processes),
    ):
        if used is not None:
            usages.append(Usage(quota, used, limit, refusals[quota]))
    return tuple(usages)


def page_merging(plan: Plan, testbed: Testbed) -> PageMerging:
    """Return whether equal pages of the hosts' memory are merged, and what comes of it."""
    obstacle = merging.obstacle() if plan.merge_memory else "'merge_memory' is false"
    used = [cgroups.memory_bytes(testbed.name, containers.group(host.name)) for host in plan.hosts]
    counted = [each for each in used if each is not None]
    return PageMerging(
        is_on=obstacle is None,
        reason=obstacle,
        hosts_memory_bytes=sum(counted) if counted else None,
        saved_bytes=merging.saved_bytes(),
        ksmd_cpu_s=merging.ksmd_cpu_s(),
    )


def broken_links(plan: Plan, testbed: Testbed) -> list[str]:
    """Pairs of sites whose emulated link died."""
    return VdeWan(plan).broken() if testbed.load().wan == "vde" else []


def release(testbed: Testbed) -> None:
    """Remove the testbed's processes, namespaces, interfaces, groups and files.

    What another home has on this machine under the same name stays.
    """
    if claims.holder(testbed.name, testbed.home) is None:
        cgroups.kill(testbed.name)
        fabric.remove(testbed.name)
        testbed.remove()
        claims.remove(testbed.name)
    else:
        testbed.remove()
    sweep()


def sweep() -> None:
    """When no testbed is left: remove what belongs to none, put kernel limits back.

    Another home may begin with one at the same time: it waits, then makes its own.  ksmd's
    settings are put back when none is left whose memory is merged.
    """
    with claims.held():
        left = homes()
        if not any(_may_merge(name, place) for name, place in left.items()):
            merging.restore()
        if not left:
            fabric.remove_stray_devices()
            image.clean()
            machine.restore_limits()


def _may_merge(name: str, place: Path) -> bool:
    """Say whether the memory of the hosts of a testbed of a home may be merged."""
    try:
        return Testbed(name, place).load().plan.merge_memory
    except UserError:  # its state is damaged, or lost
        return True


def leftovers() -> set[str]:
    """Names of all testbeds that have anything on this machine, with or without a state."""
    return {*testbeds(), *cgroups.testbeds(), *fabric.testbeds(), *claims.names()}


def homes() -> dict[str, Path]:
    """The home of each of them: another one where it has the testbed, else this one."""
    own = set(testbeds())
    return {name: home() if name in own else claims.holder(name) or home() for name in leftovers()}


def _groups(plan: Plan) -> dict[str, str]:
    return {host.name: containers.group(host.name) for host in plan.hosts}


def _run_each(plan: Plan, testbed: Testbed, commands: Mapping[str, str]) -> None:
    from discovery_xp.testbeds.remote import run_each  # it loads Ansible

    run_each(hosts(plan, testbed), commands)


class EmulatedHosts(Provider):
    """Emulated hosts on this machine, which only root makes and removes."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Make the hosts of `plan`, or repair them; they answer over ssh then."""
        return acquire(plan, testbed, progress)

    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """Return the hosts of a testbed that was acquired, without touching them."""
        return hosts(plan, testbed)

    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """Say how every host of the plan is, in the plan's order."""
        return status(plan, testbed)

    def broken_links(self, plan: Plan, testbed: Testbed) -> list[str]:
        """Name the pairs of sites whose emulated link died."""
        return broken_links(plan, testbed)

    def page_merging(self, plan: Plan, testbed: Testbed) -> PageMerging:
        """Return whether equal pages of the hosts' memory are merged, and what comes of it."""
        return page_merging(plan, testbed)

    def slow_merging(self, plan: Plan, testbed: Testbed) -> None:
        """Have the merging of pages take next to nothing of the processors: a load is measured."""
        if plan.merge_memory:
            merging.slow_down()

    def resume_merging(self, plan: Plan, testbed: Testbed) -> None:
        """Merge pages as before."""
        if plan.merge_memory:
            merging.speed_up()

    def impose_shares(self, plan: Plan, testbed: Testbed) -> None:
        """Hold the plan's shares of the processor, of processes that were started since, too."""
        shares.impose(
            testbed.name, _groups(plan), shares_of(plan), plan.time_scale,
            lambda commands: _run_each(plan, testbed, commands),
        )  # fmt: skip

    def keep_shares(self, plan: Plan, testbed: Testbed) -> None:
        """Hold what was started since; with control groups version 2 each host's systemd does."""
        if not shares.is_version_2():
            self.impose_shares(plan, testbed)

    def held_shares(self, plan: Plan, testbed: Testbed) -> list[HeldShare]:
        """Read back what is held of the plan's shares."""
        return shares.held(testbed.name, _groups(plan), shares_of(plan), plan.time_scale)

    def lift_shares(self, plan: Plan, testbed: Testbed) -> None:
        """Hold nothing, until shares are imposed again."""
        shares.lift(
            testbed.name, _groups(plan), shares_of(plan),
            lambda commands: _run_each(plan, testbed, commands),
        )  # fmt: skip

    def release(self, plan: Plan | None, testbed: Testbed) -> None:
        """Remove the testbed's processes, namespaces, interfaces, groups and files."""
        release(testbed)

    def sweep(self) -> None:
        """When no testbed is left, remove what belongs to none and put kernel limits back."""
        sweep()

    def homes(self) -> dict[str, Path]:
        """Return the home of each testbed that has anything on this machine, by name."""
        return homes()
