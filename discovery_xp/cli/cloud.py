"""`discovery-xp deploy`, `openstack` and `backup`: the cloud of a testbed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import console, echo, require_new, testbed_option, worst_pair
from discovery_xp.cli.options import (
    backend_option,
    chosen_plan,
    expose_option,
    keep_option,
    layout_option,
    time_scale_option,
    topology_options,
)
from discovery_xp.cli.progress import Follower
from discovery_xp.testbeds import testbed as testbeds

if TYPE_CHECKING:
    from discovery_xp.experiment import DeployedCloud


@click.command()
@topology_options
@backend_option
@layout_option
@time_scale_option
@keep_option
@expose_option
def deploy(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    backend: str | None,
    layout: str | None,
    time_scale: float | None,
    keep: bool,
    expose: bool,
) -> None:
    """Make a topology's hosts and an OpenStack on them, or repair them; boot a VM at each site."""
    made = chosen_plan(topology, sites, latency, name, True, backend, time_scale, layout)
    from discovery_xp import experiment

    follower = Follower()
    deployed = experiment.deploy_cloud(made, follower, keep, expose)
    follower.end(f"'{made.name}' boots VMs at each of {len(deployed.boots)} sites")
    out = console()
    out.print(_boots_table(deployed))
    if deployed.pairs:
        echo(worst_pair(deployed.pairs, deployed.state.wan or ""))


def _boots_table(deployed: DeployedCloud) -> Table:
    urls = {endpoint.region: endpoint.url for endpoint in deployed.deployment.endpoints}
    table = Table(title="A VM at each site", title_justify="left", show_edge=False)
    for column in ("site", "asked at", "VM", "on", "after"):
        table.add_column(column, overflow="fold")
    for boot in deployed.boots:
        took = "" if boot.boot_duration_s is None else f"{boot.boot_duration_s:.1f} s"
        table.add_row(boot.site, urls[boot.region], boot.status, boot.host, took)
    return table


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@testbed_option
@click.option(
    "--cloud",
    "user",
    type=click.Choice(["admin", "discovery"]),
    default="admin",
    show_default=True,
    help="Who asks: 'admin', or 'discovery', the user of experiments.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def openstack(name: TestbedName | None, user: str, arguments: tuple[str, ...]) -> None:
    """Run OpenStack's client on the master, e.g. 'openstack --os-region-name site2 server list'."""
    from discovery_xp.deployment import description
    from discovery_xp.software import ENVIRONMENT

    chosen = testbeds.choose(name)
    description.load(chosen)
    master = chosen.load().plan.require_cloud().master
    command = shlex.join([f"{ENVIRONMENT}/bin/openstack", "--os-cloud", user, *arguments])
    terminal = ["-t"] if not arguments and sys.stdin.isatty() else []
    os.execvp("ssh", ["ssh", "-F", str(chosen.ssh_config), *terminal, master, command])


@click.command()
@testbed_option
@click.option("--to", "target", type=click.Path(path_type=Path), help="A folder that isn't there.")
def backup(name: TestbedName | None, target: Path | None) -> None:
    """Fetch configurations, journals, database dumps and versions of a cloud, without secrets."""
    chosen = testbeds.choose(name)
    from discovery_xp import experiment

    folder = target or Path(f"backup-{chosen.name}-{testbeds.now().replace(':', '')}")
    require_new(folder)
    follower = Follower()
    count = experiment.backup_cloud(chosen, folder, follower)
    follower.end(f"{count} files in {folder}")
