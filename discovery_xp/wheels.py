"""Wheels for the Python of the hosts, whatever the Python of the control machine.

Hosts run Debian 12, with its Python 3.11; the control machine may have a newer one.  Every
package of a lock file is fetched for the hosts' Python.  What comes as source only is built
here, which yields a wheel for any Python as long as it compiles nothing.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from discovery_xp.errors import Failed

# Debian 12's.
HOSTS_PYTHON = (3, 11)
_HOSTS_PYTHON_FULL = "3.11.2"
_HOSTS_GLIBC_MINOR = 36
_OLDEST_GLIBC_MINOR = 5

# Fetching mostly waits for the network: so many downloads at once for each lock file.
_DOWNLOADS = 3

# What a task may take to remove its files after its programs were ended.
_CLEANS_UP_WITHIN_S = 5.0


def hosts_tag() -> str:
    """Python and machine of the hosts, as in cp311-x86_64."""
    major, minor = HOSTS_PYTHON
    return f"cp{major}{minor}-{platform.machine()}"


class Cancelled(Exception):
    """Programs were ended because what they were run for is over."""


class Programs:
    """Programs that run side by side, started by any thread, and are ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def run(self, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        """Run all commands at once; return the exit code and the output of each.

        Raises Cancelled when `end` is called meanwhile, or was before.
        """
        outputs = [tempfile.TemporaryFile() for _command in commands]  # noqa: SIM115
        started: list[subprocess.Popen[bytes]] = []
        try:
            for command, output in zip(commands, outputs, strict=True):
                started.append(self._start(command, output.fileno()))
            codes = [process.wait() for process in started]
            if self._ended:
                raise Cancelled
            texts = []
            for output in outputs:
                output.seek(0)
                texts.append(output.read().decode(errors="replace"))
            return list(zip(codes, texts, strict=True))
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            with self._lock:
                self._running = [each for each in self._running if each not in started]
            for output in outputs:
                output.close()

    def _start(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise Cancelled
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                # Constraints are for other projects of this machine: the lock file decides.
                env={**os.environ, "PIP_CONSTRAINT": ""},
            )  # fmt: skip
            self._running.append(process)
            return process

    def end(self) -> None:
        """End the programs that run, and start none from now on."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


@contextmanager
def beside(task: Callable[[Programs], object]) -> Iterator[Callable[[], None]]:
    """Run `task` in a thread while the block runs.

    Yields a function that waits for its end and raises what it raised.  The task's programs
    are ended where the block is left before the task is over.
    """
    programs = Programs()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            task(programs)
        except BaseException as error:
            errors.append(error)

    # It may wait for another process's lock, which nothing here can end.
    thread = threading.Thread(target=work, daemon=True)

    def wait() -> None:
        thread.join()
        if errors:
            raise errors[0]

    thread.start()
    try:
        yield wait
    finally:
        programs.end()
        thread.join(_CLEANS_UP_WITHIN_S)


def locked_requirements(lock_text: str) -> list[str]:
    """Return the requirements of a lock file that hold on the hosts, with their hashes.

    pip judges conditions such as `python_full_version >= '3.13'` by the Python that it runs
    on, so they are judged here.
    """
    environment = {
        "implementation_name": "cpython",
        "implementation_version": _HOSTS_PYTHON_FULL,
        "os_name": "posix",
        "platform_machine": platform.machine(),
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": _HOSTS_PYTHON_FULL,
        "python_version": ".".join(map(str, HOSTS_PYTHON)),
        "sys_platform": "linux",
    }
    lines = []
    for line in lock_text.replace("\\\n", " ").splitlines():
        text, *hashes = re.split(r"\s+(?=--hash=)", line.partition(" #")[0].strip())
        if not text or text.startswith("#"):
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            lines.append(" ".join([str(requirement), *hashes]))
    return lines


def fetch(lock_file: Path, folder: Path, programs: Programs) -> None:
    """Fill `folder` with a wheel for each package of the lock file.

    Hashes are checked before anything is built.  Raises Failed with pip's words.
    """
    folder.mkdir()
    requirements = locked_requirements(lock_file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as work:
        commands = []
        for number in range(_DOWNLOADS):
            part = Path(work) / f"{number}.txt"
            part.write_text("\n".join(requirements[number::_DOWNLOADS]) + "\n", encoding="utf-8")
            commands.append(_pip(
                "download", "--require-hashes", "--no-deps", "--no-build-isolation",
                "--implementation", "cp", "--python-version", _HOSTS_PYTHON_FULL,
                *(f"--platform={each}" for each in _platforms()),
                "--requirement", str(part), "--dest", work,
            ))  # fmt: skip
        _run_pip(commands, programs)
        sources = []
        for path in sorted(Path(work).iterdir()):
            if path.suffix == ".whl":
                path.rename(folder / path.name)
            elif path.suffix != ".txt":
                sources.append(path)
        _build(sources, folder, programs)


def _build(sources: Sequence[Path], folder: Path, programs: Programs) -> None:
    """Build wheels of sources; raises Failed where they would fit this machine's Python only."""
    if not sources:
        return
    fetched = set(folder.iterdir())
    halves = [half for half in (sources[::2], sources[1::2]) if half]
    _run_pip(
        [_pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir",
              str(folder), *map(str, half)) for half in halves],
        programs,
    )  # fmt: skip
    if sys.version_info[:2] != HOSTS_PYTHON:
        for path in sorted(set(folder.iterdir()) - fetched):
            require_any_platform(path.name)


def require_any_platform(wheel: str) -> None:
    """Raise Failed for a wheel that was built here for the control machine's Python alone."""
    name, _version, _build_tag, tags = parse_wheel_filename(wheel)
    if any(tag.platform != "any" for tag in tags):
        major, minor = HOSTS_PYTHON
        raise Failed(
            f"{name} has no wheel for the hosts' Python {major}.{minor} on {platform.machine()}, "
            "and what this machine builds is for another Python",
            f"run discovery-xp on a machine with Python {major}.{minor}, such as a Debian 12",
        )


def _platforms() -> list[str]:
    """The platforms whose wheels run on the hosts, best first."""
    machine = platform.machine()
    minors = range(_HOSTS_GLIBC_MINOR, _OLDEST_GLIBC_MINOR - 1, -1)
    return [
        *(f"manylinux_2_{minor}_{machine}" for minor in minors),
        *(f"manylinux{old}_{machine}" for old in ("2014", "2010", "1")),
        f"linux_{machine}",
    ]


def _pip(command: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check",
            *arguments]  # fmt: skip


def _run_pip(commands: Sequence[Sequence[str]], programs: Programs) -> None:
    for code, output in programs.run(commands):
        if code:
            errors = [line for line in output.splitlines() if "ERROR" in line]
            raise Failed(
                " / ".join(errors[-2:]) or output[-300:].strip() or "see pip",
                "see that pip can install packages here, then try again",
            )
