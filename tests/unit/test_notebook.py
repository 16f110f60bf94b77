"""`discovery-xp notebook`: the copies it lays down, and the server that it would start."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from discovery_xp.cli import notebook
from discovery_xp.cli.guard import run
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from tests.unit.synthetic_run import make_run


def source(path: Path, number: int) -> str:
    cells = [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]
    return "".join(cells[number]["source"])


def test_copies_read_the_results_and_show_nothing_of_others(tmp_path: Path) -> None:
    results = tmp_path / "some results"
    own = notebook.lay_down(results, tmp_path / "own")
    assert own == tmp_path / "own"
    names = sorted(path.name for path in own.iterdir())
    assert names == ["one-run.ipynb", "paper-tables.ipynb"]
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
    (own / "one-run.ipynb").write_text("mine")
    (own / "paper-tables.ipynb").symlink_to(tmp_path / "elsewhere")
    notebook.lay_down(tmp_path / "results", own)
    assert (own / "one-run.ipynb").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_the_server_is_on_loopback_with_a_token_of_its_own() -> None:
    command = notebook.server_command(Path("/own"), 8888, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.open_browser=False" in command
    assert not [word for word in command if "token" in word.lower()]
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
