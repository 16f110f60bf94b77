"""A cloud's APIs to verdicts: OpenStack's own tests, Tempest's, on the cloud's master.

They run as a transient systemd unit, which writes what happens to a file of JSON lines; `run`
lays down what it needs, and follows that file over ssh, as a load's is.  docs/verify.md tells the
steps.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from discovery_xp import software
from discovery_xp.boundary import archives, writers
from discovery_xp.boundary.answers import Unfit
from discovery_xp.deployment.play import run_playbook
from discovery_xp.deployment.variables import PlayVariables
from discovery_xp.errors import Failed
from discovery_xp.load.following import SILENT_S, UNREACHABLE_S
from discovery_xp.load.rally_hosts import READ_EVERY_S, WAITING, Job, LoadHost, Said
from discovery_xp.onhost.sources import sources
from discovery_xp.onhost.wire import lines
from discovery_xp.onhost.wire import verification as wire
from discovery_xp.onhost.wire.verification import VerificationRequest
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.verification.configuration import (
    FLAVORS,
    FOLDER,
    CloudUnderTest,
    settings,
)
from discovery_xp.verification.exclusions import read_exclusions
from discovery_xp.verification.ledger import Ledger, Row

UNIT = "discovery-xp-verify"
# Of a test and the set-up of its class, in seconds.
TEST_WITHIN_S = 600
# What tests leave is removed while the unit stops.
_CLEANS_WITHIN_S = 300
_MARGIN_S = 120.0

_KEPT = ("tempest.log",)
JOB = Job(
    "Tempest", UNIT, FOLDER, f"{software.TEMPEST.place}/bin/{software.TEMPEST.program}", _KEPT,
    archives.Limits(packed=8 * archives.MIB, total=64 * archives.MIB, file=64 * archives.MIB,
                    files=len(_KEPT)),
    stops_within_s=_CLEANS_WITHIN_S,
)  # fmt: skip

_RUN = """#!/bin/sh
cd {folder} && export HOME={folder} PYTHONPATH={folder}/lib || exit 1
mkdir -p lock
{openstack}/bin/python -m discovery_xp.onhost.verification.cloud prepare || exit 1
exec {tempest}/bin/python -m discovery_xp.onhost.verification.run
"""

# However the unit ends, nothing stays in the cloud, and its own end is a line, too.
_ENDED = """#!/bin/sh
cd {folder} || exit 1
PYTHONPATH={folder}/lib {openstack}/bin/python -m discovery_xp.onhost.verification.cloud clean
printf {line} "ended ($SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS)" >>{folder}/records.jsonl
"""


@dataclass(frozen=True)
class Wish:
    """Which tests are to be run, and how: so many at a time, within `longest_s` in all."""

    services: tuple[str, ...] = wire.SERVICES
    regex: str = ""
    concurrency: int = 2
    longest_s: float = 7200.0


@dataclass(frozen=True)
class Verification:
    """What became of a cloud's tests.

    `reason` says why not all of them have a verdict, None where they have; `notes` are what else
    went wrong.  `window` is from its beginning to its end, in s since 1970.
    """

    rows: tuple[Row, ...]
    reason: str | None
    notes: tuple[str, ...]
    window: tuple[float, float]


def install(hosts: Hosts, variables: PlayVariables, progress: Progress) -> None:
    """Put Tempest on the master, unless it is there."""
    if hosts.transport is None and not software.TEMPEST.wheels_folder.is_dir():
        progress("fetching Tempest's packages (once for each lock file)", 0, 0)
        software.TEMPEST.ensure_wheels()
    run_playbook(hosts, "verify", variables.to_ansible(), progress)


def request_of(wish: Wish, cloud: CloudUnderTest) -> VerificationRequest:
    """Return what the host is told."""
    return VerificationRequest(
        services=wish.services,
        regex=wish.regex,
        exclusions=read_exclusions(nics=cloud.nics),
        concurrency=wish.concurrency,
        most_s=TEST_WITHIN_S,
        region=cloud.region.name,
        flavors=FLAVORS,
        images=cloud.images,
    )


def files(wish: Wish, cloud: CloudUnderTest, password: str) -> dict[str, tuple[str, int]]:
    """Return what is laid down in the folder: texts with their modes, by name."""
    login = {"auth_url": f"{cloud.region.urls['identity']}/v3", "password": password}
    places = {
        "folder": FOLDER,
        "openstack": software.ENVIRONMENT,
        "tempest": software.TEMPEST.place,
    }
    line = shlex.quote(lines.end("%s").replace("\n", r"\n"))
    package = sources(
        "catalogue", "checks", "process", "follow", "cloud/connection", "verification", "wire"
    )
    return {
        **{f"lib/{path}": (text, 0o644) for path, text in package.items()},
        "request.json": (json.dumps(request_of(wish, cloud).to_json()), 0o644),
        "tempest.conf": (writers.ini(settings(cloud, password)), 0o600),
        "login.json": (json.dumps(login), 0o600),
        "run.sh": (_RUN.format(**places), 0o755),
        "ended.sh": (_ENDED.format(line=line, **places), 0o755),
        "records.jsonl": ("", 0o600),
    }


def run(
    hosts: Hosts,
    testbed: Testbed,
    variables: PlayVariables,
    wish: Wish,
    cloud: CloudUnderTest,
    on_rows: Callable[[list[Row]], None],
    progress: Progress,
) -> Verification:
    """Run the tests; see docs/verify.md for the steps.

    `on_rows` gets each verdict once, soon after it is known.  A verification that ends early is
    returned with its reason; Failed is raised when it doesn't come to choose its tests.  An
    exception, Ctrl-C among them, ends Tempest, and what its tests left is removed.
    """
    master = hosts.plan.require_cloud().master
    said: Said = queue.Queue(WAITING)
    host = LoadHost(testbed, master, said, hosts.transport, JOB)
    following = _Following(host, said, on_rows, progress)
    began = time.time()
    raw = testbed.folder / "verify"
    shutil.rmtree(raw, ignore_errors=True)
    progress("starting Tempest", 0, 0)
    try:
        host.lay_down(files(wish, cloud, variables.secrets.passwords["admin"]))
        host.start(wish.longest_s)
        following.until_end()
    finally:
        host.hang_up()
        if following.ledger.ended is None:
            progress("removing what tests left", 0, 0)
        host.stop()
        following.hand_on_rows()
        with contextlib.suppress(Failed):
            problem = host.fetch(raw)
            if problem is not None:
                following.ledger.note(problem)
    ledger = following.ledger
    if ledger.planned is None:
        raise Failed(
            f"Tempest on {master} didn't get to its tests: {ledger.crash or ledger.reason()}",
            f"its log is {raw / 'tempest.log'}; see also 'discovery-xp status'",
        )
    return Verification(
        tuple(ledger.rows.values()), ledger.reason(), tuple(dict.fromkeys(ledger.notes)),
        (began, time.time()),
    )  # fmt: skip


class _Following:
    """Listens to the host while the tests run, and tells what it says."""

    def __init__(
        self,
        host: LoadHost,
        said: Said,
        on_rows: Callable[[list[Row]], None],
        progress: Progress,
    ) -> None:
        self.host = host
        self.said = said
        self.on_rows = on_rows
        self.progress = progress
        self.ledger = Ledger()
        self.told: tuple[str, int, int] | None = None
        self.told_at = 0.0
        self.is_unfit = False

    def until_end(self) -> None:
        """Take what comes until the unit ended, or nothing is to be expected of it any more."""
        while self.ledger.ended is None:
            try:
                _name, follower, line = self.said.get(timeout=READ_EVERY_S / 2)
            except queue.Empty:
                pass
            else:
                if follower is self.host.follower:
                    self._take(line)
            self._look_after()
            if time.monotonic() - self.told_at >= READ_EVERY_S:
                self._tell()
        self._tell()

    def _take(self, line: bytes) -> None:
        host = self.host
        if not line:  # the connection ended
            host.hang_up()
            host.lost_at = host.lost_at or time.monotonic()
            return
        host.heard, host.lost_at = time.monotonic(), None
        host.offset += len(line)
        if host.offset > wire.MOST_BYTES or len(line) > wire.LONGEST_LINE:
            self.ledger.ended = "said more than tests say"
            return
        try:
            message: Any = json.loads(line)
        except (ValueError, RecursionError):  # a process that died may leave half a line
            return
        try:
            self.ledger.take(message)
        except Unfit as error:
            if not self.is_unfit:  # once
                self.is_unfit = True
                self.ledger.note(f"{host.name} wrote lines that no test writes: {error}")

    def _look_after(self) -> None:
        """Connect again where the connection was lost; give up on a host that says nothing."""
        now, host = time.monotonic(), self.host
        if self.ledger.ended is not None:
            return
        if now - host.heard > SILENT_S + TEST_WITHIN_S:
            self.ledger.ended = f"said nothing for {SILENT_S + TEST_WITHIN_S:g} s"
        elif host.follower is None:
            if host.lost_at is not None and now - host.lost_at > UNREACHABLE_S:
                self.ledger.ended = f"couldn't be reached for {UNREACHABLE_S:g} s"
            elif now - self.told_at >= READ_EVERY_S:
                host.follow()

    def _tell(self) -> None:
        self.told_at = time.monotonic()
        self.hand_on_rows()
        stage = self.ledger.stage
        if stage[0] and stage != self.told:
            self.told = stage
            self.progress(*stage)

    def hand_on_rows(self) -> None:
        """Hand on the verdicts that came since."""
        rows = self.ledger.new_rows()
        if rows:
            self.on_rows(rows)
