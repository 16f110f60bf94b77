"""What is installed on the hosts of a deployment: Debian packages and locked wheels.

There are two Python environments: OpenStack's on every host, Rally's on those that make
load.  A third one, Tempest's, is for those who ask for it.  Their wheels are fetched once, for
the hosts' Python, checked against the lock file's hashes, and kept: emulated hosts have them in
their root tree, others install them from their master.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from discovery_xp import files, wheels
from discovery_xp.errors import Failed, Refused
from discovery_xp.places import cache, checkout

# The Debian packages that all hosts of a cloud need.
EVERYWHERE = ("python3-venv", "nftables")


def debian_packages() -> tuple[str, ...]:
    """Debian packages of all services there are."""
    lines = (checkout() / "locks/debian-openstack.txt").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class Environment:
    """A Python environment on hosts, made of the wheels of a lock file.

    `place` is the same everywhere, as an environment can't be moved; `program` is one that
    is there once all is installed.
    """

    name: str
    title: str
    place: str
    program: str

    @property
    def lock_file(self) -> Path:
        """The hash-locked requirements."""
        return checkout() / f"locks/{self.name}.txt"

    @property
    def lock_digest(self) -> str:
        """Twelve hexadecimal digits that change with the lock file."""
        return hashlib.sha256(self.lock_file.read_bytes()).hexdigest()[:12]

    @property
    def locked_versions(self) -> dict[str, str]:
        """Version by name of every locked package."""
        text = self.lock_file.read_text()
        return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))

    @property
    def wheels_folder(self) -> Path:
        """Where the wheels of today's lock file are, or will be."""
        return cache() / "wheels" / self.name / f"{self.lock_digest}-{wheels.hosts_tag()}"

    def ensure_wheels(self, programs: wheels.Programs | None = None) -> Path:
        """Fetch and build the wheels unless they are there; return their folder.

        Raises Failed with pip's words, and Cancelled when `programs` are ended meanwhile.
        """
        folder = self.wheels_folder
        if folder.is_dir():
            _require_ours(folder)
            return folder
        _make_folder(folder.parent)
        with _lock(folder.parent):
            if folder.is_dir():  # another process fetched them while we waited
                return folder
            for left in folder.parent.glob(".fetching-*"):
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as work:
                fetched = Path(work) / "wheels"
                try:
                    wheels.fetch(self.lock_file, fetched, programs or wheels.Programs())
                except Failed as error:
                    raise Failed(
                        f"{self.title}'s packages can't be fetched: {error.message}", error.remedy
                    ) from None
                fetched.rename(folder)
            for other in folder.parent.iterdir():  # of earlier lock files
                if other.is_dir() and other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        return folder


@dataclass(frozen=True)
class OwnWheel:
    """A package of this checkout, which goes into an environment beside its locked wheels.

    It changes more often than they do: its digest is of its sources, and a host that has
    another one gets this wheel alone.
    """

    name: str
    folder: str

    @property
    def sources(self) -> Path:
        """Its project's folder."""
        return checkout() / self.folder

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with what the wheel is made of."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(f"{path.relative_to(self.sources)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    @property
    def version(self) -> str:
        """Its version, and the digest of its sources."""
        return f"{self._number}+{self.digest}"

    @property
    def _number(self) -> str:
        text = (self.sources / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])

    def _files(self) -> list[Path]:
        """What the wheel is made of, in order; raises Refused where the project isn't there."""
        project = self.sources / "pyproject.toml"
        if not project.exists():
            raise Refused(
                f"{self.sources} has no {self.name}",
                "run from a whole checkout of the repository, or use 'backend: mysql'",
            )
        sources = (self.sources / "src").rglob("*")
        files = [
            path
            for path in sources
            if path.is_file() and path.suffix != ".pyc" and ".egg-info" not in str(path)
        ]
        beside = (self.sources / name for name in ("README.md", "LICENSE"))
        return sorted([project, *(path for path in beside if path.exists()), *files])

    @property
    def wheel(self) -> Path:
        """Where the wheel of today's sources is, or will be."""
        name = f"{self.name.replace('-', '_')}-{self._number}-py3-none-any.whl"
        return cache() / "wheels" / self.name / self.digest / name

    def ensure(self) -> Path:
        """Build the wheel of today's sources unless it is there; returns its path.

        Raises Failed with the builder's words.
        """
        wheel = self.wheel
        folder = wheel.parent
        if wheel.exists():
            _require_ours(wheel)
            return wheel
        _make_folder(folder.parent)
        with (
            _lock(folder.parent),
            tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as work,
        ):
            for left in set(folder.parent.glob(".building-*")) - {Path(work)}:
                shutil.rmtree(left)
            # Building leaves files beside the sources: it is done on a copy.
            copy = Path(work) / "project"
            for path in self._files():
                target = copy / path.relative_to(self.sources)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            done = subprocess.run(
                [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
                 "--no-build-isolation", "--disable-pip-version-check",
                 "--wheel-dir", f"{work}/wheels", str(copy)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise Failed(
                    f"{self.name} can't be built: {done.stdout.strip()[-300:]}",
                    f"see {self.sources}, then try again",
                )
            shutil.rmtree(folder, ignore_errors=True)
            (Path(work) / "wheels").rename(folder)
        return wheel


ROME = OwnWheel("sqlalchemy-rome", "rome")
OPENSTACK = Environment("openstack", "OpenStack", "/opt/openstack", "nova-compute")
RALLY = Environment("rally", "Rally", "/opt/rally", "rally")
# What every cloud has.
ENVIRONMENTS = (OPENSTACK, RALLY)
# Installed by `verify` alone, and only on the host that runs the tests.
TEMPEST = Environment("tempest", "Tempest", "/opt/tempest", "tempest")
ENVIRONMENT = OPENSTACK.place


def missing_wheels() -> list[Environment]:
    """Return the environments whose wheels aren't cached."""
    return [each for each in ENVIRONMENTS if not each.wheels_folder.is_dir()]


def ensure_all_wheels(programs: wheels.Programs | None = None) -> None:
    """Fetch and build the wheels of all environments unless they are there."""
    for environment in ENVIRONMENTS:
        environment.ensure_wheels(programs)


def _make_folder(folder: Path) -> None:
    """Make a folder of the cache, closed to others."""
    files.make_folder(folder)
    _require_ours(folder)


def _require_ours(path: Path) -> None:
    """Hosts run as root what is cached: refuse what another user may have put there."""
    files.require_ours(path, "choose another place with DISCOVERY_XP_CACHE")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with files.lock(folder / ".lock"):
        yield
