"""Run the tests, in three processes at once: two with emulated hosts, one without.

Tests marked `long` are further cases of what others show, or emulate a whole machine; they are
run with `--all` only.

The first has the terminal: the cloud that most tests use, then the tests that need the
machine for themselves.  The others run in the background, and take from one list: the other
clouds, the tests without hosts, ROME's in two parts, Hermes's, (with `--all`) a virtual
machine.  They have less of the processors while the first wants them, since it measures round
trips and times.

A few tests that failed are run once more when all has ended, alone: real services on two busy
processors now and then miss a limit that has nothing to do with what is tested.  What passes
only then is named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO

from tests.real.machine import HOME_VARIABLE, HOMES, destroy_all, others_testbeds

CHECKOUT = Path(__file__).resolve().parents[1]

NICENESS = 5  # of the background: a third of a processor that the foreground wants, too
END_WITHIN_S = 90  # interrupted tests take down what they started
INTERRUPTED = 130
TESTS_FAILED = 1  # pytest's exit code for that
# More than these are no matter of chance, and after so long nobody waits for more.
MOST_AGAIN = 4
AGAIN_BEFORE_S = 4500

# The slowest ones are named, so that each run tells where its time went.
PYTEST = (sys.executable, "-m", "pytest", "--durations=15")
USUAL = ("-m", "not long")
# Each makes a cloud of its own; the lock in `tests.real.machine` keeps the two sides apart
# where they would see each other.
SECOND_SIDE = tuple(
    f"tests/real/test_{name}.py"
    # The first one keeps schemas, which later ones load.
    for name in ("schemas", "grid5000_deploy", "rome", "static_deploy", "campaign")
)


@dataclass(frozen=True)
class Command:
    """What one process runs, and the home of the emulated hosts that it makes, if any.

    `cache` is pytest's own of this command, which knows the tests that failed; None for what
    isn't run again.  `is_long` says that all of its tests are marked `long`.
    """

    words: tuple[str, ...]
    home: Path | None = None
    cache: Path | None = None
    is_long: bool = False

    @property
    def usual(self) -> Command:
        """The same without tests that are marked `long`."""
        return replace(self, words=(*self.words, *USUAL)) if self.cache else self

    @property
    def all_words(self) -> tuple[str, ...]:
        """The command line that runs all of its tests."""
        return (*self._cached, "--cache-clear") if self.cache else self.words

    @property
    def failed_words(self) -> tuple[str, ...]:
        """The command line that runs the tests that failed."""
        return (*self._cached, "--last-failed", "--last-failed-no-failures", "none")

    @property
    def _cached(self) -> tuple[str, ...]:
        return (*self.words, "-o", f"cache_dir={self.cache}")

    def failed_tests(self) -> list[str]:
        """Return the tests that failed; none where that isn't known."""
        if self.cache is None:
            return []
        try:
            return sorted(json.loads((self.cache / "v/cache/lastfailed").read_text()))
        except (OSError, ValueError):
            return []

    @property
    def environment(self) -> dict[str, str]:
        """The environment that it runs in."""
        return {**os.environ, **({HOME_VARIABLE: str(self.home)} if self.home else {})}


CACHES = CHECKOUT / ".pytest_cache/run_all"

FOREGROUND = Command(
    (*PYTEST, "tests/real", *(f"--ignore={path}" for path in SECOND_SIDE)),
    HOMES[0],
    CACHES / "first",
)
# About half of the time of ROME's tests.
FIRST_OF_ROME = tuple(
    f"tests/test_{name}.py"
    for name in ("client_faults", "compliance", "fuzz", "histories", "interleavings", "isolation",
                 "masters", "metamorphic", "openstack", "store")
)  # fmt: skip
# An environment and servers of their own; paths are those of its folder.
ROME = (str(CHECKOUT / "xp"), "test", "rome", "--numprocesses", "1", "--durations=15")
HERMES = (str(CHECKOUT / "xp"), "test", "hermes", "--numprocesses", "1", "--durations=15")
BACKGROUND = (
    Command((*PYTEST, *SECOND_SIDE), HOMES[1], CACHES / "second"),
    Command((*PYTEST, "tests", "--ignore=tests/real", "--ignore=tests/vm"), cache=CACHES / "unit"),
    Command((*ROME, *FIRST_OF_ROME), cache=CACHES / "rome"),
    Command((*ROME, *(f"--ignore={path}" for path in FIRST_OF_ROME)), cache=CACHES / "rome-others"),
    Command(HERMES, cache=CACHES / "hermes"),
    # A machine of its own, whose clock doesn't show how busy this one is.
    Command((*PYTEST, "tests/vm"), cache=CACHES / "vm", is_long=True),
)
AT_ONCE = 2  # of them


@dataclass(frozen=True)
class Ended:
    """A command that has ended, with its exit code."""

    command: Command
    exit_code: int

    @property
    def deserves_another_try(self) -> bool:
        """Say whether a few of its tests failed, and nothing else went wrong."""
        is_few = 0 < len(self.command.failed_tests()) <= MOST_AGAIN
        return self.exit_code == TESTS_FAILED and is_few


class Background:
    """Commands that run beside the foreground, `AT_ONCE` at a time, in their order."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._waiting = [(command, tempfile.TemporaryFile()) for command in commands]  # noqa: SIM115
        self._outputs = [output for _, output in self._waiting]
        self._running: list[tuple[Command, subprocess.Popen[bytes]]] = []

    def go_on(self) -> list[Ended]:
        """Start the next commands where there is room; return those that ended."""
        while self._waiting and len(self._running) < AT_ONCE:
            command, output = self._waiting.pop(0)
            self._running.append((command, _start_in_background(command, output)))
        ended = [each for each in self._running if each[1].poll() is not None]
        self._running = [each for each in self._running if each not in ended]
        return [Ended(command, _exit_code(process)) for command, process in ended]

    @property
    def is_over(self) -> bool:
        """Say whether all commands have ended."""
        return not self._running and not self._waiting

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The processes that run."""
        return [process for _, process in self._running]

    def write_to(self, output: IO[bytes]) -> None:
        """Write what each has printed, in their order."""
        for printed in self._outputs:
            printed.seek(0)
            shutil.copyfileobj(printed, output)
            printed.close()
        output.flush()


def run(foreground: Command, background: Sequence[Command], output: IO[bytes]) -> int:
    """Run `foreground` and, meanwhile, those of `background`.

    Write what the latter printed to `output` once all has ended, then run again what `Ended`
    says.  Return 0 if every command ended with 0, else the exit code of the first one that
    didn't; after SIGINT, SIGTERM or SIGHUP end what runs and return 130.
    """
    began = time.monotonic()
    failed: list[Ended] = []
    interrupted, spared = False, False
    first = subprocess.Popen(foreground.all_words, env=foreground.environment)
    beside = Background(background)
    try:
        while first.poll() is None or not beside.is_over:
            failed += [each for each in beside.go_on() if each.exit_code]
            time.sleep(0.1)
        if first.returncode:
            failed.append(Ended(foreground, _exit_code(first)))
    except KeyboardInterrupt as interruption:
        interrupted = True
        # A terminal sends Ctrl-C to our whole group: a second one would cut the
        # foreground's end short.
        spared = interruption.args == (signal.SIGINT,)
    finally:
        _end([first, *beside.processes], spared=first if spared else None)
        beside.write_to(output)
    if interrupted:
        return INTERRUPTED
    may_try = time.monotonic() - began < AGAIN_BEFORE_S
    for each in failed:
        # Once one fails for good, or is interrupted, the others can't change that.
        if code := _run_again(each) if may_try else each.exit_code:
            return code
    return 0


def _run_again(ended: Ended) -> int:
    """Run the tests of a command that failed, alone, if it deserves it; return the exit code."""
    if not ended.deserves_another_try:
        return ended.exit_code
    command = ended.command
    tests = ", ".join(command.failed_tests())
    sys.stdout.write(f"failed beside others, run again alone: {tests}\n")
    sys.stdout.flush()
    process = subprocess.Popen(command.failed_words, env=command.environment)
    try:
        process.wait()
    except KeyboardInterrupt as interruption:
        is_terminals = interruption.args == (signal.SIGINT,)
        _end([process], spared=process if is_terminals else None)
        return INTERRUPTED
    if process.returncode == 0:
        sys.stdout.write(f"passed only alone: {tests}\n")
    return _exit_code(process)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return an ended process's exit code, 128 and the signal's number if one ended it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _start_in_background(command: Command, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a signal reaches all its processes."""
    # The kernel ends it if this process dies without a chance to do it.
    leash = ("setpriv", "--pdeathsig", "INT", "--", "nice", "-n", str(NICENESS))
    return subprocess.Popen(
        [*leash, *command.all_words], env=command.environment,
        stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
    )  # fmt: skip


def _end(
    running: Sequence[subprocess.Popen[bytes]], spared: subprocess.Popen[bytes] | None
) -> None:
    """Interrupt all processes but `spared`; kill those that don't end within the limit."""
    latest = time.monotonic() + END_WITHIN_S
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in running:
            if process.poll() is None and (process is not spared or number == signal.SIGKILL):
                _send(process, number)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(max(0.1, latest - time.monotonic()))


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number))


def main(arguments: Sequence[str] = ()) -> int:
    """Run what `./xp test` stands for, with `--all` if it is among the arguments."""
    parser = argparse.ArgumentParser(prog="./xp test", description="Run the tests.")
    parser.add_argument("--all", action="store_true", help="those that are marked `long`, too")
    everything = parser.parse_args(arguments).all
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.chdir(CHECKOUT)
    if found := others_testbeds():
        sys.stderr.write(
            f"the real tests would end your testbeds ({', '.join(found)}): run them after "
            "'discovery-xp destroy --all'\n"
        )
        return 2
    for home in HOMES:
        destroy_all(home)
    if everything:
        return run(FOREGROUND, BACKGROUND, sys.stdout.buffer)
    usual = [each.usual for each in BACKGROUND if not each.is_long]
    return run(FOREGROUND.usual, usual, sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
