"""One experiment, from a topology and a scenario to a stored result, in order.

1. deploy the cloud (`experiment.deploy_cloud`), or take the one that is there;
2. open the run's folder, so that a run that dies is found: plan, topology, scenario;
3. put the probes in, and let the cloud settle;
4. open the window: counters are read;
5. the load, whose rows are stored as they come; at its end, before VMs are deleted, the window
   is closed: counters are read again;
6. collect the probes' records;
7. measure the links again, keep the journals of what complained;
8. close the record: complete, or partial with the reason;
9. destroy, unless the testbed is to be kept.

Whatever goes wrong after step 2 leaves a partial run that can be reported.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import ending, experiment, load, probes, providers, software, store
from discovery_xp.boundary import answers
from discovery_xp.deployment import status
from discovery_xp.deployment.backup import backup
from discovery_xp.deployment.variables import PlayVariables, play_variables
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.inputs.scenario import Scenario, read_scenario
from discovery_xp.load.ledger import Pace, Row
from discovery_xp.load.shares import shares
from discovery_xp.onhost.catalogue import DEBIAN_PACKAGES
from discovery_xp.places import is_checkout
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.plan_checks import needed_s
from discovery_xp.providers import preparation
from discovery_xp.store import Run, RunRecord
from discovery_xp.testbeds import links
from discovery_xp.testbeds.hosts import Hosts, PageMerging, Progress, Stopwatch
from discovery_xp.testbeds.remote import Output, answering_of, run_each
from discovery_xp.testbeds.testbed import Testbed, now
from discovery_xp.text import short

# After services were started they are busy for a while with each other.
SETTLE_S = 15.0
# Computes report each half minute, and wait two for an answer that got lost.
SERVICES_UP_WITHIN_S = 200.0


@dataclass(frozen=True)
class Wanted:
    """What a bench is asked for, besides the plan."""

    scenario: Scenario
    topology_text: str
    results: Path
    probes: Sequence[str]
    keep: bool
    settle_s: float = SETTLE_S
    expose: bool = False


def choose_scenario(path: Path | None, vms: int | None, small: bool) -> Scenario:
    """The scenario of a file, or the paper's: all VMs at once, fairly over the controllers."""
    chosen = read_scenario(path) if path else Scenario(name="boot", kind="boot", vms=500)
    if path is None and small:
        chosen = dataclasses.replace(chosen, vms=20)
    if vms is None:
        return chosen
    if not chosen.boots:
        raise Refused(
            f"--vms {vms}: scenario '{chosen.name}' boots no VMs, its kind is '{chosen.kind}'",
            "leave --vms out; 'iterations' in the scenario says how much is asked",
        )
    return dataclasses.replace(chosen, vms=vms)


def choose_probes(text: str) -> tuple[str, ...]:
    """The probes that a comma-separated list names; raises Refused for one that isn't there."""
    if text in ("all", "none"):
        return store.PROBES if text == "all" else ()
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in store.PROBES]
    if unknown:
        raise Refused(
            f"--probes: no probe '{short(unknown[0])}'",
            f"write 'all', 'none' or some of {', '.join(store.PROBES)}",
        )
    return tuple(probe for probe in store.PROBES if probe in named)


def check(plan: Plan, wanted: Wanted) -> None:
    """Raise Refused where it is known beforehand that the run can't be done or stored."""
    shares(plan, wanted.scenario)
    _require_walltime(plan, wanted)
    store.require_writable(wanted.results / plan.name)


def _require_walltime(plan: Plan, wanted: Wanted) -> None:
    """Nodes that are lent for a time are there for the whole bench."""
    job = getattr(plan.platform, "job", None)
    if job is None:
        return
    needed = needed_s(plan.cloud is not None) + max(600.0, 1.5 * _load_s(wanted))
    if job.walltime_s < needed:
        raise Refused(
            f"'{plan.name}' has a walltime of {job.walltime}, but deployment and load take "
            f"about {needed / 60:.0f} minutes",
            "write a longer 'walltime' for the provider, or ask for fewer VMs",
        )


def _require_time_left(testbed: Testbed, wanted: Wanted) -> None:
    """Nodes that were kept from an earlier run stay long enough for this one."""
    left_s = ending.time_left_s(testbed)
    needed_s = 600 + 1.5 * _load_s(wanted)
    if left_s is not None and 0 < left_s < needed_s:
        raise Refused(
            f"the nodes of '{testbed.name}' stay for {left_s / 60:.0f} minutes, this takes "
            f"about {needed_s / 60:.0f}",
            f"'discovery-xp destroy --testbed {testbed.name}' first, or ask for fewer VMs",
        )


def _load_s(wanted: Wanted) -> float:
    scenario = wanted.scenario
    return scenario.count * (1.25 if scenario.boots else 0.2)  # VMs are deleted, too


def expected_s(plan: Plan, wanted: Wanted) -> float:
    """Return about how long all of it takes on two cores, in seconds."""
    return preparation.needed_s(plan) + _prepared_s(plan, wanted)


def _prepared_s(plan: Plan, wanted: Wanted) -> float:
    """Return about how long it takes with all packages fetched and the root tree built."""
    hosts = len(plan.hosts)
    deploy_s = 30 + 3.1 * hosts
    if plan.platform is not None:
        deploy_s = max(deploy_s, needed_s(plan.cloud is not None))
    around_s = wanted.settle_s + 25 + (2.3 if wanted.probes else 1.2) * hosts
    return deploy_s + around_s + _load_s(wanted)


def foretell(plan: Plan, wanted: Wanted) -> list[str]:
    """What will happen and about how long it takes, before anything does."""
    scenario = wanted.scenario
    what = f"{scenario.count} VMs" if scenario.boots else f"{scenario.count} rounds"
    later = max(1, round(_prepared_s(plan, wanted) / 60))
    minutes = max(1, round(expected_s(plan, wanted) / 60))
    takes = f"this takes about {minutes} minutes on two cores"
    if preparation.needed_s(plan):
        takes += (
            f" this first time, when packages are fetched and the hosts' root tree is built; "
            f"later about {later}"
        )
    end = "the testbed stays up" if wanted.keep else "then all but the results is destroyed"
    return [
        f"{plan.name}: {len(plan.hosts)} hosts at {len(plan.sites)} sites are made, OpenStack is "
        f"deployed on them, '{scenario.name}' asks for {what}; {end}",
        f"probes: {', '.join(wanted.probes) or 'none'}; results go to "
        f"{wanted.results / plan.name}/",
        takes,
    ]


def run(
    plan: Plan,
    wanted: Wanted,
    progress: Progress,
    opened: Callable[[Run], None],
    on_pace: Callable[[Pace], None] = lambda _pace: None,
) -> Run:
    """The whole life, as the module's docstring numbers it.

    `opened` gets the run's folder early, `on_pace` how the load comes on.  Raises Refused
    before anything is touched, as `check` does; Failed, after the run was closed as partial,
    when the load couldn't be done.
    """
    check(plan, wanted)
    progress = stopwatch = Stopwatch(progress)
    testbed = Testbed(plan.name)
    _require_time_left(testbed, wanted)
    was_there, refused = testbed.exists(), False
    try:
        deployed = experiment.deploy_cloud(plan, progress, wanted.keep, wanted.expose)
        return _measure(deployed, wanted, stopwatch, opened, on_pace)
    except Refused as error:
        refused = error.exit_code == Refused.exit_code
        raise
    finally:
        # A testbed that it was refused isn't its own to destroy.
        if not wanted.keep and testbed.exists() and not (was_there and refused):
            progress("destroying", 0, 0)
            ending.tear_down(testbed)
            ending.sweep()


def _measure(
    deployed: experiment.Deployed,
    wanted: Wanted,
    stopwatch: Stopwatch,
    opened: Callable[[Run], None],
    on_pace: Callable[[Pace], None],
) -> Run:
    """Steps 2 to 8."""  # fmt: skip
    testbed, plan = deployed.testbed, deployed.state.plan
    with testbed.locked():
        hosts = experiment.hosts_of(testbed)
        variables = play_variables(hosts, testbed)
        record = _first_record(hosts, deployed, wanted)
        stored = store.new_run(wanted.results, record)
        stored.keep_room()
        opened(stored)
        stored.write_json("plan.json", plan.to_json())
        stored.write_text("topology.yaml", wanted.topology_text)
        stored.write_text("scenario.yaml", wanted.scenario.to_yaml())
        stored.write_json("deployment.json", deployed.deployment.to_json())
        before = [pair.to_json() for pair in deployed.pairs]
        stored.write_json("links.json", {"before": before, "after": []})
        reason: str | None = None
        try:
            reason = _load_and_collect(
                hosts, testbed, variables, wanted, stored, stopwatch, on_pace
            )
            stopwatch("measuring round trips again", 0, 0)
            after = [pair.to_json() for pair in links.measure(hosts, deployed.state.links)]
            stored.write_json("links.json", {"before": before, "after": after})
            _keep_logs(hosts, testbed, stored, stopwatch)
        except KeyboardInterrupt:
            reason = "interrupted"
            raise
        except UserError as error:
            error = ending.explained(testbed, error)
            reason = str(error).splitlines()[0]
            raise error from None
        except OSError as error:
            reason = f"it couldn't be stored: {error.strerror or error}"
            raise Failed(
                f"the run can't be stored: {error.strerror or error}",
                f"what was measured is in {stored.folder}; free some disk, then run it again",
            ) from None
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            stopwatch.stop()
            _close(stored, reason, stopwatch.stages_s)
    return stored


def _load_and_collect(
    hosts: Hosts,
    testbed: Testbed,
    variables: PlayVariables,
    wanted: Wanted,
    stored: Run,
    progress: Progress,
    on_pace: Callable[[Pace], None],
) -> str | None:
    """Steps 3 to 6; returns why the load is partial, None when it is whole."""  # fmt: skip
    probes.install(hosts, wanted.probes, progress)
    progress("letting the cloud settle", 0, 0)
    time.sleep(wanted.settle_s)
    notes = _wait_for_services(hosts)
    stored.update(notes=tuple(notes))
    busy = _Busy()
    merging: PageMerging | None = None

    def open_window() -> None:
        nonlocal merging
        probes.start(hosts, wanted.probes, progress)
        merging = providers.page_merging(hosts.plan, testbed)
        busy.begin()

    def close_window() -> None:
        busy.end()
        _keep_merging(stored, testbed, hosts.plan, merging)
        probes.stop(hosts, wanted.probes, progress)

    def keep(vms: list[Row], actions: list[Row]) -> None:
        if vms:
            stored.append("vms", vms)
        if actions:
            stored.append("actions", actions)

    done: load.LoadRun | None = None
    try:
        done = load.run(
            hosts, testbed, variables, wanted.scenario, keep, progress,
            before_load=open_window, after_load=close_window, on_pace=on_pace,
        )  # fmt: skip
        # Where VMs landed and when they were deleted is known by now.
        stored.write_table("vms", done.vms)
        stored.write_table("actions", done.actions)
    finally:
        raw = load.raw_folder(testbed)
        for path in (each for each in raw.rglob("*") if each.is_file()):
            shutil.copy(path, stored.path(f"rally/{path.relative_to(raw)}"))
        if busy.began_at is not None:
            busy.end()  # unless it has ended
            window = (done.window if done else None) or (
                busy.began_at, busy.began_at + busy.elapsed_s
            )  # fmt: skip
            stored.update(window=store.Window(*window))
            notes += done.notes if done else ()
            tables = probes.collect(hosts, wanted.probes, window, progress, notes.append)
            for name, rows in tables.items():
                stored.write_table(name, rows)
            stored.update(notes=tuple(notes))
    stored.update(**_figures(stored, done, busy))
    return done.reason


def _keep_merging(stored: Run, testbed: Testbed, plan: Plan, before: PageMerging | None) -> None:
    """Store how the hosts' memory was merged, with ksmd's CPU time since `before`."""
    merging = providers.page_merging(plan, testbed)
    if merging is not None and before is not None:
        stored.update(merging=store.Merging(**dataclasses.asdict(merging.since(before))))


def _wait_for_services(hosts: Hosts) -> list[str]:
    """Until all services are up, Nova's own word included; returns those that aren't in time.

    A service that was restarted is called up when it next reports.
    """
    latest = time.monotonic() + SERVICES_UP_WITHIN_S
    while True:
        found = status.inspect(hosts, answering_of(hosts))
        down = [each for each in found if not each.is_up]
        if not down or time.monotonic() > latest:
            return [f"{each.unit} on {each.host}: {each.complaint}" for each in down]
        time.sleep(5)


def _figures(stored: Run, done: load.LoadRun, busy: _Busy) -> dict[str, Any]:
    """What run.json says of the load as a whole."""
    harness = None
    if stored.has("usage") and stored.load().machine.provider == "local":
        # All hosts are on this machine: what isn't theirs is the harness's.
        openstack_s = sum(row["cpu_s"] for row in stored.table("usage").to_pylist())
        # The services' counters are read some seconds before and after the machine's.
        total_s = max(busy.cpu_s, openstack_s + done.cpu_s)
        harness = store.Harness(
            total_cpu_s=round(total_s, 2),
            openstack_cpu_s=round(openstack_s, 2),
            load_cpu_s=done.cpu_s,
            other_cpu_s=round(total_s - openstack_s - done.cpu_s, 2),
            elapsed_s=round(busy.elapsed_s, 3),
        )
    return {"load": store.Load(**done.load), "harness": harness}


def _keep_logs(hosts: Hosts, testbed: Testbed, stored: Run, progress: Progress) -> None:
    """Journals, configurations and database dumps of all hosts, in one compressed archive."""
    with tempfile.TemporaryDirectory(dir=testbed.folder) as folder:
        gathered = Path(folder) / "records"
        failure: Failed | None = None
        try:
            backup(hosts, testbed, gathered, progress)
        except Failed as error:  # a host's part is missing: the others' are kept
            failure = error
        if gathered.is_dir():
            with tarfile.open(stored.path("logs/records.tar.xz"), "w:xz") as archive:
                archive.add(gathered, arcname="records")
        if failure is not None:
            raise failure


def _close(stored: Run, reason: str | None, stages_s: Mapping[str, float]) -> None:
    stored.free_room()  # on a full disk there is nothing else for the last word
    try:
        stored.merge()
    except OSError as error:  # its parts stay, and are read as well
        reason = reason or f"it couldn't be stored: {error.strerror or error}"
    rows = stored.table("vms").to_pylist()
    stored.update(
        # Of a load that was interrupted nobody said it.
        vms=store.Vms(**load.vm_counts(rows)),
        duration_s=load.duration_s(rows),
        ended=now(),
        status="complete" if reason is None else "partial",
        reason=reason,
        stages_s=dict(stages_s),
    )


# ---------------------------------------------------------------- what it ran on


def _first_record(hosts: Hosts, deployed: experiment.Deployed, wanted: Wanted) -> RunRecord:
    plan, deployment = hosts.plan, deployed.deployment
    machine, versions = _look_at_master(hosts)
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
        scenario=dataclasses.asdict(wanted.scenario),
        vms=store.Vms(asked=0),
        commit=_commit(),
        versions={**deployment.versions, **versions},
        latency_ms=delays.pop() if len(delays) == 1 else (None if delays else 0.0),
        rtt_ms=rtts[len(rtts) // 2] if rtts else None,
        imposed_by="vde" if deployed.state.wan == "vde" else "netem",
        probes=tuple(wanted.probes),
    )


_LOOK = """
nproc; grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2; grep MemTotal /proc/meminfo; uname -r
dpkg-query --show --showformat '${Package} ${Version}\\n' {packages}
{environment}/bin/python --version | tr 'P' 'p'
"""


def _look_at_master(hosts: Hosts) -> tuple[store.Machine, dict[str, str]]:
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


class _Busy:
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
