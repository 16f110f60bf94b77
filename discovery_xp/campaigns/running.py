"""The runs of a campaign, made one after the other until none is left.

1. keep the campaign's file in its folder, and refuse what is known to be impossible;
2. hold a testbed's name; emulated hosts are for one campaign at a time, as they share a machine;
3. destroy the testbed of that name, which a killed run has left in a state that nobody knows;
4. take the first run that is left and that no other process makes;
5. keep its cloud for the next run where the two may share it, else destroy it;
6. note an attempt that failed, and try again until there were enough; where the disk is full no
   attempt was at fault: the campaign ends, and goes on once there is room;
7. go on with 4, until nothing is left or the time is up.

An interruption ends the campaign and destroys the testbed; what is done stays done.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from discovery_xp import ending, files, providers
from discovery_xp.bench_request import BenchRequest
from discovery_xp.boundary.names import TestbedName
from discovery_xp.campaigns.forecast import Forecast, forecast
from discovery_xp.campaigns.ledger import Claim, Entry, Failure, Ledger
from discovery_xp.campaigns.requests import check_all, plan_of, request_of
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.planning.plan import Plan
from discovery_xp.store import Run
from discovery_xp.testbeds.testbed import Testbed, now

MOST_OF_REASON = 400  # characters
MOST_TESTBEDS = 99  # of one campaign, side by side
LEAST_FREE_BYTES = 64 * 2**20  # below it a disk counts as full
# No file: it goes with the process that holds it, however that ends.
_ONE_AT_A_TIME = "\0discovery-xp-campaign"

MakeRun: TypeAlias = Callable[[Plan, BenchRequest], Run]


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: its run, if it came to one, and why it failed, if it did."""

    entry: Entry
    run: Run | None
    failure: Failure | None


def run_all(
    ledger: Ledger,
    make_run: MakeRun,
    begins: Callable[[Entry, Forecast], None] = lambda _entry, _forecast: None,
    within_s: float | None = None,
) -> Iterator[Outcome]:
    """Make the runs that are left, and yield what became of each.

    `begins` is told of a run before it is made, and what is left then.  With `within_s`, a run
    that wouldn't end within so many seconds isn't begun.  Raises Refused before anything is done
    where a run can't be made, or another campaign uses this machine.
    """
    campaign = ledger.campaign
    latest = None if within_s is None else time.monotonic() + within_s
    check_all(campaign, [entry.job for entry in ledger.refresh().of("left")], ledger.folder)
    ledger.begin()
    with _one_testbed(ledger) as name:
        testbed = Testbed(name)
        before: Entry | None = None
        while (found := _take(ledger)) is not None:
            entry, claim = found
            with claim:
                rest = forecast(ledger)
                if (
                    latest is not None
                    and time.monotonic() + rest.needs[entry.job.key].seconds > latest
                ):
                    return
                _require_room(ledger.folder, rest.needs[entry.job.key].disk_bytes)
                if before is None or not before.job.shares_with(entry.job):
                    _destroy(testbed)
                begins(entry, rest)
                outcome = _attempt(ledger, entry, name, make_run)
            before = entry if outcome.failure is None else None
            yield outcome


def _take(ledger: Ledger) -> tuple[Entry, contextlib.ExitStack] | None:
    """Return the first job that is left and free, held; None where there is none."""
    for entry in ledger.refresh().of("left"):
        with contextlib.ExitStack() as stack:
            if stack.enter_context(ledger.claimed(f"{entry.job.point.digest}-{entry.job.block}")):
                # Another process may have ended it between the two.
                ledger.refresh()
                if any(each.job.key == entry.job.key for each in ledger.of("left")):
                    return entry, stack.pop_all()
    return None


def _require_room(folder: Path, needed_bytes: float) -> None:
    """Raise Refused where the disk hasn't room for a run."""
    free, needed = shutil.disk_usage(folder).free, needed_bytes + LEAST_FREE_BYTES
    if free < needed:
        raise Refused(
            f"{folder}: {free / 1e6:.0f} MB of its disk are free, and the next run needs "
            f"{needed / 1e6:.0f}",
            "free some, then the same command goes on",
        )


def _require_a_disk_that_is_not_full(folder: Path) -> None:
    """Raise Failed where that is why an attempt failed."""
    if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        raise Failed(
            f"{folder}: its disk is full, which is no failure of the run's",
            "free some, then the same command goes on",
        )


def _attempt(ledger: Ledger, entry: Entry, testbed: TestbedName, make_run: MakeRun) -> Outcome:
    """Make a run; a failure is noted, and its cloud destroyed.

    Raises Refused where nothing was begun, and Failed where the disk is full: what stands in this
    run's way would in others', too.
    """
    plan = plan_of(ledger.campaign, entry.job, testbed)
    left = [each for each in ledger.of("left") if each.job.key != entry.job.key]
    keep = any(each.job.shares_with(entry.job) for each in left)
    request = request_of(ledger.campaign, entry.job, ledger.folder, entry.next_attempt, keep)
    run: Run | None = None
    reason: str | None = None
    try:
        run = make_run(plan, request)
        record = run.load()
        reason = record.why_partial if record.is_partial else None
    except Refused:
        raise
    except (UserError, OSError) as error:
        reason = next(iter(str(error).splitlines()), "") or repr(error)
    if reason is None:
        return Outcome(entry, run, None)
    _require_a_disk_that_is_not_full(ledger.folder)
    failure = Failure(
        point=entry.job.point.digest,
        block=entry.job.block,
        attempt=entry.next_attempt,
        at=now(),
        reason=reason[:MOST_OF_REASON],
        run=None if run is None else run.name,
    )
    ledger.add_failure(failure)
    _destroy(Testbed(testbed))
    return Outcome(entry, run, failure)


def _destroy(testbed: Testbed) -> None:
    """Destroy a testbed, if it is there."""
    if testbed.exists():
        ending.tear_down(testbed)
        ending.sweep()


# ---------------------------------------------------------------- who may run


@contextlib.contextmanager
def _one_testbed(ledger: Ledger) -> Iterator[TestbedName]:
    """Hold a testbed's name for a campaign; raises Refused where none is to be had."""
    campaign = ledger.campaign
    with contextlib.ExitStack() as stack:
        if _is_local(campaign):
            stack.enter_context(_alone_on_this_machine())
        for number in range(1, MOST_TESTBEDS + 1):
            claim = stack.enter_context(ledger.claimed(f"testbed-{number}"))
            if claim is not None:
                own = campaign.name if number == 1 else f"{campaign.name}-{number}"
                name = TestbedName.parse(own, "a campaign's name")
                with _only_ours(Testbed(name), claim):
                    yield name
                return
            if _is_local(campaign):
                break
        raise Refused(
            f"another process runs the campaign in {ledger.folder}", "wait until it has ended"
        )


@contextlib.contextmanager
def _only_ours(testbed: Testbed, claim: Claim) -> Iterator[None]:
    """Begin and end without a testbed; raises Refused where one is there that isn't ours.

    One that a killed process has left was noted at its claim, with this machine's name.
    """
    machine = socket.gethostname()
    if testbed.exists() and claim.note != machine:
        raise Refused(
            f"a testbed '{testbed.name}' is there, which isn't of this campaign",
            f"'discovery-xp destroy --testbed {testbed.name}' first, or rename the campaign",
        )
    _destroy(testbed)
    claim.note = machine
    try:
        yield
    finally:
        _destroy(testbed)
        claim.note = ""


def _is_local(campaign: Campaign) -> bool:
    return any(providers.kind(point.topology.provider.type).is_local for point in campaign.points)


@contextlib.contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """Hold this machine against other campaigns; raises Refused where one has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
        try:
            own.bind(_ONE_AT_A_TIME)
        except OSError:
            raise Refused(
                f"a campaign runs on this machine (process {_holder()}): their figures would be "
                "each other's load",
                "wait until it has ended",
            ) from None
        own.listen()
        with files.not_shared(own.fileno()):
            yield


def _holder() -> str:
    """The process that has the machine, as the kernel says."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
        own.settimeout(1)
        own.connect(_ONE_AT_A_TIME)
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return str(pid)
    return "unknown"
