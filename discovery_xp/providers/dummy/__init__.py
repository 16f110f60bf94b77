"""No hosts at all: everything that hosts would say is canned.

All the commands run on it whole, in a second or two, without root, hosts or network: their tests
use it, and whoever wants to see what they do.  Nothing that it says was measured; runs of it say
so wherever they are shown.  The topology's `faults` have something go wrong on the way.
docs/dummy.md tells more.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json

from discovery_xp.errors import Failed, Refused
from discovery_xp.files import write_atomically
from discovery_xp.inputs.platforms import DummyProvider
from discovery_xp.inputs.topology import SshHost
from discovery_xp.onhost.catalogue import SSH_PORT
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.shares import shares_of
from discovery_xp.providers.contract import Provider
from discovery_xp.providers.dummy.transport import CannedTransport
from discovery_xp.providers.dummy.wan import CannedWan
from discovery_xp.providers.kinds import CANNED_RECORD
from discovery_xp.testbeds.hosts import Hosts, HostStatus, Progress, hosts_at
from discovery_xp.testbeds.shares import HeldShare
from discovery_xp.testbeds.testbed import Testbed

# For benchmarks of networks (RFC 2544): no host anywhere has such an address.
NETWORK = ipaddress.IPv4Network("198.18.0.0/15")


class CannedHosts(Provider):
    """A lender of hosts that aren't there."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Note that the hosts are lent; raises what the topology's faults ask for."""
        if "refused" in faults_of(plan):
            raise Refused("the dummy refuses to lend hosts", "leave 'refused' out of its faults")
        progress("making up hosts", 0, len(plan.hosts))
        record = json.dumps([host.name for host in plan.hosts])
        write_atomically(testbed.folder / CANNED_RECORD, record + "\n")
        if "lost" in faults_of(plan):
            raise Failed(
                f"{plan.hosts[-1].name} doesn't answer", "leave 'lost' out of the dummy's faults"
            )
        testbed.write_ssh_config(_ssh_hosts(plan), check_keys="yes")
        progress("making up hosts", len(plan.hosts), len(plan.hosts))
        return self.hosts(plan, testbed)

    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """Return hosts that are reached by canned answers."""
        faults = faults_of(plan)
        wan = CannedWan(testbed, faults)
        return dataclasses.replace(
            hosts_at(plan, _ssh_hosts(plan), testbed.ssh_config),
            wan=wan, is_prepared=True, is_guarded=True, transport=CannedTransport(wan, faults),
        )  # fmt: skip

    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """Say that every host is well once it is lent."""
        is_lent = self.is_lent(testbed)
        return [HostStatus(host.name, is_lent, is_lent, None) for host in plan.hosts]

    def held_shares(self, plan: Plan, testbed: Testbed) -> list[HeldShare]:
        """Say that all shares are held; with the fault 'shares' the first one is larger."""
        held = [
            HeldShare(share.host, unit, cores)
            for share in shares_of(plan)
            for unit, cores in (("", share.cores), *share.units.items())
        ]
        if held and "shares" in faults_of(plan):
            held[0] = dataclasses.replace(held[0], cores=2 * held[0].cores)
        return held

    def remarks(self, testbed: Testbed) -> list[str]:
        """Say that there is nothing."""
        return ["there are no hosts: everything that they say is canned"]

    def is_lent(self, testbed: Testbed) -> bool:
        """Return True from the first `acquire` to the `release`."""
        return (testbed.folder / CANNED_RECORD).exists()

    def release(self, plan: Plan | None, testbed: Testbed) -> None:
        """Forget that the hosts are lent."""
        if plan is not None and "release" in faults_of(plan):
            raise Failed(
                "the dummy doesn't take its hosts back", "leave 'release' out of its faults"
            )
        (testbed.folder / CANNED_RECORD).unlink(missing_ok=True)


def faults_of(plan: Plan) -> tuple[str, ...]:
    """Return what is to go wrong."""
    assert isinstance(plan.platform, DummyProvider)
    return plan.platform.faults


def _ssh_hosts(plan: Plan) -> dict[str, SshHost]:
    return {
        host.name: SshHost(str(NETWORK[number]), "root", SSH_PORT, None)
        for number, host in enumerate(plan.hosts, start=1)
    }
