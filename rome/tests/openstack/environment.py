"""The Python environment of the suites: the lock's packages, and sqlalchemy-rome beside them.

The packages are installed once for each lock file.  sqlalchemy-rome is installed from the
source tree into a folder of its own at every run, so that a run never meets another tree's.
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
from dataclasses import dataclass
from pathlib import Path

ROME = Path(__file__).resolve().parents[2]
LOCKS = ROME.parent / "locks"
LOCK = LOCKS / "rome-openstack.txt"
BUILD_LOCK = LOCKS / "build.txt"
MAKE = 2  # counts the ways in which environments have been made


class Failed(Exception):
    """What can't be done, in one line."""


def versions() -> dict[str, str]:
    """Version by name of every locked package."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Installed:
    """sqlalchemy-rome in a folder for PYTHONPATH, and the commit that it is of."""

    path: str = ""
    commit: str = ""


def _source_commit(rome: Path) -> str:
    """Return the commit of sqlalchemy-rome's source tree, with a plus if it was changed since."""
    git = ("git", "-C", str(rome))
    commit = _said(*git, "rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and _said(*git, "status", "--porcelain", "src") else "")


def ensure_environment() -> Path:
    """The environment's Python; makes the environment where there is none yet."""
    digest = hashlib.sha256(BUILD_LOCK.read_bytes() + LOCK.read_bytes()).hexdigest()[:12]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    # Changes of what _make does make the environment anew, too.
    folder = _cache() / f"{MAKE}-{digest}-{python}-{platform.machine()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / ".lock"):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
            (folder / ".complete").touch()
    return folder / "bin/python"


@contextlib.contextmanager
def installed_rome(python: Path, rome: Path = ROME) -> Iterator[Installed]:
    """Install sqlalchemy-rome as its source tree, `rome`, is now."""
    if not (rome / "pyproject.toml").exists():
        raise Failed(f"{rome} has no pyproject.toml: there is no sqlalchemy-rome to test")
    with tempfile.TemporaryDirectory(prefix="rome-") as work:
        # Built from a copy: building leaves folders in a source tree.
        source = Path(work) / "source"
        source.mkdir()
        commit = _source_commit(rome)
        for item in rome.iterdir():
            if item.is_file():
                shutil.copy2(item, source)
        shutil.copytree(rome / "src", source / "src",
                        ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))  # fmt: skip
        target = Path(work) / "installed"
        _pip(python, "--no-deps", "--no-build-isolation", "--target", str(target), str(source))
        yield Installed(str(target), commit)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "discovery-xp/openstack-tests"


def _make(folder: Path) -> None:
    sys.stderr.write(f"Installing OpenStack and its tests into {folder}: a minute or two\n")
    # The interpreter below any virtual environment, so that none depends on another.
    _run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(folder))
    python = folder / "bin/python"
    for lock in (BUILD_LOCK, LOCK):  # what builds comes first
        _pip(python, "--no-deps", "--require-hashes", "--no-build-isolation", "-r", str(lock))
    # Where the packages' configuration is in the services' repositories, and tests look:
    # in Nova's etc/nova/, in Glance's etc/.
    etc = packages_folder(python) / "etc"
    etc.mkdir()
    for item in (*(folder / "etc").iterdir(), *(folder / "etc/glance").iterdir()):
        (etc / item.name).symlink_to(item)


def packages_folder(python: Path) -> Path:
    """The environment's site-packages."""
    return next(python.parents[1].glob("lib/python3*/site-packages"))


def _pip(python: Path, *arguments: str) -> None:
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def _said(*command: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _run(*command: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, "PIP_CONSTRAINT": ""}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
        said = " / ".join(errors[-2:]) or done.stdout[-300:].strip()
        said = said or f"exit code {done.returncode}"
        raise Failed(f"{' '.join(command[:4])} ... failed: {said}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
