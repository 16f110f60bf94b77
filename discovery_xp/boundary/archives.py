"""Archives of files that hosts send: unpacked so that they can touch nothing else.

Whatever a host sends, what is written is regular files of bounded size and number, with modes
of ours, below a folder that is made for them; anything else is refused, with nothing left.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import io
import os
import shutil
import tarfile
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

MIB = 2**20
# Journals, configurations and databases of a cloud: nobody else's business.
FOLDER_MODE = 0o700
FILE_MODE = 0o600
_BLOCK = 2**18
_LONGEST_PART = 255
_LONGEST_HEADER = 2**16


class Hostile(ValueError):
    """What isn't the archive that was asked for; the message says why, in a few words."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, in bytes and files; `packed` is its own size."""

    packed: int = 48 * MIB
    file: int = 256 * MIB
    total: int = 512 * MIB
    files: int = 10_000
    # Of a file's name, in characters, and of the folders in it.
    name: int = 1024
    depth: int = 16


LIMITS = Limits()


def decode(text: object, limits: Limits = LIMITS) -> bytes:
    """Return the bytes that a host sent as base64 in JSON; raises Hostile for anything else."""
    if not isinstance(text, str):
        raise Hostile("it is no text")
    if len(text) > limits.packed * 4 // 3 + 4:
        raise Hostile(f"it is over {_size(limits.packed)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Hostile("it is no base64") from None


def inflate(packed: bytes, most: int = LIMITS.file) -> bytes:
    """Return what gzip packed; raises Hostile when that is damaged, or over `most` bytes."""
    with _damage_is_hostile(), gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Hostile(f"it holds over {_size(most)}")
    return data


def unpack(
    packed: bytes, folder: Path, limits: Limits = LIMITS, only: Collection[str] | None = None
) -> int:
    """Write the files of a gzipped tar below `folder`, which is made; returns their number.

    `only` names the files that are wanted, all where it is None.  Raises Hostile, with nothing
    left of it, when the archive is damaged or too large, or holds a link, a device, a name
    twice, or one that doesn't lie inside; FileExistsError when `folder` is there.
    """
    if len(packed) > limits.packed:
        raise Hostile(f"it is over {_size(limits.packed)}")
    folder.mkdir(FOLDER_MODE)
    try:
        with _damage_is_hostile():
            return _write_all(packed, folder, limits, only)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_all(packed: bytes, folder: Path, limits: Limits, only: Collection[str] | None) -> int:
    names: set[str] = set()
    total = 0
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(packed)) as file,
            # GzipFile doesn't call itself a stream of bytes.
            tarfile.open(
                fileobj=cast(IO[bytes], _Bounded(file, 2 * limits.total)),
                mode="r|",
                tarinfo=_Entry,
            ) as tar,
        ):
            for entry in tar:
                parts = _parts(entry.name, limits)
                if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
                    raise Hostile(f"{_shown(entry.name)} is no plain file")
                name = "/".join(parts)
                if name in names:
                    raise Hostile(f"{_shown(name)} is there twice")
                names.add(name)
                if len(names) > limits.files:
                    raise Hostile(f"it holds over {limits.files} files")
                total += entry.size
                if not 0 <= entry.size <= limits.file or total > limits.total:
                    raise Hostile(f"{_shown(entry.name)} makes it larger than it may be")
                if only is None or name in only:
                    data = tar.extractfile(entry)
                    assert data is not None
                    _write(top, parts, data, entry.size)
    finally:
        os.close(top)
    return len(names if only is None else names & set(only))


def _parts(name: str, limits: Limits) -> list[str]:
    """Take a file's name apart; raises Hostile unless it lies inside."""
    parts = name.removeprefix("./").split("/")
    if (
        len(name) > limits.name
        or len(parts) > limits.depth
        or any(part in ("", ".", "..") or len(os.fsencode(part)) > _LONGEST_PART for part in parts)
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    ):
        raise Hostile(f"{_shown(name)} is no name of a file inside")
    return parts


def _write(top: int, parts: list[str], data: IO[bytes], size: int) -> None:
    """Write a new file below the folder `top`; no link on the way is followed."""
    here = os.dup(top)
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, FOLDER_MODE, dir_fd=here)
            there = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
        descriptor = os.open(
            parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE, dir_fd=here
        )
        with os.fdopen(descriptor, "wb") as file:
            left = size
            while left:
                block = data.read(min(left, _BLOCK))
                if not block:
                    raise Hostile("it ends within a file")
                file.write(block)
                left -= len(block)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise Hostile(f"{_shown('/'.join(parts))} is a file and a folder") from None
    finally:
        os.close(here)


class _Entry(tarfile.TarInfo):
    """A header of a tar; those that say more of the next one are held in memory: small ones."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > _LONGEST_HEADER and self.type not in tarfile.REGULAR_TYPES:
            raise Hostile("a header in it is too long")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member


class _Bounded:
    """A stream that raises Hostile once more than `most` bytes were read."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self.file = file
        self.most = most

    def read(self, size: int) -> bytes:
        """Read so many bytes at most."""
        data = self.file.read(size)
        self.most -= len(data)
        if self.most < 0:
            raise Hostile("it is larger than it may be")
        return data


@contextlib.contextmanager
def _damage_is_hostile() -> Iterator[None]:
    try:
        yield
    except Hostile:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError,
            RecursionError, MemoryError):  # fmt: skip
        raise Hostile("it is damaged") from None


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count} bytes"


def _shown(name: str) -> str:
    """A name as a terminal may have it."""
    shown = ascii(name)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
