"""`discovery-xp bench`: one experiment from end to end, or one for each of several back ends."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import InputFile, console, echo
from discovery_xp.cli.compare import print_arms
from discovery_xp.cli.options import (
    BACKENDS,
    chosen_topology,
    expose_option,
    layout_option,
    time_scale_option,
    topology_options,
)
from discovery_xp.cli.progress import Follower
from discovery_xp.cli.report import report, write_page
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.inputs.scenario import MAX_SEED, MAX_VMS
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.store import Recipe
from discovery_xp.text import short, shortened

if TYPE_CHECKING:
    from discovery_xp.arms import Outcome
    from discovery_xp.bench_request import BenchRequest
    from discovery_xp.store import Run

MAX_BLOCKS = 100
_SUMMARY = 120  # characters of why a run failed, which was told in full before


class BackendList(click.ParamType[tuple[str, ...]]):
    """One back end, or several with commas: each is an arm of a comparison."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Take the list apart; one that isn't there, or is there twice, is refused."""
        if isinstance(value, tuple):
            return value
        names = tuple(word.strip() for word in str(value).split(","))
        for name in names:
            if name not in BACKENDS:
                self.fail(f"'{short(name)}' is not one of {', '.join(BACKENDS)}", param, ctx)
            if names.count(name) > 1:
                self.fail(f"'{name}' is there twice; write each back end once", param, ctx)
        return names


@click.command()
@topology_options
@click.option("--backend", "backends", type=BackendList(), help="What holds the databases, in "
              "place of what the topology says: 'mysql', 'galera' or 'rome'; several with commas "
              "make a run of each, and compare them.")  # fmt: skip
@layout_option
@time_scale_option
@click.option("--placement", type=click.Choice(["shared", "availability-zones"]),
              help="One pool of computes, or a zone for each site.")  # fmt: skip
@click.option("--placement-seed", type=click.IntRange(0, MAX_SEED), metavar="N",
              help="Draw each VM's compute from this seed, and ask for it there.")  # fmt: skip
@click.option("--repeat", "blocks", type=click.IntRange(1, MAX_BLOCKS), default=1, metavar="N",
              help="So many runs of each back end, in blocks.")  # fmt: skip
@click.option("--order-seed", type=click.IntRange(0, MAX_SEED), metavar="N",
              help="What the order of each block's runs is drawn from (default: "
              "drawn).")  # fmt: skip
@click.option("--scenario", type=InputFile("scenarios"), help="What is asked of the cloud: a file, "
              "or the name of one that comes with the toolkit.")  # fmt: skip
@click.option("--vms", type=click.IntRange(1, MAX_VMS), help="How many, instead of the scenario's.")
@click.option("--probes", default="all", show_default=True,
              help="'all', 'none', or some of calls, requests, statements, spans, traffic, "
              "messages, usage, series, with commas.")  # fmt: skip
@click.option("--sample-every", default="5s", show_default=True, metavar="TIME",
              help="From a sample of the series to the next.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the run's folder goes.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
@expose_option
def bench(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backends: tuple[str, ...] | None,
    layout: str | None,
    time_scale: float | None,
    placement: str | None,
    placement_seed: int | None,
    blocks: int,
    order_seed: int | None,
    scenario: Path | None,
    vms: int | None,
    probes: str,
    sample_every: str,
    results: Path,
    keep: bool,
    expose: bool,
) -> None:
    """Deploy, load, measure, store, report, destroy: one experiment from end to end.

    Without a topology: 2 sites 10 ms apart and 20 VMs, in some minutes. With --sites and
    --latency: as many sites as in the paper, and 500 VMs.
    """
    from discovery_xp import bench_request as requests
    from discovery_xp import recipes

    small = topology is None and sites is None and latency is None
    if topology is None:
        sites = 2 if sites is None else sites
        latency = "10ms" if small else latency
    chosen, text = chosen_topology(topology, sites, latency)
    chosen_scenario = requests.choose_scenario(scenario, vms, small, placement_seed)

    interval_s = requests.choose_interval(sample_every)

    def make(backend: str | None) -> tuple[Plan, BenchRequest]:
        recipe = Recipe(backend, placement, time_scale, layout=layout)
        plan = make_plan(recipes.replaced(chosen, recipe), name, cloud=True)
        request = requests.BenchRequest(
            scenario=chosen_scenario,
            topology_text=as_file(
                text, sites, latency, time_scale, backend, placement, layout=layout
            ),
            results=results,
            probes=requests.choose_probes(probes),
            keep=keep,
            expose=expose,
            backend=backend,
            layout=layout,
            placement=placement,
            time_scale=time_scale,
            sample_every_s=interval_s,
        )
        requests.check(plan, request)
        return plan, request

    if order_seed is not None and blocks == 1 and len(backends or ()) < 2:
        raise Refused(
            f"--order-seed {order_seed}: there is one run, and so no order",
            "name several back ends, or leave --order-seed out",
        )
    if len(backends or ()) > 1 or blocks > 1:
        names = backends or (chosen.openstack.backend,)
        made = {backend: make(backend if backends else None) for backend in names}
        _run_arms(made, order_seed, blocks)
        return
    run = run_one(*make(backends[0] if backends else None))
    if run.load().is_partial:
        raise Failed(
            f"the run is partial: {run.load().why_partial}",
            "what was measured is kept; the same command makes another run",
        )


# ---------------------------------------------------------------- one run


def run_one(plan: Plan, request: BenchRequest) -> Run:
    """Make a run and print its report; says where its files are, however it ends."""
    from discovery_xp import bench as benches
    from discovery_xp import bench_request as requests

    out = console()
    for line in requests.foretell(plan, request):
        out.print(line, soft_wrap=True)
    follower = Follower(requests.expected_s(plan, request))
    opened: list[Path] = []
    try:
        run = benches.run(
            plan, request, follower, lambda run: opened.append(run.folder), follower.pace
        )
    except BaseException:
        follower.end("it ended early")
        if opened:
            remarks = [f"what was measured is in {opened[0]}, as a partial run"]
            with contextlib.suppress(UserError, OSError):
                remarks.append(f"its report is {write_page(opened[0])}")
            echo("; ".join(remarks), err=True)
        raise
    stays = f"; '{plan.name}' stays up until 'discovery-xp destroy'" if request.keep else ""
    follower.end(f"the run is in {run.folder}{stays}")
    click.get_current_context().invoke(
        report,
        run=(run.folder,),
        page=None,
        csv=None,
        latex=None,
        figures=None,
        prometheus=None,
        whole=False,
    )
    verdict = run.load().validity
    if verdict is not None:
        echo(
            f"validity: {verdict.verdict}, the machine was busy {verdict.busy:.0%} of the load's "
            f"time and full {verdict.saturated:.0%} of it"
            + ("; choose a larger --time-scale" if verdict.verdict == "busy" else "")
        )
    return run


# ---------------------------------------------------------------- several runs


def _run_arms(
    made: dict[str, tuple[Plan, BenchRequest]], order_seed: int | None, blocks: int
) -> None:
    """Make the runs of a comparison, say what became of each, and compare them."""
    from discovery_xp import arms

    seed = arms.draw_seed() if order_seed is None else order_seed
    planned = arms.plan_runs(tuple(made), seed, blocks, made.__getitem__)
    names = ", ".join(f"{each.backend} ({each.arm.block})" for each in planned)
    echo(f"{len(planned)} runs, by back end (block): {names}; order seed {seed}")
    outcomes = []
    for outcome in arms.run_all(planned, lambda each: run_one(each.plan, each.request)):
        outcomes.append(outcome)
        if outcome.error is not None:
            echo(f"{_subject(outcome)} failed: {outcome.failure}", err=True)
    for outcome in outcomes:
        where = "no run" if outcome.run is None else str(outcome.run.folder)
        ended = "complete" if outcome.failure is None else shortened(outcome.failure, _SUMMARY)
        echo(f"{_subject(outcome)}: {where}: {ended}")
    print_arms(tuple(made), [(each.planned.backend, each.run) for each in outcomes if each.run])
    _require_all_well(outcomes)


def _subject(outcome: Outcome) -> str:
    arm = outcome.planned.arm
    return f"{outcome.planned.backend}, block {arm.block} of {arm.blocks}"


def _require_all_well(outcomes: Sequence[Outcome]) -> None:
    """Raise what nobody thought of, then Failed where a run isn't complete."""
    for outcome in outcomes:
        if outcome.error is not None and not isinstance(outcome.error, UserError | OSError):
            raise outcome.error
    wrong = [outcome for outcome in outcomes if outcome.failure is not None]
    if wrong:
        raise Failed(
            f"{len(wrong)} of {len(outcomes)} runs aren't complete: {_subject(wrong[0])}: "
            f"{wrong[0].failure}",
            "what was measured is kept; the same command makes further runs",
        )


def as_file(
    text: str | None,
    sites: int | None,
    latency: str | None,
    time_scale: float | None,
    *others: str | None,
    layout: str | None = None,
) -> str:
    """The topology as it was written, or a file that says what the command line did.

    `text` is the file's, None without a file; `others` are the values of --backend and
    --placement, None where they weren't given, as `layout` is that of --layout.
    """
    openstack = {
        key: value
        for key, value in zip(("backend", "placement", "layout"), (*others, layout), strict=True)
        if value is not None
    }
    options = ", ".join(f"{key}: {value}" for key, value in openstack.items())
    scale = "" if time_scale is None else f"time_scale: {time_scale!r}"
    if text is not None:
        said = ", ".join(part for part in (options, scale) if part)
        more = f"# On the command line: {said}\n" if said else ""
        return text + ("" if text.endswith("\n") else "\n") + more
    delay = f"network: {{delay: {latency}}}\n" if latency else ""
    return (
        f"name: sites-{sites}\n"
        f"sites: [{{name: site, count: {sites}, controllers: 1, computes: 6, data: 1}}]\n{delay}"
        + (f"{scale}\n" if scale else "")
        + (f"openstack: {{{options}}}\n" if options else "")
    )
