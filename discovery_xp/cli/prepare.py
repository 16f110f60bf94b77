"""`discovery-xp prepare`: what a command needs, fetched and built ahead."""

from __future__ import annotations

import click

from discovery_xp.cli.bench import bench
from discovery_xp.cli.cloud import deploy
from discovery_xp.cli.hosts import up
from discovery_xp.cli.options import chosen_plan
from discovery_xp.cli.progress import Follower
from discovery_xp.errors import Refused

_COMMANDS = {"up": up, "deploy": deploy, "bench": bench}


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def prepare(command: tuple[str, ...]) -> None:
    """Fetch and build ahead what a command needs, e.g. 'prepare deploy two-sites'. Boots nothing.

    It takes minutes the first time: packages of the hosts, and the root tree of emulated ones.
    """
    word, *arguments = command
    if word not in _COMMANDS:
        raise Refused(f"'{word}' needs no preparation", "name 'up', 'deploy' or 'bench'")
    given = _COMMANDS[word].make_context(word, list(arguments)).params
    sites = given["sites"]
    if word == "bench" and given["topology"] is None and sites is None:
        sites = 2
    made = chosen_plan(given["topology"], sites, given["latency"], given["name"], word != "up")
    from discovery_xp.providers import preparation

    follower = Follower(preparation.needed_s(made))
    preparation.prepare(made, follower)
    follower.end("all is prepared")
