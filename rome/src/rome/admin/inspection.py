"""How many rows a database has, and how much memory it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rome.schema.catalogue import Catalogue
from rome.stores.base import ServerStore


@dataclass
class TableUsage:
    """One table: rows, and bytes of rows and of index entries."""

    name: str
    rows: int
    row_bytes: int = 0
    unique_bytes: int = 0
    set_bytes: int = 0
    ordered_bytes: int = 0


@dataclass
class Usage:
    """A whole database; `other_bytes`: schema, counters, tokens, leftovers."""

    schema_version: str
    tables: list[TableUsage]
    other_bytes: int
    total_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def inspect(store: ServerStore, catalogue: Catalogue) -> Usage:
    """Return what is there now; writers may go on."""
    schema = catalogue.load(store)
    tables_here = [table for table in schema.tables.values() if not table.is_view]
    heads = store.heads([table.number for table in tables_here])
    by_number = {
        table.number: TableUsage(table.name, head.rows)
        for table, head in zip(tables_here, heads, strict=True)
    }
    other = total = 0
    for area, table, size in store.usage():
        total += size
        usage = by_number.get(table) if area != "other" else None
        if usage is None:
            other += size
        elif area == "row":
            usage.row_bytes += size
        elif area == "unique":
            usage.unique_bytes += size
        elif area == "order":
            usage.ordered_bytes += size
        else:
            usage.set_bytes += size
    tables = sorted(by_number.values(), key=lambda usage: usage.name)
    return Usage(schema.version, tables, other, total)
