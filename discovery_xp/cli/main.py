"""The command line: one subcommand for each stage, a module for each group of them.

Sole owner of printing, progress and exit codes: 0 done, 1 started but not
finished, 2 refused (nothing was started), 70 a defect, 130 interrupted.
"""

from __future__ import annotations

import sys

import click

from discovery_xp import files
from discovery_xp.cli.artifact import artifact
from discovery_xp.cli.bench import bench
from discovery_xp.cli.campaign import campaign
from discovery_xp.cli.cloud import backup, deploy, openstack
from discovery_xp.cli.compare import compare
from discovery_xp.cli.condense import condense
from discovery_xp.cli.examples import init
from discovery_xp.cli.guard import run
from discovery_xp.cli.hosts import destroy, inventory, ssh, up
from discovery_xp.cli.network import network
from discovery_xp.cli.notebook import notebook
from discovery_xp.cli.predict import predict
from discovery_xp.cli.prepare import prepare
from discovery_xp.cli.report import report
from discovery_xp.cli.reproduce import reproduce
from discovery_xp.cli.shells import completion
from discovery_xp.cli.status import status
from discovery_xp.cli.topologies import plan, schema, slots, validate
from discovery_xp.cli.trace import trace
from discovery_xp.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="discovery-xp")
def cli() -> None:
    """Experiments on geo-distributed clouds: from a topology file to tables and figures."""


for command in (
    validate, schema, plan, slots, prepare,
    up, deploy, status, ssh, bench, verify, openstack, backup, inventory, destroy,
    completion, init, network, notebook, report, trace, compare, condense, reproduce, campaign,
    artifact, predict,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Run a command; every expected error is one line, without a traceback."""
    files.narrow_umask()
    sys.exit(run(cli))


if __name__ == "__main__":
    main()
