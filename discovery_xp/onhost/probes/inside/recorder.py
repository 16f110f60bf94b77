"""Collects what the probes of a process see, and writes it to a file of that process.

A probe hands over a tuple, which costs it a queue's append.  A thread of its own turns the
tuples into lines and appends them about once a second; it sleeps while nothing happens.
Nothing here raises into a service: what goes wrong is counted and written as a record.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from typing import Any

from ...wire import probes as wire

INTERVAL_S = 1.0
# Records that wait to be written; more than this and they are dropped, and counted.
QUEUE_LIMIT = 200_000
# Bytes of a file; what would go beyond is dropped, and counted.
FILE_LIMIT = 64 * 2**20
PROBLEM_LIMIT = 300


class Recorder:
    """The records of this process; after a fork, the child begins with none of its own."""

    def __init__(self, folder: str, interval_s: float = INTERVAL_S) -> None:
        self.folder = folder
        self.interval_s = interval_s
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.flush)
        self._flush_before_exit()

    def _begin(self) -> None:
        """Make what belongs to one process only; locks of the parent may be held for ever."""
        self.queue: deque[tuple[Any, ...]] = deque()
        self.dropped = 0
        self.errors = 0
        self.last_error = ""
        self._told = (0, 0)
        self._awake = False
        self._waking = threading.Lock()
        self._writing = threading.Lock()
        self._something = threading.Event()
        self._thread: threading.Thread | None = None
        self._since = time.time()
        self.path = f"{self.folder}/{os.getpid()}-{int(self._since * 1000)}.records"

    def _flush_before_exit(self) -> None:
        """Flush also in children of multiprocessing and oslo.service, which end without atexit."""
        before = os._exit

        def flush_and_exit(status: int) -> Any:
            if self.queue:
                self.flush()
            before(status)

        os._exit = flush_and_exit

    # ------------------------------------------------------------ what probes call

    def record(self, record: tuple[Any, ...]) -> None:
        """Take one; see `wire.probes` for what the tuples are."""
        try:
            if len(self.queue) < QUEUE_LIMIT:
                self.queue.append(record)
                if not self._awake:
                    self._wake()
            else:
                self.dropped += 1
        except Exception as error:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Count a probe that went wrong; the service must not notice."""
        self.errors += 1
        self.last_error = repr(error)[:PROBLEM_LIMIT]

    def problem(self, text: str) -> None:
        """Note that something can't be measured at all, for a reason worth a line."""
        self.errors += 1
        self.last_error = text[:PROBLEM_LIMIT]
        self.record((wire.NOTE,))

    # ------------------------------------------------------------ writing

    def _wake(self) -> None:
        if not self._waking.acquire(blocking=False):
            return  # another thread is doing it
        try:
            self._awake = True
            self._since = time.time()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="discovery-probes", daemon=True
                )
                self._thread.start()
            self._something.set()
        except Exception:
            self._thread, self._awake = None, False
            raise
        finally:
            self._waking.release()

    def _run(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            while self.queue:
                time.sleep(self.interval_s)
                self.flush()
            # Who appends looks at `_awake` afterwards: nobody's record is left lying.
            self._awake = False
            if self.queue:
                self._awake = True
                self._something.set()

    def flush(self) -> None:
        """Write what is there; also called when the process ends."""
        if not self._writing.acquire(timeout=2):
            return
        try:
            records = []
            for _ in range(len(self.queue)):
                records.append(self.queue.popleft())
            now = time.time()
            text = wire.encode(records, self._since, now)
            self._since = now
            if text:
                self._append(text.encode(errors="replace"))
        except Exception as error:
            self.failed(error)
        finally:
            self._tell_problems()
            self._writing.release()

    def _tell_problems(self) -> None:
        """Write problems to a file of their own, which outlives the records of a window."""
        if (self.dropped, self.errors) == self._told:
            return
        self._told = (self.dropped, self.errors)
        text = wire.note(time.time(), self.dropped, self.errors, self.last_error)
        path = f"{self.path.removesuffix('.records')}.problems"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.write(descriptor, text.encode(errors="replace"))
            os.close(descriptor)
        except OSError:
            pass  # there is nowhere to tell it

    def _append(self, data: bytes) -> None:
        """Append to the file, opened each time: it may be removed, and forks share none."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size == 0:
                data = wire.header(os.getpid(), sys.argv[:1]).encode() + data
            if size + len(data) > FILE_LIMIT:
                self.dropped += data.count(b"\n")
                return
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
