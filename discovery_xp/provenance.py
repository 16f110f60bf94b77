"""What a run ran on: the machine, its CPU's time, the versions, the commit."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from discovery_xp import providers, software, store
from discovery_xp.bench_request import BenchRequest
from discovery_xp.boundary import answers
from discovery_xp.errors import Failed
from discovery_xp.experiment import DeployedCloud
from discovery_xp.load.shares import placement
from discovery_xp.onhost.catalogue import DEBIAN_PACKAGES
from discovery_xp.places import is_checkout
from discovery_xp.store import RunRecord
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.remote import run_each
from discovery_xp.testbeds.testbed import now
from discovery_xp.testbeds.transport import Output

# Whoever reads run.json is told, whatever shows it.
CANNED_NOTE = "CANNED: there were no hosts, every figure of this run is made up"


def first_record(hosts: Hosts, deployed: DeployedCloud, request: BenchRequest) -> RunRecord:
    """Return run.json as it is when a bench begins: what is asked, and on what."""
    drawn = placement(hosts.plan, request.scenario)
    return dataclasses.replace(
        record_of(hosts, deployed, dataclasses.asdict(request.scenario), request.probes),
        sample_every_s=request.sample_every_s if "series" in request.probes else None,
        drawn=None if drawn is None else store.Drawn(drawn.seed, drawn.digest),
        arm=request.arm,
        in_campaign=request.in_campaign,
        recipe=store.Recipe(
            request.backend,
            request.placement,
            request.time_scale,
            request.settle_s,
            request.expose,
            request.layout,
        ),
    )


def record_of(
    hosts: Hosts, deployed: DeployedCloud, scenario: Mapping[str, Any], probes: Sequence[str] = ()
) -> RunRecord:
    """Return run.json as it is when a run begins that does `scenario`, whatever that is."""
    plan, deployment = hosts.plan, deployed.deployment
    machine, versions = look_at_master(hosts)
    delays = {link.link.delay_ms for link in deployed.state.links}
    rtts = sorted(pair.observed_ms for pair in deployed.pairs if pair.observed_ms is not None)
    roles = [role for host in plan.hosts for role in host.roles]
    return RunRecord(
        experiment=plan.name,
        plan=plan.digest,
        started=now(),
        machine=machine,
        backend=str(deployment.options["backend"]),
        options=deployment.options,
        sites=len(plan.sites),
        controllers=roles.count("controller"),
        computes=roles.count("compute"),
        data=roles.count("data"),
        scenario=scenario,
        vms=store.Vms(asked=0),
        commit=_commit(),
        versions={**deployment.versions, **versions},
        latency_ms=delays.pop() if len(delays) == 1 else (None if delays else 0.0),
        rtt_ms=rtts[len(rtts) // 2] if rtts else None,
        imposed_by=_imposed_by(deployed.state.wan),
        probes=tuple(probes),
        time_scale=plan.time_scale,
        notes=(CANNED_NOTE,) if providers.kind(plan.provider).is_canned else (),
    )


def _imposed_by(wan: str | None) -> Literal["netem", "vde"] | None:
    """Return how the links are imposed, as run.json has it; None where nothing imposes them."""
    if wan == "vde":
        return "vde"
    return "netem" if wan == "netem" else None


_LOOK = """
nproc; grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2; grep MemTotal /proc/meminfo; uname -r
dpkg-query --show --showformat '${Package} ${Version}\\n' {packages}
{environment}/bin/python --version | tr 'P' 'p'
"""


def look_at_master(hosts: Hosts) -> tuple[store.Machine, dict[str, str]]:
    """The master's machine, which stands for all, and versions of Debian's servers."""
    cloud = hosts.plan.require_cloud()
    master = cloud.master
    placed = {service.component: service.host for service in cloud.services}
    servers = [(placed.get(name), package) for name, package in DEBIAN_PACKAGES.items()]
    looks: dict[str, str] = {}
    for host in {master, *(on for on, _ in servers if on is not None)}:
        packages = [package for on, package in servers if on == host]
        looks[host] = _LOOK.replace("{environment}", software.ENVIRONMENT).replace(
            "{packages}", " ".join(packages)
        )
    outputs = run_each(hosts, looks)
    lines = _lines(outputs[master])
    try:
        machine = store.Machine(
            cpus=answers.whole_of(lines[0]),
            cpu_model=lines[1],
            memory_bytes=answers.whole_of(lines[2].split()[1]) * 1024,
            kernel=lines[3],
            provider=hosts.plan.provider,
        )
    except (IndexError, answers.Unfit):
        raise Failed(
            f"{master} doesn't say what machine it is", f"see 'discovery-xp ssh {master} nproc'"
        ) from None
    versions: dict[str, str] = {}
    for output in outputs.values():
        versions |= dict(line.split(" ", 1) for line in _lines(output)[4:] if " " in line)
    own = importlib.metadata.version("discovery-xp")
    return machine, {"discovery-xp": own, **versions, "kernel": lines[3]}


def _lines(output: Output) -> list[str]:
    """What a look at a host printed, as much of it as it may be."""
    text = output.stdout[:20_000]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [answers.printable(line[:200]) for line in lines[:50]]


def _commit() -> str | None:
    """The checkout's commit, with '+' when its files had changes; None outside of one."""
    if not is_checkout():  # the folder that it is installed in may be in a repository, too
        return None
    folder = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "discovery_xp",
                  "playbooks", "locks", "scenarios")  # fmt: skip
    return None if commit is None else f"{commit}{'+' if changed else ''}"


class BusyClock:
    """CPU seconds that this machine was busy between two moments."""

    def __init__(self) -> None:
        self.began_at: float | None = None
        self.elapsed_s = self.cpu_s = self._before_s = 0.0
        self._has_ended = False

    def begin(self) -> None:
        """The first moment."""
        self.began_at, self._before_s = time.time(), _machine_cpu_s()

    def end(self) -> None:
        """The second one; further ones aren't looked at."""
        if self.began_at is not None and not self._has_ended:
            self._has_ended = True
            self.elapsed_s = time.time() - self.began_at
            self.cpu_s = _machine_cpu_s() - self._before_s


def _machine_cpu_s() -> float:
    """CPU seconds that this machine has been busy since it started; not what others stole."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
