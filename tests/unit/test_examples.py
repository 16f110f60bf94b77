"""What a user without a checkout begins with: shipped files by name, `init`, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from discovery_xp import places
from discovery_xp.errors import Refused
from discovery_xp.places import checkout, shipped_file
from tests.unit.test_cli import discovery_xp

TOPOLOGIES = checkout() / "topologies"


@pytest.mark.parametrize("name", ["two-sites", "two-sites.yaml"])
def test_a_shipped_file_is_found_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_file("topologies", Path(name)) == TOPOLOGIES / "two-sites.yaml"


@pytest.mark.parametrize(
    "name", ["three-moons", "./topologies/two-sites", "../two-sites", "/two-sites", "", "x" * 5000]
)
def test_other_paths_stay_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_file("topologies", Path(name)) == Path(name)


def test_a_file_of_the_user_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two-sites").symlink_to("nowhere")
    assert shipped_file("topologies", Path("two-sites")) == Path("two-sites")


def test_without_anything_shipped_a_name_is_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "__file__", "/nowhere/discovery_xp/places.py")
    assert shipped_file("topologies", Path("two-sites")) == Path("two-sites")
    with pytest.raises(Refused, match="install discovery-xp from its wheel"):
        checkout()


def test_a_wheel_of_shipped_files_goes_before_its_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "discovery_xp/shipped"):
        (folder / "playbooks").mkdir(parents=True)
        (folder / "playbooks/deploy.yml").touch()
    monkeypatch.setattr(places, "__file__", str(tmp_path / "discovery_xp/places.py"))
    assert checkout() == tmp_path / "discovery_xp/shipped"
    assert not places.is_checkout()


def test_examples_are_all_that_is_shipped_and_notebooks_are_empty(tmp_path: Path) -> None:
    folder = tmp_path / "with a space" / "experiments"
    done = discovery_xp("init", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"examples are in {folder}; begin with {folder}/README.md\n"
    for name in ("topologies", "scenarios", "campaigns", "campaigns/claims"):
        for path in (checkout() / name).glob("*.yaml"):
            assert (folder / name / path.name).read_text() == path.read_text()
    for path in (folder / "notebooks").iterdir():
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] for cell in code)
        parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        assert [cell["source"] for cell in parameters] == [
            [f"results = {str(folder / 'results')!r}"]
        ]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "campaigns", "notebooks", "results", "scenarios", "topologies")
    ]


def test_examples_overwrite_nothing(tmp_path: Path) -> None:
    done = discovery_xp("init", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path} exists; name a folder that isn't there" in done.stderr
    assert not list(tmp_path.iterdir())


def completed(*words: str, home: Path) -> list[str]:
    """What bash is offered in place of the last of `words`."""
    done = subprocess.run(
        [sys.executable, "-m", "discovery_xp.cli"], capture_output=True, text=True, check=True,
        env={**os.environ, "_DISCOVERY_XP_COMPLETE": "bash_complete",
             "COMP_WORDS": " ".join(("discovery-xp", *words)), "COMP_CWORD": str(len(words)),
             "DISCOVERY_XP_HOME": str(home)},
    )  # fmt: skip
    return done.stdout.splitlines()


def test_topologies_scenarios_and_testbeds_are_completed(tmp_path: Path) -> None:
    assert completed("deploy", "two", home=tmp_path) == [
        "plain,two-sites",
        "plain,two-sites-cells",
        "plain,two-sites-galera",
        "file,two",
    ]
    assert "plain,boot-500" in completed("bench", "--scenario", "boot-5", home=tmp_path)
    for name in ("one", "other", "two"):
        (tmp_path / f"testbeds/{name}").mkdir(parents=True)
        (tmp_path / f"testbeds/{name}/state.json").touch()
    offered = completed("status", "--testbed", "o", home=tmp_path)
    assert offered == ["plain,one", "plain,other"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_the_command(shell: str) -> None:
    done = discovery_xp("completion", shell)
    assert done.returncode == 0
    assert f"_DISCOVERY_XP_COMPLETE={shell}_complete" in done.stdout
    assert "discovery-xp" in done.stdout


def test_the_script_for_bash_is_one() -> None:
    script = discovery_xp("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
