"""`discovery-xp predict`: what a load would take, by the model; registered by `cli`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import InputFile
from discovery_xp.cli.options import (
    backend_option,
    chosen_plan,
    layout_option,
    time_scale_option,
    topology_options,
)

if TYPE_CHECKING:
    from discovery_xp.model.prediction import Figure, Prediction
    from discovery_xp.planning.plan import Plan

# SimPy and pandas are loaded by the command, not by every other one.


@click.command()
@topology_options
@click.option("--scenario", "scenario_path", type=InputFile("scenarios"), metavar="FILE",
              help="What is asked of the cloud (default: 500 VMs at once).")  # fmt: skip
@click.option("--vms", type=click.IntRange(1), metavar="N", help="In place of the scenario's.")
@backend_option
@layout_option
@time_scale_option
@click.option("--machines", default="emulated", show_default=True, metavar="MACHINES",
              help="What the hosts are: 'emulated' on this machine, 'paper' for those of the "
              "published runs, or CORESxSPEED for one machine each, such as 16x1.4; a core of the "
              "traced runs has the speed 1.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N",
              help="Simulate so often; intervals are from the least to the most.")  # fmt: skip
def predict(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    scenario_path: Path | None,
    vms: int | None,
    backend: str | None,
    layout: str | None,
    time_scale: float | None,
    machines: str,
    seeds: int,
) -> None:
    """Predict what a load takes on a topology, by simulation. Touches no host.

    It says how far predictions were from runs that the model didn't know, and what of this one
    is beyond all runs that it was made from.
    """
    from discovery_xp.bench_request import choose_scenario
    from discovery_xp.model import calibration, errors, prediction
    from discovery_xp.model import machines as kinds

    plan = chosen_plan(topology, sites, latency, name, True, backend, time_scale, layout)
    load = prediction.load_of(choose_scenario(scenario_path, vms, small=False))
    chosen = kinds.parse(machines, plan.time_scale, float(os.cpu_count() or 1))
    result = prediction.predict(plan, load, chosen, calibration.shipped(), seeds)
    _print(plan, load.vms, chosen.name, result)
    for line in (
        f"bound by: {result.bound}",
        f"trust: {errors.in_words(errors.shipped(), *errors.kind_of(plan))}",
        *(f"beyond the runs it was made from: {words}" for words in result.extrapolations),
    ):
        click.echo(line)


def _print(plan: Plan, vms: int, machines: str, result: Prediction) -> None:
    import pandas as pd
    from rich.console import Console

    from discovery_xp.analysis import report
    from discovery_xp.analysis.tables import Table

    rows = [_row(words, value) for words, value in (
        ("to create all VMs, s", result.duration_s),
        ("a boot, median, s", result.boot_median_s),
        ("a boot, P90, s", result.boot_p90_s),
        ("crossings per VM", result.crossings),
        ("database round trips per VM", result.round_trips),
        ("CPU-ms per VM", result.cpu_ms),
    )]  # fmt: skip
    options = plan.require_cloud().options
    figures = Table(
        "prediction",
        f"{vms} VMs on '{plan.name}': {options.backend}, {options.layout}, "
        f"{len(plan.sites)} sites, machines: {machines}",
        pd.DataFrame(rows, columns=["figure", "predicted", "least to most"]),
    )
    busiest = Table(
        "busiest",
        "Processes that are busiest, of one core",
        pd.DataFrame(
            [[service, host, f"{share:.0%}"]
             for (host, service), share in list(result.busy.items())[:6]],
            columns=["service", "host", "busy"],
        ),
    )  # fmt: skip
    hosts: dict[str, float] = {}
    for (host, _service), share in result.busy.items():
        hosts[host] = hosts.get(host, 0.0) + share
    cores = Table(
        "hosts",
        "Hosts that use most, in cores",
        pd.DataFrame(
            [[host, f"{share:.2f}"]
             for host, share in sorted(hosts.items(), key=lambda item: -item[1])[:6]],
            columns=["host", "cores"],
        ),
    )  # fmt: skip
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for table in (figures, busiest, cores):
        console.print(report.rich_table(table))


def _row(words: str, value: Figure) -> list[str]:
    def shown(number: float) -> str:
        return f"{number:.3g}" if number < 100 else f"{number:.0f}"

    return [words, shown(value.value), f"{shown(value.low)} to {shown(value.high)}"]
