"""The hosts that make the load: what is laid down there, what they say, over ssh."""

from __future__ import annotations

import contextlib
import io
import json
import queue
import shlex
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import software
from discovery_xp.boundary import answers, archives, writers
from discovery_xp.deployment.variables import PlayVariables
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.load.rally_task import FOLDER, environment_spec, task
from discovery_xp.load.shares import Share
from discovery_xp.onhost import follow
from discovery_xp.onhost.sources import sources
from discovery_xp.onhost.wire import load as wire
from discovery_xp.places import checkout
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.testbeds.transport import Process, Transport

UNIT = "discovery-xp-load"
# What is kept of a host's folder.
RAW = ("results.json", "report.html", "rally.log", "records.jsonl", "task.json")
READ_EVERY_S = 1.0
# What a command on a load host may print, and what Rally may leave.
CALL_BYTES = 256 * 2**20
RAW_LIMITS = archives.Limits(packed=CALL_BYTES, total=1024 * archives.MIB,
                             file=512 * archives.MIB, files=len(RAW))  # fmt: skip
# Lines that wait to be taken; a host that says more waits, too.
WAITING = 10_000

# What a load host said, and over which connection; nothing where that ended.
Said = queue.Queue[tuple[str, Process, bytes]]

_RUN = """#!/bin/sh
# Rally's whole part.  What it says of the environment holds passwords: it goes nowhere.
cd {folder} && export HOME={folder} PYTHONPATH={folder}/lib || exit 1
rally="{place}/bin/rally --config-file {folder}/rally.conf --plugin-paths {folder}/plugins"
$rally db ensure >/dev/null || exit 1
$rally env create --name load --spec env.json >/dev/null || exit 1
rm env.json
$rally task start task.json
code=$?
$rally task report --html-static --out report.html
$rally task report --json --out results.json
[ $code = 2 ] || exit $code  # 2: some iterations failed
"""

# The unit's own end is a line, too, even where it was killed.
_ENDED = """#!/bin/sh
printf {line} "ended ($SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS)" >>{folder}/records.jsonl
"""


@dataclass(frozen=True)
class Job:
    """What goes on on a host that is followed: its unit, its folder there, and what is kept of it.

    `program` is what the host must have for it; it stops within `stops_within_s`.
    """

    title: str
    unit: str
    folder: str
    program: str
    kept: tuple[str, ...]
    limits: archives.Limits
    stops_within_s: int = 10


LOAD = Job("Rally", UNIT, FOLDER, f"{software.RALLY.place}/bin/rally", RAW, RAW_LIMITS)


class LoadHost:
    """A host that makes load, over ssh; what it says goes to a queue."""

    def __init__(
        self,
        testbed: Testbed,
        name: str,
        said: Said,
        transport: Transport | None = None,
        job: Job = LOAD,
    ) -> None:
        """Reach the host `name` by `transport`, by ssh where that is None."""
        self.name = name
        self.job = job
        self.transport = transport
        self.said = said
        self.ssh = [
            "ssh", "-F", str(testbed.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4", name,
        ]  # fmt: skip
        self.offset = 0
        self.heard = time.monotonic()
        self.lost_at: float | None = None
        self.follower: Process | None = None
        self.word = b""

    def call(
        self, command: str, data: bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a line of sh there; raises Failed when it can't be reached, or says too much."""
        if self.transport is not None:
            return self.transport.call(self.name, command, data, timeout_s)
        try:
            done = answers.run_bounded([*self.ssh, command], data, timeout_s, CALL_BYTES)
        except answers.TooLarge:
            raise Failed(
                f"{self.name} sent more than {CALL_BYTES >> 20} MiB", "see 'discovery-xp status'"
            ) from None
        except subprocess.TimeoutExpired:
            raise Failed(
                f"{self.name} takes more than {timeout_s:g} s", "see 'discovery-xp status'"
            ) from None
        if done.returncode == 255:
            raise Failed(f"{self.name} can't be reached over ssh", "see 'discovery-xp status'")
        return done

    def lay_down(self, files: Mapping[str, tuple[str, int]]) -> None:
        """Replace the load's folder; ends a load that is still there."""
        folder, program = self.job.folder, self.job.program
        done = self.call(
            f"test -x {program} || exit 44; {self._stop()}; rm -rf {folder} && "
            f"mkdir -p {folder} && chmod 700 {folder} && tar -x -C {folder}",
            _archive(files),
            60 + self.job.stops_within_s,
        )
        if done.returncode == 44:
            raise Refused(
                f"{self.name} has no {program}", "'discovery-xp deploy' installs it where it lacks"
            )
        self.require(done, "the load can't be laid down")

    def start(self, longest_s: float) -> None:
        """Start the job; it goes on whether or not anybody listens."""
        folder, log = self.job.folder, f"append:{self.job.folder}/{self.job.title.lower()}.log"
        command = [
            "systemd-run", f"--unit={self.job.unit}", "--quiet", "--collect",
            # Where time is scaled, the slice of the services is capped.
            f"--slice={self.job.unit}.slice",
            f"--property=RuntimeMaxSec={longest_s:.0f}",
            f"--property=TimeoutStopSec={self.job.stops_within_s}",
            f"--property=StandardOutput={log}", f"--property=StandardError={log}",
            f"--property=ExecStopPost=/bin/sh {folder}/ended.sh",
            "--property=LimitNOFILE=65536", "/bin/sh", f"{folder}/run.sh",
        ]  # fmt: skip
        self.require(self.call(shlex.join(command)), f"{self.job.title} can't be started")
        self.heard = time.monotonic()
        self.follow()

    def require(self, done: subprocess.CompletedProcess[bytes], otherwise: str) -> None:
        """Raise Failed unless it went well."""
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            reason = answers.printable(words[-1][:300]) if words else f"code {done.returncode}"
            raise Failed(
                f"{self.name}: {otherwise}: {reason}",
                f"see 'discovery-xp ssh {self.name}'",
            )

    def follow(self) -> None:
        """Begin to listen, from where it was left."""
        command = shlex.join(
            ["env", f"PYTHONPATH={self.job.folder}/lib", "python3", "-m", follow.__name__,
             self.job.folder, self.job.unit, str(self.offset), str(READ_EVERY_S)]
        )  # fmt: skip
        self.follower = self._open(command)
        threading.Thread(target=self._listen, args=(self.follower,), daemon=True).start()
        self._pass_on()  # it may have been lost with the connection

    def _open(self, command: str) -> Process:
        """Start a line of sh there that goes on."""
        if self.transport is not None:
            return self.transport.open(self.name, command)
        return subprocess.Popen(
            [*self.ssh, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _listen(self, follower: Process) -> None:
        assert follower.stdout is not None
        # A longer line comes in parts, the first of which ends the listening.
        while line := follower.stdout.readline(wire.LONGEST_LINE + 1):
            self.said.put((self.name, follower, line))
        self.said.put((self.name, follower, b""))

    def say(self, word: str, delay_s: float) -> None:
        """Let Rally, which waits for this word, go on so many seconds later."""
        self.heard = time.monotonic()
        self.word = f"{word} {delay_s}\n".encode()
        self._pass_on()

    def _pass_on(self) -> None:
        if self.word and self.follower is not None and self.follower.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.follower.stdin.write(self.word)
                self.follower.stdin.flush()

    def hang_up(self) -> None:
        """Listen no longer."""
        if self.follower is not None:
            self.follower.kill()
            self.follower.wait()
            for pipe in (self.follower.stdin, self.follower.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self.follower = None

    def stop(self) -> None:
        """End the job, whether it runs or not; a host that can't be reached is left alone."""
        with contextlib.suppress(Failed):
            self.call(self._stop(), b"", 60 + self.job.stops_within_s)

    def fetch(self, folder: Path) -> str | None:
        """Write what the job left to `folder`; the host keeps nothing of it.

        Returns why there is nothing, None where it was written.
        """
        names, title = " ".join(self.job.kept), self.job.title
        command = f"cd {self.job.folder} && tar -cz --ignore-failed-read {names} 2>/dev/null"
        try:
            done = self.call(command, b"", 300)
            folder.parent.mkdir(parents=True, exist_ok=True)
            archives.unpack(done.stdout, folder, self.job.limits, only=self.job.kept)
        except Failed as error:
            return f"what {title} left on {self.name} can't be fetched: {error.message}"
        except (archives.Hostile, FileExistsError) as error:
            return f"what {title} left on {self.name} can't be used: {error}"
        finally:
            with contextlib.suppress(Failed):
                self.call(f"rm -rf {self.job.folder}")
        return None

    def _stop(self) -> str:
        unit = self.job.unit
        return f"systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null"


def _archive(files: Mapping[str, tuple[str, int]]) -> bytes:
    """Return a tar of texts with their modes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, (text, mode) in files.items():
            entry = tarfile.TarInfo(name)
            data = text.encode()
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def files(variables: PlayVariables, scenario: Scenario, share: Share) -> dict[str, Any]:
    """Return what is laid down in the load's folder: texts with their modes, by name."""
    cloud = variables.cloud
    network = cloud.network if cloud.options["nics"] else ""
    plugin = checkout() / "scenarios/rally_plugins/discovery.py"
    database = f"[database]\nconnection = sqlite:///{FOLDER}/rally.sqlite\n"
    place = software.RALLY.place
    package = sources("catalogue", "checks", "follow", "load", "wire")
    return {
        **{f"lib/{path}": (text, 0o644) for path, text in package.items()},
        "plugins/discovery.py": (plugin.read_text(), 0o644),
        # Rally takes it for a template of Jinja.
        "task.json": (
            writers.json_without_templates(
                task(scenario, share, network, cloud.timings.time_scale)
            ),
            0o644,
        ),
        "env.json": (json.dumps(environment_spec(variables)), 0o600),
        "rally.conf": (database, 0o644),
        "run.sh": (_RUN.format(folder=FOLDER, place=place), 0o755),
        "ended.sh": (_ENDED.format(folder=FOLDER, line=_unit_line()), 0o755),
        "records.jsonl": ("", 0o600),
    }


def _unit_line() -> str:
    """Return printf's format, quoted for sh, of the line of the unit's own end."""
    return shlex.quote(wire.encode("unit", words="%s").replace("\n", r"\n"))
