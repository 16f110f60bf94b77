"""A database as SQL."""

from __future__ import annotations

from collections.abc import Iterator

from rome.catalogue import Schema
from rome.rows import Value, decode
from rome.schema import Table, quote
from rome.stores.base import Store


def ordered(schema: Schema) -> list[Table]:
    """Tables, parents before their children where that can be; then views."""
    done: dict[str, Table] = {}
    waiting = [table for table in schema.tables.values() if not table.is_view]
    while waiting:
        ready = [
            table
            for table in waiting
            if all(
                foreign.parent.lower() in done or foreign.parent.lower() == table.name.lower()
                for foreign in table.foreign_keys
            )
        ] or waiting[:1]
        for table in ready:
            done[table.name.lower()] = table
        waiting = [table for table in waiting if table.name.lower() not in done]
    return [*done.values(), *(table for table in schema.tables.values() if table.is_view)]


def statements(store: Store, schema: Schema) -> Iterator[str]:
    """Everything, a statement each."""
    for table in ordered(schema):
        yield table.sql + ";"
        if table.is_view:
            continue
        for row in sorted(store.scan(table.number)):
            values = ",".join(map(literal, table.values(decode(row[1]))))
            yield f"INSERT INTO {quote(table.name)} VALUES({values});"
    for table in ordered(schema):
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
