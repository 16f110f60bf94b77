"""A testbed's life on canned hosts: a home of its own, a topology, and the command line.

All of it goes through the real command line, `bench` and `experiment`, and the deployment;
what would touch hosts, the network or root's things is the dummy's.
"""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery_xp.cli.guard import run as run_guarded
from discovery_xp.cli.main import cli
from discovery_xp.cli.progress import Follower
from discovery_xp.places import home
from discovery_xp.store import Run
from discovery_xp.testbeds.testbed import Testbed

NAME = "tryout"


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1]


class Life:
    """A home, a topology on canned hosts, and the command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.results = folder / "results"
        self.stages: list[str] = []
        self.interrupted_at: str | None = None
        follow = Follower.__call__

        def followed(follower: Follower, stage: str, done: int, total: int) -> None:
            if stage not in self.stages[-1:]:
                self.stages.append(stage)
            if stage == self.interrupted_at:
                raise KeyboardInterrupt
            follow(follower, stage, done, total)

        monkeypatch.setattr(Follower, "__call__", followed)

    @property
    def testbed(self) -> Testbed:
        return Testbed(NAME)

    def topology(self, *faults: str, delay: str = "10ms") -> str:
        site = {"name": "site", "count": 2, "controllers": 1, "computes": 2}
        provider = {"type": "dummy", "faults": list(faults)}
        described = {"name": NAME, "sites": [site], "network": {"delay": delay},
                     "provider": provider}  # fmt: skip
        path = self.folder / "topology.yaml"
        path.write_text(yaml.safe_dump(described))
        return str(path)

    def xp(self, *arguments: str) -> Said:
        self.stages.clear()
        self.monkeypatch.setattr(sys, "argv", ["discovery-xp", *arguments])
        self.capsys.readouterr()
        code = run_guarded(cli)
        captured = self.capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def bench(self, *faults: str, more: tuple[str, ...] = ()) -> Said:
        results = ("--vms", "4", "--results", str(self.results))
        return self.xp("bench", self.topology(*faults), *results, *more)

    def runs(self) -> list[Run]:
        return [Run(path.parent) for path in sorted(self.results.rglob("run.json"))]

    def requires_nothing_left(self) -> None:
        assert not home().exists(), list(home().rglob("*"))

    def destroys_what_is_left(self) -> None:
        said = self.xp("destroy", "--testbed", NAME)
        assert (said.code, said.out) == (0, f"'{NAME}' is gone\n"), said
        self.requires_nothing_left()


def begin_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, shows_reports: bool
) -> Iterator[Life]:
    """Yield a life in a folder, then put the process's signals back as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for name, place in (("DISCOVERY_XP_HOME", "home"), ("DISCOVERY_XP_CACHE", "cache"),
                        ("HOME", "user")):  # fmt: skip
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)  # whoever tries it out needn't be root
    monkeypatch.setattr("discovery_xp.files.require_ours", lambda *_: None)  # the test may be
    if not shows_reports:  # they take a second, and have tests of their own
        monkeypatch.setattr("discovery_xp.analysis.report.print_report", lambda *_: None)
        monkeypatch.setattr("discovery_xp.analysis.report.html", lambda *_, **__: "a page")
    for module in ("report", "pictures"):
        monkeypatch.setattr(f"discovery_xp.analysis.{module}.pictures_of", lambda _runs: [])
    yield Life(tmp_path, monkeypatch, capsys)
    for number, handler in handlers.items():
        signal.signal(number, handler)
