"""A database as SQL."""

from __future__ import annotations

from collections.abc import Iterator

from rome.schema.catalogue import Schema
from rome.schema.tables import Table, fold, quote
from rome.stores.base import Store
from rome.stores.rows import Value, decode


def ordered(schema: Schema) -> list[Table]:
    """Return tables as they were made, but parents before their children where that can be; then
    views by name."""
    done: dict[str, Table] = {}
    everything = sorted(schema.tables.values(), key=lambda table: (table.number, table.name))
    waiting = [table for table in everything if not table.is_view]
    while waiting:
        ready = [
            table
            for table in waiting
            if all(
                fold(foreign.parent) in done or fold(foreign.parent) == fold(table.name)
                for foreign in table.foreign_keys
            )
        ] or waiting[:1]
        for table in ready:
            done[fold(table.name)] = table
        waiting = [table for table in waiting if fold(table.name) not in done]
    return [*done.values(), *(table for table in everything if table.is_view)]


def statements(store: Store, schema: Schema) -> Iterator[str]:
    """Yield everything, a statement each; small tables are read together."""
    tables = ordered(schema)
    pages = store.scan_all([table.number for table in tables if not table.is_view])
    page = next(pages, None)
    for table in tables:
        yield table.sql + ";"
        rows: dict[int, bytes] = {}
        while page is not None and page[0] == table.number and not table.is_view:
            rows.update(page[1])
            page = next(pages, None)
        for number in sorted(rows):
            values = ",".join(map(literal, table.values(decode(rows[number]))))
            yield f"INSERT INTO {quote(table.name)} VALUES({values});"
    for table in tables:
        for sql in table.index_sql.values():
            yield sql + ";"


def literal(value: Value) -> str:
    """A value in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")):
            return "9e999" if value > 0 else "-9e999"
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if "\0" in value:
        return f"CAST(X'{value.encode().hex()}' AS TEXT)"
    return "'" + value.replace("'", "''") + "'"
