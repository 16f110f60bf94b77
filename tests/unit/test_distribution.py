"""The wheel works outside of a checkout: it is built, installed, and asked for what it ships."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from discovery_xp import software
from discovery_xp.verification.exclusions import read_exclusions

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = ("campaigns", "locks", "notebooks", "playbooks", "rome/src", "scenarios", "topologies")
NEEDED = (
    *("discovery_xp", *SHIPPED, "rome/LICENSE", "rome/README.md", "rome/pyproject.toml"),
    *("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"),
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")

# What `deploy` and `bench` take from the toolkit, by the functions that they take it with.
ASK = """
import json
from discovery_xp import places, software
from discovery_xp.verification.exclusions import read_exclusions

print(json.dumps({
    "from": str(places.checkout()),
    "checkout": places.is_checkout(),
    "packages": software.debian_packages(),
    "locks": {each.name: each.lock_digest for each in software.ENVIRONMENTS},
    "exclusions": len(read_exclusions()),
    "rome": software.ROME.digest,
    "wheel": str(software.ROME.ensure()),
}))
"""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Build and install the wheel; return what runs a command of that environment."""
    work = tmp_path_factory.mktemp("distribution")
    for name in NEEDED:
        (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, work / "source" / name, ignore=LEFT_OUT)
        else:
            shutil.copy(CHECKOUT / name, work / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call([*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation",
          "--wheel-dir", str(work), str(work / "source")])  # fmt: skip
    shutil.rmtree(work / "source")
    environment = work / "environment"
    call([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    (wheel,) = work.glob("*.whl")
    call([*pip, f"--python={environment}/bin/python", "install", "--no-index", "--no-deps",
          str(wheel)])  # fmt: skip
    # The other packages are those that these tests run with.
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (work / "elsewhere").mkdir()

    def run(*words: str) -> str:
        program, *arguments = words
        variables = {"DISCOVERY_XP_CACHE": f"{work}/cache", "DISCOVERY_XP_HOME": f"{work}/home"}
        return call([f"{environment}/bin/{program}", *arguments], work / "elsewhere", variables)

    return run


def call(
    command: list[str], folder: Path = Path("/"), variables: dict[str, str] | None = None
) -> str:
    """Run a command away from the checkout, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env={**environment, **(variables or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_shipped_topology_is_planned_by_its_name(installed: Run) -> None:
    assert json.loads(installed("discovery-xp", "plan", "two-sites", "--json"))["name"] == (
        "two-sites"
    )


def test_examples_are_laid_down_and_are_valid(installed: Run) -> None:
    installed("discovery-xp", "init", "examples")
    names = [path.name for path in sorted((CHECKOUT / "topologies").glob("*.yaml"))]
    printed = installed("discovery-xp", "validate", *(f"examples/topologies/{n}" for n in names))
    assert len(printed.splitlines()) == len(names)


def test_deploy_would_ship_what_the_checkout_has(installed: Run) -> None:
    found = json.loads(installed("python", "-c", ASK))
    assert found["from"].endswith("site-packages/discovery_xp/shipped")
    assert not found["checkout"]
    assert found["packages"] == list(software.debian_packages())
    assert found["locks"] == {each.name: each.lock_digest for each in software.ENVIRONMENTS}
    assert found["exclusions"] == len(read_exclusions())
    assert found["rome"] == software.ROME.digest
    assert Path(found["wheel"]).name == software.ROME.wheel.name
    for name in SHIPPED:
        assert files_below(Path(found["from"]) / name) == files_below(CHECKOUT / name), name


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the files that are shipped of a folder, also of what its links lead to."""
    found = {}
    for place, _folders, names in os.walk(folder, followlinks=True):
        for path in (Path(place) / name for name in names):
            if path.suffix != ".pyc" and ".egg-info" not in str(path):
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def test_every_shipped_folder_is_in_the_source_distribution_too() -> None:
    lines = (CHECKOUT / "MANIFEST.in").read_text().splitlines()
    grafted = {line.split()[1] for line in lines if line.startswith("graft ")}
    assert grafted == set(SHIPPED)


def test_what_builds_the_hosts_wheels_is_required() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    names = {each.partition(">=")[0] for each in project["dependencies"]}
    assert {"packaging", "pip", "setuptools"} <= names
