"""`discovery-xp completion`: what makes a shell complete commands."""

from __future__ import annotations

import click
from click import shell_completion


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, testbeds and topologies.

    For this shell: source <(discovery-xp completion bash). docs/installation.md says how to
    have it in each.
    """
    # click's own look at the shell's version would start the shell.
    complete = shell_completion.get_completion_class(shell)
    assert complete is not None
    command = context.find_root().command
    completer = complete(command, {}, "discovery-xp", "_DISCOVERY_XP_COMPLETE")
    click.echo(completer.source_template % completer.source_vars())
