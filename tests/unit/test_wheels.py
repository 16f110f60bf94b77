"""Wheels for the hosts' Python, whatever the Python that these tests run on."""

from __future__ import annotations

import hashlib
import platform
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from discovery_xp import software, wheels
from discovery_xp.errors import Failed
from discovery_xp.wheels import Cancelled, Programs, beside, locked_requirements

LOCK = """\
# A comment.
always==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
newer==2.0 ; python_full_version >= '3.13' \\
    --hash=sha256:cc
older==3.0 ; python_full_version < '3.12' and sys_platform == 'linux' \\
    --hash=sha256:dd
other==4.0 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


def test_conditions_are_judged_by_the_hosts_python() -> None:
    assert locked_requirements(LOCK) == [
        "always==1.0 --hash=sha256:aa --hash=sha256:bb",
        "older==3.0 --hash=sha256:dd",
    ]


@pytest.mark.parametrize(
    "environment", (*software.ENVIRONMENTS, software.TEMPEST), ids=lambda each: each.name
)
def test_every_locked_package_of_the_hosts_keeps_its_hashes(
    environment: software.Environment,
) -> None:
    text = environment.lock_file.read_text()
    kept = locked_requirements(text)
    assert all("==" in each and "--hash=sha256:" in each for each in kept)
    assert sum(each.count("--hash=") for each in kept) <= text.count("--hash=")
    # legacy-cgi is for Python 3.13, win-inet-pton and colorama for Windows.
    dropped = {"legacy-cgi", "win-inet-pton", "colorama"}
    named = {each.partition("==")[0] for each in kept}
    assert named == set(environment.locked_versions) - dropped


def test_the_cache_is_named_for_the_hosts_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 5, "final", 0))
    assert "-cp311-" in software.OPENSTACK.wheels_folder.name


# ---------------------------------------------------------------- fetching


def write_wheel(folder: Path, name: str, tag: str) -> str:
    """Write an empty wheel, and return its hash."""
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        about = f"{name}-1.0.dist-info"
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_source(folder: Path, name: str, setup: str) -> str:
    """Write a source distribution, and return its hash."""
    project = folder / f"{name}-1.0"
    project.mkdir()
    (project / "setup.py").write_text(setup)
    (project / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (project / f"{name}.py").write_text("ANSWER = 42\n")
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(project, project.name)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip fetches from, in place of PyPI."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def other_python(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the hosts have another Python than this process; return its tag."""
    major, minor = sys.version_info[0], sys.version_info[1] + 1
    monkeypatch.setattr(wheels, "HOSTS_PYTHON", (major, minor))
    monkeypatch.setattr(wheels, "_HOSTS_PYTHON_FULL", f"{major}.{minor}.1")
    return f"cp{major}{minor}"


def test_wheels_are_chosen_for_the_hosts_python_and_sources_are_built(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = other_python(monkeypatch)
    ours = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    machine = platform.machine()
    lines = []
    for python in (ours, theirs):
        digest = write_wheel(index, "compiled", f"{python}-{python}-manylinux_2_28_{machine}")
        lines.append(f"    --hash=sha256:{digest}")
    # The hosts' C library is too old for this one.
    digest = write_wheel(index, "compiled", f"{theirs}-{theirs}-manylinux_2_99_{machine}")
    lines.append(f"    --hash=sha256:{digest}")
    setup = "from setuptools import setup\nsetup(name='pure', version='1.0', py_modules=['pure'])\n"
    source = write_source(index, "pure", setup)
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "compiled==1.0 \\\n" + " \\\n".join(lines) + f"\npure==1.0 \\\n    --hash=sha256:{source}\n"
    )
    wheels.fetch(lock, tmp_path / "wheels", Programs())
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == [
        f"compiled-1.0-{theirs}-{theirs}-manylinux_2_28_{machine}.whl",
        "pure-1.0-py3-none-any.whl",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "lock.txt", "wheels"]


def test_a_package_that_was_changed_since_it_was_locked_is_refused(
    index: Path, tmp_path: Path
) -> None:
    write_wheel(index, "changed", "py3-none-any")
    (tmp_path / "lock.txt").write_text(f"changed==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Failed, match=r"(?s)HASHES|hash.*see that pip can install"):
        wheels.fetch(tmp_path / "lock.txt", tmp_path / "wheels", Programs())


def test_what_was_compiled_for_this_machine_is_not_given_to_the_hosts() -> None:
    wheels.require_any_platform("pure-1.0-py3-none-any.whl")
    wheels.require_any_platform("pure-1.0-py2.py3-none-any.whl")
    with pytest.raises(Failed, match=r"speedups has no wheel for the hosts' Python 3\.11 on "):
        wheels.require_any_platform("speedups-1.0-cp313-cp313-linux_x86_64.whl")


# ---------------------------------------------------------------- side by side

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


def test_programs_run_at_once_and_what_they_print_is_kept_apart() -> None:
    commands = [
        (sys.executable, "-c", f"import sys; print({word!r}); sys.exit({code})")
        for code, word in enumerate(("one", "two"))
    ]
    assert Programs().run(commands) == [(0, "one\n"), (1, "two\n")]


def test_a_task_is_awaited_and_what_it_raises_is_raised_there() -> None:
    seen: list[str] = []
    with beside(lambda _programs: seen.append("done")) as wait:
        wait()
        assert seen == ["done"]

    def fail(_programs: Programs) -> None:
        raise Failed("it broke", "mend it")

    with pytest.raises(Failed, match="it broke"), beside(fail) as wait:
        time.sleep(0.01)
        wait()


def test_what_a_task_started_ends_with_the_block(tmp_path: Path) -> None:
    ended: list[BaseException] = []
    started = threading.Event()

    def task(programs: Programs) -> None:
        started.set()
        try:
            programs.run([SLEEP])
        except Cancelled as error:
            ended.append(error)
            raise

    with pytest.raises(ZeroDivisionError), beside(task):
        started.wait(10)
        raise ZeroDivisionError
    assert len(ended) == 1


def test_no_program_starts_after_the_end() -> None:
    programs = Programs()
    programs.end()
    with pytest.raises(Cancelled):
        programs.run([SLEEP])
