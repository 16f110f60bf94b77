"""A cloud and a scenario to a `LoadRun`: what became of each VM and each request.

Rally makes the load, on the master or on each site's controller, with our plugin
(`scenarios/rally_plugins`).  It runs as a transient systemd unit and writes all that happens
to a file of JSON lines; `run` lays down what it needs, says when it may begin, and follows
those files, each over one ssh connection.  docs/load.md tells the steps.
"""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.deployment.variables import PlayVariables
from discovery_xp.errors import Failed
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.load.following import Following, OnRows
from discovery_xp.load.ledger import Ledger, Pace, Row
from discovery_xp.load.rally_hosts import WAITING, LoadHost, Said, files
from discovery_xp.load.shares import placement, shares
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.testbed import Testbed

# Between the word and the first request, so that all load hosts begin together.
GO_DELAY_S = 1.0
# The unit ends by itself then, whoever started it.
LONGEST_AFTER_RUN_S = 3600.0


@dataclass(frozen=True)
class LoadRun:
    """What became of a load.

    `status` is 'complete' or 'partial', then with a `reason`; VMs that fail don't make it
    partial.  `vms` and `actions` are rows as docs/results.md has them.  `window` is the
    load's own time, from the word to begin to the end of its last iteration, in s since
    1970.  `cpu_s` and `polls` are the load generator's over that window, on all of `hosts`;
    `sent_s` is the time between the first request for a VM or token and the last.  `raw` is
    the folder with Rally's reports and log, by host; `notes` are what else went wrong.
    """

    scenario: Scenario
    status: str
    reason: str | None
    vms: tuple[Row, ...]
    actions: tuple[Row, ...]
    window: tuple[float, float] | None
    cpu_s: float
    polls: int
    sent_s: float | None
    hosts: tuple[str, ...]
    raw: Path
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> int:
        """Return how many VMs were asked for."""
        return len(self.vms)

    @property
    def host(self) -> str:
        """Return the load hosts' names."""
        return ", ".join(self.hosts)

    @property
    def cores(self) -> float:
        """Return the CPU that the load generator took, on average over the window."""
        if self.window is None:
            return 0.0
        return self.cpu_s / max(0.001, self.window[1] - self.window[0])

    @property
    def load(self) -> dict[str, Any]:
        """Return run.json's `load`: the load generator's share."""
        return {
            "cpu_s": self.cpu_s,
            "cores": self.cores,
            "polls": self.polls,
            "host": self.host,
        }


def raw_folder(testbed: Testbed) -> Path:
    """Return where a load leaves Rally's reports and logs, by host, however it ended."""
    return testbed.folder / "load"


def vm_counts(vms: Sequence[Row]) -> dict[str, int]:
    """Return run.json's `vms`: `asked`, `active`, `failed`, `deleted`."""
    active = sum(row["status"] == "ACTIVE" for row in vms)
    return {
        "asked": len(vms),
        "active": active,
        "failed": len(vms) - active,
        "deleted": sum(row["deleted_at"] is not None for row in vms),
    }


def duration_s(vms: Sequence[Row]) -> float | None:
    """Return the time from the first request to the last VM seen ACTIVE; None without any."""
    seen = [row["seen_at"] for row in vms if row["status"] == "ACTIVE"]
    return max(seen) - min(row["requested_at"] for row in vms) if seen else None


def run(
    hosts: Hosts,
    testbed: Testbed,
    variables: PlayVariables,
    scenario: Scenario,
    on_rows: OnRows,
    progress: Progress,
    before_load: Callable[[], None] = lambda: None,
    after_load: Callable[[], None] = lambda: None,
    on_pace: Callable[[Pace], None] = lambda _pace: None,
) -> LoadRun:
    """Do all of a scenario's load; see docs/load.md for the steps.

    `variables` are what the playbooks were told.  `on_rows` gets each VM when it ended and
    each action; where a VM landed, when it says it got ACTIVE and when it was deleted is
    known later, and in the `LoadRun`.  `before_load` is called after the warm-up, just
    before the first request, `after_load` when the last iteration has ended, before VMs are
    looked for and deleted; not when no load host is there any more.  A load that ends early
    is returned as 'partial'; Failed is raised when it doesn't come to its first request,
    Refused when the cloud has no such region or the load hosts no Rally.  An exception,
    Ctrl-C among them, ends Rally.
    """
    planned, drawn = shares(hosts.plan, scenario), placement(hosts.plan, scenario)
    sites = {host.name: host.site for host in hosts.plan.hosts}
    ledger = Ledger(scenario, [share.host for share in planned], sites)
    raw = raw_folder(testbed)
    shutil.rmtree(raw, ignore_errors=True)
    said: Said = queue.Queue(WAITING)
    load_hosts = [LoadHost(testbed, share.host, said, hosts.transport) for share in planned]
    following = Following(ledger, load_hosts, said, on_rows, progress, on_pace)
    try:
        progress("starting Rally", 0, len(load_hosts))
        for host, share in zip(load_hosts, planned, strict=True):
            host.lay_down(files(variables, scenario, share))
        longest_s = scenario.run_timeout_s + 3 * scenario.vm_timeout_s + LONGEST_AFTER_RUN_S
        longest_s *= hosts.plan.time_scale
        for number, host in enumerate(load_hosts, start=1):
            host.start(longest_s)
            progress("starting Rally", number, len(load_hosts))
        following.until(lambda: all(s.is_ready or s.ended for s in ledger.hosts.values()))
        _require_ready(ledger, load_hosts, raw)
        before_load()
        for host in load_hosts:
            host.say("go", GO_DELAY_S)
        following.until(lambda: all(s.is_loaded or s.ended for s in ledger.hosts.values()))
        if not all(state.ended for state in ledger.hosts.values()):
            after_load()
            for host in load_hosts:
                host.say("on", 0)
        following.until(lambda: all(state.ended for state in ledger.hosts.values()))
        reason = ledger.reason()
        ledger.give_up(reason or "it is over")
    except BaseException:
        ledger.give_up("it was interrupted")
        raise
    finally:
        for host in load_hosts:
            host.hang_up()
            host.stop()
        following.hand_on_rows()
        for host in load_hosts:
            problem = host.fetch(raw / host.name)
            if problem is not None:
                ledger.note(problem)
    for difference in drawn.differences(ledger.vms) if drawn else ():
        ledger.note(difference)
    return LoadRun(
        scenario=scenario,
        status="partial" if reason else "complete",
        reason=reason,
        vms=tuple(ledger.vms),
        actions=tuple(ledger.actions),
        window=ledger.window(),
        cpu_s=round(ledger.spent("cpu_s"), 3),
        polls=int(ledger.spent("polls")),
        sent_s=ledger.sent_s(),
        hosts=tuple(host.name for host in load_hosts),
        raw=raw,
        notes=tuple(dict.fromkeys(ledger.notes)),
    )


def _require_ready(ledger: Ledger, load_hosts: Iterable[LoadHost], raw: Path) -> None:
    for host in load_hosts:
        state = ledger.hosts[host.name]
        if not state.is_ready:
            raise Failed(
                f"Rally on {host.name} didn't get ready: {state.crash or state.ended}",
                f"its log is {raw / host.name / 'rally.log'}; see also 'discovery-xp status'",
            )
