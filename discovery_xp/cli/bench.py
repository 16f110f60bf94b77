"""`discovery-xp bench`: one experiment from end to end."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import click

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import InputFile, console, echo
from discovery_xp.cli.options import (
    backend_option,
    chosen_topology,
    expose_option,
    topology_options,
)
from discovery_xp.cli.progress import Follower
from discovery_xp.cli.report import report, write_page
from discovery_xp.errors import Failed, UserError
from discovery_xp.inputs.scenario import MAX_VMS
from discovery_xp.planning.plan import make_plan


@click.command()
@topology_options
@backend_option
@click.option("--placement", type=click.Choice(["shared", "availability-zones"]),
              help="One pool of computes, or a zone for each site.")  # fmt: skip
@click.option("--scenario", type=InputFile("scenarios"), help="What is asked of the cloud: a file, "
              "or the name of one that comes with the toolkit.")  # fmt: skip
@click.option("--vms", type=click.IntRange(1, MAX_VMS), help="How many, instead of the scenario's.")
@click.option("--probes", default="all", show_default=True,
              help="'all', 'none', or some of calls, requests, statements, traffic, messages, "
              "usage, with commas.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"),
              show_default=True, help="Where the run's folder goes.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the testbed up.")
@expose_option
def bench(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    placement: str | None,
    scenario: Path | None,
    vms: int | None,
    probes: str,
    results: Path,
    keep: bool,
    expose: bool,
) -> None:
    """Deploy, load, measure, store, report, destroy: one experiment from end to end.

    Without a topology: 2 sites 10 ms apart and 20 VMs, in some minutes. With --sites and
    --latency: as many sites as in the paper, and 500 VMs.
    """
    from discovery_xp import bench as benches
    from discovery_xp import bench_request as requests

    small = topology is None and sites is None and latency is None
    if topology is None:
        sites = 2 if sites is None else sites
        latency = "10ms" if small else latency
    chosen, text = chosen_topology(topology, sites, latency)
    cloud = chosen.openstack
    if backend is not None:
        cloud = dataclasses.replace(cloud, backend=backend)
    if placement is not None:
        cloud = dataclasses.replace(cloud, placement=placement)
    made = make_plan(dataclasses.replace(chosen, openstack=cloud), name, cloud=True)
    request = requests.BenchRequest(
        scenario=requests.choose_scenario(scenario, vms, small),
        topology_text=as_file(text, sites, latency, backend, placement),
        results=results,
        probes=requests.choose_probes(probes),
        keep=keep,
        expose=expose,
    )
    requests.check(made, request)
    out = console()
    for line in requests.foretell(made, request):
        out.print(line, soft_wrap=True)
    follower = Follower(requests.expected_s(made, request))
    opened: list[Path] = []
    try:
        run = benches.run(
            made, request, follower, lambda run: opened.append(run.folder), follower.pace
        )
    except BaseException:
        follower.end("it ended early")
        if opened:
            remarks = [f"what was measured is in {opened[0]}, as a partial run"]
            with contextlib.suppress(UserError, OSError):
                remarks.append(f"its report is {write_page(opened[0])}")
            echo("; ".join(remarks), err=True)
        raise
    stays = f"; '{made.name}' stays up until 'discovery-xp destroy'" if keep else ""
    follower.end(f"the run is in {run.folder}{stays}")
    click.get_current_context().invoke(
        report, run=(run.folder,), page=None, csv=None, latex=None, figures=None, whole=False
    )
    if run.load().is_partial:
        raise Failed(
            f"the run is partial: {run.load().why_partial}",
            "what was measured is kept; the same command makes another run",
        )


def as_file(text: str | None, sites: int | None, latency: str | None, *others: str | None) -> str:
    """The topology as it was written, or a file that says what the command line did.

    `text` is the file's, None without a file; `others` are the values of --backend and
    --placement, None where they weren't given.
    """
    openstack = {
        key: value
        for key, value in zip(("backend", "placement"), others, strict=True)
        if value is not None
    }
    options = ", ".join(f"{key}: {value}" for key, value in openstack.items())
    if text is not None:
        more = f"# On the command line: {options}\n" if options else ""
        return text + ("" if text.endswith("\n") else "\n") + more
    delay = f"network: {{delay: {latency}}}\n" if latency else ""
    return (
        f"name: sites-{sites}\n"
        f"sites: [{{name: site, count: {sites}, controllers: 1, computes: 6, data: 1}}]\n{delay}"
        + (f"openstack: {{{options}}}\n" if options else "")
    )
