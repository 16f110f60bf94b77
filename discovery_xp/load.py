"""A cloud and a scenario to a `LoadRun`: what became of each VM and each request.

Rally makes the load, on the master or on each site's controller, with our plugin
(`scenarios/rally_plugins`).  It runs as a transient systemd unit and writes all that happens
to a file of JSON lines; `run` lays down what it needs, says when it may begin, and follows
those files, each over one ssh connection.  docs/load.md tells the steps.
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import shlex
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovery_xp import cloud, software
from discovery_xp.errors import Failed, Refused
from discovery_xp.hosts import Hosts, Progress
from discovery_xp.plan import Plan
from discovery_xp.remote import some
from discovery_xp.scenario import Scenario
from discovery_xp.testbed import Testbed

UNIT = "discovery-xp-load"
FOLDER = "/var/lib/discovery-xp/load"
NETWORK = "discovery"
# What is kept of a host's folder.
RAW = ("results.json", "report.html", "rally.log", "records.jsonl", "task.json")
# Between the word and the first request, so that all load hosts begin together.
GO_DELAY_S = 1.0
# The load's own process says something every other second.
SILENT_S = 240.0
UNREACHABLE_S = 60.0
READ_EVERY_S = 1.0
# The unit ends by itself then, whoever started it.
LONGEST_AFTER_RUN_S = 3600.0
PACE_OVER_S = 30.0

VM_COLUMNS = (
    "name", "server_id", "region", "site", "requested_at", "accepted_at", "active_at", "seen_at",
    "status", "host", "host_site", "deleted_at", "error", "boot_duration_s",
)  # fmt: skip
ACTION_COLUMNS = (
    "action", "iteration", "region", "site", "started_at", "duration_s", "error",
)  # fmt: skip

# A row of vms.parquet or actions.parquet, as docs/results.md has them.
Row = dict[str, Any]
# What a load host said, and over which connection; nothing where that ended.
Said = queue.Queue[tuple[str, "subprocess.Popen[bytes]", bytes]]
# Gets each VM's row once, when it ended, and each action's.
OnRows = Callable[[list[Row], list[Row]], None]


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class Share:
    """What one load host asks for: so many iterations and VMs of warm-up of each region.

    `computes` are those that boot a VM each in the warm-up, by the region that is asked.
    `clears` are the regions whose VMs of earlier loads it deletes.  `iterations_before` are
    those of the load hosts before it: numbers go through all hosts.
    """

    host: str
    regions: tuple[cloud.Region, ...]
    counts: tuple[int, ...]
    warm_ups: tuple[int, ...]
    computes: tuple[tuple[str, ...], ...]
    concurrency: int | None
    clears: tuple[str, ...]
    iterations_before: int = 0


@dataclass(frozen=True)
class Pace:
    """How a load comes on; `remaining_s` is None where nothing was done of late."""

    done: int
    total: int
    active: int
    failed: int
    rate_per_s: float
    remaining_s: float | None


@dataclass(frozen=True)
class LoadRun:
    """What became of a load.

    `status` is 'complete' or 'partial', then with a `reason`; VMs that fail don't make it
    partial.  `vms` and `actions` are rows as docs/results.md has them.  `window` is the
    load's own time, from the word to begin to the end of its last iteration, in s since
    1970.  `cpu_s` and `polls` are the load generator's over that window, on all of `hosts`;
    `sent_s` is the time between the first request for a VM or token and the last.  `raw` is
    the folder with Rally's reports and log, by host; `notes` are what else went wrong.
    """

    scenario: Scenario
    status: str
    reason: str | None
    vms: tuple[Row, ...]
    actions: tuple[Row, ...]
    window: tuple[float, float] | None
    cpu_s: float
    polls: int
    sent_s: float | None
    hosts: tuple[str, ...]
    raw: Path
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> int:
        """How many VMs were asked for."""
        return len(self.vms)

    @property
    def host(self) -> str:
        """The load hosts' names."""
        return ", ".join(self.hosts)

    @property
    def cores(self) -> float:
        """CPU that the load generator took, on average over the window."""
        if self.window is None:
            return 0.0
        return self.cpu_s / max(0.001, self.window[1] - self.window[0])

    @property
    def load(self) -> dict[str, Any]:
        """run.json's `load`: the load generator's share."""
        return {
            "cpu_s": self.cpu_s,
            "cores": self.cores,
            "polls": self.polls,
            "host": self.host,
        }


# ---------------------------------------------------------------- who asks for what


def split(count: int, parts: int) -> list[int]:
    """`count` in `parts` that differ by one at most, the larger ones first."""
    return [count // parts + (index < count % parts) for index in range(parts)]


def shares(plan: Plan, scenario: Scenario) -> list[Share]:
    """What each load host asks of which region.  Raises Refused for an unknown region."""
    known = {region.name: region for region in cloud.regions(plan)}
    unknown = [name for name in scenario.regions or () if name not in known]
    if unknown:
        raise Refused(
            f"scenario '{scenario.name}': the cloud has no region '{unknown[0]}'",
            f"its regions are {some(list(known))}",
        )
    regions = [known[name] for name in scenario.regions or known]
    counts = split(scenario.count, len(regions))
    warm_ups = split(len(regions) if scenario.warm_up is None else scenario.warm_up, len(regions))
    computes = [()] * len(regions) if scenario.warm_up is not None else warmed(plan, regions)
    if scenario.starts_on == "master":
        return [
            Share(cloud.master(plan).name, tuple(regions), tuple(counts), tuple(warm_ups),
                  tuple(computes), scenario.concurrency, tuple(known))
        ]  # fmt: skip
    asked = [index for index, count in enumerate(counts) if count]
    at_once = [None] * len(asked) if scenario.concurrency is None else [
        max(1, places) for places in split(scenario.concurrency, len(asked))
    ]  # fmt: skip
    homeless = [name for name in known if name not in [regions[index].name for index in asked]]
    return [
        Share(regions[index].controller, (regions[index],), (counts[index],), (warm_ups[index],),
              (computes[index],), places,
              (regions[index].name, *(homeless if index == asked[0] else ())),
              sum(counts[:index]))
        for index, places in zip(asked, at_once, strict=True)
    ]  # fmt: skip


def warmed(plan: Plan, regions: Sequence[cloud.Region]) -> list[tuple[str, ...]]:
    """The computes that each of `regions` is asked to boot a VM on, before the load.

    A site's are asked for at the site's own API, so that any zones are kept to; those of
    sites without one, at the others' in turn, and not at all where sites are zones.
    """
    found: list[list[str]] = [[] for _ in regions]
    homeless: list[str] = []
    for site, names in cloud.computes(plan).items():
        at_site = [index for index, region in enumerate(regions) if region.site == site]
        if at_site:
            found[at_site[0]] += names
        else:
            homeless += names
    if plan.cloud is not None and plan.cloud.placement == "shared":
        for index, name in enumerate(homeless):
            found[index % len(regions)].append(name)
    return [tuple(names) for names in found]


def task(scenario: Scenario, share: Share, network: str) -> dict[str, Any]:
    """Rally's task file for a load host."""
    load = {
        "kind": scenario.kind,
        "regions": [
            {
                "name": region.name,
                "site": region.site,
                "count": count,
                "warm_up": warm_up,
                "computes": list(computes),
            }
            for region, count, warm_up, computes in zip(
                share.regions, share.counts, share.warm_ups, share.computes, strict=True
            )
        ],
        "concurrency": share.concurrency,
        "clears": list(share.clears),
        "iterations_before": share.iterations_before,
        "flavor": scenario.flavor,
        "image": scenario.image,
        "network": network,
        "poll_interval_s": scenario.poll_interval_s,
        "vm_timeout_s": scenario.vm_timeout_s,
        "run_timeout_s": scenario.run_timeout_s,
        "delete_after": scenario.delete_after,
        "reads": list(scenario.reads),
        "repeats": scenario.repeats,
        "records": f"{FOLDER}/records.jsonl",
        "words": FOLDER,
    }
    return {
        "version": 2,
        "title": scenario.name,
        "description": scenario.description or scenario.kind,
        "subtasks": [
            {
                "title": scenario.kind,
                "scenario": {"Discovery.load": {"load": load}},
                "runner": {"discovery": {}},
            }
        ],
    }


def environment_spec(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Rally's description of the cloud; it holds passwords."""

    def user(name: str, password: str) -> dict[str, str]:
        return {
            "username": name,
            "password": password,
            "project_name": name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    secrets, region = variables["passwords"], variables["regions"][0]
    return {
        "existing@openstack": {
            "auth_url": f"{region['urls']['identity']}/v3",
            "region_name": region["name"],
            "admin": user("admin", secrets["admin"]),
            "users": [user(variables["user"], secrets["user"])],
        }
    }


# ---------------------------------------------------------------- what is known so far


@dataclass
class _HostState:
    """What a load host said of itself."""

    is_ready: bool = False
    is_loaded: bool = False
    is_done: bool = False
    stage: tuple[str, int, int] = ("", 0, 0)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_sent_at: float | None = None
    crash: str = ""
    ended: str | None = None
    reported: set[str] = field(default_factory=set)


class Ledger:
    """The load hosts' lines, merged into rows; pure, apart from what it is told."""

    def __init__(self, scenario: Scenario, hosts: Sequence[str], sites: Mapping[str, str]) -> None:
        """`sites` is by host, of all that may run a VM."""
        self.scenario = scenario
        self.sites = sites
        self.hosts = {host: _HostState() for host in hosts}
        self.lost: dict[str, str] = {}
        self.notes: list[str] = []
        self.time_is_up = False
        self.actions: list[Row] = []
        self.iterations = 0
        self.ended_at: list[float] = []
        self._vms: dict[str, Row] = {}
        self._new_vms: list[str] = []
        self._new_actions: list[Row] = []

    def take(self, host: str, line: Mapping[str, Any]) -> None:
        """One line of a load host."""
        state, values = self.hosts[host], dict(line)
        kind = values.pop("line")
        if kind == "vm":
            self._take_vm(values)
        elif kind == "action":
            row = {column: values[column] for column in ACTION_COLUMNS}
            self.actions.append(row)
            self._new_actions.append(row)
        elif kind == "iteration":
            self.iterations += 1
        elif kind == "usage":
            state.usage["last"] = values
            if values["mark"]:
                state.usage[values["mark"]] = values
        elif kind == "stage":
            state.stage = (values["stage"], values["done"], values["total"])
        elif kind == "ready":
            state.is_ready = True
        elif kind == "loaded":
            state.is_loaded = True
            state.stage = ("", 0, 0)
            state.last_sent_at = values["last_sent_at"]
            self.time_is_up = self.time_is_up or values["time_is_up"]
        elif kind == "note":
            self.notes.append(values["text"])
        elif kind == "crash":
            state.crash = values["error"]
        elif kind == "done":
            state.is_done = True
            self.lost.update(values["lost"])
        elif kind == "unit":
            state.ended = values["words"]

    def _take_vm(self, values: dict[str, Any]) -> None:
        row = self._vms.setdefault(values["name"], dict.fromkeys((*VM_COLUMNS, "launched_at")))
        before = row["status"]
        row.update({key: value for key, value in values.items() if value is not None})
        if row["status"] is not None and before is None:
            self._new_vms.append(values["name"])
            self.ended_at.append(row["seen_at"] or time.time())

    def new_rows(self) -> tuple[list[Row], list[Row]]:
        """VMs that ended and actions that were taken since the last time."""
        vms, self._new_vms = self._new_vms, []
        actions, self._new_actions = self._new_actions, []
        return [self._row(self._vms[name]) for name in vms], actions

    def _row(self, known: Mapping[str, Any]) -> Row:
        row = {column: known[column] for column in VM_COLUMNS}
        if row["status"] == "ACTIVE":
            row["boot_duration_s"] = row["seen_at"] - row["requested_at"]
            launched_at = known["launched_at"]
            # The cloud counts in whole seconds: none is ACTIVE before it was asked for.
            row["active_at"] = row["seen_at"] if launched_at is None else min(
                row["seen_at"], max(launched_at, row["requested_at"])
            )  # fmt: skip
        row["host_site"] = self.sites.get(row["host"] or "")
        return row

    @property
    def vms(self) -> list[Row]:
        """All that were asked for and ended, in the order of the requests."""
        rows = [self._row(known) for known in self._vms.values() if known["status"] is not None]
        return sorted(rows, key=lambda row: (row["requested_at"], row["name"]))

    def give_up(self, reason: str) -> None:
        """VMs that haven't ended never will: they are rows as well."""
        for name, known in self._vms.items():
            if known["status"] is None:
                known["status"] = "TIMEOUT"
                what = "its request wasn't answered" if known["accepted_at"] is None else (
                    "it wasn't ACTIVE yet"
                )  # fmt: skip
                known["error"] = f"{what} when the load ended: {reason}"
                self._new_vms.append(name)

    @property
    def done(self) -> int:
        """Iterations that ended."""
        return len(self.ended_at) if self.scenario.boots else self.iterations

    def pace(self, now: float) -> Pace:
        """How it comes on."""
        active = sum(known["status"] == "ACTIVE" for known in self._vms.values())
        rate = rate_per_s(self.ended_at, self._first_request(), now)
        return Pace(
            done=self.done,
            total=self.scenario.count,
            active=active,
            failed=len(self.ended_at) - active,
            rate_per_s=rate,
            remaining_s=(self.scenario.count - self.done) / rate if rate else None,
        )

    def _first_request(self) -> float:
        return min((known["requested_at"] for known in self._vms.values()), default=0.0)

    def stage(self) -> tuple[str, int, int] | None:
        """What the load hosts do before the load and after it, all of them together."""
        stages = [state.stage for state in self.hosts.values() if state.stage[0]]
        if not stages:
            return None
        name = stages[-1][0]
        same = [stage for stage in stages if stage[0] == name]
        return name, sum(stage[1] for stage in same), sum(stage[2] for stage in same)

    @property
    def is_loading(self) -> bool:
        """True from the first host's begin to the last one's end."""
        began = [state for state in self.hosts.values() if "start" in state.usage]
        return any("end" not in state.usage for state in began)

    def window(self) -> tuple[float, float] | None:
        """From the first host's begin to the last one's end, or what was heard of it last."""
        starts = [s.usage["start"]["at"] for s in self.hosts.values() if "start" in s.usage]
        ends = [
            state.usage.get("end", state.usage["last"])["at"]
            for state in self.hosts.values()
            if "start" in state.usage
        ]
        return (min(starts), max(ends)) if starts else None

    def spent(self, key: str) -> float:
        """`cpu_s` or `polls` of all load hosts over the window."""
        total = 0.0
        for state in self.hosts.values():
            if "start" in state.usage:
                end = state.usage.get("end", state.usage["last"])
                total += end[key] - state.usage["start"][key]
        return total

    def sent_s(self) -> float | None:
        """Between the first request and the last, None where the load didn't come so far."""
        last = [state.last_sent_at for state in self.hosts.values() if state.last_sent_at]
        first = [row["requested_at"] for row in self._vms.values()] or [
            row["started_at"] for row in self.actions if row["action"] == "authenticate"
        ]
        return max(0.0, max(last) - min(first)) if last and first else None

    def reason(self) -> str | None:
        """Why the load is partial, in a line; None when it is complete."""
        why = [f"Rally on {host}: {state.crash}" for host, state in self.hosts.items()
               if state.crash]  # fmt: skip
        why += [
            f"Rally on {host} {state.ended or 'ended early'}"
            for host, state in self.hosts.items()
            if not state.is_done and not state.crash
        ]
        why += self.lost.values()
        if self.time_is_up:
            why.append(f"the run's time ({self.scenario.run_timeout_s:g} s) was up")
        if not why:
            return None
        never = self.scenario.vms - len(self._vms) if self.scenario.boots else 0
        if never:
            why.append(f"{never} of {self.scenario.vms} VMs were never asked for")
        return "; ".join(why)


def rate_per_s(ended_at: Sequence[float], first: float, now: float) -> float:
    """How many ended in a second, of late."""
    over_s = min(PACE_OVER_S, max(1.0, now - first))
    return sum(at > now - over_s for at in ended_at) / over_s


# ---------------------------------------------------------------- the load hosts


_RUN = """#!/bin/sh
# Rally's whole part.  What it says of the environment holds passwords: it goes nowhere.
cd {folder} && export HOME={folder} || exit 1
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
printf '{"line": "unit", "words": "%s"}\\n' "ended ($SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS)" \\
    >>{folder}/records.jsonl
"""

# Hands on what is added to the records from an offset on, and writes the words to go on.
_FOLLOW = """
import os, select, subprocess, sys, time
folder, unit, offset, every_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
heard = time.monotonic()
def hand_on():
    global offset, heard
    try:
        with open(folder + "/records.jsonl", "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return b""
    data = data[: data.rfind(b"\\n") + 1]
    if data:
        offset, heard = offset + len(data), time.monotonic()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return data
while b'{"line": "unit"' not in hand_on():
    if time.monotonic() - heard > 5:
        heard = time.monotonic()
        said = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True)
        if said.stdout.strip() not in ("active", "activating", "deactivating"):
            if b'{"line": "unit"' not in hand_on():
                print('{"line": "unit", "words": "is gone"}', flush=True)
            break
    if select.select([sys.stdin], [], [], every_s)[0]:
        words = sys.stdin.readline().split()
        if not words:
            break
        with open(folder + "/word.new", "w") as file:
            file.write(str(time.time() + float(words[1])))
        os.rename(folder + "/word.new", folder + "/" + words[0])
"""


class _LoadHost:
    """A host that makes load, over ssh; what it says goes to a queue."""

    def __init__(self, testbed: Testbed, name: str, said: Said) -> None:
        self.name = name
        self.said = said
        self.ssh = [
            "ssh", "-F", str(testbed.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4", name,
        ]  # fmt: skip
        self.offset = 0
        self.heard = time.monotonic()
        self.lost_at: float | None = None
        self.follower: subprocess.Popen[bytes] | None = None
        self.word = b""

    def call(
        self, command: str, data: bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a line of sh there; raises Failed when it can't be reached."""
        try:
            done = subprocess.run(
                [*self.ssh, command], input=data, capture_output=True, check=False,
                timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(
                f"{self.name} takes more than {timeout_s:g} s", "see 'discovery-xp status'"
            ) from None
        if done.returncode == 255:
            raise Failed(f"{self.name} can't be reached over ssh", "see 'discovery-xp status'")
        return done

    def lay_down(self, files: Mapping[str, tuple[str, int]]) -> None:
        """Replace the load's folder; ends a load that is still there."""
        rally = f"{software.RALLY.place}/bin/rally"
        done = self.call(
            f"test -x {rally} || exit 44; {_stop()}; rm -rf {FOLDER} && "
            f"mkdir -p {FOLDER} && chmod 700 {FOLDER} && tar -x -C {FOLDER}",
            _archive(files),
        )
        if done.returncode == 44:
            raise Refused(
                f"{self.name} has no {rally}", "'discovery-xp deploy' installs it where it lacks"
            )
        self.require(done, "the load can't be laid down")

    def start(self, longest_s: float) -> None:
        """Start Rally; it goes on whether or not anybody listens."""
        command = [
            "systemd-run", f"--unit={UNIT}", "--quiet", "--collect",
            f"--property=RuntimeMaxSec={longest_s:.0f}", "--property=TimeoutStopSec=10",
            f"--property=StandardOutput=append:{FOLDER}/rally.log",
            f"--property=StandardError=append:{FOLDER}/rally.log",
            f"--property=ExecStopPost=/bin/sh {FOLDER}/ended.sh",
            "--property=LimitNOFILE=65536", "/bin/sh", f"{FOLDER}/run.sh",
        ]  # fmt: skip
        self.require(self.call(shlex.join(command)), "Rally can't be started")
        self.heard = time.monotonic()
        self.follow()

    def require(self, done: subprocess.CompletedProcess[bytes], otherwise: str) -> None:
        """Raise Failed unless it went well."""
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise Failed(
                f"{self.name}: {otherwise}: {words[-1] if words else f'code {done.returncode}'}",
                f"see 'discovery-xp ssh {self.name}'",
            )

    def follow(self) -> None:
        """Begin to listen, from where it was left."""
        command = shlex.join(
            ["python3", "-c", _FOLLOW, FOLDER, UNIT, str(self.offset), str(READ_EVERY_S)]
        )
        self.follower = subprocess.Popen(
            [*self.ssh, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(self.follower,), daemon=True).start()
        self._pass_on()  # it may have been lost with the connection

    def _listen(self, follower: subprocess.Popen[bytes]) -> None:
        assert follower.stdout is not None
        for line in follower.stdout:
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
        """End Rally, whether it runs or not; a host that can't be reached is left alone."""
        with contextlib.suppress(Failed):
            self.call(_stop())

    def fetch(self, folder: Path) -> None:
        """What Rally left, to `folder`; the host keeps nothing of it."""
        with contextlib.suppress(Failed):
            done = self.call(
                f"cd {FOLDER} && tar -cz --ignore-failed-read {' '.join(RAW)} 2>/dev/null", b"", 300
            )
            folder.mkdir(parents=True, exist_ok=True)
            with (
                contextlib.suppress(tarfile.TarError, EOFError),
                tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:gz") as tar,
            ):
                for entry in tar.getmembers():
                    data = tar.extractfile(entry)
                    if entry.name in RAW and data is not None:
                        (folder / entry.name).write_bytes(data.read())
            self.call(f"rm -rf {FOLDER}")


def _stop() -> str:
    return f"systemctl stop {UNIT} 2>/dev/null; systemctl reset-failed {UNIT} 2>/dev/null"


def _archive(files: Mapping[str, tuple[str, int]]) -> bytes:
    """A tar of texts with their modes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, (text, mode) in files.items():
            entry = tarfile.TarInfo(name)
            data = text.encode()
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _files(variables: Mapping[str, Any], scenario: Scenario, share: Share) -> dict[str, Any]:
    network = NETWORK if variables["cloud"]["nics"] else ""
    plugin = software.checkout() / "scenarios/rally_plugins/discovery.py"
    database = f"[database]\nconnection = sqlite:///{FOLDER}/rally.sqlite\n"
    place = software.RALLY.place
    return {
        "plugins/discovery.py": (plugin.read_text(), 0o644),
        "task.json": (json.dumps(task(scenario, share, network), indent=1), 0o644),
        "env.json": (json.dumps(environment_spec(variables)), 0o600),
        "rally.conf": (database, 0o644),
        "run.sh": (_RUN.format(folder=FOLDER, place=place), 0o755),
        "ended.sh": (_ENDED.replace("{folder}", FOLDER), 0o755),
        "records.jsonl": ("", 0o600),
    }


# ---------------------------------------------------------------- a load


def raw_folder(testbed: Testbed) -> Path:
    """Where a load leaves Rally's reports and logs, by host, whether it ended well or not."""
    return testbed.folder / "load"


def vm_counts(vms: Sequence[Row]) -> dict[str, int]:
    """run.json's `vms`: `asked`, `active`, `failed`, `deleted`."""
    active = sum(row["status"] == "ACTIVE" for row in vms)
    return {
        "asked": len(vms),
        "active": active,
        "failed": len(vms) - active,
        "deleted": sum(row["deleted_at"] is not None for row in vms),
    }


def duration_s(vms: Sequence[Row]) -> float | None:
    """From the first request to the last VM seen ACTIVE; None when none got there."""
    seen = [row["seen_at"] for row in vms if row["status"] == "ACTIVE"]
    return max(seen) - min(row["requested_at"] for row in vms) if seen else None


def run(
    hosts: Hosts,
    testbed: Testbed,
    variables: Mapping[str, Any],
    scenario: Scenario,
    on_rows: OnRows,
    progress: Progress,
    before_load: Callable[[], None] = lambda: None,
    after_load: Callable[[], None] = lambda: None,
    on_pace: Callable[[Pace], None] = lambda _pace: None,
) -> LoadRun:
    """Do all of a scenario's load; see docs/load.md for the steps.

    `variables` are what the playbooks were told.  `on_rows` gets each VM when it ended and
    each action; where a VM landed, when it says it got ACTIVE and when it was deleted is
    known later, and in the `LoadRun`.  `before_load` is called after the warm-up, just
    before the first request, `after_load` when the last iteration has ended, before VMs are
    looked for and deleted; not when no load host is there any more.  A load that ends early
    is returned as 'partial'; Failed is raised when it doesn't come to its first request,
    Refused when the cloud has no such region or the load hosts no Rally.  An exception,
    Ctrl-C among them, ends Rally.
    """
    planned = shares(hosts.plan, scenario)
    sites = {host.name: host.site for host in hosts.plan.hosts}
    ledger = Ledger(scenario, [share.host for share in planned], sites)
    raw = raw_folder(testbed)
    shutil.rmtree(raw, ignore_errors=True)
    said: Said = queue.Queue()
    load_hosts = [_LoadHost(testbed, share.host, said) for share in planned]
    following = _Following(ledger, load_hosts, said, on_rows, progress, on_pace)
    try:
        progress("starting Rally", 0, len(load_hosts))
        for host, share in zip(load_hosts, planned, strict=True):
            host.lay_down(_files(variables, scenario, share))
        longest_s = scenario.run_timeout_s + 3 * scenario.vm_timeout_s + LONGEST_AFTER_RUN_S
        for number, host in enumerate(load_hosts, start=1):
            host.start(longest_s)
            progress("starting Rally", number, len(load_hosts))
        following.until(lambda: all(s.is_ready or s.ended for s in ledger.hosts.values()))
        _require_ready(ledger, load_hosts, raw)
        before_load()
        for host in load_hosts:
            host.say("go", GO_DELAY_S)
        following.until(lambda: all(s.is_loaded or s.ended for s in ledger.hosts.values()))
        if not all(state.ended for state in ledger.hosts.values()):
            after_load()
            for host in load_hosts:
                host.say("on", 0)
        following.until(lambda: all(state.ended for state in ledger.hosts.values()))
        reason = ledger.reason()
        ledger.give_up(reason or "it is over")
    except BaseException:
        ledger.give_up("it was interrupted")
        raise
    finally:
        for host in load_hosts:
            host.hang_up()
            host.stop()
        following.hand_on_rows()
        for host in load_hosts:
            host.fetch(raw / host.name)
    return LoadRun(
        scenario=scenario,
        status="partial" if reason else "complete",
        reason=reason,
        vms=tuple(ledger.vms),
        actions=tuple(ledger.actions),
        window=ledger.window(),
        cpu_s=round(ledger.spent("cpu_s"), 3),
        polls=int(ledger.spent("polls")),
        sent_s=ledger.sent_s(),
        hosts=tuple(host.name for host in load_hosts),
        raw=raw,
        notes=tuple(dict.fromkeys(ledger.notes)),
    )


def _require_ready(ledger: Ledger, load_hosts: Iterable[_LoadHost], raw: Path) -> None:
    for host in load_hosts:
        state = ledger.hosts[host.name]
        if not state.is_ready:
            raise Failed(
                f"Rally on {host.name} didn't get ready: {state.crash or state.ended}",
                f"its log is {raw / host.name / 'rally.log'}; see also 'discovery-xp status'",
            )


class _Following:
    """Listens to all load hosts, and tells what they say."""

    def __init__(
        self,
        ledger: Ledger,
        hosts: Sequence[_LoadHost],
        said: Said,
        on_rows: OnRows,
        progress: Progress,
        on_pace: Callable[[Pace], None],
    ) -> None:
        self.ledger = ledger
        self.hosts = {host.name: host for host in hosts}
        self.said = said
        self.on_rows = on_rows
        self.progress = progress
        self.on_pace = on_pace
        self.told_at = 0.0
        self.told: tuple[str, int, int] | None = None
        self.was_loading = False

    def until(self, is_reached: Callable[[], bool]) -> None:
        """Take what comes until it is so."""
        while not is_reached():
            try:
                name, follower, line = self.said.get(timeout=READ_EVERY_S / 2)
            except queue.Empty:
                pass
            else:
                if follower is self.hosts[name].follower:
                    self.take(self.hosts[name], line)
            self.look_after()
            if time.monotonic() - self.told_at >= READ_EVERY_S / 2:
                self.tell()
        self.tell()

    def take(self, host: _LoadHost, line: bytes) -> None:
        state = self.ledger.hosts[host.name]
        if not line:  # the connection ended
            host.hang_up()
            host.lost_at = host.lost_at or time.monotonic()
            return
        host.heard, host.lost_at = time.monotonic(), None
        host.offset += len(line)
        with contextlib.suppress(ValueError):  # a host that died may leave half a line
            self.ledger.take(host.name, json.loads(line))
        if state.ended:
            host.hang_up()

    def look_after(self) -> None:
        """Connect again where the connection was lost; give up on hosts that say nothing."""
        now = time.monotonic()
        for host in self.hosts.values():
            state = self.ledger.hosts[host.name]
            if state.ended:
                continue
            if now - host.heard > SILENT_S:
                state.ended = f"said nothing for {SILENT_S:g} s"
                host.stop()
            elif host.follower is None:
                if host.lost_at is not None and now - host.lost_at > UNREACHABLE_S:
                    state.ended = f"couldn't be reached for {UNREACHABLE_S:g} s"
                elif now - self.told_at >= READ_EVERY_S / 2:
                    host.follow()

    def tell(self) -> None:
        """Rows and progress; a word on the pace while the load goes on."""
        self.told_at = time.monotonic()
        self.hand_on_rows()
        # Its last word is told, too.
        if self.ledger.is_loading or self.was_loading:
            self.was_loading = self.ledger.is_loading
            pace = self.ledger.pace(time.time())
            self.on_pace(pace)
            stage: tuple[str, int, int] | None = (
                f"load: {self.ledger.scenario.name}",
                pace.done,
                pace.total,
            )
        else:
            stage = self.ledger.stage()
        if stage is not None and stage != self.told:
            self.told = stage
            self.progress(*stage)

    def hand_on_rows(self) -> None:
        vms, actions = self.ledger.new_rows()
        if vms or actions:
            self.on_rows(vms, actions)
