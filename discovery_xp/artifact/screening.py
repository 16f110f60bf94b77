"""What must not leave the machine in an artifact: secrets; and what its reader should know of.

Every file of a run is searched, those within archives and the texts of tables too.  A secret is
a private key, a password, or a token that somebody could log in with.  Passwords that a bench
replaced by their names (`<database>`) are none.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from discovery_xp.errors import Refused
from discovery_xp.store import TABLES, Run
from discovery_xp.text import printable

MOST_UNPACKED = 2**30  # bytes of an archive within a run
_BLOCK = 2**20
_OVERLAP = 4096  # what a secret may be long, across two blocks

# A value that stands for a secret, or says that there is none.
_NO_VALUE = rb"(?!<|\*|\"|'|\{|\$|None\b|null\b|true\b|false\b|REDACTED)"
_SECRETS = (
    ("a private key",
     re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}")),
    ("a password in a URL",
     re.compile(rb"\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@<>\"'\\]{1,100}:" + _NO_VALUE
                + rb"[^\s/@<>\"'\\]{3,200}@[A-Za-z0-9]")),
    ("a password of a configuration",
     re.compile(rb"(?im)^[ \t]*[a-z_]{0,40}(?:password|passwd|secret)[ \t]*=[ \t]*" + _NO_VALUE
                + rb"[^\s#;<]{4,}[ \t]*$")),
    ("a password in JSON",
     re.compile(rb"\"[A-Za-z_]{0,40}(?:password|passwd|adminPass)\"\s*:\s*\"" + _NO_VALUE
                + rb"[^\"\s<]{4,200}\"")),
    ("a token of Keystone", re.compile(rb"gAAAAA[0-9A-Za-z_-]{90,}")),
)  # fmt: skip
_HOME = re.compile(rb"/home/[A-Za-z0-9._-]{1,64}/|/Users/[A-Za-z0-9._-]{1,64}/")


class Screening:
    """Searches files of runs for secrets: those that look like one, and `known` ones by name.

    `homes` are the home folders that files name, with a file each.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self.homes: dict[str, str] = {}
        self._patterns = [*_SECRETS]
        self._patterns += [
            (f"the password '{name}'", re.compile(re.escape(secret.encode())))
            for name, secret in (known or {}).items()
        ]

    def require_no_secret(self, path: Path) -> None:
        """Raise Refused where a file, or one within an archive, holds a secret.

        Tables are packed: their texts are searched by `require_no_secret_in_tables`.
        """
        if path.suffix == ".parquet":
            return
        with path.open("rb") as file:
            if path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz")):
                self._search_archive(path, file)
            else:
                self._search(str(path), file)

    def require_no_secret_in_tables(self, run: Run) -> None:
        """Raise Refused where a text of a run's tables holds a secret."""
        import pyarrow.compute as pc

        for name, columns in TABLES.items():
            if not run.has(name):
                continue
            rows = run.table(name)
            for column in columns:
                if column.type == "string" and not column.values:
                    texts = pc.unique(rows.column(column.name)).to_pylist()
                    data = "\n".join(text for text in texts if text).encode(errors="replace")
                    self._search(f"{run.folder}/{name}.parquet ({column.name})", io.BytesIO(data))

    def _search_archive(self, path: Path, file: IO[bytes]) -> None:
        bounded = _Bounded(path, MOST_UNPACKED)
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for entry in archive:
                    if (inside := archive.extractfile(entry)) is not None:
                        self._search(f"{path}, {entry.name}", bounded.counting(inside))
        except (tarfile.TarError, EOFError, lzma.LZMAError, OSError, ValueError):
            raise Refused(
                f"{printable(str(path))}: it can't be looked through (no archive)",
                "leave its folder out with --without, or move it away",
            ) from None

    def _search(self, place: str, file: IO[bytes]) -> None:
        for data in _blocks(file):
            for kind, pattern in self._patterns:
                if (found := pattern.search(data)) is not None:
                    line = data.count(b"\n", 0, found.start()) + 1
                    raise Refused(
                        f"{printable(place)}: it holds {kind} (about line {line} of a part of it)",
                        "take it out of the run, or leave the folder out with --without",
                    )
            for home in _HOME.findall(data):
                self.homes.setdefault(home.decode(), place)


class _Bounded:
    """How much of an archive may still be unpacked."""

    def __init__(self, path: Path, left: int) -> None:
        self.path, self.left = path, left

    def counting(self, file: IO[bytes]) -> IO[bytes]:
        """Return a file whose blocks count; raises Refused when there were too many."""
        return cast(IO[bytes], _Counting(self, file))


class _Counting:
    def __init__(self, bounded: _Bounded, file: IO[bytes]) -> None:
        self.bounded, self.file = bounded, file

    def read(self, size: int) -> bytes:
        """Read so many bytes at most."""
        data = self.file.read(size)
        self.bounded.left -= len(data)
        if self.bounded.left < 0:
            raise Refused(
                f"{printable(str(self.bounded.path))}: it unpacks to more than 1 GiB",
                "leave its folder out with --without",
            )
        return data


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file in blocks that overlap."""
    before = b""
    while block := file.read(_BLOCK):
        yield before + block
        before = (before + block)[-_OVERLAP:]
