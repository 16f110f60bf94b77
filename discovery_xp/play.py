"""Our playbooks on a testbed's hosts, by Ansible over ssh, through EnOSlib.

Each play is a stage of the progress: its hosts are counted, and everything Ansible says
goes to the testbed's log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import enoslib as en
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError

from discovery_xp import files
from discovery_xp.errors import Failed
from discovery_xp.hosts import Hosts, Progress
from discovery_xp.remote import last_words, quietly, some
from discovery_xp.software import checkout
from discovery_xp.testbed import Testbed

# More tasks at once than this only wait for the CPU of the machine that runs Ansible.
FORKS = 10


@dataclass(frozen=True)
class Outcome:
    """What a task said on a host: Ansible's own result."""

    task: str
    host: str
    status: str
    result: Mapping[str, Any]


@dataclass
class PlayRun:
    """A playbook's run: what every task said."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def changed(self) -> list[Outcome]:
        """Those that changed something."""
        return [outcome for outcome in self.outcomes if outcome.status == "changed"]

    def result(self, task: str) -> Mapping[str, Any]:
        """The result of a task that runs on one host; raises KeyError when it didn't."""
        for outcome in self.outcomes:
            if outcome.task.endswith(task) and outcome.status in ("ok", "changed"):
                return outcome.result
        raise KeyError(task)


class Listener:
    """Follows one playbook: stages and hosts to the progress, all of it to the log."""

    def __init__(self, hosts: Hosts, log: TextIO, progress: Progress) -> None:
        self.hosts = hosts
        self.log = log
        self.progress = progress
        self.run = PlayRun()
        self.stage, self.task, self.total, self.done = "", "", 0, 0
        self.task_started = time.monotonic()

    def on_play(self, name: str, patterns: Sequence[str]) -> None:
        """A stage begins on the hosts of these groups."""
        self.stage = name
        self.total = len(self._hosts_of(patterns))
        self._write(f"STAGE {name} ({self.total} hosts)")
        if self.total:
            self.progress(name, 0, self.total)

    def on_task(self, name: str) -> None:
        """All hosts of the stage begin a task."""
        self.task, self.done, self.task_started = name, 0, time.monotonic()
        self._write(f"TASK {name}")

    def on_result(self, host: str, status: str, result: Mapping[str, Any]) -> None:
        """A host is through with the task."""
        self.run.outcomes.append(Outcome(self.task, host, status, result))
        self.done += 1
        took = time.monotonic() - self.task_started
        self._write(f"{status}: {host} after {took:.1f} s{_in_words(status, result)}")
        if self.total:
            self.progress(self.stage, self.done, self.total)

    def _hosts_of(self, patterns: Sequence[str]) -> set[str]:
        if "all" in patterns:
            return set(self.hosts.by_name())
        return {host.alias for pattern in patterns for host in self.hosts.roles[pattern]}

    def _write(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.log.write(f"{stamp} {text}\n")
        self.log.flush()


def _in_words(status: str, result: Mapping[str, Any]) -> str:
    if status in ("failed", "unreachable", "ignored"):
        shown = {key: value for key, value in result.items() if key != "invocation"}
        return "\n" + json.dumps(shown, indent=1, default=str)
    changes = result.get("changes") or result.get("migrated")
    return f": {json.dumps(changes)}" if changes else ""


_listener: Listener | None = None


def listener() -> Listener:
    """The one of the playbook that runs now; Ansible's callback plugin asks for it."""
    if _listener is None:
        raise RuntimeError("no playbook is running")
    return _listener


def log_file(testbed: str) -> Path:
    """Where everything that Ansible said about a testbed is kept."""
    return Testbed(testbed).folder / "ansible.log"


def run_playbook(
    hosts: Hosts, name: str, variables: Mapping[str, Any], progress: Progress
) -> PlayRun:
    """Run `playbooks/NAME.yml`; `variables` reach it as `xp`.

    Raises Failed with the host, the task, its message, the last lines of the service's
    journal where there are any, and the log's path.
    """
    global _listener
    path = checkout() / f"playbooks/{name}.yml"
    log = log_file(hosts.plan.name)
    with files.open_to_append(log) as opened:
        _listener = following = Listener(hosts, opened, progress)
        try:
            with quietly(hosts.plan.name, output="follow_plays", forks=FORKS):
                en.run_ansible(
                    [str(path)], roles=hosts.roles, basedir=str(path.parent),
                    extra_vars={"xp": dict(variables)},
                )  # fmt: skip
        except EnosUnreachableHostsError as error:
            names = some(sorted({host.host for host in error.hosts}))
            raise Failed(
                f"{names} can't be reached over ssh",
                f"see 'discovery-xp status' and {log}; the same command goes on from here",
            ) from None
        except EnosFailedHostsError as error:
            raise _failure(error, following, log) from None
        finally:
            _listener = None
    return following.run


def _failure(error: EnosFailedHostsError, following: Listener, log: Path) -> Failed:
    first = error.hosts[0]
    names = some(sorted({host.host for host in error.hosts}))
    text = f"{names}: '{first.task}' failed: {last_words(first.payload)}"
    journal = first.payload.get("journal") or []
    remedy = f"the whole log is {log}; the same command goes on from here"
    if journal:
        lines = "".join(f"\n  {line}" for line in journal)
        remedy += f"; the journal of {first.payload.get('unit')} on {first.host} ends with:{lines}"
    return Failed(text, remedy)
