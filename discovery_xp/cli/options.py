"""The options that several commands share, and the topology or plan that they describe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import F, InputFile, NameOption
from discovery_xp.errors import Refused
from discovery_xp.inputs import topology_file
from discovery_xp.inputs.topology import Topology, derive_topology, topology_of
from discovery_xp.inputs.yamlfile import read_yaml
from discovery_xp.planning.plan import Plan, make_plan

BACKENDS = ("mysql", "galera", "rome")
LAYOUTS = topology_file.LAYOUTS


def topology_options(command: F) -> F:
    """Add a topology's file, the options that stand for one, and the testbed's name."""
    for option in (
        click.argument("topology", required=False, type=InputFile("topologies")),
        click.option("--sites", type=int, help="Without a file: so many sites as in the paper."),
        click.option("--latency", help="One-way delay between any two sites, e.g. 50ms."),
        click.option(
            "--name", type=NameOption(), help="Name of the testbed (default: the topology's)."
        ),
    ):
        command = option(command)
    return command


def backend_option(command: F) -> F:
    """Add --backend."""
    return click.option(
        "--backend", type=click.Choice(BACKENDS), help="What holds the databases, in place of "
        "what the topology says: one MariaDB, one at each site (Galera), or Redis through ROME."
    )(command)  # fmt: skip


def layout_option(command: F) -> F:
    """Add --layout."""
    return click.option(
        "--layout", type=click.Choice(LAYOUTS), help="What of Nova each site has of its own, in "
        "place of what the topology says: nothing but computes and APIs, or a cell with a "
        "database, a message bus and conductors."
    )(command)  # fmt: skip


def time_scale_option(command: F) -> F:
    """Add --time-scale."""
    return click.option(
        "--time-scale", type=float, metavar="K", help="K seconds stand for one: links, timeouts "
        "and shares of the processor are held so, on emulated hosts; see docs/scaled-time.md."
    )(command)  # fmt: skip


def with_time_scale(topology: Topology, time_scale: float | None) -> Topology:
    """Return the topology with the time scale that was asked for, its own where none was."""
    if time_scale is None:
        return topology
    return dataclasses.replace(topology, time_scale=time_scale)


def chosen_topology(
    path: Path | None, sites: int | None, latency: str | None
) -> tuple[Topology, str | None]:
    """Return the topology that was asked for, and its file's text, None without a file."""
    if path is not None:
        if sites is not None or latency is not None:
            raise Refused(
                f"{path} and --sites or --latency both describe the topology",
                "give a file or the options",
            )
        parsed = read_yaml(path)  # once: a second look may find something else
        return topology_of(parsed), parsed.text
    if sites is None:
        raise Refused(
            "no topology was given",
            "name a file, a topology that comes with the toolkit, such as two-sites, or --sites N",
        )
    return derive_topology(sites, latency), None


def chosen_plan(
    path: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    cloud: bool = False,
    backend: str | None = None,
    time_scale: float | None = None,
    layout: str | None = None,
) -> Plan:
    """Return the plan of the topology that was asked for; with a cloud if `cloud`."""
    topology, _text = chosen_topology(path, sites, latency)
    chosen = with_backend(topology, backend, layout)
    return make_plan(with_time_scale(chosen, time_scale), name, cloud)


def with_backend(topology: Topology, backend: str | None, layout: str | None = None) -> Topology:
    """Return the topology with the back end and layout that were asked for, else its own."""
    cloud = topology.openstack
    chosen = dataclasses.replace(
        cloud, backend=backend or cloud.backend, layout=layout or cloud.layout
    )
    return dataclasses.replace(topology, openstack=chosen)


def keep_option(command: F) -> F:
    """Add --keep, as it is for commands that fail."""
    return click.option(
        "--keep", is_flag=True, help="Don't give borrowed nodes back when it fails."
    )(command)


def expose_option(command: F) -> F:
    """Add --expose."""
    return click.option(
        "--expose", is_flag=True, help="Let others than the testbed's hosts and root of this "
        "machine reach the hosts, too; see docs/ports.md."
    )(command)  # fmt: skip
