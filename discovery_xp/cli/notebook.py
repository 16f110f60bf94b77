"""`discovery-xp notebook`: JupyterLab on results; registered by `cli`.

Copies of the notebooks that ship are the user's own to change, and read the results that
were named.  When one is saved, jupytext writes a text of the same name, whose changes can be read.
The server listens on loopback only and asks for a token that it makes itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from discovery_xp import files, places
from discovery_xp.cli.common import echo
from discovery_xp.errors import Refused
from discovery_xp.store import find_runs
from discovery_xp.text import printable

FIRST = "1-one-run.ipynb"  # of the tour
NEEDED = ("JupyterLab", "jupytext")
PARAMETERS = "parameters"  # the tag of the cell that says where the results are


@click.command()
@click.argument("folder", default="results", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True,
              help="Port on loopback; the next free one where it is taken.")  # fmt: skip
@click.option("--browser/--no-browser", default=None,
              help="Whether to open a browser (default: unless you are root).")  # fmt: skip
def notebook(folder: Path, port: int, browser: bool | None) -> None:
    """Open the notebooks on results, in JupyterLab.

    FOLDER is a run's folder, or a folder of runs. Copies of the notebooks that read it are
    made in the working directory, in notebooks-on-FOLDER, and are yours; those that are there
    stay as they are. Ctrl-C ends the server.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name.lower()) is None]
    if missing:
        raise Refused(
            f"{missing[0]} isn't installed",
            "run './xp notebook' in a checkout, or install 'discovery-xp[notebook]'",
        )
    find_runs([folder])
    own = lay_down(folder.resolve(), Path.cwd() / f"notebooks-on-{folder.resolve().name}")
    echo(f"the notebooks are in {own}", err=True)
    if browser is None:
        browser = os.geteuid() != 0
    command = server_command(own, port, browser)
    os.execve(sys.executable, command, environment(dict(os.environ)))


def lay_down(results: Path, own: Path) -> Path:
    """Copy the notebooks to the folder `own`, reading `results`; keep those that are there.

    The copies have no outputs: what they show is of `results` once they ran.  Return the
    absolute path of `own`.  Raise Refused where it can't be written, or where others could
    have put notebooks of theirs: within the results, or in a place that isn't this user's.
    """
    remedy = "change to a folder of yours"
    own = own.absolute()
    if own.is_relative_to(results.resolve()):
        raise Refused(f"{printable(str(own))} is within the results", remedy)
    files.require_ours(own, remedy)
    try:
        files.make_folder(own, files.PUBLIC_FOLDER)
        for source in sorted((places.checkout() / "notebooks").glob("*.ipynb")):
            if not os.path.lexists(own / source.name):
                text = json.dumps(_on(json.loads(source.read_text()), results), indent=1)
                files.write_atomically(own / source.name, text + "\n", files.PUBLIC_FILE)
    except OSError as error:
        raise Refused(
            f"{printable(str(own))}: can't be written ({error.strerror})", remedy
        ) from None
    return own


def _on(content: dict[str, Any], results: Path) -> dict[str, Any]:
    """Return a notebook's content without outputs, its parameter set to `results`."""
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(execution_count=None, outputs=[])
        if PARAMETERS in cell["metadata"].get("tags", ()):
            cell["source"] = [f"results = {str(results.resolve())!r}"]
    return content


def server_command(own: Path, port: int, browser: bool) -> list[str]:
    """Return the command line of a server on loopback that opens the notebooks in `own`.

    No secret is in it, as all users of the machine can read it.
    """
    return [
        sys.executable, "-P", "-m", "jupyterlab",  # nothing is imported from where we are
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--ServerApp.open_browser={browser}",
        f"--ServerApp.root_dir={own}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.contents_manager_class=jupytext.TextFileContentsManager",
        "--ServerApp.allow_root=True",
        "--ServerApp.answer_yes=True",
        "--LabApp.news_url=None",  # it asks nothing of the network
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--log-level=ERROR",
    ]  # fmt: skip


def environment(inherited: dict[str, str]) -> dict[str, str]:
    """Return the server's environment: no setting from elsewhere opens it to others.

    Settings of other Jupyters may switch the token off or name another address.
    """
    chosen = {name: value for name, value in inherited.items() if name != "JUPYTER_TOKEN"}
    return {**chosen, "JUPYTER_NO_CONFIG": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
