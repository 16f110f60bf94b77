"""Run all tests: those that boot hosts in the foreground, all others in the background.

The background's commands run one after the other.  They have less of the processors while
the foreground wants them, since round trips are measured there.
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
from pathlib import Path
from types import FrameType
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[1]

BACKGROUND_NICENESS = 5  # a third of a processor that the foreground wants, too
END_WITHIN_S = 90  # interrupted tests take down what they started
INTERRUPTED = 130

PYTEST = (sys.executable, "-m", "pytest")
FOREGROUND: Sequence[str] = (*PYTEST, "tests/real")
BACKGROUND: Sequence[Sequence[str]] = (
    (*PYTEST, "tests", "--ignore=tests/real"),
    # An environment and servers of their own; a second process would need a third processor.
    (str(CHECKOUT / "xp"), "test", "rome", "--numprocesses", "1"),
)


def run(foreground: Sequence[str], background: Sequence[Sequence[str]], output: IO[bytes]) -> int:
    """Run `foreground` and, meanwhile, the commands of `background` in turn.

    Write what the background printed to `output` once all has ended.  Return 0 if every
    command ended with 0, else the exit code of the first one that didn't; after SIGINT,
    SIGTERM or SIGHUP end what runs and return 130.
    """
    queue, exit_code = list(background), 0
    with tempfile.TemporaryFile() as kept:
        first = subprocess.Popen(foreground)
        running = [first]
        current: subprocess.Popen[bytes] | None = None
        spared: subprocess.Popen[bytes] | None = None
        try:
            while running or queue:
                if current is None and queue:
                    current = _start_in_background(queue.pop(0), kept)
                    running.append(current)
                for process in [each for each in running if each.poll() is not None]:
                    exit_code = exit_code or _exit_code(process)
                    running.remove(process)
                    if process is current:
                        current = None
                time.sleep(0.1)
        except KeyboardInterrupt as interruption:
            exit_code = INTERRUPTED
            # A terminal sends Ctrl-C to our whole group: a second one would cut the
            # foreground's end short.
            spared = first if interruption.args == (signal.SIGINT,) else None
        finally:
            _end(running, spared)
            kept.seek(0)
            shutil.copyfileobj(kept, output)
            output.flush()
    return exit_code


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return an ended process's exit code, 128 and the signal's number if one ended it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _start_in_background(command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a signal reaches all its processes."""
    # The kernel ends it if this process dies without a chance to do it.
    leash = ("setpriv", "--pdeathsig", "INT", "--", "nice", "-n", str(BACKGROUND_NICENESS))
    return subprocess.Popen(
        [*leash, *command],
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
    return run(FOREGROUND, BACKGROUND, sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main())
