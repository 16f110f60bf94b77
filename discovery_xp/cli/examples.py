"""`init`: a folder to begin with, of what the toolkit comes with."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from discovery_xp.cli.common import echo, require_new
from discovery_xp.cli.notebook import lay_down
from discovery_xp.places import checkout

README = """\
# Experiments with discovery-xp

| | |
|---|---|
| `topologies/` | sites, hosts, latency: copy one, change it |
| `scenarios/` | what load the cloud takes; `scenarios/README.md` has every key |
| `campaigns/` | many runs from one file; `campaigns/README.md` has every key |
| `notebooks/` | tables and figures of the runs in `results/` |
| `results/` | where `bench` puts its runs |

From here, as root for emulated hosts:

    discovery-xp validate topologies/*.yaml
    discovery-xp plan topologies/two-sites.yaml       # touches nothing
    discovery-xp deploy topologies/one-site.yaml      # a cloud on emulated hosts
    discovery-xp openstack server list
    discovery-xp destroy
    discovery-xp bench topologies/two-sites.yaml --scenario scenarios/boot-60.yaml
    discovery-xp report results/two-sites/*
    discovery-xp notebook                             # needs discovery-xp[notebook]

`discovery-xp --help` names all commands; `discovery-xp schema > topology.json` gives editors what
they need to check and complete topologies.
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a folder of examples: topologies, scenarios, campaigns, notebooks, and a README."""
    require_new(folder)
    source = checkout()
    for name in ("topologies", "scenarios", "campaigns", "campaigns/claims"):
        (folder / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir()):
            if path.suffix in (".yaml", ".md"):
                shutil.copyfile(path, folder / name / path.name)
    (folder / "results").mkdir()
    lay_down(folder / "results", folder / "notebooks")
    (folder / "README.md").write_text(README, encoding="utf-8")
    echo(f"examples are in {folder}; begin with {folder / 'README.md'}")
