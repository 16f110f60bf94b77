"""Nodes of Grid'5000: reserved, deployed, given back.

`acquire`, in order; each step is in the testbed's record before the next one begins:

1. is there a login, a key, does the jump host let us in;
2. go on with the jobs in the record, or with those that a killed run submitted, or submit;
3. wait until they run;
4. deploy the image, wait for ssh, learn the addresses (EnOSlib);
5. decide which node plays which host, spares in place of those that didn't come up.

Giving back needs python-grid5000 alone: what loads EnOSlib, and so Ansible, which wants space
on the disk, is imported by what makes and reaches nodes.

`release` ends the jobs, by number and by name, whatever a killed run left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.platforms import G5kProvider
from discovery_xp.inputs.topology import SshHost
from discovery_xp.onhost.catalogue import SSH_PORT
from discovery_xp.planning import oar
from discovery_xp.planning.oar import Request
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.plan_checks import needed_s
from discovery_xp.providers.contract import FreeSlot, Provider
from discovery_xp.providers.grid5000 import api, jobs, record, slots
from discovery_xp.providers.grid5000.record import Record
from discovery_xp.testbeds.hosts import Hosts, HostStatus, Progress, hosts_at
from discovery_xp.testbeds.testbed import Testbed, testbeds

# How often a date is tried that OAR finds taken meanwhile.
ATTEMPTS = 5
# A node that boots, or is slow for a moment, isn't lost.
SILENT_S = 60


def acquire(plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
    """See the module's docstring; raises Refused before a job is submitted, Failed after."""
    from discovery_xp.providers.grid5000 import nodes

    provider = _provider(plan)
    nodes.require_plain(plan, provider)
    api.require_login()
    nodes.public_key(provider)
    jump = api.jump_host(provider.access.jump_host)
    config = nodes.write_ssh_config(testbed, provider, jump)
    if jump:
        progress("reaching the jump host", 0, 0)
        nodes.require_way_through(jump, config)
    with api.plainly():
        saved = record.load(testbed)
        if not saved.jobs:
            saved = _adopt(plan, testbed, saved)
    if not saved.jobs:
        saved = _submit(plan, provider, testbed, progress)
    with api.plainly(started=True):
        running = jobs.wait_until_running(saved.jobs, _waiting(progress))
        _require_time(plan, running)
        saved = record.save(testbed, dataclasses.replace(saved, jump_host=jump))
        if saved.nodes:
            return _repair(plan, provider, testbed, saved, progress)
        deployed = nodes.deploy(plan, provider, testbed, saved.jobs, config, progress)
    saved = record.save(testbed, dataclasses.replace(saved, lost=deployed.lost))
    bound, spares = nodes.bind(plan, provider, deployed)
    record.save(testbed, dataclasses.replace(saved, nodes=bound, spares=spares))
    return _reached(plan, testbed)


def _provider(plan: Plan) -> G5kProvider:
    assert isinstance(plan.platform, G5kProvider)
    return plan.platform


# ---------------------------------------------------------------- jobs


def _adopt(plan: Plan, testbed: Testbed, saved: Record) -> Record:
    """Go on with the jobs that a killed run submitted; raises Refused for any others.

    A job of the testbed's name may be another machine's: it isn't ours to take.
    """
    active = jobs.active([request.site for request in plan.requests], plan.name)
    if not active:
        return saved
    name = oar.job_name(plan.name)
    remedy = f"end them with 'discovery-xp destroy --testbed {plan.name}', or give another --name"
    by_site: dict[str, list[jobs.Job]] = {}
    for job in active:
        by_site.setdefault(job.site, []).append(job)
    for site, several in by_site.items():
        if len(several) > 1:
            numbers = " and ".join(str(job.uid) for job in several[:2])
            raise Refused(f"{site} has {len(several)} jobs called '{name}': {numbers}", remedy)
    first = active[0]
    if not saved.is_submitting:
        raise Refused(
            f"{first.site} has a job called '{name}' ({first.uid}) that no testbed here knows",
            remedy,
        )
    missing = [request.site for request in plan.requests if request.site not in by_site]
    if missing:
        raise Refused(
            f"{first.site} has a job called '{name}' ({first.uid}), {missing[0]} has none", remedy
        )
    refs = tuple((request.site, by_site[request.site][0].uid) for request in plan.requests)
    return record.save(testbed, dataclasses.replace(saved, jobs=refs, is_submitting=False))


def _submit(plan: Plan, provider: G5kProvider, testbed: Testbed, progress: Progress) -> Record:
    """Submit the plan's requests; on several sites for one common start.

    Raises Refused with nothing left behind when OAR doesn't take them.
    """
    requests: Sequence[Request] = plan.requests
    start = oar.start_of(provider.job)
    if start is not None and start < time.time():
        raise Refused(
            f"the reservation's start, {provider.job.reservation} in Paris, is over",
            "write a later one, or leave 'reservation' out",
        )
    after = 0.0
    for attempt in range(1, ATTEMPTS + 1):
        if start is None and len(requests) > 1:
            progress("looking for a slot that all sites have", 0, 0)
            with api.plainly():
                slot = slots.first(plan.requests, provider, after)
            if slot is None:
                raise Refused(
                    f"no slot of {provider.job.walltime} on "
                    f"{' and '.join(request.site for request in requests)} within four weeks",
                    "ask for less, or for other clusters",
                )
            requests, after = [oar.at(request, slot) for request in plan.requests], slot + 60
        progress("reserving nodes", 0, 0)
        record.save(testbed, Record(is_submitting=True))
        try:
            with api.plainly():
                refs = jobs.submit(requests, plan.name)
        except jobs.Taken as taken:
            record.save(testbed, Record())
            # Somebody may have been quicker: then there is another first slot.
            if start is not None or len(requests) == 1 or attempt == ATTEMPTS:
                raise
            after = max(after, taken.could_run_at or 0.0)
            continue
        except Refused:  # after Failed there may be jobs: the record goes on saying so
            record.save(testbed, Record())
            raise
        return record.save(testbed, Record(jobs=tuple(refs)))
    raise AssertionError("the last attempt returns or raises")


def _waiting(progress: Progress) -> Callable[[Sequence[jobs.Job]], None]:
    def tell(reserved: Sequence[jobs.Job]) -> None:
        expected = [job.scheduled_at for job in reserved if job.scheduled_at]
        running = sum(job.state == "running" for job in reserved)
        when = f" (expected at {jobs.date(max(expected))})" if expected else ""
        progress(f"waiting for the nodes{when}", running, len(reserved))

    return tell


def _require_time(plan: Plan, running: Sequence[jobs.Job]) -> None:
    """A job that is found again may be near its end."""
    needed = needed_s(plan.cloud is not None)
    for job in running:
        left = (job.ends_at or 0.0) - time.time()
        if 0 < left < needed / 2:
            raise Failed(
                f"job {job.uid} on {job.site} ends in {left / 60:.0f} minutes, too soon for this",
                f"'discovery-xp destroy --testbed {plan.name}', then deploy again",
            )


# ---------------------------------------------------------------- nodes


def _repair(
    plan: Plan, provider: G5kProvider, testbed: Testbed, saved: Record, progress: Progress
) -> Hosts:
    """The nodes of an earlier run, spares in place of those that don't answer any more."""
    from discovery_xp.providers.grid5000 import nodes
    from discovery_xp.testbeds.remote import answering

    reached = hosts(plan, testbed)
    progress("reaching nodes", 0, len(plan.hosts))
    latest = time.monotonic() + SILENT_S
    while True:
        there = answering(reached.plan.hosts, testbed.ssh_config)
        silent = [host.name for host in plan.hosts if host.name not in there]
        if not silent or time.monotonic() > latest:
            break
        progress("reaching nodes", len(there), len(plan.hosts))
        time.sleep(5)
    if len(silent) == len(plan.hosts):
        raise Failed(
            "none of the nodes answers",
            f"see 'discovery-xp status --testbed {plan.name}', and the way to them",
        )
    if silent:
        bound, spares = nodes.replace(plan, provider, saved.nodes, saved.spares, silent)
        lost = (*saved.lost, *(saved.nodes[name].fqdn for name in silent))
        record.save(testbed, dataclasses.replace(saved, nodes=bound, spares=spares, lost=lost))
    progress("reaching nodes", len(plan.hosts), len(plan.hosts))
    return _reached(plan, testbed)


def _reached(plan: Plan, testbed: Testbed) -> Hosts:
    # A node's first key is believed: it was made when the image was deployed.
    testbed.write_ssh_config(_ssh_hosts(plan, testbed), check_keys="accept-new")
    return hosts(plan, testbed)


def _ssh_hosts(plan: Plan, testbed: Testbed) -> dict[str, SshHost]:
    saved, access = record.load(testbed), _provider(plan).access
    return {
        name: SshHost(node.address, "root", SSH_PORT, access.key, saved.jump_host)
        for name, node in saved.nodes.items()
    }


def hosts(plan: Plan, testbed: Testbed) -> Hosts:
    """The hosts of a testbed that was acquired, without touching them."""
    return hosts_at(plan, _ssh_hosts(plan, testbed), testbed.ssh_config)


# ---------------------------------------------------------------- how it is, how it ends


def status(plan: Plan, testbed: Testbed) -> list[HostStatus]:
    """How every host of the plan is; a host that greets us is running."""
    from discovery_xp.testbeds.remote import answering

    if not record.load(testbed).nodes:
        return [HostStatus(host.name, False, False, None) for host in plan.hosts]
    there = answering(hosts(plan, testbed).plan.hosts, testbed.ssh_config)
    return [
        HostStatus(host.name, host.name in there, host.name in there, None) for host in plan.hosts
    ]


def remarks(testbed: Testbed) -> list[str]:
    """The testbed's jobs and their cost, the nodes that were lost: a line for each."""
    saved, now = record.load(testbed), time.time()
    lines = []
    try:
        with api.plainly():
            lines = [jobs.look(site, uid).in_words(now) for site, uid in saved.jobs]
    except Refused as error:
        lines = [f"job {uid} on {site}: unknown, as {error.message}" for site, uid in saved.jobs]
    lines += [f"{fqdn} didn't come up, or doesn't answer any more" for fqdn in saved.lost]
    return lines


def is_lent(testbed: Testbed) -> bool:
    """True when the testbed has jobs, as far as its record knows."""
    try:
        saved = record.load(testbed)
    except Refused:  # it is damaged: who knows
        return True
    return bool(saved.jobs) or saved.is_submitting


def time_left_s(testbed: Testbed) -> float | None:
    """How long the testbed's nodes stay, None where that isn't known."""
    try:
        with api.plainly():
            reserved = [jobs.look(site, uid) for site, uid in record.load(testbed).jobs]
    except Refused:
        return None
    ends = [job.ends_at for job in reserved if job.ends_at is not None]
    return min(ends) - time.time() if ends else None


def why_over(testbed: Testbed) -> str | None:
    """Why the nodes are gone, where the platform took them; None where they should be there."""
    try:
        with api.plainly():
            reserved = [jobs.look(site, uid) for site, uid in record.load(testbed).jobs]
    except Refused:
        return None
    over = [job for job in reserved if job.is_over]
    if not over:
        return None
    job = over[0]
    ended = f" at {jobs.date(job.ended_at)}" if job.ended_at else ""
    if job.state == jobs.FORGOTTEN:
        return f"the platform knows no job {job.uid} on {job.site} any more"
    if job.state == "terminated":
        return f"job {job.uid} on {job.site} came to its end{ended}"
    return f"the platform ended job {job.uid} on {job.site}{ended} (state {job.state})"


def release(plan: Plan | None, testbed: Testbed) -> None:
    """End all jobs of the testbed; raises Failed when that can't be seen to have happened.

    `plan` None: its state is lost, so all sites are asked for jobs of its name.
    """
    try:
        saved = record.load(testbed)
    except Refused:
        saved = Record(is_submitting=True)
    with api.plainly(started=True):
        try:
            jobs.end(saved.jobs)  # what is known goes first, whatever can't be asked
        finally:
            if plan is None:
                end_forgotten(testbed.name)
            else:
                sites = [request.site for request in plan.requests]
                named = jobs.active(sites, testbed.name)
                jobs.end((job.site, job.uid) for job in named)
                # A run that was interrupted while it submitted may have jobs that come late.
                if saved.is_submitting and not named:
                    jobs.end_late_ones(sites, testbed.name)


def slots_for(plan: Plan, most: int, by_night: bool) -> list[slots.Slot]:
    """When the plan's requests would fit, the first `most`; nothing is reserved."""
    api.require_login()
    with api.plainly():
        return slots.find(plan.requests, _provider(plan), most, by_night)


# ---------------------------------------------------------------- jobs without a testbed


def forgotten() -> tuple[list[jobs.Job], list[str]]:
    """Jobs with our names that no testbed here knows, and sites that can't be asked."""
    if not api.is_configured():
        return [], []
    recorded: set[tuple[str, int]] = set()
    for name in testbeds():
        with contextlib.suppress(Refused):
            recorded |= set(record.load(Testbed(name)).jobs)
    with api.plainly():
        ours, silent = jobs.all_of_ours()
    return [job for job in ours if (job.site, job.uid) not in recorded], silent


def end_forgotten(testbed: str) -> int:
    """End the jobs that are called like a testbed; returns their number.

    Raises Failed where a site can't be asked for them.
    """
    if not api.is_configured():
        return 0
    with api.plainly():
        strays, silent = jobs.all_of_ours()
    ours = [job for job in strays if job.testbed == testbed]
    with api.plainly(started=True):
        jobs.end((job.site, job.uid) for job in ours)
    if silent and not ours:
        raise Failed(f"{', '.join(silent)} can't be asked for jobs", "try again later")
    return len(ours)


def lines_on_forgotten() -> list[str]:
    """Say, in a line each, which jobs no testbed here knows; raises Refused."""
    now = time.time()
    ours, silent = forgotten()
    lines = [
        f"{job.in_words(now)}; 'discovery-xp destroy --testbed {job.testbed}' ends it"
        for job in ours
    ]
    return lines + [f"{site} can't be asked for its jobs" for site in silent]


class Grid5000Nodes(Provider):
    """Nodes of Grid'5000, which end with their jobs."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Reserve and deploy the nodes, or go on with those there are; see the module."""
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

    def why_over(self, testbed: Testbed) -> str | None:
        """Say why the nodes are gone where the platform took them, None where it didn't."""
        return why_over(testbed)

    def time_left_s(self, testbed: Testbed) -> float | None:
        """Return how long the testbed's nodes stay, None where that isn't known."""
        return time_left_s(testbed)

    def release(self, plan: Plan | None, testbed: Testbed) -> None:
        """End all jobs of the testbed."""
        release(plan, testbed)

    def slots(self, plan: Plan, most: int, by_night: bool) -> list[FreeSlot]:
        """List when the plan's requests would fit, the first `most`; nothing is reserved."""
        job = _provider(plan).job
        return [
            FreeSlot(slot.start, slot.date, slot.free, oar.policy_at(job, slot.start))
            for slot in slots_for(plan, most, by_night)
        ]

    def forgotten(self) -> list[str]:
        """Say, in a line each, which jobs bear our names and belong to no testbed here."""
        return lines_on_forgotten()

    def end_forgotten(self, name: str) -> int:
        """End the jobs that are called like the testbed `name`; returns their number."""
        return end_forgotten(name)
