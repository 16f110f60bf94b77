"""What is installed on the hosts of a deployment: Debian packages and locked wheels.

The wheels are fetched once, checked against the lock file's hashes, and kept: emulated
hosts have them in their root tree, others install them from their master.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from discovery_xp.errors import Failed, Refused
from discovery_xp.testbed import cache

# The same path everywhere: an environment can't be moved.
ENVIRONMENT = "/opt/openstack"
# Written last into an environment: the lock file's digest.
STAMP = ".lock"


def checkout() -> Path:
    """Where `locks/` and `playbooks/` are; raises Refused when they aren't there."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "playbooks/deploy.yml").exists():
        raise Refused(
            f"{folder} has no playbooks",
            "install discovery-xp from its repository, as ./xp does, or with 'pip install -e'",
        )
    return folder


def lock_file() -> Path:
    """The hash-locked requirements of OpenStack's services."""
    return checkout() / "locks/openstack.txt"


def lock_digest() -> str:
    """Twelve hexadecimal digits that change with the lock file."""
    return hashlib.sha256(lock_file().read_bytes()).hexdigest()[:12]


def debian_packages() -> tuple[str, ...]:
    """Debian packages of the services."""
    lines = (checkout() / "locks/debian-openstack.txt").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def locked_versions() -> dict[str, str]:
    """Version by name of every locked Python package."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", lock_file().read_text(), re.MULTILINE)
    return dict(found)


def wheels_folder() -> Path:
    """Where the wheels of today's lock file are, or will be."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return cache() / "wheels" / f"{lock_digest()}-{python}-{platform.machine()}"


def ensure_wheels() -> Path:
    """Fetch and build what is missing; returns the folder.  Raises Failed with pip's words."""
    folder = wheels_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent):
        if folder.is_dir():  # another process fetched them while we waited
            return folder
        for left in folder.parent.glob(".fetching-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as work:
            # The hashes are checked before anything is built; what builds is locked, too.
            done = subprocess.run(
                [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--require-hashes",
                 "--no-build-isolation", "--disable-pip-version-check",
                 "--requirement", str(lock_file()), "--wheel-dir", f"{work}/wheels"],
                env={**os.environ, "PIP_CONSTRAINT": ""}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
                raise Failed(
                    "OpenStack's packages can't be fetched: "
                    f"{' / '.join(errors[-2:]) or done.stdout[-300:].strip() or 'see pip'}",
                    "see that pip can install packages here, then try again",
                )
            (Path(work) / "wheels").rename(folder)
        for other in folder.parent.iterdir():  # of earlier lock files
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
