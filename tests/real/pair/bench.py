"""The bench on the cloud of these tests: its runs, and loads without the rest of a run."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovery_xp import experiment, load
from discovery_xp.deployment.variables import play_variables
from discovery_xp.inputs.scenario import parse_scenario
from discovery_xp.load import LoadRun
from discovery_xp.load.ledger import Pace, Row
from discovery_xp.load.rally_hosts import UNIT
from discovery_xp.load.rally_task import FOLDER
from discovery_xp.store import Run, runs_under
from discovery_xp.testbeds.testbed import Testbed
from tests.real.conftest import Cli

NAME = "pair"
# What a template, a shell or a reader of INI would make something else of.
PWNED = Path("/var/tmp/discovery-xp-pwned")
STRANGE = {
    "template": f"{{{{ lookup('pipe', 'touch {PWNED}') }}}}{{% raw %}}{{# x #}}",
    "shell": f"$(touch {PWNED}) `touch {PWNED}` $HOME ${{HOME}} %h %(x)s \\ ; # x",
    "quotes": "'\"x\"'",
    "blanks": "  x  ",
    "section": "[two] ; three = 3",
    "list": "[1, 2]",
    "mapping": "{'a': 1}",
}
CLOUD = f"""
name: {NAME}
sites: [{{name: site, count: 2, computes: 1, data: 0}}]
network: {{delay: 10ms}}
"""
CONFIG = (
    f"openstack: {{config: {{nova: {{strange: {json.dumps(STRANGE)}}}, "
    f"keystone: {{strange: {json.dumps(STRANGE)}}}}}}}\n"
)
MASTER, CONTROLLERS = "site1-master-1", ("site1-controller-1", "site2-controller-1")
VMS = 6


@dataclass
class Told:
    """What a load's caller was told while it went on."""

    vms: list[Row] = field(default_factory=list)
    actions: list[Row] = field(default_factory=list)
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)


class Bench:
    """The cloud, the first run on it, and loads."""

    def __init__(self, cli: Cli, topology: str, results: Path) -> None:
        self.cli = cli
        self.topology = topology
        self.results = results
        self.said = ""
        self.testbed = Testbed(NAME)
        self.told = Told()

    def command(self, *more: str, results: Path | None = None) -> tuple[str, ...]:
        return ("bench", self.topology, "--results", str(results or self.results), *more)

    def runs(self, results: Path | None = None) -> list[Run]:
        """All that are stored, the oldest first."""
        return runs_under(results or self.results)

    def start(self, *more: str, results: Path | None = None) -> subprocess.Popen[str]:
        return self.cli.start(*self.command(*more, results=results))

    def wait_for_rows(self, process: subprocess.Popen[str], known: int, rows: int) -> None:
        """Until a run that is new has stored so many VMs."""
        latest = time.monotonic() + 300
        while True:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < latest
            found = self.runs()
            if len(found) > known and found[-1].table("vms").num_rows >= rows:
                return
            time.sleep(0.5)

    def load(
        self, text: str, meanwhile: Callable[[int], None] = lambda _rows: None, **more: Any
    ) -> LoadRun:
        """Do a scenario; `meanwhile` is called with the number of rows there are so far."""
        self.told = told = Told()
        hosts = experiment.hosts_of(self.testbed)

        def on_rows(vms: list[Row], actions: list[Row]) -> None:
            told.vms += vms
            told.actions += actions
            meanwhile(len(told.vms))

        return load.run(
            hosts, self.testbed, play_variables(hosts, self.testbed),
            parse_scenario(text, "try.yaml"), on_rows,
            lambda *stage: told.stages.append(stage), on_pace=told.paces.append, **more,
        )  # fmt: skip

    def on(self, host: str, command: str) -> str:
        return self.cli.on(host, command)

    def servers(self) -> list[Any]:
        found: list[Any] = json.loads(
            self.cli.run("openstack", "server", "list", "--all-projects", "-f", "json").stdout
        )
        return found

    def traces(self) -> str:
        """What loads left on the hosts that make load."""
        return "".join(
            self.on(
                host,
                f"ls -A {FOLDER} 2>/dev/null; pgrep -af '/opt/rall[y]'; "
                f"systemctl is-active {UNIT} | grep -v inactive; true",
            )
            for host in (MASTER, *CONTROLLERS)
        )
