"""Everything that a testbed can leave on a machine, looked for without our own code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.real.machine import HOMES


def traces(name: str = "") -> list[str]:
    """What is left of testbed `name` (of any testbed when empty), in words."""
    return [
        *_processes(name),
        *(f"mount {line.split()[4]}" for line in _lines("/proc/self/mountinfo")
          if _ours(line, name)),
        *(f"namespace {entry}" for entry in _entries("/run/netns") if _ours(entry, name)),
        *(f"interface {entry}" for entry in _entries("/sys/class/net") if entry.startswith("dxp")
          and not name),
        *(f"rule {line}" for line in rules() if not name),
        *(f"file {path}" for path in Path("/tmp").glob("discovery-xp-*") if not name),
        *(f"file {path}" for path in Path("/run").glob("discovery-xp-*") if not name),
        *(f"run file {entry}" for entry in _entries("/run/discovery-xp") if name in entry),
        *(f"file {path}" for path in _testbed_folders() if name in path.name),
        *(f"control group {path}" for path in _control_groups() if name in path.name),
    ]  # fmt: skip


def rules() -> list[str]:
    """Rules of ours in this machine's policy routing."""
    done = subprocess.run(["ip", "rule", "show"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "proto 222" in line]


def _ours(text: str, name: str) -> bool:
    return ("dxp." in text or "discovery-xp" in text) and f"{name}" in text


def _processes(name: str) -> list[str]:
    found = []
    for entry in _entries("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            cgroup = Path(f"/proc/{entry}/cgroup").read_text()
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{entry}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if state not in "ZX" and f"/discovery-xp/{name}" in cgroup:
            found.append(f"process {entry} {command[:80]}")
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _entries(path: str) -> list[str]:
    folder = Path(path)
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _testbed_folders() -> list[Path]:
    homes = (Path("/var/lib/discovery-xp"), *HOMES)
    return [entry for home in homes for entry in home.glob("testbeds/*")]


def _control_groups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [*root.glob("discovery-xp/*"), *root.glob("*/discovery-xp/*")]


def inside(namespace: str, *command: str) -> str:
    """Run a command in a network namespace; returns what it printed."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False
    ).stdout
