"""What the services of a host wrote: the lines of a window, and forgetting those before it."""

from __future__ import annotations

import base64
import glob
import gzip
import os
import time
from collections.abc import Iterator

from ..wire import probes as wire
from . import places

# Services write about once a second.
WRITTEN_AFTER_S = 1.5
LONGEST_WAIT_S = 10.0


def lines(since: float, until: float) -> Iterator[str]:
    """Yield the lines of a window, those of each process after its own; and what went wrong."""
    for path in sorted(glob.glob(f"{places.RECORDS}/*/*.records")):
        with open(path, "rb") as file:
            text = file.read().decode(errors="replace")
        yield wire.process(*_process_of(path))
        for line in text[: text.rfind("\n") + 1].splitlines(keepends=True):
            if wire.is_within(line, since, until):
                yield line
    for path in sorted(glob.glob(f"{places.RECORDS}/*/*.problems")):
        yield wire.process(*_process_of(path))
        with open(path, encoding="utf-8", errors="replace") as file:
            yield file.readline().rstrip("\n") + "\n"


def packed(since: float, until: float) -> str:
    """Return the lines of a window, compressed, as base64; waits until they are written."""
    wait_s = until + WRITTEN_AFTER_S - time.time()
    time.sleep(min(max(0.0, wait_s), LONGEST_WAIT_S))
    data = gzip.compress("".join(lines(since, until)).encode(), 6)
    return base64.b64encode(data).decode()


def forget() -> None:
    """Remove what was written until now; problems stay as long as their process."""
    for path in glob.glob(f"{places.RECORDS}/*/*.records"):
        os.unlink(path)
    for path in glob.glob(f"{places.RECORDS}/*/*.problems"):
        if not os.path.exists(f"/proc/{_process_of(path)[1]}"):
            os.unlink(path)


def _process_of(path: str) -> tuple[str, str]:
    """The unit and the process id of a file: each unit has a folder, each process its files."""
    return path.split("/")[-2], os.path.basename(path).split("-")[0]
