"""Hosts that exist already: any list of machines that answer over ssh."""

from __future__ import annotations

from discovery_xp.deployment import deploy
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import SshHost
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.contract import Provider
from discovery_xp.testbeds import links
from discovery_xp.testbeds.hosts import Hosts, HostStatus, Progress, to_roles_and_networks
from discovery_xp.testbeds.remote import answering, run_each
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.testbeds.transport import Output


def acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """Reach every host once, as root; raises Failed, naming those that aren't fit."""
    # A host's first key is believed, as there is nothing to compare it with.
    testbed.write_ssh_config(_ssh_hosts(plan), check_keys="accept-new")
    reached = hosts(plan, testbed)
    progress("reaching hosts", 0, len(plan.hosts))
    answers = run_each(reached, {host.name: "id -u; uname -r" for host in plan.hosts})
    unfit = sorted(name for name, answer in answers.items() if not _is_root(answer))
    if unfit:
        raise Failed(
            f"{', '.join(unfit[:5])}: the login isn't root",
            "set 'user: root' for them in the topology",
        )
    progress("reaching hosts", len(answers), len(plan.hosts))
    return reached


def _is_root(answer: Output) -> bool:
    return answer.stdout.split()[:1] == ["0"]


def hosts(plan: Plan, testbed: Testbed) -> Hosts:
    """The hosts of a plan, without touching them."""
    roles, networks = to_roles_and_networks(plan, _ssh_hosts(plan), testbed.ssh_config)
    return Hosts(plan, roles, networks)


def _ssh_hosts(plan: Plan) -> dict[str, SshHost]:
    return {host.name: host.ssh for host in plan.hosts if host.ssh is not None}


def status(plan: Plan, testbed: Testbed) -> list[HostStatus]:
    """How every host of the plan is; a host that greets us is running."""
    greeted = answering(plan.hosts, testbed.ssh_config)
    return [
        HostStatus(host.name, host.name in greeted, host.name in greeted, None)
        for host in plan.hosts
    ]


class StaticHosts(Provider):
    """Hosts that exist already; nothing of ours stays on them."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Reach every host once, as root; raises Failed, naming those that aren't fit."""
        return acquire(plan, testbed, progress)

    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """Return the hosts of a testbed that was acquired, without touching them."""
        return hosts(plan, testbed)

    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """Say how every host of the plan is, in the plan's order."""
        return status(plan, testbed)

    def clear(self, plan: Plan, testbed: Testbed) -> None:
        """Reset the links and take the cloud off the hosts."""
        reached = hosts(plan, testbed)
        links.wan_of(reached).reset()
        if plan.cloud is not None:
            deploy.remove(reached, testbed, lambda _stage, _done, _total: None)
