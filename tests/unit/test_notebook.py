"""`discovery-xp notebook`: the copies it lays down, and the server that it would start."""

from __future__ import annotations

import ast
import importlib
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from discovery_xp.cli import notebook
from discovery_xp.cli.guard import run
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from tests.unit.synthetic_run import make_run

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TOUR = ("1-one-run", "2-paper-tables", "3-latency", "4-rome-and-others", "5-a-figure-of-your-own")


def source(path: Path, number: int) -> str:
    cells = [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]
    return "".join(cells[number]["source"])


# ---------------------------------------------------------------- the tour


@pytest.fixture
def refresh(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program that executes notebooks, as a module."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    return importlib.import_module("refresh")


def test_each_notebook_and_its_text_say_the_same(refresh: ModuleType) -> None:
    assert tuple(path.stem for path in refresh.sources()) == TOUR
    assert refresh.differing() == [], "run notebooks/refresh.py on them"


@pytest.mark.parametrize("harm", ["text", "notebook", "tag", "gone"])
def test_a_notebook_that_differs_from_its_text_is_named(
    refresh: ModuleType, tmp_path: Path, harm: str
) -> None:
    for suffix in (".py", ".ipynb"):
        shutil.copy(NOTEBOOKS / f"3-latency{suffix}", tmp_path)
    text, paired = tmp_path / "3-latency.py", tmp_path / "3-latency.ipynb"
    assert refresh.differing(tmp_path) == []
    if harm == "text":
        text.write_text(
            text.read_text().replace("plots.timeline(runs)", "plots.timeline(runs[:1])")
        )
    elif harm == "notebook":
        paired.write_text(paired.read_text().replace("What latency does", "What it does"))
    elif harm == "tag":
        text.write_text(text.read_text().replace(' tags=["parameters"]', ""))
    else:
        paired.unlink()
    assert refresh.differing(tmp_path) == ["3-latency"]


@pytest.mark.parametrize("name", TOUR)
def test_the_tour_runs_on_committed_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NOTEBOOKS)
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", lambda *values: shown.extend(values))
    left = runpy.run_path(f"{name}.py")  # a text in percent format is a program
    assert left["results"].startswith("../results/reference")
    assert left.get("runs") or left["run"]
    if name == "4-rome-and-others":
        assert left["backends"] == ["mysql", "rome"]
        assert len(shown) == 3, "what differs, figures, every point"


@pytest.mark.parametrize("name", TOUR)
def test_the_tour_uses_what_analysis_offers_and_nothing_else(name: str) -> None:
    tree = ast.parse((NOTEBOOKS / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {each.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for each in node.names}  # fmt: skip
    own = {module for module in modules if module and module.startswith("discovery_xp")}
    assert all(module.startswith("discovery_xp.analysis") for module in own)
    assert modules - own <= {"pathlib", "pandas", "numpy", "IPython.display"}
    private = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
               and node.attr.startswith("_")]  # fmt: skip
    assert private == []


# ---------------------------------------------------------------- copies


def test_copies_read_the_results_and_show_nothing_of_others(tmp_path: Path) -> None:
    results = tmp_path / "some results"
    own = notebook.lay_down(results, tmp_path / "own")
    assert own == tmp_path / "own"
    names = sorted(path.name for path in own.iterdir())
    assert names == [f"{name}.ipynb" for name in TOUR]
    for name in names:
        assert source(own / name, 0) == f"results = {str(results)!r}"
        cells = json.loads((own / name).read_text())["cells"]
        assert all(not cell.get("outputs") for cell in cells)


def test_notebooks_of_others_are_not_opened(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is within the results"):
        notebook.lay_down(tmp_path, tmp_path / "notebooks-on-x")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    with pytest.raises(Refused, match="can be changed by other users"):
        notebook.lay_down(tmp_path / "results", theirs / "own")


def test_a_notebook_that_is_there_stays_and_no_link_is_followed(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "1-one-run.ipynb").write_text("mine")
    (own / "2-paper-tables.ipynb").symlink_to(tmp_path / "elsewhere")
    notebook.lay_down(tmp_path / "results", own)
    assert (own / "1-one-run.ipynb").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_the_server_is_on_loopback_with_a_token_of_its_own() -> None:
    command = notebook.server_command(Path("/own"), 8888, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.open_browser=False" in command
    assert not [word for word in command if "token" in word.lower()]
    assert "--ServerApp.contents_manager_class=jupytext.TextFileContentsManager" in command
    kept = notebook.environment({"JUPYTER_TOKEN": "", "HOME": "/home/me"})
    assert kept == {"HOME": "/home/me", "JUPYTER_NO_CONFIG": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return what would be started, of a JupyterLab that is there."""
    seen: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(os, "execve", lambda program, words, _environment: seen.append(words))
    return seen


def discovery_xp(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["notebook", *arguments])


@pytest.mark.parametrize(("user", "opens"), [(0, False), (1000, True)])
def test_a_browser_opens_unless_the_user_is_root(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, user: int, opens: bool
) -> None:
    make_run(Path("results"))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(notebook, "lay_down", lambda _results, own: own.absolute())
    assert discovery_xp().exit_code == 0
    assert f"--ServerApp.open_browser={opens}" in started[0]
    assert started[0][:4] == [sys.executable, "-P", "-m", "jupyterlab"]
    assert discovery_xp("--no-browser").exit_code == 0
    assert "--ServerApp.open_browser=False" in started[1]
    assert any(word.endswith("/notebooks-on-results") for word in started[1])


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["discovery-xp", "notebook", *words])
    assert run(cli) == 2
    return capsys.readouterr().err


def test_results_without_a_run_are_refused(
    started: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    assert "there is no run under it" in refused(capsys, monkeypatch, "empty")
    assert started == []
    assert not list(Path().glob("notebooks-on-*"))


def test_without_jupyterlab_the_remedy_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(_name: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    said = refused(capsys, monkeypatch)
    assert said.startswith("JupyterLab isn't installed; run './xp notebook'")
    assert len(said.splitlines()) == 1
