"""The tables of a run: their columns, and what their cells may hold.

`checked` is what every row passes, on its way into a file and out of one: analysis sees
finite numbers in known ranges, text of bounded length in UTF-8, and no more different
sites, services or actions than a figure can show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from discovery_xp.onhost import catalogue
from discovery_xp.onhost.wire import load, probes, series, spans, verification
from discovery_xp.store import pages
from discovery_xp.store.files import damaged, read_bytes
from discovery_xp.text import shortened

if TYPE_CHECKING:
    import pyarrow as pa

# pyarrow is loaded by those who touch a table, not by those who import this.

# The greatest run so far, 500 VMs on 65 hosts, has 30,000 calls, 10,000 requests, and less than
# 1000 rows in its other tables.
MOST_ROWS = 200_000
MOST_ROWS_OF = dict.fromkeys(("calls", "requests", "spans", "series"), 2_000_000)
MOST_BYTES = 128 * 2**20  # of a file; packed
MOST_TEXT = 512 * 2**20  # bytes of text of a column
MOST_CHARACTERS = 10_000  # of a cell; a longer one is cut when it is written
MOST_NUMBER = 2**53  # either way: what a float holds exactly
# Of a file's footer: bytes of one thing in it, and how many there may be of one.  Columns in
# columns without an end would end the stack of who reads them.
_FOOTER_BYTES, _FOOTER_COUNT = 64 * 1024, 1024


@dataclass(frozen=True)
class Column:
    """A column: `type` as Arrow names it.

    `values`, where not empty, are all it may hold; `most` is how many different ones, 0
    where that doesn't matter.  `time` says what a time scale does to it: a 'moment' comes later,
    a 'duration' takes longer; seconds of a processor are as many with any.
    """

    name: str
    type: Literal["string", "float64", "int64", "bool"]
    null: bool = False
    values: tuple[str, ...] = ()
    most: int = 0
    time: Literal["", "moment", "duration"] = ""


# Columns that are times of a clock; all tables have the same names for them.
_TIMES: Mapping[str, Literal["moment", "duration"]] = {
    **dict.fromkeys(
        ("at", "requested_at", "accepted_at", "active_at", "seen_at", "deleted_at", "started_at"),
        "moment",
    ),
    **dict.fromkeys(("boot_duration_s", "duration_s", "duration_ms", "queued_ms"), "duration"),
}
# Columns that tables and figures have a row or a bar for each value of.
_MOST = {
    **dict.fromkeys(("service", "site", "peer_site", "host_site", "region", "action"), 1000),
    "function": 5000,
}


def _columns(type_: Literal["string", "float64", "int64", "bool"], names: str) -> list[Column]:
    """Return a column for each word of `names`; a '?' after it allows nulls."""
    return [
        Column(name, type_, word.endswith("?"), most=_MOST.get(name, 0), time=_TIMES.get(name, ""))
        for word in names.split()
        for name in [word.rstrip("?")]
    ]


_PLACE = [*_columns("string", "service host site")]

# What a boot's time goes to.  "waiting": for the processor, an interpreter's or another lock;
# "queue": for a thread that is free.
ACTIVITIES = ("processor", "waiting", "queue", "database", "cache", "http", "bus")

# Every table, its columns in order.  The probe that fills a table has the table's name.
TABLES: Mapping[str, tuple[Column, ...]] = {
    "vms": (
        *_columns("string", "name server_id? region site"),
        *_columns("float64", "requested_at accepted_at? active_at? seen_at?"),
        Column("status", "string", values=load.STATUSES),
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
        Column("api", "string", values=probes.APIS),
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
        Column("kind", "string", values=probes.ALL_KINDS),
        *_columns("int64", "count round_trips bytes_sent bytes_received"),
        *_columns("float64", "duration_ms"),
    ),
    "spans": (
        *_columns("float64", "at"),
        *_PLACE,
        Column("kind", "string", values=spans.KINDS),
        *_columns("string", "name peer? peer_site? trace? span parent? link? server_id?"),
        *_columns("float64", "duration_ms cpu_ms queued_ms"),
        *_columns("int64", "count round_trips"),
        *_columns("string", "error?"),
    ),
    "traffic": (
        *_columns("string", "host site peer peer_site"),
        Column("direction", "string", values=("out",)),
        *_columns("int64", "port"),
        Column("service", "string",
               values=(*dict.fromkeys(catalogue.TRAFFIC.values()), catalogue.OTHER_TRAFFIC)),
        *_columns("int64", "bytes packets"),
    ),
    "messages": (*_columns("string", "queue"),
                 *_columns("int64", "published delivered acknowledged")),
    "usage": (
        *_PLACE,
        *_columns("float64", "cpu_s"),
        *_columns("int64", "memory_bytes memory_start_bytes"),
    ),
    "series": (
        *_columns("float64", "at"),
        *_columns("string", "host site"),
        # A queue is a subject, too, and there may be three for each host.
        Column("service", "string", most=5000),
        Column("metric", "string", values=tuple(series.METRICS)),
        *_columns("float64", "value"),
    ),
    # What a condensed run keeps of its spans: sums over each boot's critical path, and over all.
    "boots": (
        *_columns("string", "vm server_id site host_site"),
        *_columns("float64", "path_s wan_wait_s"),
        *_columns("int64", "all_crossings"),
    ),
    "boot_parts": (
        *_columns("string", "vm"),
        Column("activity", "string", values=ACTIVITIES),
        *_columns("string", "one_site? other_site?"),
        *_columns("float64", "spent_s"),
        *_columns("int64", "crossings"),
    ),
    "boot_steps": (
        *_columns("string", "service kind step"),
        *_columns("float64", "spent_s"),
        *_columns("int64", "crossings"),
    ),
    "verdicts": (
        *_columns("string", "test"),
        Column("service", "string", values=verification.SERVICES),
        Column("status", "string", values=verification.STATUSES),
        *_columns("string", "reason?"),
        *_columns("float64", "duration_s?"),
        *_columns("string", "traceback?"),
    ),
}  # fmt: skip


ALWAYS = ("vms", "actions")  # tables of the load itself
VERDICTS = ("verdicts",)  # of a verification, which has no load
CONDENSED = ("boots", "boot_parts", "boot_steps")  # in the place of most spans
PROBES = tuple(name for name in TABLES if name not in (*ALWAYS, *VERDICTS, *CONDENSED))


@functools.cache
def schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a table."""
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


def checked(table: str, rows: Rows | pa.Table) -> pa.Table:
    """Return rows as a table of its schema; raises ValueError where they don't fit it.

    Text of mappings is made to fit: cut to MOST_CHARACTERS, and what UTF-8 can't say
    becomes a question mark.
    """
    import pyarrow as pa

    names = [column.name for column in TABLES[table]]
    if not isinstance(rows, pa.Table):
        listed = [{name: _fitting(value) for name, value in row.items()} for row in rows]
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
        raise ValueError(f"table '{table}': it lacks, or has too many: {shortened(str(wrong))}")
    require_rows(table, rows.num_rows)
    try:
        rows = rows.select(names).cast(
            pa.schema([each.with_nullable(True) for each in schema(table)])
        )
        for column in TABLES[table]:
            _check_cells(table, column, rows.column(column.name))
        return rows.cast(schema(table))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ValueError(f"table '{table}': {error}") from None


def require_rows(table: str, count: int) -> None:
    """Raise ValueError if a table can't have so many rows."""
    if count > (most := MOST_ROWS_OF.get(table, MOST_ROWS)):
        raise ValueError(f"table '{table}': {count} rows, more than {most}")


def _fitting(value: Any) -> Any:
    if not isinstance(value, str) or (len(value) <= MOST_CHARACTERS and value.isascii()):
        return value
    return value[:MOST_CHARACTERS].encode(errors="replace").decode()


def _check_cells(table: str, column: Column, cells: pa.ChunkedArray) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    place = f"table '{table}': column '{column.name}'"
    if not column.null and cells.null_count:
        raise ValueError(f"{place} has nulls")
    if column.type in ("float64", "int64"):
        least, most = (pc.min_max(cells)[key].as_py() or 0 for key in ("min", "max"))
        for value in (least, most):
            if not -MOST_NUMBER <= value <= MOST_NUMBER:
                raise ValueError(f"{place} holds {value:g}, which can't have been measured")
        if column.type == "float64" and pc.any(pc.is_nan(cells)).as_py():
            raise ValueError(f"{place} holds what is not a number")
    elif column.type == "string":
        longest = pc.max(pc.utf8_length(cells)).as_py() or 0
        if longest > MOST_CHARACTERS:
            raise ValueError(f"{place} holds a text of {longest} characters")
    if column.values:
        is_allowed = pc.is_in(cells, value_set=pa.array(column.values, cells.type))
        if not pc.all(is_allowed, min_count=0).as_py():
            value = shortened(str(cells.filter(pc.invert(is_allowed))[0].as_py()))
            raise ValueError(f"table '{table}': '{value}' is not a value of column '{column.name}'")
    elif column.most and (count := pc.count_distinct(cells).as_py()) > column.most:
        raise ValueError(f"{place} holds {count} different values, more than {column.most}")


# ---------------------------------------------------------------- files of tables


# What pyarrow raises of files that are none, besides its own errors.
_FAILURES = (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_table(table: str, path: Path) -> pa.Table:
    """Return the rows of a Parquet file, checked.

    Raises FileNotFoundError where there is none, Refused where it isn't a file, is damaged,
    doesn't fit the table, or unpacks to more than a run can have.
    """
    import pyarrow as pa

    data = read_bytes(path, MOST_BYTES)
    try:
        return checked(table, _unpacked(table, data))
    except (pa.ArrowException, *_FAILURES) as error:
        raise damaged(path, _first_line(error)) from None


def read_note(path: Path, key: bytes) -> bytes | None:
    """Return what a Parquet file's metadata say under a key, None without file or key."""
    import pyarrow as pa

    try:
        data = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        notes: Mapping[bytes, bytes] = _opened(data).metadata.metadata or {}
        return notes.get(key)
    except (pa.ArrowException, *_FAILURES) as error:
        raise damaged(path, _first_line(error)) from None


def _opened(data: bytes, text: list[str] | None = None) -> Any:
    """Return a ParquetFile of bytes; columns of `text` are kept as Parquet has them, each once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        pa.BufferReader(data),
        read_dictionary=text,
        pre_buffer=False,
        thrift_string_size_limit=_FOOTER_BYTES,
        thrift_container_size_limit=_FOOTER_COUNT,
    )


_PHYSICAL = {"string": "BYTE_ARRAY", "float64": "DOUBLE", "int64": "INT64", "bool": "BOOLEAN"}


def _unpacked(table: str, data: bytes) -> pa.Table:
    """Return the rows of a Parquet file after its sizes have been looked at, in this order.

    The footer's numbers, the headers of the pages, the texts, each once: nothing is
    unpacked or repeated before it is known to what size.
    """
    import pyarrow.compute as pc

    columns = {column.name: column for column in TABLES[table]}
    text = [name for name, column in columns.items() if column.type == "string"]
    metadata = _opened(data).metadata
    require_rows(table, metadata.num_rows)
    stored = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    names = [column.path for column in stored]
    if sorted(names) != sorted(columns):
        wrong = sorted(set(names) ^ columns.keys()) or names
        raise ValueError(f"table '{table}': it lacks, or has too many: {shortened(str(wrong))}")
    for column in stored:
        expected = _PHYSICAL[columns[column.path].type]
        if column.physical_type != expected or column.max_repetition_level:
            raise ValueError(
                f"table '{table}': column '{column.path}' holds {column.physical_type}, "
                f"not {expected}"
            )
    pages.require_bounded(data, list(_chunks(metadata)))
    rows = _opened(data, text).read(use_threads=False).replace_schema_metadata(None)
    rows.validate(full=True)  # UTF-8, too
    for name in text:
        size = 0
        for chunk in rows.column(name).chunks:
            values = getattr(chunk, "dictionary", chunk)
            lengths = pc.fill_null(pc.binary_length(values), 0)
            if len(lengths) and pc.max(lengths).as_py() > 4 * MOST_CHARACTERS:
                raise ValueError(f"table '{table}': column '{name}' holds too long a text")
            if values is not chunk:
                lengths = lengths.take(chunk.indices)
            size += pc.sum(lengths, min_count=0).as_py() or 0
        if size > MOST_TEXT:
            raise ValueError(f"table '{table}': column '{name}' holds more than {MOST_TEXT} bytes")
    return rows


def _chunks(metadata: Any) -> Iterable[pages.Chunk]:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if any(group.num_rows < 0 for group in groups) or (
        sum(group.num_rows for group in groups) != metadata.num_rows
    ):
        raise ValueError("the rows of its groups aren't as many as its rows")
    for group in groups:
        if not group.num_rows:
            continue  # nothing of it is read, and its offsets may be anything
        for column in (group.column(i) for i in range(group.num_columns)):
            start, dictionary = column.data_page_offset, column.dictionary_page_offset
            if dictionary is not None and 0 < dictionary < start:
                start = dictionary
            yield pages.Chunk(start, column.total_compressed_size, group.num_rows)
