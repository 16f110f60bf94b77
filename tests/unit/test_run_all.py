"""All tests in two processes: their output and exit code, and that Ctrl-C ends both."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import run_all
from tests.run_all import USUAL, Command
from tests.waiting import WITHIN_S, wait_until

NOTHING_COLLECTED = 5  # pytest's exit code
SAY = "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[2]))"


def say(word: str, code: int = 0) -> Command:
    return Command((sys.executable, "-c", SAY, word, str(code)))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0, 0, 0), 0),
        ((1, 0, 0, 0), 1),
        ((0, 1, 0, 0), 1),
        ((0, 0, 3, 0), 3),
        ((0, 0, 0, 4), 4),
        ((2, 2, 2, 2), 2),
    ],
)
def test_one_failure_fails_all_and_all_are_run(
    capfd: pytest.CaptureFixture[str], codes: tuple[int, int, int, int], expected: int
) -> None:
    front, *beside = (say(f"n{number}", code) for number, code in enumerate(codes))
    printed = io.BytesIO()
    assert run_all.run(front, beside, printed) == expected
    assert printed.getvalue() == b"n1\nn2\nn3\n"
    assert capfd.readouterr().out == "n0\n"


def test_one_that_a_signal_ended_failed() -> None:
    end = Command((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    assert run_all.run(say("front"), [end], io.BytesIO()) == 128 + signal.SIGKILL


WAIT = """
import subprocess, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
child = subprocess.Popen(["sleep", "300"])
(folder / f"{name}.child").write_text(str(child.pid))
(folder / f"{name}.pid").write_text(str(__import__("os").getpid()))
print(f"{name} has begun", flush=True)
try:
    time.sleep(300)
finally:
    time.sleep(1)
    child.kill()
    (folder / f"{name}.ended").touch()
"""
SCRIPT = """
import sys
from tests import run_all
from tests.run_all import Command
def wait(name):
    return run_all.Command((sys.executable, "-c", sys.argv[1], sys.argv[2], name))
run_all.FOREGROUND = wait("front")
run_all.BACKGROUND = [wait("beside"), wait("third"), wait("never")]
run_all.destroy_all, run_all.others_testbeds = (lambda home: None), list
sys.exit(run_all.main())
"""


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, WAIT, str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=run_all.CHECKOUT, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: len(list(folder.glob("*.pid"))) == 3)
    return process


def is_there(file: Path) -> bool:
    try:
        state = Path(f"/proc/{file.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_ends_both_and_shows_what_was_said(tmp_path: Path, to_all: bool) -> None:
    process = start(tmp_path)
    files = [*tmp_path.glob("*.pid"), *tmp_path.glob("*.child")]
    assert len(files) == 6 and all(is_there(file) for file in files)
    if to_all:  # a terminal's Ctrl-C goes to the foreground group
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == run_all.INTERRUPTED
    begun = [line.split()[0] for line in said.splitlines() if line.endswith(" has begun")]
    assert begun == ["front", "beside", "third"]
    assert {path.stem for path in tmp_path.glob("*.ended")} == {"front", "beside", "third"}, (
        "in peace"
    )
    wait_until(lambda: not any(is_there(file) for file in files))


def test_what_runs_beside_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.kill()
    wait_until(
        lambda: not is_there(tmp_path / "beside.pid") and not is_there(tmp_path / "third.pid")
    )
    os.kill(int((tmp_path / "front.pid").read_text()), signal.SIGINT)  # it has the terminal's
    process.communicate(timeout=WITHIN_S)
    wait_until(lambda: not is_there(tmp_path / "front.child"))


def test_each_module_is_run_once() -> None:
    files = {str(path.relative_to(run_all.CHECKOUT)): path
             for path in (run_all.CHECKOUT / "tests/real").rglob("test_*.py")}  # fmt: skip
    assert files.keys() > set(run_all.SECOND_SIDE)
    for path in run_all.SECOND_SIDE:
        assert f"--ignore={path}" in run_all.FOREGROUND.words
        assert "pytest.mark.alone" not in files[path].read_text()


def test_folders_that_one_command_leaves_out_are_run_by_another() -> None:
    commands = run_all.BACKGROUND
    (whole,) = (command for command in commands if "tests" in command.words)
    others = [run_all.FOREGROUND, *(command for command in commands if command is not whole)]
    left_out = [word.removeprefix("--ignore=") for word in whole.words if "--ignore=" in word]
    assert left_out == ["tests/real", "tests/vm"]
    for folder in left_out:
        assert sum(folder in command.words for command in others) == 1


def test_romes_tests_are_run_once() -> None:
    one, others = (command.words for command in run_all.BACKGROUND if "rome" in command.words)
    for path in run_all.FIRST_OF_ROME:
        assert (run_all.CHECKOUT / "rome" / path).is_file()
        assert path in one and f"--ignore={path}" in others


def test_what_destroys_all_testbeds_is_alone() -> None:
    for path in (run_all.CHECKOUT / "tests/real").rglob("test_*.py"):
        text = path.read_text()
        if '"--all"' in text or re.search(r"(?<!\.)traces\(\)", text):
            assert "pytest.mark.alone" in text, path


LONG = """
from pathlib import Path
import pytest
def test_usual(): Path("usual").touch()
@pytest.mark.long
def test_long(): Path("long").touch()
"""
ASK = """
import sys
from pathlib import Path
from tests import run_all
from tests.run_all import Command
run_all.CHECKOUT, run_all.HOMES, run_all.others_testbeds = Path.cwd(), (), list
words = (sys.executable, "-m", "pytest", "--rootdir=.", "test_both.py")
run_all.FOREGROUND = Command(words, cache=Path("cache"))
never = Command((sys.executable, "-c", "from pathlib import Path; Path('whole').touch()"),
                is_long=True)
run_all.BACKGROUND = [never]
sys.exit(run_all.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("asked", "expected"), [((), {"usual"}), (("--all",), {"usual", "long", "whole"})]
)
def test_long_tests_are_left_out_unless_all_are_asked_for(
    tmp_path: Path, asked: tuple[str, ...], expected: set[str]
) -> None:
    (tmp_path / "test_both.py").write_text(LONG)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = long")
    subprocess.run(
        [sys.executable, "-c", ASK, *asked],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(run_all.CHECKOUT)},
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    assert {"usual", "long", "whole"} & {path.name for path in tmp_path.iterdir()} == expected


def test_only_long_tests_are_in_a_command_that_is_left_out() -> None:
    long = [each for each in run_all.BACKGROUND if each.is_long]
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", *USUAL]
    for command in long:
        folder = next(word for word in command.words if word.startswith("tests/"))
        done = subprocess.run(
            [*words, folder], cwd=run_all.CHECKOUT, capture_output=True, text=True, check=False
        )
        assert done.returncode == NOTHING_COLLECTED, done.stdout


CHANCE = """
from pathlib import Path
import pytest
def test_passes(): Path("passed").open("a").write("x")
@pytest.mark.parametrize("number", range(int(Path("count").read_text())))
def test_fails_first(number):
    place = Path(f"seen{number}")
    was_there = place.exists()
    place.touch()
    assert was_there and not Path("always").exists()
"""


def pytest_of(folder: Path) -> Command:
    (folder / "test_chance.py").write_text(CHANCE)
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", f"--rootdir={folder}",
             str(folder / "test_chance.py"))  # fmt: skip
    return Command(words, cache=folder / "cache")


@pytest.mark.parametrize(
    ("count", "always", "expected"),
    [(2, False, 0), (2, True, 1), (run_all.MOST_AGAIN + 1, False, 1)],
    ids=["by chance", "always", "too many"],
)
@pytest.mark.parametrize("place", ["foreground", "background"])
def test_a_few_tests_that_failed_are_run_again_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    count: int,
    always: bool,
    expected: int,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "count").write_text(str(count))
    if always:
        (tmp_path / "always").touch()
    command = pytest_of(tmp_path)
    (tmp_path / "cache/v/cache").mkdir(parents=True)
    (tmp_path / "cache/v/cache/lastfailed").write_text('{"of an earlier run": true}')
    pair = (command, say("x")) if place == "foreground" else (say("x"), command)
    assert run_all.run(pair[0], [pair[1]], io.BytesIO()) == expected
    assert (tmp_path / "passed").read_text() == "x", "what passed isn't run again"
    said = capfd.readouterr().out
    assert ("run again alone: " in said) == (count <= run_all.MOST_AGAIN)
    assert ("passed only alone: " in said) == (expected == 0)
    assert "of an earlier run" not in said
