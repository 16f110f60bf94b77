"""A run's folder: what is written into it and read from it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic_core

from discovery_xp.boundary.names import ExperimentName, RunName
from discovery_xp.errors import Failed, Refused
from discovery_xp.store.files import (
    damaged,
    make_folders,
    new_file,
    read_bytes,
    replace_file,
)
from discovery_xp.store.links import MOST_LINKS_BYTES, Links, links_from_json
from discovery_xp.store.records import (
    MOST_RECORD_BYTES,
    TIME,
    RunRecord,
    fitting,
    record_from_json,
)
from discovery_xp.store.tables import (
    ALWAYS,
    TABLES,
    VERDICTS,
    Rows,
    checked,
    read_note,
    read_table,
    require_rows,
    schema,
)
from discovery_xp.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path("results")

# What a run's folder holds besides run.json and the tables: files, then folders.
FILES = ("plan.json", "topology.yaml", "scenario.yaml", "deployment.json", "links.json",
         "report.html")  # fmt: skip
FOLDERS = ("rally", "logs")

# Kept free for a run's last word, should the disk get full meanwhile.
_ROOM = ".room"
_ROOM_BYTES = 512 * 1024
_MERGED = b"discovery_xp.parts"  # a table's own word on how many of its parts it holds
_PART_ROWS = 1000  # of a part, unless more are appended at once
_MOST_PARTS = 5000  # of a table


class Unfit(Failed, ValueError):
    """What a run can't hold: hosts measure its values, and a host may say anything."""


class Taken(Refused):
    """A run's folder is there: another run of its plan began within the same second."""


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """EXPERIMENT/UTC-PLAN: unique among runs."""
        resolved = self.folder.resolve()
        return f"{resolved.parent.name}/{resolved.name}"

    # ------------------------------------------------ run.json

    def save(self, record: RunRecord) -> RunRecord:
        """Replace run.json in one step; returns what it now says, with long words cut.

        Raises Unfit on a wrong type, or what would be refused when it is read.
        """
        record = fitting(record)
        try:
            record_from_json(record.to_json())
        except ValueError as error:
            raise Unfit(f"run.json: {error}", "correct what says so, and run it again") from None
        replace_file(self.folder / "run.json", _json(record.to_json()))
        return record

    def load(self) -> RunRecord:
        """Return run.json; raises Refused when it is absent, damaged or of another format."""
        path = self.folder / "run.json"
        try:
            text = read_bytes(path, MOST_RECORD_BYTES)
        except FileNotFoundError:
            raise Refused(
                f"{printable(str(self.folder))}: no run.json, so not a run",
                "name a folder that 'bench' wrote",
            ) from None
        try:
            return record_from_json(text)
        except Refused as error:
            raise Refused(f"{printable(str(path))}: {error.message}", error.remedy) from None
        except ValueError as error:
            raise damaged(path, str(error)) from None

    def update(self, **changes: Any) -> RunRecord:
        """Change some keys of run.json."""
        return self.save(dataclasses.replace(self.load(), **changes))

    def keep_room(self) -> None:
        """Have some of the disk for the run's last word; until `free_room`."""
        # Not zeros: a file of those may take no room.
        replace_file(self.folder / _ROOM, os.urandom(_ROOM_BYTES))

    def free_room(self) -> None:
        """Give back what `keep_room` took."""
        (self.folder / _ROOM).unlink(missing_ok=True)

    # ------------------------------------------------ other files

    def path(self, name: str) -> Path:
        """Where a file of the run lies, or a folder of it, which is made.

        `name` is one of FILES or FOLDERS, or a path inside one of the folders; raises
        ValueError on any other.
        """
        parts = Path(name).parts
        if name in FILES:
            return self.folder / name
        if parts and parts[0] in FOLDERS and ".." not in parts:
            path = self.folder / name
            make_folders(path if len(parts) == 1 else path.parent)
            return path
        raise ValueError(f"'{name}' has no place in a run's folder")

    def write_text(self, name: str, text: str) -> Path:
        """Replace a file in one step; returns its path."""
        path = self.path(name)
        replace_file(path, text)
        return path

    def write_json(self, name: str, data: object) -> Path:
        """The same of plain values, as JSON."""
        return self.write_text(name, _json(data))

    def links(self) -> Links:
        """Return the round trips of links.json, none where the run has no such file.

        Raises Refused when it is damaged.
        """
        path = self.path("links.json")
        try:
            return links_from_json(read_bytes(path, MOST_LINKS_BYTES))
        except FileNotFoundError:
            return Links()
        except ValueError as error:
            raise damaged(path, str(error)) from None

    def read_json(self, name: str) -> Any:
        """Return the values of a JSON file, which nobody has checked; None without the file.

        Raises Refused when it is damaged.
        """
        path = self.path(name)
        try:
            return pydantic_core.from_json(read_bytes(path, MOST_LINKS_BYTES), allow_inf_nan=False)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise damaged(path, str(error)) from None

    # ------------------------------------------------ tables

    def append(self, table: str, rows: Rows | pa.Table) -> None:
        """Add rows to a table; once this returns, they outlive this process.

        A row is a mapping with every column of the table, None where it has no value.
        Append in batches: they become parts of the table, until `merge`.  Several threads or
        processes may append.  Raises Unfit when a row doesn't fit the table.
        """
        import pyarrow as pa

        fit = _fit(table, rows)
        folder = self._parts(table)
        make_folders(folder)
        with _locked(folder):
            merged = self._merged(table)
            number = max([merged, *_numbers(folder)])
            path = folder / f"{number:06d}.parquet"
            # A load of hours appends each second: small parts grow, instead of thousands.
            last = read_table(table, path) if number > merged else fit.slice(0, 0)
            if number == merged or last.num_rows + fit.num_rows > _PART_ROWS:
                path = folder / f"{number + 1:06d}.parquet"
            else:
                fit = pa.concat_tables([last, fit])
            with new_file(folder) as (descriptor, temporary):
                _write_parquet(fit, descriptor)
                temporary.replace(path)

    def write_table(self, table: str, rows: Rows | pa.Table) -> None:
        """Replace a whole table, what was appended included.

        Raises Unfit when a row doesn't fit the table.
        """
        fit = _fit(table, rows)
        parts = self._parts(table)
        last = max([self._merged(table), *_numbers(parts)])
        # The number goes with the rows: killed before its parts are gone, the table
        # still says that it holds them.
        merged: pa.Table = fit.replace_schema_metadata({_MERGED: str(last).encode()})
        with new_file(self.folder) as (descriptor, temporary):
            _write_parquet(merged, descriptor)
            temporary.replace(self._table(table))
        shutil.rmtree(parts, ignore_errors=True)

    def merge(self) -> None:
        """Put what was appended into the tables' own files: the end of a run."""
        for name in TABLES:
            if self._parts(name).is_dir():
                self.write_table(name, self._read(name))

    def has(self, table: str) -> bool:
        """True when any of the table was written."""
        return self._table(table).exists() or bool(_numbers(self._parts(table)))

    def table(self, name: str) -> pa.Table:
        """A table's rows, whether the run ended or not.

        Without rows where its probe was off, or the run didn't come to write any.  Raises
        Refused when the table is damaged, or missing from a complete run that says it
        was measured.
        """
        if not self.has(name):
            record = self.load()
            own = VERDICTS if record.is_verification else ALWAYS
            if not record.is_partial and (
                name in own or name in set(record.probes) - set(record.left_out)
            ):
                raise damaged(self._table(name), "the run says it is complete, but it is missing")
        return self._read(name)

    def _read(self, name: str) -> pa.Table:
        import pyarrow as pa

        merged = self._merged(name)
        parts = self._parts(name)
        numbers = [number for number in _numbers(parts) if number > merged]
        if len(numbers) > _MOST_PARTS:
            raise damaged(parts, f"more than {_MOST_PARTS} parts of a table")
        files = [self._table(name), *(parts / f"{number:06d}.parquet" for number in numbers)]
        pieces = [schema(name).empty_table()]
        rows = 0
        try:
            for path in files:
                try:
                    pieces.append(read_table(name, path))
                except FileNotFoundError:
                    continue  # without the table's own file; or merged meanwhile
                rows += pieces[-1].num_rows
                require_rows(name, rows)
            # Each part's columns may hold as many different values as a table's.
            return checked(name, pa.concat_tables(pieces)) if len(pieces) > 2 else pieces[-1]
        except ValueError as error:
            raise damaged(parts, str(error)) from None

    def _merged(self, table: str) -> int:
        """Return up to which number the table's own file holds what was appended."""
        path = self._table(table)
        note = read_note(path, _MERGED) or b"0"
        if not re.fullmatch(rb"[0-9]{1,9}", note):
            raise damaged(path, "it doesn't say which of its parts it holds")
        return int(note)

    def _table(self, table: str) -> Path:
        return self.folder / f"{table}.parquet"

    def _parts(self, table: str) -> Path:
        return self.folder / f"{table}.parts"


def require_writable(folder: Path) -> None:
    """Raise Refused unless files can be made in a folder, which may have to be made first."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Refused(
            f"{folder}: can't be written to ({there} is no folder, or isn't yours to write in)",
            "name another folder for results",
        )


def new_run(root: Path, record: RunRecord) -> Run:
    """Make a run's folder, with its record in it from the first moment on.

    Raises Taken when there is such a run already, Refused when the folder can't be made.
    """
    time = datetime.datetime.strptime(record.started, TIME)
    folder = root / ExperimentName(record.experiment) / RunName.of(time, record.plan)
    unfinished = folder.with_name(f".{folder.name}")  # no reader takes it for a run
    try:
        make_folders(unfinished)
        Run(unfinished).save(record)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if folder.is_dir():
            raise Taken(
                f"{folder} exists: a run of this plan started within the same second",
                "start it again",
            ) from None
        raise Refused(
            f"{folder} can't be made ({error.strerror})", "name another folder for results"
        ) from None
    return Run(folder)


# ---------------------------------------------------------------- writing


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _fit(table: str, rows: Rows | pa.Table) -> pa.Table:
    try:
        return checked(table, rows)
    except ValueError as error:
        raise Unfit(str(error), "look at the host that says so") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other threads and processes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_PART = re.compile(r"([0-9]{6}|[1-9][0-9]{6,8})\.parquet")


def _numbers(parts: Path) -> list[int]:
    """Return the numbers of the parts that are there, sorted; none but those `append` gives."""
    try:
        with os.scandir(parts) as entries:
            numbers = [int(each[1]) for entry in entries if (each := _PART.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise damaged(parts, f"it can't be read: {error.strerror}") from None
    return sorted(numbers)


def _write_parquet(table: pa.Table, descriptor: int) -> None:
    import pyarrow.parquet as pq

    with os.fdopen(os.dup(descriptor), "wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
