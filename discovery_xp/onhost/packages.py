"""Debian's packages on this host."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from .held import TIMED_OUT, Held
from .process import Failure

LISTS = "/var/lib/apt/lists"
LISTS_LAST_S = 24 * 3600


def ensure(packages: Sequence[str], host: Held) -> list[str]:
    """Install those that are missing; returns their names.  Raises Failure in apt's words."""
    if not shutil.which("apt-get"):
        raise Failure("there is no apt-get: hosts must run Debian")
    missing = _missing(packages, host)
    if missing and not (_lists_are_fresh() and _install(missing, host) == ""):
        update = _apt(host, "update")
        complaint = _install(missing, host)
        if complaint:
            # A mirror that can't be reached is a warning there, and nothing here.
            also = _first_lines(update, ("E:", "W:"), at_most=1)
            raise Failure(
                f"{', '.join(missing)} can't be installed: {complaint}"
                f"{f' (apt-get update: {also})' if also else ''}"
            )
    return missing


def _missing(packages: Sequence[str], host: Held) -> list[str]:
    """Those that Debian doesn't call installed."""
    listed = host.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *packages]
    )
    installed = {line.split()[0] for line in listed.stdout.splitlines()
                 if line.endswith(" installed")}  # fmt: skip
    return [package for package in packages if package not in installed]


def _lists_are_fresh() -> bool:
    """True when there are lists of packages, fetched not long ago."""
    lists = glob.glob(f"{LISTS}/*_Packages*")
    return bool(lists) and time.time() - os.stat(LISTS).st_mtime < LISTS_LAST_S


def _install(packages: Sequence[str], host: Held) -> str:
    """Install packages; returns what went wrong, in apt's words, or nothing."""
    host.run(["dpkg", "--force-confold", "--configure", "-a"])  # one was interrupted
    done = _apt(
        host, "install", "--yes", "--no-install-recommends",
        "--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold",
        *packages,
    )  # fmt: skip
    if not _missing(packages, host):
        return ""
    return _first_lines(done, ("E:",), at_most=3) or f"apt-get ended with {done.returncode}"


def _apt(host: Held, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get; waits while somebody else does."""
    options = ["--quiet", "--option=Acquire::Retries=3", "--option=Dpkg::Use-Pty=0",
               f"--option=DPkg::Lock::Timeout={max(1, host.left_s())}"]  # fmt: skip
    while True:
        done = host.run(["apt-get", *options, *arguments])
        if "Could not get lock" not in done.stderr or host.left_s() <= 0:
            return done
        time.sleep(2)


def _first_lines(
    done: subprocess.CompletedProcess[str], marks: tuple[str, ...], at_most: int
) -> str:
    """What apt-get said went wrong, each line once."""
    if done.returncode in TIMED_OUT:
        return "apt-get took too long"
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith(marks)]
    return " / ".join(list(dict.fromkeys(lines))[:at_most])
