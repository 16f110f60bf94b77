"""The script `xp`: it is one, and takes paths with spaces; what it begins early can run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

COMMAND = """#!/bin/sh
printf '%s|' "$@"
printf '%s' "$PWD"
"""

IMPORT = """
import importlib.metadata, sys
import discovery_xp.cli.main, discovery_xp.providers.preparation
names = importlib.metadata.packages_distributions()
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted({each for name in loaded for each in names.get(name, [])}))
"""


def made_checkout(tmp_path: Path) -> Path:
    """Make a checkout, in a folder with spaces, whose environment is there already."""
    folder = tmp_path / "a checkout's folder"
    for name in ("xp", "pyproject.toml", "hermes/pyproject.toml", "rome/pyproject.toml", "locks"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, folder / name)
        else:
            shutil.copy(CHECKOUT / name, folder / name)
    for name, text in {
        ".venv/bin/discovery-xp": COMMAND,
        ".venv/bin/python": COMMAND,
        # All packages are there.
        "programs/dpkg-query": "#!/bin/sh\nprintf installed\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for lock in ("runtime", "test"):
        projects = [folder / f"{each}pyproject.toml" for each in ("", "hermes/", "rome/")]
        locked = [folder / f"locks/{lock}.txt", *projects]
        contents = [f"{folder}\n".encode(), *(path.read_bytes() for path in locked)]
        digest = hashlib.sha256(b"".join(contents)).hexdigest()
        (folder / f".venv/.locks-{lock}").write_text(f"{digest}\n")
    (folder / ".venv/.made-in").write_text(f"{folder}/.venv\n")
    return folder


def xp(folder: Path, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher of a checkout, with more variables in its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "DISCOVERY_XP_VENV"}
    environment |= variables
    environment["PATH"] = f"{folder}/programs:{environment['PATH']}"
    return subprocess.run(
        [str(folder / "xp"), *words], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_it_is_a_script_for_every_shell(shell: str) -> None:
    subprocess.run([shell, "-n", str(CHECKOUT / "xp")], check=True)


def test_words_and_folders_with_spaces_reach_the_command(tmp_path: Path) -> None:
    folder = made_checkout(tmp_path)
    (tmp_path / "else where").mkdir()
    done = xp(folder, "bench", "my topology.yaml", "--name", "", cwd=tmp_path / "else where")
    assert done.stderr == ""
    assert done.stdout == f"bench|my topology.yaml|--name||{tmp_path}/else where"


def test_tests_are_run_in_the_checkout(tmp_path: Path) -> None:
    folder = made_checkout(tmp_path)
    done = xp(folder, "test", "tests/unit", "-k", "a or b", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == f"-m|pytest|tests/unit|-k|a or b|{folder}"


def test_an_environment_of_another_lock_file_is_made_anew(tmp_path: Path) -> None:
    folder = made_checkout(tmp_path)
    with (folder / "locks/runtime.txt").open("a") as file:
        file.write("# changed\n")
    (folder / ".venv/bin/pip").write_text("#!/bin/sh\necho 'ERROR: no such package'; exit 1\n")
    (folder / ".venv/bin/pip").chmod(0o755)
    done = xp(folder, "plan", cwd=tmp_path)
    assert done.returncode == 2
    assert "making the Python environment" in done.stderr
    assert "ERROR: no such package" in done.stderr
    assert "the Python environment can't be made; correct the above" in done.stderr


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_an_environment_at_another_place_is_made_anew(tmp_path: Path, how: str) -> None:
    folder = made_checkout(tmp_path)
    (folder / ".venv/of-the-old-place").touch()
    other = tmp_path / "other"
    if how == "moved":
        folder.rename(other)
    else:
        shutil.copytree(folder, other)
    # Just far enough: the new environment is there, and has nothing of the old one.
    (other / "locks/build.txt").write_text("no requirement\n")
    done = xp(other, "plan", cwd=tmp_path)
    assert done.returncode == 2
    assert f"making the Python environment in {other}/.venv" in done.stderr
    assert (other / ".venv/bin/pip").exists()
    assert not (other / ".venv/of-the-old-place").exists()
    assert how == "moved" or (folder / ".venv/of-the-old-place").exists()


def test_an_environment_of_another_checkout_is_given_this_one(tmp_path: Path) -> None:
    folder = made_checkout(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.rmtree(other / ".venv")
    (folder / ".venv/bin/pip").write_text('#!/bin/sh\nprintf "%s|" "$@" >>"$0.log"\n')
    (folder / ".venv/bin/pip").chmod(0o755)
    done = xp(other, "plan", cwd=tmp_path, DISCOVERY_XP_VENV=f"{folder}/.venv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"plan|{tmp_path}"
    assert f"|-e|{other}|" in (folder / ".venv/bin/pip.log").read_text()


def test_what_prepares_meanwhile_needs_no_other_packages_than_it_gets() -> None:
    text = (CHECKOUT / "xp").read_text().replace("\\\n", " ")
    match = re.search(r'^for_preparing="([^"]+)"$', text, re.MULTILINE)
    assert match
    given = set(match[1].split())
    locked = set(re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "locks/runtime.txt").read_text(), re.M))
    assert given <= locked
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    needed = {re.sub(r"[_.]", "-", name).lower() for name in done.stdout.split()}
    # rich takes attrs where it is there.
    assert needed - {"discovery-xp", "attrs"} <= given
