"""A host whose software is worked on: one run at a time, for so long at most."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence

from .process import Failure

# Held while software is worked on, by the programs that do it as well: a run whose other end
# was killed goes on here for a while.
LOCK = "/run/lock/discovery-xp-environment"
TIMED_OUT = (124, 137)  # what `timeout` ends with, after SIGTERM and after SIGKILL


class Held:
    """The commands of a run on this host, which end when its `timeout_s` are over."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self._lock: int | None = None

    def left_s(self) -> int:
        """Return how many seconds are left of the run's time."""
        return int(self.deadline - time.monotonic())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this host's software; wait while another run does.  Raises Failure when late."""
        self._lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.left_s() <= 0:
                        raise Failure("another run still installs software on this host") from None
                    time.sleep(0.5)
            yield
        finally:
            os.close(self._lock)
            self._lock = None

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command and what it starts until the time is up; the caller judges its end."""
        limited = ["timeout", "--kill-after=20", str(max(1, self.left_s())), *words]
        return subprocess.run(
            limited, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            pass_fds=[self._lock] if self._lock is not None else [],
        )  # fmt: skip

    def require(self, words: Sequence[str], complaint: str) -> None:
        """Run a command; raises Failure with `complaint` and its last words unless it ends well."""
        done = self.run(words)
        if done.returncode == 0:
            return
        if done.returncode in TIMED_OUT:
            raise Failure(f"{complaint} within {self.timeout_s:g} s")
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise Failure(f"{complaint}: {' / '.join(errors[-2:])}")


def remove_lock() -> None:
    """Remove the lock's file, once nothing of ours is left to work on."""
    os.unlink(LOCK)
