"""An artifact on disk: a folder with checksums, and an archive of it; both whole, or neither.

The archive is deterministic: sorted names, one time, no owner.  The same files give the same
bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from discovery_xp import files as own_files
from discovery_xp.errors import Refused
from discovery_xp.text import printable

SUMS = "SHA256SUMS"
SUFFIX = ".tar.gz"
Content = bytes | Path

_BLOCK = 2**20


def archive_of(folder: Path) -> Path:
    """Return where the archive of an artifact's folder is."""
    return folder.with_name(f"{folder.name}{SUFFIX}")


def require_free(folder: Path) -> None:
    """Raise Refused where something is in the place of the folder or of its archive."""
    for path in (folder, archive_of(folder)):
        try:
            path.lstat()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise Refused(f"{printable(str(path))}: {why}", _ELSEWHERE) from None
        raise Refused(f"{printable(str(path))} is there already", "move it away, or " + _ELSEWHERE)


_ELSEWHERE = "name another place with --output"


def write(folder: Path, contents: Mapping[str, Content], moment: int) -> dict[str, str]:
    """Write an artifact's folder and its archive; return the digests of its files.

    `contents` are its files by name, as bytes or as the file to copy; `moment`, s since 1970, is
    the time of all files in the archive.  Raises Refused where that can't be done, with nothing
    left.
    """
    require_free(folder)
    archive = archive_of(folder)
    token = secrets.token_hex(8)
    unfinished = folder.with_name(f".{folder.name}-{token}")
    packed = folder.with_name(f".{folder.name}-{token}{SUFFIX}")
    try:
        sums = _write_folder(unfinished, contents)
        _write_archive(packed, folder.name, unfinished, sorted([*contents, SUMS]), moment)
        packed.rename(archive)
        try:
            unfinished.rename(folder)
        except BaseException:
            archive.unlink()
            raise
    except OSError as error:
        place = os.fsdecode(error.filename) if error.filename else str(folder)
        raise Refused(
            f"{printable(place)}: can't be written ({error.strerror or error})",
            f"free some space, or {_ELSEWHERE}",
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):
            packed.unlink()
    return sums


def _write_folder(folder: Path, contents: Mapping[str, Content]) -> dict[str, str]:
    folder.mkdir(own_files.PUBLIC_FOLDER)
    sums = {}
    for name in sorted(contents):
        path = folder / name
        path.parent.mkdir(own_files.PUBLIC_FOLDER, parents=True, exist_ok=True)
        sums[name] = _write_file(path, contents[name])
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    _write_file(folder / SUMS, lines.encode())
    return sums


def _write_file(path: Path, content: Content) -> str:
    """Write a new file; return its digest."""
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, own_files.PUBLIC_FILE), "wb") as file:
        for block in _blocks(content):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _blocks(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with os.fdopen(os.open(content, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _write_archive(path: Path, top: str, folder: Path, names: list[str], moment: int) -> None:
    with (
        path.open("xb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            with (folder / name).open("rb") as content:
                tar.addfile(_entry(f"{top}/{name}", content, moment), content)


def _entry(name: str, content: IO[bytes], moment: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = os.fstat(content.fileno()).st_size
    entry.mtime = moment
    entry.mode = own_files.PUBLIC_FILE
    return entry
