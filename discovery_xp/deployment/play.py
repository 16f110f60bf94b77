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

from discovery_xp.testbeds import ansible_runs  # it comes before EnOSlib

# isort: split
import enoslib as en
from ansible.errors import AnsibleError
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError

from discovery_xp import files
from discovery_xp.boundary.answers import printable
from discovery_xp.errors import Failed
from discovery_xp.places import checkout
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.remote import ansible_failed, last_words, quietly, some, unreachable
from discovery_xp.testbeds.testbed import Testbed

# More tasks at once than this only wait for the CPU of the machine that runs Ansible.
FORKS = 10
# Of a failed service's journal, as lines and as characters of each.
JOURNAL_LINES = 20
JOURNAL_LINE = 500
# Of one task's result on one host, in characters of the log.
LOGGED = 100_000


@dataclass(frozen=True)
class Outcome:
    """What a task said on a host: Ansible's own result, whose values are the host's word.

    `module` is the name of the module that the task runs, `subject` its argument `name` as the
    playbook has it (the component, for modules that have one); `title` is for people alone.
    """

    module: str
    host: str
    status: str
    result: Mapping[str, Any]
    subject: str = ""
    title: str = ""

    @property
    def changes(self) -> list[str]:
        """What a module of ours says that it changed, in words for people."""
        return self._texts("changes")

    @property
    def restarted(self) -> list[str]:
        """The units that a module of ours says it restarted."""
        return self._texts("restarted")

    def _texts(self, key: str) -> list[str]:
        values = self.result.get(key)
        return (
            [each for each in values if isinstance(each, str)] if isinstance(values, list) else []
        )


@dataclass
class PlayRun:
    """A playbook's run: what every task said, and what failed, where that ends nothing."""

    outcomes: list[Outcome] = field(default_factory=list)
    failure: Failed | None = None

    @property
    def changed(self) -> list[Outcome]:
        """Return those that changed something."""
        return [outcome for outcome in self.outcomes if outcome.status == "changed"]

    def of(self, module: str) -> list[Outcome]:
        """Return what tasks of a module said that did their work, in the order of time."""
        return [
            outcome
            for outcome in self.outcomes
            if outcome.module == module and outcome.status in ("ok", "changed")
        ]

    def results(self, module: str) -> dict[str, Mapping[str, Any]]:
        """Return the last result of a module by host; hosts where it did its work never are absent.

        It is for modules that a playbook runs once on a host; `of` has them all.
        """
        return {outcome.host: outcome.result for outcome in self.of(module)}


class Listener:
    """Follows one playbook: stages and hosts to the progress, all of it to the log."""

    def __init__(self, hosts: Hosts, log: TextIO, progress: Progress) -> None:
        self.hosts = hosts
        self.log = log
        self.progress = progress
        self.run = PlayRun()
        self.stage, self.title, self.module, self.subject = "", "", "", ""
        self.total = self.done = 0
        self.task_started = time.monotonic()

    def on_play(self, name: str, patterns: Sequence[str]) -> None:
        """A stage begins on the hosts of these groups."""
        self.stage = name
        self.total = len(self._hosts_of(patterns))
        self._write(f"STAGE {name} ({self.total} hosts)")
        if self.total:
            self.progress(name, 0, self.total)

    def on_task(self, title: str, module: str, subject: str = "") -> None:
        """All hosts of the stage begin a task; see `Outcome` for the words."""
        self.title, self.module, self.subject = title, module, subject
        self.done, self.task_started = 0, time.monotonic()
        self._write(f"TASK {title}")

    def on_result(self, host: str, status: str, result: Mapping[str, Any]) -> None:
        """A host is through with the task."""
        self.run.outcomes.append(
            Outcome(self.module, host, status, result, self.subject, self.title)
        )
        self.done += 1
        took = time.monotonic() - self.task_started
        words = _in_words(status, result)[:LOGGED]
        self._write(f"{status}: {host} after {took:.1f} s{words}")
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
    hosts: Hosts,
    name: str,
    variables: Mapping[str, Any],
    progress: Progress,
    is_partial: bool = False,
) -> PlayRun:
    """Run `playbooks/NAME.yml`; `variables` is by the name of Ansible's, none of it a template.

    With `is_partial` what some hosts do stands when others fail: that is returned besides.

    Raises Failed with the host, the task, its message, the last lines of the service's
    journal where there are any, and the log's path.
    """
    global _listener
    path = checkout() / f"playbooks/{name}.yml"
    log = log_file(hosts.plan.name)
    with files.open_to_append(log) as opened:
        _listener = following = Listener(hosts, opened, progress)
        failure: Failed | None = None
        try:
            if hosts.transport is None:
                _run(hosts, path, variables)
            else:
                hosts.transport.play(hosts.plan, name, variables, following)
        except EnosUnreachableHostsError as error:
            failure = Failed(
                unreachable(error),
                f"see 'discovery-xp status' and {log}; the same command goes on from here",
            )
        except EnosFailedHostsError as error:
            failure = _failure(error, following, log)
        except AnsibleError as error:
            raise ansible_failed(error) from None
        finally:
            _listener = None
    if failure is not None and not is_partial:
        raise failure
    following.run.failure = failure
    return following.run


def _run(hosts: Hosts, path: Path, variables: Mapping[str, Any]) -> None:
    with quietly(hosts.plan.name, output="follow_plays", forks=FORKS):
        en.run_ansible(
            [str(path)], roles=hosts.roles, basedir=str(path.parent),
            extra_vars=ansible_runs.literal(dict(variables)),
        )  # fmt: skip


def _failure(error: EnosFailedHostsError, following: Listener, log: Path) -> Failed:
    first = error.hosts[0]
    names = some(sorted({host.host for host in error.hosts}))
    text = f"{names}: '{first.task}' failed: {last_words(first.payload)}"
    journal = journal_of(first.payload)
    remedy = f"the whole log is {log}; the same command goes on from here"
    if journal:
        lines = "".join(f"\n  {line}" for line in journal)
        unit = printable(str(first.payload.get("unit"))[:100])
        remedy += f"; the journal of {unit} on {first.host} ends with:{lines}"
    return Failed(text, remedy)


def journal_of(payload: Mapping[str, Any]) -> list[str]:
    """The last lines of a journal in a module's result, as a terminal may have them."""
    journal = payload.get("journal")
    lines = journal[-JOURNAL_LINES:] if isinstance(journal, list) else []
    return [printable(str(line)[:JOURNAL_LINE]) for line in lines]
