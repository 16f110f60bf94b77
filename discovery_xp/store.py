"""Runs of the bench on disk: sole owner of the paths under results/ and of their format.

A run is a folder, `ROOT/EXPERIMENT/UTC-PLAN/`; `docs/results.md` describes what is in it.
Whatever is written is there whole or not at all, so that a run that is killed keeps what
it had: files are replaced in one step, and rows that are appended become files of their
own at once, which are merged into the table's file when the run ends.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from discovery_xp.errors import Refused
from discovery_xp.testbed import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

# pyarrow is loaded by those who touch a table, not by those who import this.

FORMAT = 1
ROOT = Path("results")

# What a run's folder holds besides run.json and the tables: files, then folders.
FILES = ("plan.json", "topology.yaml", "scenario.yaml", "deployment.json", "links.json",
         "report.html")  # fmt: skip
FOLDERS = ("rally", "logs")

_TIME = "%Y-%m-%dT%H:%M:%SZ"
# Kept free for a run's last word, should the disk get full meanwhile.
_ROOM = ".room"
_ROOM_BYTES = 128 * 1024
_MERGED = b"discovery_xp.parts"  # a table's own word on how many of its parts it holds


# ---------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Column:
    """A column: `type` as Arrow names it; `values`, where not empty, are all it may hold."""

    name: str
    type: Literal["string", "float64", "int64", "bool"]
    null: bool = False
    values: tuple[str, ...] = ()


def _columns(type_: Literal["string", "float64", "int64", "bool"], names: str) -> list[Column]:
    """One for each word of `names`; a '?' after it allows nulls."""
    return [Column(name.rstrip("?"), type_, name.endswith("?")) for name in names.split()]


_PLACE = [*_columns("string", "service host site")]

# Every table, its columns in order.  The probe that fills a table has the table's name.
TABLES: Mapping[str, tuple[Column, ...]] = {
    "vms": (
        *_columns("string", "name server_id? region site"),
        *_columns("float64", "requested_at accepted_at? active_at? seen_at?"),
        Column("status", "string", values=("ACTIVE", "ERROR", "REFUSED", "TIMEOUT")),
        *_columns("string", "host? host_site?"),
        *_columns("float64", "deleted_at?"),
        *_columns("string", "error?"),
        *_columns("float64", "boot_duration_s?"),
    ),
    "actions": (
        *_columns("string", "action"),
        *_columns("int64", "iteration"),
        *_columns("string", "region site"),
        *_columns("float64", "started_at duration_s"),
        *_columns("string", "error?"),
    ),
    "calls": (
        *_columns("float64", "at"),
        *_PLACE,
        *_columns("string", "function"),
        Column("api", "string", values=("main", "api")),
        *_columns("float64", "duration_ms"),
        *_columns("bool", "lazy"),
        *_columns("string", "error?"),
    ),
    "requests": (
        *_columns("float64", "at"),
        *_PLACE,
        *_columns("string", "method path"),
        *_columns("int64", "status"),
        *_columns("float64", "duration_ms"),
    ),
    "statements": (
        *_PLACE,
        *_columns("int64", "pid"),
        Column("kind", "string",
               values=("SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT", "ROLLBACK", "OTHER")),
        *_columns("int64", "count round_trips bytes_sent bytes_received"),
        *_columns("float64", "duration_ms"),
    ),
    "traffic": (
        *_columns("string", "host site peer peer_site"),
        Column("direction", "string", values=("out",)),
        *_columns("int64", "port"),
        Column("service", "string",
               values=("mysql", "amqp", "memcached", "keystone", "glance", "placement", "neutron",
                       "nova", "redis", "other")),
        *_columns("int64", "bytes packets"),
    ),
    "messages": (*_columns("string", "queue"),
                 *_columns("int64", "published delivered acknowledged")),
    "usage": (
        *_PLACE,
        *_columns("float64", "cpu_s"),
        *_columns("int64", "memory_bytes memory_start_bytes"),
    ),
}  # fmt: skip


def values_of(table: str, column: str) -> tuple[str, ...]:
    """The texts that a column may hold; none where it may hold any."""
    return next((each.values for each in TABLES[table] if each.name == column), ())


ALWAYS = ("vms", "actions")  # tables of the load itself; the others are a probe's
PROBES = tuple(name for name in TABLES if name not in ALWAYS)


@functools.cache
def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "float64": pa.float64(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
    }
    return pa.schema(
        [pa.field(column.name, types[column.type], column.null) for column in TABLES[table]]
    )


Rows = Iterable[Mapping[str, Any]]


def _checked(table: str, rows: Rows | pa.Table) -> pa.Table:
    """Rows as a table of its schema; raises ValueError where they don't fit it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [column.name for column in TABLES[table]]
    if not isinstance(rows, pa.Table):
        listed = list(rows)
        for row in listed:
            if row.keys() != set(names):
                wrong = sorted(row.keys() ^ set(names))
                raise ValueError(f"table '{table}': a row lacks, or has too many: {wrong}")
        # Without its flags on nulls, which are checked below with the column's name.
        loose = pa.schema([each.with_nullable(True) for each in schema(table)])
        try:
            rows = pa.Table.from_pylist(listed, schema=loose)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"table '{table}': {error}") from None
    if sorted(rows.column_names) != sorted(names):
        wrong = sorted(set(rows.column_names) ^ set(names)) or rows.column_names
        raise ValueError(f"table '{table}': it lacks, or has too many: {wrong}")
    rows = rows.select(names)
    for column in TABLES[table]:
        cells = rows.column(column.name)
        if not column.null and cells.null_count:
            raise ValueError(f"table '{table}': column '{column.name}' has nulls")
        if column.values:
            known = pc.is_in(cells, value_set=pa.array(column.values, cells.type))
            if not pc.all(known, min_count=0).as_py():
                value = cells.filter(pc.invert(known))[0].as_py()
                raise ValueError(
                    f"table '{table}': '{value}' is not a value of column '{column.name}'"
                )
    try:
        return rows.cast(schema(table))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"table '{table}': {error}") from None


# ---------------------------------------------------------------- run.json


class _Strict:
    """Base of the parts of run.json: unknown keys and wrong types are errors."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Machine(_Strict):
    """What the run ran on; of Grid'5000's nodes, one stands for all."""

    cpus: int
    cpu_model: str
    memory_bytes: int
    kernel: str
    provider: str


@dataclass(frozen=True)
class Vms(_Strict):
    """How many VMs were asked for, and what came of them so far."""

    asked: int
    active: int = 0
    failed: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Window(_Strict):
    """The load's own time, s since 1970: what the probes' tables are about."""

    start: float
    end: float


@dataclass(frozen=True)
class Load(_Strict):
    """The load generator's share: CPU seconds, the cores they came to, polls sent, its host."""

    cpu_s: float
    cores: float
    polls: int
    host: str


@dataclass(frozen=True)
class Harness(_Strict):
    """CPU seconds of the whole machine over the window, whose they were, and how long it was."""

    total_cpu_s: float
    openstack_cpu_s: float
    load_cpu_s: float
    other_cpu_s: float
    elapsed_s: float


@dataclass(frozen=True)
class RunRecord(_Strict):
    """run.json: what was run and how it ended.  `docs/results.md` says what each key means.

    What isn't known yet, or wasn't measured, is None.
    """

    experiment: str
    plan: str
    started: str
    machine: Machine
    backend: str
    options: Mapping[str, Any]
    sites: int
    controllers: int
    computes: int
    data: int
    scenario: Mapping[str, Any]
    vms: Vms
    ended: str | None = None
    status: Literal["running", "complete", "partial"] = "running"
    reason: str | None = None
    notes: tuple[str, ...] = ()
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    latency_ms: float | None = None
    rtt_ms: float | None = None
    imposed_by: Literal["netem", "vde"] | None = None
    duration_s: float | None = None
    probes: tuple[str, ...] = ()
    stages_s: Mapping[str, float] = field(default_factory=dict)
    window: Window | None = None
    load: Load | None = None
    harness: Harness | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if (self.status == "partial") != (self.reason is not None):
            raise ValueError("'reason' says why a run is partial, and nothing else")
        if (self.status == "running") != (self.ended is None):
            raise ValueError("'ended' is null while a run is running, and only then")
        unknown = [probe for probe in self.probes if probe not in PROBES]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is not a probe")

    @property
    def is_partial(self) -> bool:
        """True unless the run came to its end."""
        return self.status != "complete"

    @property
    def why_partial(self) -> str | None:
        """In a line; None for a complete run."""
        if self.status == "running":
            return "it has not ended, or was killed"
        return self.reason

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of docs/results.md."""
        data = dataclasses.asdict(self)
        return {key: data[key] for key in _ORDER}


# The order in which run.json is written and described.
_ORDER = (
    "format", "experiment", "plan", "started", "ended", "status", "reason", "notes", "commit",
    "versions", "machine", "backend", "options", "sites", "controllers", "computes", "data",
    "latency_ms", "rtt_ms", "imposed_by", "scenario", "vms", "duration_s", "probes", "stages_s",
    "window", "load", "harness",
)  # fmt: skip


@functools.cache
def _adapter() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)


def record_from_json(data: Mapping[str, Any]) -> RunRecord:
    """A record as `RunRecord.to_json` wrote it.

    Raises Refused on another format, ValueError on a key that lacks, is unknown or
    holds what it can't.
    """
    if data.get("format") != FORMAT:
        raise Refused(
            f"a run of format {data.get('format')}, but this version reads {FORMAT}",
            "use the version that wrote it",
        )
    for key in _ORDER:
        if key not in data:
            raise ValueError(f"'{key}' is missing")
    for each in dataclasses.fields(Vms):
        if isinstance(data["vms"], Mapping) and each.name not in data["vms"]:
            raise ValueError(f"'vms.{each.name}' is missing")
    try:
        # By way of text: what strictness means for a tuple is another thing in JSON.
        return _adapter().validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"'{place}': {first['msg']}" if place else first["msg"]) from None


# ---------------------------------------------------------------- runs


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
        """Replace run.json in one step; returns it.  Raises ValueError on a wrong type."""
        data = record.to_json()
        record_from_json(data)  # what is written can be read again
        write_atomically(self.folder / "run.json", _json(data))
        return record

    def load(self) -> RunRecord:
        """run.json; raises Refused when it is absent, damaged or of another format."""
        path = self.folder / "run.json"
        remedy = "name another run, or move this one away"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(
                f"{self.folder}: no run.json, so not a run", "name a folder that 'bench' wrote"
            ) from None
        except OSError as error:
            raise Refused(f"{path}: can't be read ({error.strerror})", remedy) from None
        except ValueError as error:
            line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise Refused(f"{path}{line}: the run is damaged", remedy) from None
        if not isinstance(data, dict):
            raise Refused(f"{path}: the run is damaged", remedy)
        try:
            return record_from_json(data)
        except Refused as error:
            raise Refused(f"{path}: {error.message}", error.remedy) from None
        except ValueError as error:
            raise Refused(f"{path}: the run is damaged ({error})", remedy) from None

    def update(self, **changes: Any) -> RunRecord:
        """Change some keys of run.json."""
        return self.save(dataclasses.replace(self.load(), **changes))

    def keep_room(self) -> None:
        """Have some of the disk for the run's last word; until `free_room`."""
        with (self.folder / _ROOM).open("wb") as file:
            file.write(os.urandom(_ROOM_BYTES))  # a file of zeros may take no room
            file.flush()
            os.fsync(file.fileno())

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
            (path if len(parts) == 1 else path.parent).mkdir(parents=True, exist_ok=True)
            return path
        raise ValueError(f"'{name}' has no place in a run's folder")

    def write_text(self, name: str, text: str) -> Path:
        """Replace a file in one step; returns its path."""
        path = self.path(name)
        write_atomically(path, text)
        return path

    def write_json(self, name: str, data: object) -> Path:
        """The same of plain values, as JSON."""
        return self.write_text(name, _json(data))

    def read_text(self, name: str) -> str | None:
        """A file's text, None where the run has no such file; raises Refused on damage."""
        path = self.path(name)
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            raise _damaged(path, "it can't be read") from None

    def read_json(self, name: str) -> Any:
        """The values of a JSON file; None where the run has no such file."""
        text = self.read_text(name)
        try:
            return None if text is None else json.loads(text)
        except json.JSONDecodeError as error:
            raise _damaged(self.path(name), f"line {error.lineno} is not JSON") from None

    # ------------------------------------------------ tables

    def append(self, table: str, rows: Rows | pa.Table) -> None:
        """Add rows to a table; once this returns, they outlive this process.

        A row is a mapping with every column of the table, None where it has no value.
        Append in batches: each becomes a file, until `merge`.  Raises ValueError when a
        row doesn't fit the table.
        """
        checked = _checked(table, rows)
        folder = self._parts(table)
        folder.mkdir(exist_ok=True)
        number = max([self._merged(table), *_numbers(folder)]) + 1
        temporary = folder / f".{os.getpid()}-{threading.get_native_id()}"
        _write_parquet(checked, temporary)
        while True:  # several threads or processes may append
            try:
                (folder / f"{number:06d}.parquet").hardlink_to(temporary)
                break
            except FileExistsError:
                number += 1
        temporary.unlink()

    def write_table(self, table: str, rows: Rows | pa.Table) -> None:
        """Replace a whole table, what was appended included."""
        checked = _checked(table, rows)
        parts = self._parts(table)
        last = max([self._merged(table), *_numbers(parts)])
        path = self._table(table)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # The number goes with the rows: killed before its parts are gone, the table
        # still says that it holds them.
        merged: pa.Table = checked.replace_schema_metadata({_MERGED: str(last).encode()})
        _write_parquet(merged, temporary)
        temporary.replace(path)
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
            if not record.is_partial and (name in ALWAYS or name in record.probes):
                raise _damaged(self._table(name), "the run says it is complete, but it is missing")
        return self._read(name)

    def _read(self, name: str) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = [self._table(name)] if self._table(name).exists() else []
        merged = self._merged(name)
        parts = self._parts(name)
        files += [parts / f"{number:06d}.parquet" for number in _numbers(parts) if number > merged]
        tables = [schema(name).empty_table()]
        for path in files:
            try:
                # As one file: its folder's name says nothing about its columns.
                tables.append(_checked(name, pq.ParquetFile(path).read()))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _damaged(path, str(error).splitlines()[0]) from None
        return pa.concat_tables([each.replace_schema_metadata(None) for each in tables])

    def _merged(self, table: str) -> int:
        """Up to which number the table's own file holds what was appended."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._table(table)
        if not path.exists():
            return 0
        try:
            metadata = pq.read_schema(path).metadata or {}
            return int(metadata.get(_MERGED, 0))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from None

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

    Raises Refused when there is such a run already, or the folder can't be made.
    """
    time = datetime.datetime.strptime(record.started, _TIME)
    folder = root / record.experiment / f"{time:%Y%m%dT%H%M%SZ}-{record.plan}"
    unfinished = folder.with_name(f".{folder.name}")  # no reader takes it for a run
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        Run(unfinished).save(record)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if folder.is_dir():
            raise Refused(
                f"{folder} exists: a run of this plan started within the same second",
                "start it again",
            ) from None
        raise Refused(
            f"{folder} can't be made ({error.strerror})", "name another folder for results"
        ) from None
    return Run(folder)


def open_run(path: Path) -> Run:
    """The run in a folder; raises Refused when it isn't one, or is damaged."""
    if not path.is_dir():
        raise Refused(f"{path}: no such folder", "name a run's folder, or a folder of runs")
    run = Run(path)
    run.load()
    return run


def runs_under(root: Path) -> list[Run]:
    """The run in `root`, or those in folders under it, the oldest first.

    Raises Refused when one of them is damaged or `root` is no folder; there may be none.
    """
    if not root.is_dir():
        raise Refused(f"{root}: no such folder", "name a run's folder, or a folder of runs")
    found = [open_run(path) for path in _run_folders(root, depth=3)]
    return sorted(found, key=lambda run: (run.load().started, run.name))


_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]+")


def _run_folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders with a run.json; a run whose run.json is gone is found by its name."""
    if (root / "run.json").exists() or _NAME.fullmatch(root.name):
        yield root
    elif depth:
        for entry in sorted(root.iterdir()):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _run_folders(entry, depth - 1)


# ---------------------------------------------------------------- writing


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _numbers(parts: Path) -> list[int]:
    """Numbers of the parts that are there, sorted."""
    if not parts.is_dir():
        return []
    return sorted(int(path.stem) for path in parts.glob("[0-9]*.parquet"))


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, what: str) -> Refused:
    return Refused(
        f"{path}: the run is damaged ({what})", "name another run, or move this one away"
    )
