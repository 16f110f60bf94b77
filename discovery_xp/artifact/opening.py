"""An artifact that may be anybody's, opened: its checksums hold, and its names lie inside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from discovery_xp.artifact.collecting import RECORDS
from discovery_xp.artifact.packing import SUFFIX, SUMS
from discovery_xp.boundary import archives
from discovery_xp.errors import Refused
from discovery_xp.text import printable, short

# Of the archive it is held in memory; records are packed already.
LIMITS = archives.Limits(
    packed=2**30, file=2**29, total=4 * 2**30, files=100_000, name=1024, depth=16
)
_MOST_SUMS = 32 * 2**20
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_AGAIN = "fetch the artifact again"


def is_artifact(path: Path) -> bool:
    """Tell whether a path is an artifact's folder, or may be its archive."""
    if path.is_dir():
        return (path / SUMS).is_file() and (path / RECORDS).is_dir()
    return path.name.endswith(SUFFIX)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield the folder of an artifact; of an archive it is gone at the end.

    Raises Refused where it is damaged, holds a name that leads out of it, or differs from its
    checksums.
    """
    if path.is_dir():
        folder = path.resolve()
        require_sums(folder, str(path))
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="discovery-xp-artifact-") as temporary:
        folder = _unpacked(path, Path(temporary))
        require_sums(folder, str(path))
        yield folder


def _unpacked(path: Path, temporary: Path) -> Path:
    place = printable(str(path))
    try:
        if path.stat().st_size > LIMITS.packed:
            raise Refused(
                f"{place}: over {LIMITS.packed >> 30} GiB", "unpack it, and name its folder"
            )
        packed = path.read_bytes()
    except FileNotFoundError:
        raise Refused(f"{place}: no such file", "name an artifact's folder or archive") from None
    except OSError as error:
        raise Refused(f"{place}: it can't be read ({error.strerror})", _AGAIN) from None
    try:
        archives.unpack(packed, temporary / "unpacked", LIMITS)
    except archives.Hostile as error:
        raise Refused(f"{place}: no archive of an artifact: {error}", _AGAIN) from None
    except OSError as error:
        raise Refused(
            f"{place}: it can't be unpacked in {printable(str(temporary))} ({error.strerror})",
            "free some space, or set TMPDIR",
        ) from None
    found = sorted((temporary / "unpacked").iterdir())
    if len(found) != 1 or not (found[0] / SUMS).is_file():
        raise Refused(f"{place}: no archive of an artifact: it lacks {SUMS}", _AGAIN)
    return found[0]


def require_sums(folder: Path, called: str | None = None) -> None:
    """Raise Refused where a file isn't as the checksums say, is missing, or isn't a file.

    A file among the records that they don't name is refused, too; others may be there.
    """
    place = printable(called or str(folder))
    sums = _sums(folder, place)
    for name, digest in sums.items():
        path = folder / name
        if not _is_inside(folder, path) or not path.is_file():
            raise Refused(f"{place}: {short(name)} is missing, or no file", _AGAIN)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise Refused(
                    f"{place}: {printable(name)} is damaged: its checksum isn't that of {SUMS}",
                    _AGAIN,
                )
    for path in _all_in(folder / RECORDS):
        if (name := path.relative_to(folder).as_posix()) not in sums:
            raise Refused(
                f"{place}: {printable(name)} isn't in {SUMS}", "move it away, or " + _AGAIN
            )


def _sums(folder: Path, place: str) -> dict[str, str]:
    path = folder / SUMS
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_SUMS:
        raise Refused(f"{place}: not an artifact: it has no {SUMS}", "name an artifact's folder")
    sums = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Refused(f"{place}/{SUMS}:{number}: '{short(line)}' is no checksum", _AGAIN)
        name = match[2]
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
            raise Refused(f"{place}/{SUMS}:{number}: '{short(name)}' leads out of it", _AGAIN)
        sums[name] = match[1]
    return sums


def _is_inside(folder: Path, path: Path) -> bool:
    """Tell whether no part of a path below the folder is a symbolic link."""
    below = path.relative_to(folder).parents
    return not path.is_symlink() and not any((folder / part).is_symlink() for part in below)


def _all_in(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        for name in [*names, *(each for each in folders if (Path(here) / each).is_symlink())]:
            yield Path(here) / name
