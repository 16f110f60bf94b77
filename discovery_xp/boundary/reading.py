"""Files of others, read without waiting and without end.

What is named as a file may be a pipe that nobody writes to, a device that never ends, or a
file that is exchanged while it is looked at.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(Exception):
    """A file that can't be read: `reason` and `remedy`, both without a full stop."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason}; {remedy}")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Return what is in a regular file of up to `most_bytes`; raises Unreadable.

    The file that was opened is the one that is looked at and read.
    """
    try:
        # Opening a pipe would wait for its other end, reading a terminal for a line.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unreadable("no such file", "name an existing file") from None
    except ValueError as error:  # a NUL, or a character that no file system has
        raise Unreadable(f"is no path ({error})", "name an existing file") from None
    except OSError as error:
        raise _unreadable(error) from None
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise Unreadable(f"is {_KINDS.get(kind, 'no file')}", "name a regular file")
        return _read(descriptor, most_bytes)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(descriptor)


def read_text(path: Path, most_bytes: int) -> str:
    """Return the UTF-8 text in a regular file of up to `most_bytes`; raises Unreadable."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8 text", "name a text file") from None


def _read(descriptor: int, most_bytes: int) -> bytes:
    parts, left = [], most_bytes + 1  # one more tells that there is more
    while left and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise Unreadable(f"is over {most_bytes / 1e6:g} MB", "name a smaller file")
    return b"".join(parts)


def _unreadable(error: OSError) -> Unreadable:
    return Unreadable(f"can't be read ({error.strerror})", "name a readable file")
