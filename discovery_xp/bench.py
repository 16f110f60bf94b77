"""One experiment, from a topology and a scenario to a stored result, in order.

1. deploy the cloud (`experiment.deploy_cloud`), or repair the one that is there; services start
   with the probes in them;
2. open the run's folder, so that a run that dies is found: plan, topology, scenario;
3. take out what an earlier load left, put in what probes are missing, and let the cloud settle
   until its services are up;
4. warm up; then open the window: shares of the processor are held, counters are read;
5. the load, whose rows are stored as they come; at its end, before VMs are deleted, the window
   is closed: counters are read again, and shares are lifted;
6. collect Rally's reports and the probes' records;
7. measure the links again, and lift them if the testbed goes; keep logs and databases' dumps;
8. close the record: complete, or partial with the reason;
9. destroy, unless the testbed is to be kept.

Whatever goes wrong after step 2 leaves a partial run that can be reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovery_xp import ending, experiment, load, probes, providers, store
from discovery_xp.bench_request import BenchRequest, check, load_s, sampling
from discovery_xp.deployment import deploy, status
from discovery_xp.deployment.backup import backup
from discovery_xp.deployment.variables import PlayVariables, play_variables
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.experiment import DeployedCloud, ForLoad
from discovery_xp.load.ledger import Pace, Row
from discovery_xp.load.shares import warms_every_site
from discovery_xp.planning.plan import Plan
from discovery_xp.planning.shares import shares_of
from discovery_xp.provenance import BusyClock, first_record
from discovery_xp.store import Run
from discovery_xp.testbeds import conditions, links
from discovery_xp.testbeds.hosts import Hosts, PageMerging, Progress, Stopwatch
from discovery_xp.testbeds.remote import answering_of
from discovery_xp.testbeds.shares import HeldShare, disagreements
from discovery_xp.testbeds.testbed import Testbed, now
from discovery_xp.validity import MachineWatch, occupation, validity

# Computes report each half minute, and wait two for an answer that got lost.
SERVICES_UP_WITHIN_S = 200.0


@dataclass
class _Bench:
    """One bench under way: what it works on, and what it has measured so far.

    `variables` are what the playbooks are told of the cloud; `load` is None before the load has
    ended, `notes` are what else went wrong; `merging` is how the hosts' memory was merged, and
    `shares` what of the processor was held when the window opened; `watch` looks at the machine
    from then on.
    """

    hosts: Hosts
    testbed: Testbed
    deployed: DeployedCloud
    request: BenchRequest
    run: Run
    progress: Stopwatch
    on_pace: Callable[[Pace], None]
    variables: PlayVariables
    busy: BusyClock = field(default_factory=BusyClock)
    watch: MachineWatch | None = None
    shares: list[HeldShare] | None = None
    notes: list[str] = field(default_factory=list)
    load: load.LoadRun | None = None
    merging: PageMerging | None = None


def run(
    plan: Plan,
    request: BenchRequest,
    progress: Progress,
    opened: Callable[[Run], None],
    on_pace: Callable[[Pace], None] = lambda _pace: None,
) -> Run:
    """Take all the steps, as the module's docstring numbers them.

    `opened` gets the run's folder early, `on_pace` how the load comes on.  Raises Refused
    before anything is touched, as `check` does; Failed, after the run was closed as partial,
    when the load couldn't be done.
    """
    check(plan, request)
    testbed, stopwatch = Testbed(plan.name), Stopwatch(progress)
    _require_time_left(testbed, request)
    # Before the cloud's making loads the machine itself.
    machines = _look_at_this_machine(plan)
    with destroyed_unless_kept(testbed, request.keep, stopwatch):
        deployed = experiment.deploy_cloud(
            plan, stopwatch, request.keep, request.expose, _what_follows(plan, request)
        )
        with testbed.locked():
            bench = _open_run(deployed, request, stopwatch, on_pace)
            opened(bench.run)
            with _closed(bench), _shares_held_if_kept(bench):
                _store_inputs(bench)
                deploy.reset(bench.hosts, bench.testbed, bench.progress)
                are_restarted = probes.install(
                    bench.hosts, request.probes, bench.progress, deployed.probed
                )
                _let_the_cloud_settle(bench, are_restarted)
                _store_machines(bench, machines)
                with _collected(bench):
                    _load_in_window(bench)
                _store_load(bench)
                _measure_links_again(bench)
                if not request.keep:  # nobody needs them any more, and a dump takes a minute
                    links.wan_of(bench.hosts).reset()
                _keep_logs(bench)
        return bench.run


# ---------------------------------------------------------------- before and after


def _require_time_left(testbed: Testbed, request: BenchRequest) -> None:
    """Raise Refused for nodes of an earlier run that don't stay long enough for this one."""
    left_s = ending.time_left_s(testbed)
    needed_s = 600 + 1.5 * load_s(request)
    if left_s is not None and 0 < left_s < needed_s:
        raise Refused(
            f"the nodes of '{testbed.name}' stay for {left_s / 60:.0f} minutes, this takes "
            f"about {needed_s / 60:.0f}",
            f"'discovery-xp destroy --testbed {testbed.name}' first, or ask for fewer VMs",
        )


def _what_follows(plan: Plan, request: BenchRequest) -> ForLoad:
    """Return what the load itself does in the place of the deployment's end."""
    return ForLoad(request.probes, warms_every_site(plan, request.scenario))


@contextlib.contextmanager
def _shares_held_if_kept(bench: _Bench) -> Iterator[None]:
    """Hold the shares of the processor of a cloud that stays; the load alone needs them else."""
    try:
        yield
    finally:
        if bench.request.keep:
            experiment.hold_shares(bench.hosts.plan, bench.testbed, bench.progress)


@contextlib.contextmanager
def destroyed_unless_kept(testbed: Testbed, keep: bool, progress: Progress) -> Iterator[None]:
    """Destroy the testbed at the end, however that comes, unless it is to be kept.

    One that was there and was refused isn't this run's to destroy.
    """
    was_there, refused = testbed.exists(), False
    try:
        yield
    except Refused:
        refused = True
        raise
    finally:
        if not keep and testbed.exists() and not (was_there and refused):
            progress("destroying", 0, 0)
            ending.tear_down(testbed)
            ending.sweep()


@contextlib.contextmanager
def _closed(bench: _Bench) -> Iterator[None]:
    """Close the record, whatever happens: as complete, or as partial with the reason."""
    reason: str | None = None
    try:
        yield
        reason = bench.load.reason if bench.load else "there was no load"
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    except UserError as error:
        error = ending.explained(bench.testbed, error)
        reason = str(error).splitlines()[0]
        raise error from None
    except OSError as error:
        reason = f"it couldn't be stored: {error.strerror or error}"
        raise Failed(
            f"the run can't be stored: {error.strerror or error}",
            f"what was measured is in {bench.run.folder}; free some disk, then run it again",
        ) from None
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        bench.progress.stop()
        _close(bench.run, reason, bench.progress.stages_s)


def _close(run: Run, reason: str | None, stages_s: Mapping[str, float]) -> None:
    """Write a run's last word."""
    run.free_room()  # on a full disk there is nothing else for the last word
    try:
        run.merge()
    except OSError as error:  # its parts stay, and are read as well
        reason = reason or f"it couldn't be stored: {error.strerror or error}"
    rows = run.table("vms").to_pylist()
    run.update(
        # Of a load that was interrupted nobody said it.
        vms=store.Vms(**load.vm_counts(rows)),
        duration_s=load.duration_s(rows),
        ended=now(),
        status="complete" if reason is None else "partial",
        reason=reason,
        stages_s=dict(stages_s),
    )


# ---------------------------------------------------------------- the steps


def _open_run(
    deployed: DeployedCloud,
    request: BenchRequest,
    progress: Stopwatch,
    on_pace: Callable[[Pace], None],
) -> _Bench:
    """Make the run's folder, with some of the disk for its last word."""
    testbed = deployed.testbed
    hosts = experiment.hosts_of(testbed)
    variables = play_variables(hosts, testbed)
    try:
        run = store.new_run(request.results, first_record(hosts, deployed, request))
    except store.Taken:  # its folder is called after the second in which it began
        time.sleep(1)
        run = store.new_run(request.results, first_record(hosts, deployed, request))
    run.keep_room()
    notes = list(run.load().notes)
    return _Bench(hosts, testbed, deployed, request, run, progress, on_pace, variables, notes=notes)


def _store_inputs(bench: _Bench) -> None:
    """Store what the run begins with: plan, topology, scenario, deployment, links."""
    deployed, run = bench.deployed, bench.run
    # The very plan whose digest run.json has.
    run.write_json("plan.json", bench.hosts.plan.to_json())
    run.write_text("topology.yaml", bench.request.topology_text)
    run.write_text("scenario.yaml", bench.request.scenario.to_yaml())
    run.write_json("deployment.json", deployed.deployment.to_json())
    run.write_json("links.json", {"before": _measured_before(bench), "after": []})


def _measured_before(bench: _Bench) -> list[dict[str, Any]]:
    return [pair.to_json() for pair in bench.deployed.pairs]


def _let_the_cloud_settle(bench: _Bench, are_restarted: bool) -> None:
    """Wait a while, unless the cloud was left alone; note which services aren't up.

    That is asked only where services were restarted for their probes: a deployment has waited
    for them itself.
    """
    is_canned = providers.kind(bench.hosts.plan.provider).is_canned
    if not (are_restarted or bench.deployed.is_disturbed or is_canned):
        return
    bench.progress("letting the cloud settle", 0, 0)
    if not is_canned:
        time.sleep(bench.request.settle_s)
    if are_restarted:
        bench.notes += _wait_for_services(bench.hosts)
        bench.run.update(notes=tuple(bench.notes))


def _wait_for_services(hosts: Hosts) -> list[str]:
    """Wait until all services are up, Nova's own word included; returns those that aren't in time.

    A service that was restarted is called up when it next reports.
    """
    latest = time.monotonic() + SERVICES_UP_WITHIN_S * hosts.plan.time_scale
    while True:
        state = status.inspect(hosts, answering_of(hosts))
        down = [each for each in state if not each.is_up]
        if not down or time.monotonic() > latest:
            return [f"{each.unit} on {each.host}: {each.complaint}" for each in down]
        time.sleep(5)


def _look_at_this_machine(plan: Plan) -> list[store.MachineState]:
    """Return this machine's state where it has all hosts; others can be asked once they are up."""
    return [conditions.of_this_machine()] if providers.kind(plan.provider).is_local else []


def _store_machines(bench: _Bench, machines: list[store.MachineState]) -> None:
    """Store the machines' state before the load, and note what makes the run's times doubtful."""
    kind = providers.kind(bench.hosts.plan.provider)
    if not (machines or kind.is_canned):
        machines = conditions.of_hosts(bench.hosts)
    bench.notes += conditions.warnings_of(machines)
    bench.run.update(machines_before=tuple(machines), notes=tuple(bench.notes))


def _load_in_window(bench: _Bench) -> None:
    """Load the cloud; the window is open from its first request to its last iteration's end."""
    hosts, variables, request = bench.hosts, bench.variables, bench.request

    def open_window() -> None:
        probes.start(hosts, request.probes, bench.progress, sampling(hosts.plan, request))
        bench.merging = _page_merging(bench)
        _watch_machine(bench)
        bench.busy.begin()

    def close_window() -> None:
        bench.busy.end()
        _store_validity(bench)
        if not request.load.delete_after:  # what follows is in no figure then
            experiment.lift_shares(hosts.plan, bench.testbed)
        _store_merging(bench)
        probes.stop(hosts, request.probes, bench.progress)

    def store_rows(vms: list[Row], actions: list[Row]) -> None:
        if vms:
            bench.run.append("vms", vms)
        if actions:
            bench.run.append("actions", actions)

    deploy.note_load(bench.testbed)
    bench.load = load.run(
        hosts, bench.testbed, variables, request.load, store_rows, bench.progress,
        before_load=open_window, after_load=close_window, on_pace=bench.on_pace,
    )  # fmt: skip
    experiment.lift_shares(hosts.plan, bench.testbed)
    # Where VMs landed and when they were deleted is known by now.
    bench.run.write_table("vms", bench.load.vms)
    bench.run.write_table("actions", bench.load.actions)


def _watch_machine(bench: _Bench) -> None:
    """Have every process held that is to be, and look at the machine from now on."""
    plan, testbed = bench.hosts.plan, bench.testbed
    if not providers.kind(plan.provider).is_local:
        return
    experiment.hold_shares(plan, testbed, bench.progress)
    provider = providers.of(plan.provider)
    provider.slow_merging(plan, testbed)
    bench.shares = provider.held_shares(plan, testbed)
    bench.watch = MachineWatch(keep=lambda: provider.keep_shares(plan, testbed))
    bench.watch.begin()


def _store_validity(bench: _Bench) -> None:
    """Store how full the machine was since the window opened, once."""
    if bench.watch is None:
        return
    watch, bench.watch = bench.watch, None
    watch.end()
    plan = bench.hosts.plan
    providers.of(plan.provider).resume_merging(plan, bench.testbed)
    after = providers.of(plan.provider).held_shares(plan, bench.testbed)
    found = validity(plan, os.cpu_count() or 1, occupation(watch.times), bench.shares, after)
    bench.notes += [f"shares of the processor: {each}" for each in watch.failures[:3]]
    bench.notes += disagreements(shares_of(plan), after or ())[:5]
    bench.run.update(validity=found, notes=tuple(bench.notes))


def _page_merging(bench: _Bench) -> PageMerging | None:
    return providers.of(bench.hosts.plan.provider).page_merging(bench.hosts.plan, bench.testbed)


def _store_merging(bench: _Bench) -> None:
    """Store how the hosts' memory is merged, with ksmd's CPU time since the window opened."""
    merging = _page_merging(bench)
    if merging is not None and bench.merging is not None:
        since = merging.since(bench.merging)
        bench.run.update(merging=store.Merging(**dataclasses.asdict(since)))


@contextlib.contextmanager
def _collected(bench: _Bench) -> Iterator[None]:
    """Collect what there is of a load, however it ends: Rally's reports, the probes' records."""
    try:
        yield
    finally:
        _store_validity(bench)
        _collect_raw_reports(bench)
        if bench.busy.began_at is not None:
            _collect_records(bench, bench.busy.began_at)


def _collect_raw_reports(bench: _Bench) -> None:
    raw = load.raw_folder(bench.testbed)
    for path in (each for each in raw.rglob("*") if each.is_file()):
        shutil.copy(path, bench.run.path(f"rally/{path.relative_to(raw)}"))


def _collect_records(bench: _Bench, began_at: float) -> None:
    bench.busy.end()  # unless it has ended
    window = (bench.load.window if bench.load else None) or (
        began_at, began_at + bench.busy.elapsed_s
    )  # fmt: skip
    bench.run.update(window=store.Window(*window))
    bench.notes += bench.load.notes if bench.load else ()
    tables = probes.collect(
        bench.hosts, bench.request.probes, window, bench.progress, bench.notes.append,
        sampling(bench.hosts.plan, bench.request),
    )  # fmt: skip
    for name, rows in tables.items():
        bench.run.write_table(name, rows)
    bench.run.update(notes=tuple(bench.notes))


def _store_load(bench: _Bench) -> None:
    """Store what run.json says of the load as a whole."""
    assert bench.load is not None
    bench.run.update(load=store.Load(**bench.load.load), harness=_harness(bench, bench.load))


def _harness(bench: _Bench, done: load.LoadRun) -> store.Harness | None:
    """Return whose the machine's CPU time was; None unless all hosts are on this machine."""
    if not (bench.run.has("usage") and providers.kind(bench.hosts.plan.provider).is_local):
        return None
    busy = bench.busy
    # What isn't the hosts' is the harness's.
    openstack_s = sum(row["cpu_s"] for row in bench.run.table("usage").to_pylist())
    # The services' counters are read some seconds before and after the machine's.
    total_s = max(busy.cpu_s, openstack_s + done.cpu_s)
    return store.Harness(
        total_cpu_s=round(total_s, 2),
        openstack_cpu_s=round(openstack_s, 2),
        load_cpu_s=done.cpu_s,
        other_cpu_s=round(total_s - openstack_s - done.cpu_s, 2),
        elapsed_s=round(busy.elapsed_s, 3),
    )


def _measure_links_again(bench: _Bench) -> None:
    bench.progress("measuring round trips again", 0, 0)
    after = [pair.to_json() for pair in links.measure(bench.hosts, bench.deployed.state.links)]
    bench.run.write_json("links.json", {"before": _measured_before(bench), "after": after})


def _keep_logs(bench: _Bench) -> None:
    """Keep journals, configurations and database dumps of all hosts, in one compressed archive."""
    with tempfile.TemporaryDirectory(dir=bench.testbed.folder) as folder:
        gathered = Path(folder) / "records"
        failure: Failed | None = None
        try:
            backup(bench.hosts, bench.testbed, gathered, bench.progress)
        except Failed as error:  # a host's part is missing: the others' are kept
            failure = error
        if gathered.is_dir():
            with tarfile.open(bench.run.path("logs/records.tar.xz"), "w:xz") as archive:
                archive.add(gathered, arcname="records")
        if failure is not None:
            raise failure
