"""`init`: a folder to begin with, of what the toolkit comes with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from discovery_xp.cli.common import echo, require_new
from discovery_xp.places import checkout

README = """\
# Experiments with discovery-xp

| | |
|---|---|
| `topologies/` | sites, hosts, latency: copy one, change it |
| `scenarios/` | what load the cloud takes; `scenarios/README.md` has every key |
| `notebooks/` | tables and figures of runs, for any Jupyter with discovery-xp in its environment |
| `results/` | where `bench` puts its runs |

From here, as root for emulated hosts:

    discovery-xp validate topologies/*.yaml
    discovery-xp plan topologies/two-sites.yaml       # touches nothing
    discovery-xp deploy topologies/one-site.yaml      # a cloud on emulated hosts
    discovery-xp openstack server list
    discovery-xp destroy
    discovery-xp bench topologies/two-sites.yaml --scenario scenarios/boot-60.yaml
    discovery-xp report results/two-sites/*

`discovery-xp --help` names all commands; `discovery-xp schema > topology.json` gives editors what
they need to check and complete topologies.
"""

# Where the notebooks find runs; in the repository they show those of reference.
RESULTS = 'results = "../results"'


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a folder of examples: topologies, scenarios, notebooks, and a README."""
    require_new(folder)
    source = checkout()
    for name in ("topologies", "scenarios", "notebooks"):
        (folder / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir()):
            if path.suffix in (".yaml", ".md") and name != "notebooks":
                shutil.copyfile(path, folder / name / path.name)
            elif path.suffix == ".ipynb":
                text = _without_outputs(path.read_text(encoding="utf-8"))
                (folder / name / path.name).write_text(text, encoding="utf-8")
    (folder / "results").mkdir()
    (folder / "README.md").write_text(README, encoding="utf-8")
    echo(f"examples are in {folder}; begin with {folder / 'README.md'}")


def _without_outputs(notebook: str) -> str:
    """Return a notebook that shows nothing yet, and reads the runs of `init`'s folder."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = RESULTS
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
