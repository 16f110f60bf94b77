"""Files of runs, opened without trusting who made them, and replaced in one step.

A run's folder may come from anybody.  What is read is a regular file, no symbolic link, no
pipe and no device, and no larger than its reader says; what is written gets a name of its
own first, which nobody can have put a link under.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from discovery_xp.errors import Refused
from discovery_xp.inputs.units import format_bytes
from discovery_xp.text import printable, shortened

MOST_FILES = 20_000  # in a run's folder: Rally's reports are a few for each host
MOST_DEPTH = 16  # of its folders
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # results are there to be shared; the umask may take more

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def damaged(path: Path | str, damage: str) -> Refused:
    """Return the error that refuses a run for what is wrong with one of its files."""
    return Refused(
        f"{printable(str(path))}: the run is damaged ({shortened(damage)})",
        "name another run, or move this one away",
    )


def read_bytes(path: Path, most: int) -> bytes:
    """Return a file's bytes.

    Raises FileNotFoundError where there is none, Refused where it is something else than a
    regular file, has more than `most` bytes, or can't be read.
    """
    try:
        # Before it is opened: opening a device may already do something.
        _require_regular(path, path.lstat())
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(path, status)
            data = file.read(most + 1) if status.st_size <= most else b""
            size = max(status.st_size, len(data))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise damaged(path, f"it can't be read: {_reason(error)}") from None
    if size > most:
        raise damaged(path, f"it has {format_bytes(size)}, more than {format_bytes(most)}")
    return data


def require_plain(folder: Path) -> None:
    """Raise Refused unless there are only regular files and folders in and below `folder`."""
    pending, count = [(folder, 0)], 0
    while pending:
        here, depth = pending.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    count += 1
                    if count > MOST_FILES:
                        raise damaged(folder, f"there are more than {MOST_FILES} files in it")
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        _require_regular(Path(entry.path), status)
                    elif depth == MOST_DEPTH:
                        raise damaged(entry.path, "folders in folders without an end")
                    else:
                        pending.append((Path(entry.path), depth + 1))
        except FileNotFoundError:
            continue  # a run that is being written: temporary files come and go
        except OSError as error:
            raise damaged(here, f"it can't be read: {_reason(error)}") from None


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise damaged(path, f"it is {kind}, not a file")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# ---------------------------------------------------------------- writing


def make_folders(path: Path) -> None:
    """Make a folder and those above it, writable by their owner only, whatever the umask."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(FOLDER_MODE, exist_ok=True)


@contextlib.contextmanager
def new_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """A file that nobody else knows, as a descriptor and its path; gone at the end, if left.

    Its name can't be foreseen and it isn't opened if it exists, so that a link which waits
    in a stranger's folder is never written through.
    """
    path = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        yield descriptor, path
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        path.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes | str) -> None:
    """Write so that a reader, or a crash, sees the old file or the new one, on the disk.

    Raises OSError, one of a link, a pipe, a device or a folder under that name among them:
    `--html /dev/stdout` must not put a file in that place.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IFMT(path.lstat().st_mode)
        if mode != stat.S_IFREG:
            raise OSError(errno.EEXIST, f"it is {_KINDS.get(mode, 'something else')}, not a file")
    with new_file(path.parent) as (descriptor, temporary):
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
