"""Files and folders of ours: modes of their own whatever the umask is, and nobody else's hand.

The toolkit runs as root.  What it makes is private unless its caller says otherwise, is never
written through a link that another user planted, and has no temporary name that could be
guessed.  `require_ours` refuses places that another user can change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from discovery_xp.errors import Failed, Refused

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
PUBLIC_FOLDER = 0o755
PUBLIC_FILE = 0o644
# Nothing can be written then, but all can be ended.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# A state of 1000 hosts takes about 1 MB.
LARGEST_FILE_BYTES = 64 * 2**20
_MOST_LINKS = 40


def narrow_umask() -> None:
    """Keep this process and its children from making what others may write."""
    os.umask(os.umask(0o077) | 0o022)


def make_folder(path: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder with exactly this mode; those above it that are missing are private.

    One that is there keeps its mode.  Raises FileExistsError where something else is there.
    """
    for above in reversed(path.parents):
        if not above.exists():
            _mkdir(above, PRIVATE_FOLDER)
    if not path.is_dir():  # a full disk doesn't matter then, whatever it says first
        _mkdir(path, mode)


def _mkdir(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(mode)  # what the umask took


def make_private(folder: Path) -> None:
    """Take the rights of others from a folder that an earlier version, or umask, left open."""
    with contextlib.suppress(FileNotFoundError):
        status = folder.lstat()
        if (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and status.st_mode & 0o077
        ):
            with contextlib.suppress(OSError):  # read-only: it can be ended all the same
                folder.chmod(PRIVATE_FOLDER)


def write_atomically(path: Path, text: str, mode: int = PRIVATE_FILE) -> None:
    """Write so that a reader, or a crash, sees the old file or the new one.

    The file has `mode`, less the umask, from its first moment.  A link at `path` is replaced,
    not followed.  Raises OSError, with the old file as it was and nothing left beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def open_to_append(path: Path) -> TextIO:
    """Open a private file to write at its end; made if need be, never through a link."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    os.fchmod(descriptor, PRIVATE_FILE)  # an earlier version's
    return os.fdopen(descriptor, "a", encoding="utf-8")


def write_public(path: Path, text: str) -> None:
    """Write a file that everybody may read, in folders that everybody may enter.

    For trees that become the root of a host, whose daemons drop their rights.
    """
    for above in reversed(path.parents):
        if not above.exists():
            _mkdir(above, PUBLIC_FOLDER)
    write_atomically(path, text, PUBLIC_FILE)
    path.chmod(PUBLIC_FILE)


_NOT_SHARED: set[int] = set()


@contextlib.contextmanager
def not_shared(descriptor: int) -> Iterator[None]:
    """Let no forked process keep a descriptor.

    What it holds, a lock or a socket's name, lives as long as any copy of it: Ansible's workers,
    which are forked and may outlive a killed run for a moment, must not keep it.
    """
    _NOT_SHARED.add(descriptor)
    try:
        yield
    finally:
        _NOT_SHARED.discard(descriptor)


def _let_go() -> None:
    for descriptor in _NOT_SHARED:
        os.close(descriptor)
    _NOT_SHARED.clear()


os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file, made if need be; waits for whoever holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Say whether somebody holds the lock file; False where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_text(path: Path) -> str:
    """Read a regular file of bounded size; raises OSError for anything else, ValueError for
    what is no text or over 64 MiB.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        data = file.read(LARGEST_FILE_BYTES + 1)
    if len(data) > LARGEST_FILE_BYTES:
        raise ValueError(f"over {LARGEST_FILE_BYTES >> 20} MiB")
    return data.decode()


def read_json(path: Path) -> Any:
    """Read a regular file of bounded size as JSON; raises ValueError where it isn't.

    That there is none, or that it may not be read, stays FileNotFoundError and PermissionError.
    """
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None


def require_ours(path: Path, remedy: str) -> None:
    """Refuse a place that another user owns, or can put something else in place of.

    Every folder of the path is looked at, and every link on its way, up to what isn't there
    yet.  Folders such as /tmp, in which each user can move only what is his, are fit.
    """
    current, links = Path("/"), 0
    left = list(reversed(path.absolute().parts[1:]))
    while left:
        part = left.pop()
        if part == "..":
            current = current.parent
            continue
        entry = current / part
        try:
            status = entry.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"{entry}: {error.strerror}", remedy) from None
        if status.st_uid not in (0, os.geteuid()):
            raise Refused(f"{entry} belongs to {_user(status.st_uid)}", remedy)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            target = entry.readlink()
            if links > _MOST_LINKS:
                raise Refused(f"{entry} is a link that leads nowhere", remedy)
            if target.is_absolute():
                current = Path("/")
            left.extend(part for part in reversed(target.parts) if part != "/")
            continue
        if _others_may_write(status):
            raise Refused(f"{entry} can be changed by other users", f"'chmod go-w {entry}'")
        current = entry


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_ISVTX and stat.S_ISDIR(status.st_mode):
        return False
    trusted_group = status.st_gid in (0, os.getegid())
    return bool(
        status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not trusted_group)
    )


def _user(number: int) -> str:
    try:
        return f"'{pwd.getpwuid(number).pw_name}'"
    except KeyError:
        return f"user {number}"


def no_room(error: BaseException | None) -> Failed | None:
    """What is to be said of an error that a full or read-only disk caused; None for others.

    Libraries put errors of their own around it: the whole chain is looked at.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            named = error.filename2 or error.filename
            place = os.fsdecode(named) if isinstance(named, str | bytes) else "the disk"
            return Failed(
                f"{place}: {(error.strerror or 'it is full').lower()}",
                "free some space; the same command goes on, and 'destroy' needs none",
            )
        error = error.__cause__ or error.__context__
    return None
