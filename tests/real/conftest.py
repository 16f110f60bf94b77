"""Real tests: hosts boot, links delay, processes are killed.  They need root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from discovery_xp.testbed import home, testbeds
from tests.real.traces import traces

# One place for all runs, so that a run that was killed is cleaned by the next one.
HOME = Path("/var/tmp/discovery-xp-tests")


@dataclass(frozen=True)
class Cli:
    """Runs the command line as a user does, in a process of its own."""

    folder: Path
    home: Path = HOME

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISCOVERY_XP_HOME": str(self.home)}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "discovery_xp.cli", *arguments]

    def run(
        self, *arguments: str, code: int | None = 0, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=timeout_s,
        )
        assert code is None or done.returncode == code, (
            f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def topology(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return str(path)


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """Start from a machine without testbeds of ours, whatever an earlier run left."""
    if os.geteuid() != 0:
        pytest.exit("the real tests boot hosts: run them as root", returncode=2)
    if home() != HOME and (found := testbeds()):
        pytest.exit(
            f"the real tests would end your testbeds ({', '.join(found)}): run them after "
            "'discovery-xp destroy --all'",
            returncode=2,
        )
    # A shell has what it starts in the background ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "DISCOVERY_XP_HOME": str(HOME)}
    command = [sys.executable, "-m", "discovery_xp.cli", "destroy", "--all", "--forget"]
    subprocess.run(command, env=environment, check=True, timeout=120)
    shutil.rmtree(HOME, ignore_errors=True)
    yield
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert not HOME.exists()


@pytest.fixture(autouse=True)
def without_failed_ones(request: pytest.FixtureRequest) -> None:
    """A test of a testbed of its own starts without those of failed ones."""
    if "victim" in request.fixturenames:
        environment = {**os.environ, "DISCOVERY_XP_HOME": str(HOME)}
        command = [sys.executable, "-m", "discovery_xp.cli", "destroy", "--all", "--forget"]
        subprocess.run(command, env=environment, check=True, timeout=120)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line; what a module's tests left up is destroyed after them."""
    made = Cli(tmp_path_factory.mktemp("topologies"))
    yield made
    made.run("destroy", "--all", "--forget", code=None)
    assert traces() == []
