"""`discovery-xp up`, `ssh`, `inventory` and `destroy`: the hosts of a testbed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from discovery_xp import files
from discovery_xp.boundary.names import TestbedName
from discovery_xp.cli.common import echo, testbed_option, worst_pair
from discovery_xp.cli.options import (
    chosen_plan,
    expose_option,
    keep_option,
    time_scale_option,
    topology_options,
)
from discovery_xp.cli.progress import Follower
from discovery_xp.errors import Refused, UserError
from discovery_xp.testbeds import testbed as testbeds
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.text import printable_lines

# EnOSlib and Ansible are loaded by the commands that touch hosts, not by a plan.


@click.command()
@topology_options
@time_scale_option
@keep_option
@expose_option
def up(
    topology: Path | None,
    sites: int | None,
    latency: str | None,
    name: TestbedName | None,
    time_scale: float | None,
    keep: bool,
    expose: bool,
) -> None:
    """Make the hosts of a topology, or repair them; impose and measure its links."""
    made = chosen_plan(topology, sites, latency, name, time_scale=time_scale)
    from discovery_xp import experiment

    follower = Follower()
    brought = experiment.bring_up(made, follower, keep, expose)
    follower.end(f"'{made.name}' is up: {len(made.hosts)} hosts at {len(made.sites)} sites")
    if brought.pairs:
        echo(worst_pair(brought.pairs, brought.state.wan or ""))
    echo(f"inventory: {brought.testbed.inventory}")
    echo(f"ssh:       ssh -F {brought.testbed.ssh_config} {made.hosts[0].name}")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@testbed_option
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: TestbedName | None, host: str, command: tuple[str, ...]) -> None:
    """Log in to a host, or run a command on it."""
    chosen = testbeds.choose(name)
    chosen.load().plan.host(host)
    if not chosen.ssh_config.exists():
        raise Refused(f"'{chosen.name}' has no hosts yet", "run 'discovery-xp up' again")
    arguments = ["ssh", "-F", str(chosen.ssh_config), host, *command]
    os.execvp("ssh", arguments)


@click.command()
@testbed_option
@click.option("--path", "as_path", is_flag=True, help="The file's path instead of its text.")
def inventory(name: TestbedName | None, as_path: bool) -> None:
    """Print Ansible's inventory of a testbed."""
    chosen = testbeds.choose(name)
    chosen.load()
    if not chosen.inventory.exists():
        raise Refused(f"'{chosen.name}' has no hosts yet", "run 'discovery-xp up' again")
    if as_path:
        click.echo(printable_lines(str(chosen.inventory)))
        return
    try:
        text = files.read_text(chosen.inventory)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{chosen.inventory} can't be read ({type(error).__name__})",
            "'discovery-xp up' with the same topology writes it anew",
        ) from None
    click.echo(printable_lines(text.rstrip()))


@click.command()
@testbed_option
@click.option("--all", "everything", is_flag=True, help="All testbeds, and traces of lost ones.")
@click.option("--forget", is_flag=True, help="Even if its hosts can't be reached any more; with "
              "--all, those of other homes on this machine, too.")  # fmt: skip
@click.option("--cloud-only", is_flag=True, help="Only the cloud: its hosts and links stay.")
def destroy(name: TestbedName | None, everything: bool, forget: bool, cloud_only: bool) -> None:
    """Remove a testbed and every trace of it."""
    if cloud_only:
        if everything or forget:
            raise Refused("--cloud-only is for one testbed", "leave --all and --forget out")
        chosen = testbeds.choose(name)
        chosen.load()
        from discovery_xp import experiment

        follower = Follower()
        experiment.remove_cloud(chosen, follower)
        follower.end(f"'{chosen.name}' has no cloud; its hosts stay")
        return
    from discovery_xp import ending

    elsewhere = ending.others() if everything else {}
    if everything:
        chosen_ones = [Testbed(each) for each in ending.known_testbeds()]
        if forget:
            chosen_ones += [Testbed(each, place) for each, place in elsewhere.items()]
    else:
        # One that is named may have lost its state; one that isn't has to be of this home, as
        # traces alone may be anybody's.
        chosen_ones = [testbeds.choose(None) if name is None else Testbed(name)]
    failures = []
    for each in chosen_ones:
        try:
            ending.tear_down(each, forget)
            echo(f"'{each.name}' is gone")
        except (UserError, OSError) as error:  # the others go all the same
            failures.append(error)
            if len(chosen_ones) > 1:
                echo(f"'{each.name}' stays: {error}", err=True)
    if everything:
        ending.sweep()
        if not forget:
            for stays, place in elsewhere.items():
                echo(f"'{stays}' stays: it belongs to another home, {place}")
    if failures:
        raise failures[0]
    if not chosen_ones and (forget or not elsewhere):
        echo("there is no testbed")
