"""The machine that the real tests share: homes of their testbeds, and who may destroy all of them.

Two processes may run real tests at once, if `tests.run_all` starts them: each has a home of
its own.  A module marked `alone` looks at the whole machine or destroys all testbeds: it
waits until no other process is in a module of real tests, and others wait for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from discovery_xp.places import home
from discovery_xp.testbeds.testbed import testbeds

# The same ones for all runs, so that a run that was killed is cleaned by the next one.
HOMES = (Path("/var/tmp/discovery-xp-tests"), Path("/var/tmp/discovery-xp-tests-2"))

HOME_VARIABLE = "DISCOVERY_XP_TESTS_HOME"  # set by `tests.run_all` for each of its processes
HOME = Path(os.environ.get(HOME_VARIABLE, HOMES[0]))

LOCK = Path("/run/lock/discovery-xp-tests.lock")


def others_testbeds() -> list[str]:
    """Return the testbeds of the user's own home, which destroying all would end."""
    return [] if home() in HOMES else testbeds()


def destroy_all(own_home: Path) -> None:
    """Destroy every testbed of the machine, whoever made it, and empty a home of the tests."""
    _destroy(own_home, "--all")
    shutil.rmtree(own_home, ignore_errors=True)


def destroy_own(own_home: Path) -> list[str]:
    """Destroy the testbeds of a home, and return their names."""
    folder = own_home / "testbeds"
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    # Borrowed hosts may be emulated ones of another testbed, which goes last then.
    names.sort(key=lambda name: '"provider": "local"' in _state(folder / name))
    for name in names:
        _destroy(own_home, "--testbed", name)
    return names


def _state(folder: Path) -> str:
    file = folder / "state.json"
    return file.read_text() if file.exists() else ""


def _destroy(own_home: Path, *which: str) -> None:
    environment = {**os.environ, "DISCOVERY_XP_HOME": str(own_home)}
    command = [sys.executable, "-m", "discovery_xp.cli", "destroy", "--forget", *which]
    subprocess.run(command, env=environment, check=False, timeout=120)


class Turn:
    """The lock of the machine: shared, or exclusive for modules marked `alone`."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._module: Path | None = None
        self._is_exclusive = False

    @property
    def is_alone(self) -> bool:
        """Say whether no other process has real tests now."""
        return HOME_VARIABLE not in os.environ or self._is_exclusive

    def wait_for(self, item: pytest.Item) -> None:
        """Hold the machine as the item's module needs it, until another module's first item."""
        if item.path == self._module:
            return
        self.end()
        self._module, self._file = item.path, LOCK.open("w")
        self._is_exclusive = item.get_closest_marker("alone") is not None
        fcntl.flock(self._file, fcntl.LOCK_EX if self._is_exclusive else fcntl.LOCK_SH)

    def end(self) -> None:
        """Let others have the machine."""
        if self._file is not None:
            self._file.close()
        self._file, self._module, self._is_exclusive = None, None, False
