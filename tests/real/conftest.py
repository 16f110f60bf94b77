"""Real tests: hosts boot, links delay, processes are killed.  They need root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.real.machine import HOME as HOME
from tests.real.machine import Turn, destroy_all, destroy_own, others_testbeds
from tests.real.traces import traces

_turn = Turn()


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

    def on(self, host: str, command: str, testbed: str | None = None) -> str:
        """Return what a command prints on a host of `testbed`, or of the only one.

        ssh is asked, as `discovery-xp ssh` does, which takes half a second more.
        """
        folder = self.home / "testbeds"
        name = testbed or ",".join(sorted(entry.name for entry in folder.iterdir()))
        done = subprocess.run(
            ["ssh", "-F", str(folder / name / "ssh_config"), host, command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{host}: {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the machine before the test's own time runs."""
    _turn.wait_for(item)
    return (yield)


def pytest_unconfigure() -> None:
    """Let others have the machine."""
    _turn.end()


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """Start from a machine without testbeds of ours, whatever an earlier run left."""
    if os.geteuid() != 0:
        pytest.exit("the real tests boot hosts: run them as root", returncode=2)
    if found := others_testbeds():
        pytest.exit(
            f"the real tests would end your testbeds ({', '.join(found)}): run them after "
            "'discovery-xp destroy --all'",
            returncode=2,
        )
    # A shell has what it starts in the background ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for report in Path("/tmp").glob("discovery-xp-*.traceback"):
        report.unlink(missing_ok=True)  # of a defect met before; the other side may be faster
    assert clean() == []
    yield
    assert clean() == []
    assert not HOME.exists()


def clean() -> list[str]:
    """Destroy what tests left up, all of the machine where no others use it; return traces."""
    if _turn.is_alone:
        destroy_all(HOME)
        return traces()
    return [trace for name in destroy_own(HOME) for trace in traces(name)]


@pytest.fixture(autouse=True)
def without_failed_ones(request: pytest.FixtureRequest) -> None:
    """A test of a testbed of its own starts without those of failed ones."""
    if "victim" in request.fixturenames:
        clean()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line; what a module's tests left up is destroyed after them."""
    yield Cli(tmp_path_factory.mktemp("topologies"))
    assert clean() == []
