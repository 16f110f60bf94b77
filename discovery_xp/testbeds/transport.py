"""All that reaches hosts, as one contract: the seam between the toolkit and the outside.

Hosts that exist are reached by Ansible over ssh, through EnOSlib (`remote`, `play`), and by ssh
itself where a load is followed (`load`).  A provider that has something else in the place of
hosts hands over a `Transport` with its `Hosts`, and nothing else is asked then.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from discovery_xp.planning.plan import Plan


@dataclass(frozen=True)
class Output:
    """What a command printed on a host, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


class PlayListener(Protocol):
    """Who follows a playbook; see `play.Listener`."""

    def on_play(self, name: str, patterns: Sequence[str]) -> None:
        """A stage begins on the hosts of these groups."""

    def on_task(self, title: str, module: str, subject: str = "") -> None:
        """All hosts of the stage begin a task, which runs a module on a subject."""

    def on_result(self, host: str, status: str, result: Mapping[str, Any]) -> None:
        """A host is through with the task."""


class Process(Protocol):
    """What of `subprocess.Popen` is used of a command that goes on."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where it reads from."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Where it prints to."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""


class Transport(Protocol):
    """A way to hosts that aren't reached by ssh."""

    def run_each(self, plan: Plan, commands: Mapping[str, str]) -> dict[str, Output]:
        """Run each host's own command; see `remote.run_each`."""

    def answering(self, plan: Plan) -> set[str]:
        """Name the hosts that would greet us."""

    def play(
        self, plan: Plan, playbook: str, variables: Mapping[str, Any], listener: PlayListener
    ) -> None:
        """Run `playbooks/PLAYBOOK.yml`; raises what EnOSlib raises when hosts fail."""

    def call(
        self, host: str, command: str, data: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a line of sh with `data` as its input."""

    def open(self, host: str, command: str) -> Process:
        """Start a line of sh, and let it go on."""
