"""Run all tests, in three processes at once: two with emulated hosts, one without.

The first has the terminal: the cloud that most tests use, then the tests that need the
machine for themselves.  The second has the other clouds, then a virtual machine; the third
the tests without hosts, then ROME's.  These two run in the background.  They have less of the
processors while the first wants them, since it measures round trips and times.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from tests.real.machine import HOME_VARIABLE, HOMES, destroy_all, others_testbeds

CHECKOUT = Path(__file__).resolve().parents[1]

NICENESS = 5  # of the background: a third of a processor that the foreground wants, too
END_WITHIN_S = 90  # interrupted tests take down what they started
INTERRUPTED = 130

PYTEST = (sys.executable, "-m", "pytest")
# Each makes a cloud of its own; the lock in `tests.real.machine` keeps the two sides apart
# where they would see each other.
SECOND_SIDE = tuple(
    f"tests/real/test_{name}.py"
    # The first one keeps schemas, which later ones load.
    for name in ("schemas", "grid5000_deploy", "rome", "static_deploy")
)


@dataclass(frozen=True)
class Command:
    """What one process runs, and the home of the emulated hosts that it makes, if any."""

    words: tuple[str, ...]
    home: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment that it runs in."""
        return {**os.environ, **({HOME_VARIABLE: str(self.home)} if self.home else {})}


FOREGROUND = Command(
    (*PYTEST, "tests/real", *(f"--ignore={path}" for path in SECOND_SIDE)), HOMES[0]
)
BACKGROUND = (
    (
        Command((*PYTEST, *SECOND_SIDE), HOMES[1]),
        # A machine of its own, whose clock doesn't show how busy this one is.
        Command((*PYTEST, "tests/vm")),
    ),
    (
        Command((*PYTEST, "tests", "--ignore=tests/real", "--ignore=tests/vm")),
        # An environment and servers of their own.
        Command((str(CHECKOUT / "xp"), "test", "rome", "--numprocesses", "1")),
    ),
)


class Queue:
    """Commands of the background that run one after the other; what they print is kept."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (it is read after all has ended)
        self._waiting = list(commands)
        self.process: subprocess.Popen[bytes] | None = None

    def go_on(self) -> int | None:
        """Start the next command when none runs; return the exit code of one that ended."""
        if self.process is None and self._waiting:
            self.process = _start_in_background(self._waiting.pop(0), self.output)
        if self.process is None or self.process.poll() is None:
            return None
        ended, self.process = self.process, None
        return _exit_code(ended)

    @property
    def is_over(self) -> bool:
        """Say whether all commands have ended."""
        return self.process is None and not self._waiting


def run(foreground: Command, background: Sequence[Sequence[Command]], output: IO[bytes]) -> int:
    """Run `foreground` and, meanwhile, the queues of `background`.

    Write what each queue printed to `output` once all has ended.  Return 0 if every command
    ended with 0, else the exit code of the first one that didn't; after SIGINT, SIGTERM or
    SIGHUP end what runs and return 130.
    """
    exit_code, spared = 0, False
    first = subprocess.Popen(foreground.words, env=foreground.environment)
    queues = [Queue(commands) for commands in background]
    try:
        while first.poll() is None or not all(queue.is_over for queue in queues):
            for queue in queues:
                ended_with = queue.go_on()
                exit_code = exit_code or ended_with or 0
            time.sleep(0.1)
        exit_code = exit_code or _exit_code(first)
    except KeyboardInterrupt as interruption:
        exit_code = INTERRUPTED
        # A terminal sends Ctrl-C to our whole group: a second one would cut the
        # foreground's end short.
        spared = interruption.args == (signal.SIGINT,)
    finally:
        _end(
            [first, *(queue.process for queue in queues if queue.process)],
            spared=first if spared else None,
        )
        for queue in queues:
            queue.output.seek(0)
            shutil.copyfileobj(queue.output, output)
            queue.output.close()
        output.flush()
    return exit_code


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return an ended process's exit code, 128 and the signal's number if one ended it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _start_in_background(command: Command, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a signal reaches all its processes."""
    # The kernel ends it if this process dies without a chance to do it.
    leash = ("setpriv", "--pdeathsig", "INT", "--", "nice", "-n", str(NICENESS))
    return subprocess.Popen(
        [*leash, *command.words], env=command.environment,
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


def main() -> int:
    """Run what `./xp test` stands for."""
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
    return run(FOREGROUND, BACKGROUND, sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main())
