"""`discovery-xp validate`, `schema`, `plan` and `slots`: topology files and what comes of them.

Nothing is made or changed by these commands.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click
from rich.table import Table

from discovery_xp import providers
from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import InputFile, console, echo
from discovery_xp.cli.options import (
    backend_option,
    chosen_plan,
    chosen_topology,
    layout_option,
    time_scale_option,
    topology_options,
    with_backend,
    with_time_scale,
)
from discovery_xp.cli.plan import print_plan
from discovery_xp.errors import InvalidInput, Problem, Refused
from discovery_xp.inputs.topology import read_topology
from discovery_xp.inputs.topology_file import topology_schema
from discovery_xp.planning.plan import make_plan
from discovery_xp.planning.plan_checks import require_free_network


@click.command()
@click.argument("topology", nargs=-1, required=True, type=InputFile("topologies"))
@click.option("--hosts-only", is_flag=True, help="For 'up', without a cloud on the hosts.")
def validate(topology: tuple[Path, ...], hosts_only: bool) -> None:
    """Check topology files, all problems at once: what passes can be planned and deployed."""
    problems: list[Problem] = []
    for path in topology:
        try:
            read = read_topology(path)
            made = make_plan(read, cloud=not hosts_only)
            require_free_network(made.network)
        except InvalidInput as error:
            problems += error.problems
            continue
        except Refused as error:
            problems.append(Problem(str(path), 0, "", error.message, error.remedy))
            continue
        echo(f"{path}: {len(read.sites)} sites, {len(made.hosts)} hosts")
    if problems:
        raise InvalidInput(problems)


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    click.echo(json.dumps(topology_schema(), indent=2))


@click.command()
@topology_options
@backend_option
@layout_option
@time_scale_option
@click.option("--hosts-only", is_flag=True, help="What 'up' would do instead of 'deploy'.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@click.option("--yaml", "as_yaml", is_flag=True,
              help="The topology that is planned, as a complete file to go on from.")  # fmt: skip
def plan(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    layout: str | None,
    time_scale: float | None,
    hosts_only: bool,
    as_json: bool,
    as_yaml: bool,
) -> None:
    """Print what 'deploy' would do: hosts, services, links, requests. Touches nothing."""
    if as_json and as_yaml:
        raise Refused("--json and --yaml are two ways to print", "give one of them")
    made = chosen_plan(topology, sites, latency, name, not hosts_only, backend, time_scale, layout)
    if as_yaml:
        chosen = with_backend(chosen_topology(topology, sites, latency)[0], backend, layout)
        chosen = with_time_scale(chosen, time_scale)
        click.echo(dataclasses.replace(chosen, name=made.name).to_yaml(), nl=False)
        return
    if as_json:
        click.echo(json.dumps({**made.to_json(), "digest": made.digest}, indent=1))
        return
    print_plan(made)


@click.command()
@topology_options
@click.option("--most", type=click.IntRange(1, 100), default=10, show_default=True,
              help="How many starts to list.")  # fmt: skip
@click.option("--night", is_flag=True, help="Leave out working days from 9:00 to 19:00.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def slots(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    most: int,
    night: bool,
    as_json: bool,
) -> None:
    """List when a topology would fit on Grid'5000. Reserves nothing; exit code 1 if never."""
    made = chosen_plan(topology, sites, latency, name)
    free_slots = providers.of(made.provider).slots(made, most, night)
    if as_json:
        rows = [{"start": slot.start, "free": dict(slot.free)} for slot in free_slots]
        click.echo(json.dumps(rows, indent=1))
    elif not free_slots:
        echo("there is none within four weeks")
    else:
        assert made.job is not None  # what has slots is reserved for a time
        table = Table(title=f"Starts of {made.job.walltime}, dates of Paris",
                      title_justify="left", show_edge=False)  # fmt: skip
        for column in ("start", "free nodes", "usage policy"):
            table.add_column(column, overflow="fold")
        for slot in free_slots:
            free = ", ".join(f"{cluster} {count}" for cluster, count in slot.free.items())
            table.add_row(slot.date, free, slot.policy)
        console().print(table)
    if not free_slots:
        sys.exit(1)
