"""Which home has what of this machine: a folder in /run for each testbed.

Namespaces, control groups and interfaces are the machine's, and found by the testbed's name.
The home that made them is noted in `/run/discovery-xp/NAME/home` before the first of them, and
forgotten after the last, so that no other home takes them for its own.  The sockets of the
testbed's links are in the same folder.

Who notes a first testbed, and who removes what belongs to none, wait for each other (`held`):
what is being made isn't swept away, whichever home makes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from discovery_xp import files
from discovery_xp.errors import Refused
from discovery_xp.places import home
from discovery_xp.testbeds.testbed import Testbed

RUN = Path("/run/discovery-xp")  # short: a socket's path may have 107 characters at most


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold all notes of this machine; waits while another process does.

    The lock is on the folder above, which is always there: it takes no file.
    """
    descriptor = os.open(RUN.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def folder(testbed: str) -> Path:
    """A testbed's folder in /run."""
    return RUN / testbed


def make_folder(testbed: str) -> Path:
    """Make it, closed to others; returns it."""
    files.make_private(RUN)
    files.make_folder(folder(testbed))
    return folder(testbed)


def names() -> set[str]:
    """Names of the testbeds that have a folder in /run."""
    return {entry.name for entry in RUN.iterdir()} if RUN.is_dir() else set()


def holder(testbed: str, own: Path | None = None) -> Path | None:
    """The other home that has a testbed of this name, None where none has.

    `own` is the home that asks.  A home in which there is no such testbed any more has none.
    """
    with contextlib.suppress(OSError, ValueError):
        noted = Path(files.read_text(folder(testbed) / "home").rstrip("\n"))
        is_own = os.path.realpath(noted) == os.path.realpath(own or home())
        if noted.is_absolute() and not is_own and (noted / "testbeds" / testbed).is_dir():
            return noted
    return None


def claim(testbed: Testbed) -> None:
    """Note that the testbed's home has what is made on this machine.

    Raises Refused where another home has a testbed of that name.
    """
    with held():
        other = holder(testbed.name, testbed.home)
        if other is not None:
            raise Refused(
                f"a testbed '{testbed.name}' of another home, {other}, is on this machine",
                "give a --name of its own",
            )
        noted = make_folder(testbed.name) / "home"
        text = f"{testbed.home}\n"
        if not noted.exists() or noted.read_text() != text:
            files.write_atomically(noted, text)


def remove(testbed: str) -> None:
    """Remove a testbed's folder in /run; its processes are gone by then."""
    with held():
        shutil.rmtree(folder(testbed), ignore_errors=True)
        with contextlib.suppress(OSError):
            RUN.rmdir()
