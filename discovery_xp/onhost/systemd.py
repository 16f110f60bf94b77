"""systemd's units on this host: what they are like, starting them, and why they died."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence

from . import http
from .process import Failure, run, succeeds

UNITS = "/etc/systemd/system"
JOURNAL_LINES = 20
POLL_S = 0.2
# What a unit says as it dies is still on its way for so long.
LAST_WORDS_S = 1.0

_PROPERTIES = (
    "ActiveState", "SubState", "Result", "NRestarts", "MainPID", "User", "FragmentPath",
    "DropInPaths", "ControlGroup",
)  # fmt: skip


class UnitDied(Failure):
    """A unit ended while its port was waited for."""


def show(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what systemd says of each unit; one that it doesn't know has no FragmentPath."""
    names = list(units)
    if not names:
        return {}
    text = run(["systemctl", "show", f"--property={','.join(_PROPERTIES)}", *names])
    blocks = text.strip("\n").split("\n\n")
    return {
        name: dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for name, block in zip(names, blocks, strict=True)
    }


def is_known(unit: str) -> bool:
    """Tell whether systemd has files of a unit."""
    return succeeds(["systemctl", "cat", unit])


def reload() -> None:
    """Have systemd read the files of its units again."""
    run(["systemctl", "daemon-reload"])


def enable(units: Collection[str]) -> list[str]:
    """Have units started when the host is; returns those that weren't."""
    disabled = [
        unit for unit in units if not succeeds(["systemctl", "is-enabled", "--quiet", unit])
    ]
    if disabled:
        run(["systemctl", "enable", "--quiet", *disabled])
    return disabled


def disable(units: Collection[str]) -> None:
    """Stop units for good, side by side: some take seconds to end."""
    run(["systemctl", "disable", "--quiet", "--now", *units], timeout_s=900)


def restart(units: Sequence[str], timeout_s: float) -> None:
    """Start units anew; raises Failure, with the unit's journal, for the first that isn't up."""
    # One that failed too often isn't started again before this.
    succeeds(["systemctl", "reset-failed", *units])
    since, complaint = time.time(), ""
    limit_s = max(1.0, timeout_s)
    try:
        done = subprocess.run(
            ["systemctl", "restart", *units], capture_output=True, text=True, timeout=limit_s,
            check=False,
        )  # fmt: skip
        complaint = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        complaint = f"not started within {limit_s:.0f} s"
    for unit, state in show(units).items():
        if state["ActiveState"] != "active":
            first = complaint.splitlines()[0] if complaint else "did not stay up"
            raise failure(unit, first, since)


def wait_for_port(
    unit: str, port: int, speaks_http: bool, deadline: float, timeout_s: float
) -> None:
    """Wait until a unit's port answers; raises UnitDied, or Failure when it is late.

    `deadline` is a moment of time.monotonic(), `timeout_s` what the message says of it.
    """
    since = time.time()
    restarts = show([unit])[unit]["NRestarts"]
    while not http.answers(port, speaks_http):
        state = show([unit])[unit]
        if state["ActiveState"] not in ("active", "activating") or state["NRestarts"] != restarts:
            death = failure(unit, f"died before port {port} answered", since - 60, died=True)
            raise UnitDied(str(death), **death.details)
        if time.monotonic() > deadline:
            raise failure(unit, f"port {port} didn't answer in {timeout_s:g} s", since)
        time.sleep(POLL_S)


# ---------------------------------------------------------------- the journal


def failure(unit: str, message: str, since: float, died: bool = False) -> Failure:
    """Return a Failure of a unit with the end of its journal, of one that died up to its death."""
    time.sleep(LAST_WORDS_S)
    # With --since, --lines gives the first ones.
    journal = subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", f"--unit={unit}",
         f"--since=@{int(since) - 1}"],
        capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    if died:
        journal = until_death(journal, unit)
    lines = without_frames(journal)[-JOURNAL_LINES:]
    return Failure(f"{unit}: {message}", journal=lines, unit=unit)


def until_death(journal: list[str], unit: str) -> list[str]:
    """Return a unit's lines up to its last end by a failure; all where there was none.

    What a service says as systemd starts it again would take the place of why it died.
    """
    ends = [
        place
        for place, line in enumerate(journal)
        if line.startswith(f"{unit}.service: Failed with result")
    ]
    return journal[: ends[-1] + 1] if ends else journal


def without_frames(journal: list[str]) -> list[str]:
    """Return the lines without the frames of Python's tracebacks, save the last of each.

    A service's workers die one after the other, some of them in the middle of an import; dozens
    of frames would take the place of the error that was the reason.
    """
    shortened: list[str] = []
    frame: list[str] = []
    for line in journal:
        if line.startswith('  File "'):
            frame = [line]
        elif frame and line.startswith("    "):
            frame.append(line)
        else:
            shortened += [*frame, line]
            frame = []
    return shortened + frame


# ---------------------------------------------------------------- what units were started with


class StartNotes:
    """What each unit was last started with: a digest in a file of `folder`, by unit.

    It is noted after the start, so that a run which is killed between writing files and starting
    is made good by the next one.
    """

    def __init__(self, folder: str, suffix: str = "") -> None:
        self.folder = folder
        self.suffix = suffix

    def path(self, unit: str) -> str:
        """Return where a unit's note is."""
        return f"{self.folder}/{unit}{self.suffix}"

    def of(self, unit: str) -> str:
        """Return a unit's note, nothing where there is none."""
        try:
            with open(self.path(unit), encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write(self, unit: str, digest: str) -> None:
        """Note what a unit was started with; nothing takes the note away."""
        if not digest:
            self.forget(unit)
            return
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        with open(self.path(unit), "w", encoding="ascii") as file:
            file.write(digest)

    def forget(self, unit: str) -> None:
        """Take a unit's note away."""
        if os.path.exists(self.path(unit)):
            os.unlink(self.path(unit))
