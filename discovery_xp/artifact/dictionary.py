"""The data dictionary: every file of a run, every key of its record, every column with its unit.

It is made of the code that writes and checks runs, so that it can't say anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from discovery_xp.onhost.wire.series import METRICS
from discovery_xp.store import FILES, FOLDERS, TABLES, Column
from discovery_xp.store.words import COLUMN_WORDS, FILE_WORDS, RECORD_WORDS, TABLE_WORDS

NAME = "DATA-DICTIONARY.md"

_TIME = "s since 1970, UTC"
_UNITS = (("_bytes", "bytes"), ("_ms", "ms"), ("_s", "s"))
# Numbers of things, and numbers that name something.
_COUNTS = (
    "count",
    "round_trips",
    "packets",
    "published",
    "delivered",
    "acknowledged",
    "crossings",
    "all_crossings",
)
_NAMES = ("iteration", "pid", "port", "status")


def unit(column: Column) -> str:
    """Return the unit of a column, by what its name says; '1' of a number of things."""
    if column.type in ("string", "bool"):
        return ""
    if column.time == "moment":
        return _TIME
    if column.name.startswith("bytes"):
        return "bytes"
    for ending, name in _UNITS:
        if column.name.endswith(ending):
            return name
    if column.name in _COUNTS:
        return "1"
    if column.name in _NAMES:
        return ""
    if column.name == "value":
        return "its metric's"
    raise ValueError(f"column '{column.name}' says no unit")


def markdown() -> str:
    """Return the data dictionary as a page."""
    tables = [f"`{name}.parquet`" for name in TABLES]
    files = [("run.json", FILE_WORDS["run.json"])]
    files += [(name, FILE_WORDS[name]) for name in FILES]
    files += [(f"{name}/", FILE_WORDS[name]) for name in FOLDERS]
    parts = [
        "# Data dictionary\n",
        "A run is a folder, `records/EXPERIMENT/UTC-PLAN/`. Tables are Parquet files. Durations "
        "and moments are those of a clock: where `time_scale` of run.json isn't 1, divide "
        "durations by it. MB are 10^6 bytes. The load's own time is the *window*: tables of probes "
        "are about it. Tables of probes that were off are absent; rows of a run that was killed "
        "are in `TABLE.parts/NUMBER.parquet`.\n",
        "## Files of a run\n",
        _table(("File", "Holds"), [(f"`{name}`", words) for name, words in files]
               + list(zip(tables, (TABLE_WORDS[name] for name in TABLES), strict=True))),
        "## Keys of run.json\n",
        _table(("Key", "Is"), [(f"`{key}`", words) for key, words in RECORD_WORDS.items()]),
    ]  # fmt: skip
    for name, columns in TABLES.items():
        parts += [f"## {name}.parquet\n", f"{TABLE_WORDS[name].capitalize()}.\n"]
        parts.append(
            _table(
                ("Column", "Type", "Unit", "Is", "Values"),
                [
                    (
                        f"`{column.name}`",
                        column.type + " or null" * column.null,
                        unit(column),
                        COLUMN_WORDS[name][column.name],
                        ", ".join(f"`{value}`" for value in column.values if name != "series"),
                    )
                    for column in columns
                ],
            )
        )
    parts += [
        "## Metrics of series.parquet\n",
        "A counter grows from the start of its process on; a gauge is what is just now.\n",
        _table(
            ("Metric", "Kind", "Is"),
            [
                (f"`{name}`", "counter" if metric.is_counter else "gauge", metric.words)
                for name, metric in METRICS.items()
            ],
        ),
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
