"""`discovery-xp completion`: what makes a shell complete the command line."""

from __future__ import annotations

import click
from click import shell_completion


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, testbeds and topologies.

    For this shell: source <(discovery-xp completion bash). docs/installation.md says how to
    have it in each.
    """
    # click's own look at the shell's version would start the shell.
    complete = shell_completion.get_completion_class(shell)
    assert complete is not None
    commands = click.get_current_context().find_root().command
    made = complete(commands, {}, "discovery-xp", "_DISCOVERY_XP_COMPLETE")
    click.echo(made.source_template % made.source_vars())
