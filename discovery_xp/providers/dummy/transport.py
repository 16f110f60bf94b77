"""What hosts that aren't there say to commands and playbooks: enough for every command to run."""

from __future__ import annotations

import base64
import gzip
import io
import re
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import yaml
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError

from discovery_xp.onhost.catalogue import KEYSTONE_PORT
from discovery_xp.onhost.wire import series as wire
from discovery_xp.places import checkout
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.dummy.load import CannedLoad, load_of
from discovery_xp.providers.dummy.verification import CannedVerification, verification_of
from discovery_xp.providers.dummy.wan import OFF_MS, CannedWan
from discovery_xp.testbeds.transport import Output, PlayListener

CANNED = "canned"
# What ssh and the hosts' kernels add to a round trip.
OVERHEAD_MS = 0.05
# In which stage of a deployment a fault shows, counted from the last.
FAILING_STAGE = -2


@dataclass(frozen=True)
class _Task:
    """A task of a playbook: the module that it runs and on what, and what hosts say."""

    module: str
    results: Mapping[str, Mapping[str, Any]]
    subject: str = ""


@dataclass
class CannedTransport:
    """Answers in the place of hosts; see `transport.Transport` for the contract."""

    wan: CannedWan
    faults: Collection[str]
    loads: dict[str, CannedLoad | CannedVerification] = field(default_factory=dict)

    # ------------------------------------------------ commands

    def run_each(self, plan: Plan, commands: Mapping[str, str]) -> dict[str, Output]:
        """Answer each host's command; one that nobody knows prints nothing."""
        canned: tuple[tuple[str, Callable[[Plan, str, str], str]], ...] = (
            ("fping -q", self._pings),
            ("systemctl show", self._services),
            ("nproc", _machine),
            ("compute_id", _identity),
        )
        outputs = {}
        for host, line in commands.items():
            answer = next((reply for part, reply in canned if part in line), _nothing)
            outputs[host] = Output(0, answer(plan, host, line), "")
        return outputs

    def answering(self, plan: Plan) -> set[str]:
        """Name all hosts."""
        return {host.name for host in plan.hosts}

    def _pings(self, plan: Plan, host: str, command: str) -> str:
        """Round trips as the links would have them; 'latency' adds to all of them."""
        source = plan.host(host).site
        site_of = {str(each.address): each.site for each in plan.hosts}
        delays = {(link.source, link.target): link.link.delay_ms for link in self.wan.links()}
        count = int(re.findall(r"-C (\d+)", command)[0])
        lines = []
        for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", command):
            target = site_of[address]
            rtt_ms = delays.get((source, target), 0.0) + delays.get((target, source), 0.0)
            rtt_ms += OVERHEAD_MS + (OFF_MS if "latency" in self.faults else 0.0)
            lines.append(f"{address} : {' '.join([f'{rtt_ms:.2f}'] * count)}")
        return "\n".join(lines)

    def _services(self, plan: Plan, host: str, command: str) -> str:
        """All services are up; with 'services', the first one of the last host has failed."""
        units = re.findall(r"for unit in ([^;]+);", command)[0].split()
        states = dict.fromkeys(units, "active")
        if "services" in self.faults and host == plan.hosts[-1].name:
            states[units[0]] = "failed"
        ports = re.findall(r"echo port (\S+)", command)
        return "\n".join(
            [f"unit {unit} ActiveState={state} NRestarts=0" for unit, state in states.items()]
            + [f"port {unit} HTTP/1.0 200 OK" for unit in ports]
        )

    # ------------------------------------------------ playbooks

    def play(
        self, plan: Plan, playbook: str, variables: Mapping[str, Any], listener: PlayListener
    ) -> None:
        """Go through the plays of the playbook that there is; each is one task or several."""
        text = (checkout() / f"playbooks/{playbook}.yml").read_text()
        plays = yaml.load(text, yaml.CSafeLoader)
        for number, play in enumerate(plays, start=-len(plays)):
            patterns = play["hosts"] if isinstance(play["hosts"], list) else [play["hosts"]]
            listener.on_play(play["name"], patterns)
            names = _named(plan, patterns)
            for task in self._tasks(plan, playbook, play, names):
                listener.on_task(
                    f"{CANNED}: {task.module} {task.subject}", task.module, task.subject
                )
                for host, result in task.results.items():
                    listener.on_result(host, "changed", result)
            if names and number == max(FAILING_STAGE, -len(plays)):
                self._fail(playbook, play["name"], names[-1], listener)

    def _tasks(
        self, plan: Plan, playbook: str, play: Mapping[str, Any], names: Sequence[str]
    ) -> Iterator[_Task]:
        if playbook == "smoke":
            result = {"boots": self._boots(plan)}
            yield _Task("smoke_boot", dict.fromkeys(names, result))
        elif playbook == "probes_collect":
            yield _Task("probes", self._records(plan, names))
        elif playbook == "backup":
            for component in _roles_of(play):
                packed = base64.b64encode(_archive("canned.txt")).decode()
                results = {name: {"archive": packed} for name in names}
                yield _Task("component_backup", results, component)
        else:
            yield _Task(CANNED, {name: {} for name in names})

    def _fail(self, playbook: str, stage: str, host: str, listener: PlayListener) -> None:
        """Raise what EnOSlib raises where a host fails or can't be reached."""
        if playbook == "deploy" and "unreachable" in self.faults:
            raise EnosUnreachableHostsError([SimpleNamespace(host=host)])
        if (playbook == "deploy" and "play" in self.faults) or (
            playbook == "backup" and "backup" in self.faults
        ):
            payload = {"msg": "a canned failure", "unit": CANNED, "journal": ["a canned line"]}
            listener.on_result(host, "failed", payload)
            raise EnosFailedHostsError([SimpleNamespace(host=host, task=stage, payload=payload)])

    def _boots(self, plan: Plan) -> list[dict[str, Any]]:
        """A VM gets ACTIVE at each site; with 'boot', not at the last."""
        computes = {
            site.name: [host.name for host in plan.hosts_of(site.name) if "compute" in host.roles]
            for site in plan.sites
        }
        boots: list[dict[str, Any]] = [
            {"site": site, "status": "ACTIVE", "host": hosts[0], "boot_duration_s": 1.0,
             "message": ""}
            for site, hosts in computes.items() if hosts
        ]  # fmt: skip
        if "boot" in self.faults:
            boots[-1] |= {"status": "ERROR", "boot_duration_s": None, "message": "a canned error"}
        return boots

    def _records(self, plan: Plan, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What probes saw on each host; with 'probes', the last host's is spoilt."""
        first = str(plan.hosts[0].address)
        records = {
            name: {
                "records": _packed(""),
                "traffic": {f"{first} {KEYSTONE_PORT}": [1000, 10]}
                if name != plan.hosts[0].name
                else {},
                "usage": {
                    CANNED: {"cpu_s": 0.01, "memory_bytes": 2**20, "memory_start_bytes": 2**20}
                },
                "series": _packed(wire.line(time.time(), CANNED, "cpu_s", 0.01)),
            }
            for name in names
        }
        if "probes" in self.faults:
            records[names[-1]]["records"] = "spoilt"
        return records

    # ------------------------------------------------ a load

    def call(
        self, host: str, command: str, data: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Take what is laid down for a load or tests, give what it leaves; all else is done."""
        stdout = b""
        if data:
            self.loads[host] = self._laid_down(host, data)
        elif "tar -cz" in command:
            stdout = _archive("results.json", "report.html", "rally.log", "records.jsonl")
        return subprocess.CompletedProcess([], 0, stdout, b"")

    def _laid_down(self, host: str, data: bytes) -> CannedLoad | CannedVerification:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            if "request.json" in tar.getnames():
                file = tar.extractfile("request.json")
                assert file is not None
                return verification_of(file, "load" in self.faults)
        return load_of(host, data, self.faults)

    def open(self, host: str, command: str) -> CannedLoad | CannedVerification:
        """Follow the load or the tests that were laid down."""
        return self.loads[host]


def _nothing(_plan: Plan, _host: str, _command: str) -> str:
    return ""


def _machine(_plan: Plan, _host: str, _command: str) -> str:
    return f"1\n{CANNED}: there are no hosts\nMemTotal: 1048576 kB\n{CANNED}"


def _identity(_plan: Plan, host: str, _command: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, host))


def _named(plan: Plan, patterns: Sequence[str]) -> list[str]:
    """Name the hosts of these groups, in the plan's order."""
    return [
        host.name
        for host in plan.hosts
        if "all" in patterns or not {*host.roles, host.site}.isdisjoint(patterns)
    ]


def _roles_of(play: Mapping[str, Any]) -> list[str]:
    """Name the components of a play of `backup` that every cloud has."""
    roles = [task["import_role"]["name"] for task in play["tasks"] if "import_role" in task]
    return [role for role in roles if role not in ("rome", "redis")]


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


def _archive(*names: str) -> bytes:
    """Make a gzipped tar of files that say that they are canned."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in names:
            data = f"{CANNED}: there are no hosts\n".encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
