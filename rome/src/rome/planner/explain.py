"""Plans in words: the steps of a read with the names of a schema, in database engines' terms."""

from __future__ import annotations

from collections.abc import Sequence

from rome.schema.catalogue import Schema
from rome.schema.tables import Table
from rome.stores.rows import unpack_value
from rome.stores.wire import Step

_LONGEST = 40  # characters of a value


class SchemaNames:
    """The names of a schema's tables, columns and indexes (`Names` of wire.py)."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def table(self, table: int) -> str:
        """Name a table."""
        return self._table(table).name

    def column(self, table: int, slot: int) -> str:
        """Name a column."""
        return self._table(table).names([slot])[0]

    def index(self, table: int, index: int) -> str:
        """Name the columns of an index, separated by commas."""
        table_of_index = self._table(table)
        slots = next(one.slots for one in table_of_index.all_indexes if one.number == index)
        return ", ".join(table_of_index.names(slots))

    def value(self, data: bytes) -> str:
        """Write a packed value as SQL does."""
        value = unpack_value(data)
        if value is None:
            return "NULL"
        text = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

    def bound(self, end: str | bytes) -> str:
        """Write one end of a range: a number, or whether there is any bound."""
        if end in ("-inf", "+inf", b"-", b"+"):
            return "the first" if end in ("-inf", b"-") else "the last"
        if isinstance(end, str):
            return end.replace("(", "beyond ", 1)
        return "a bound"

    def _table(self, number: int) -> Table:
        table = self._schema.by_number(number)
        if table is None:
            raise LookupError(f"no table has number {number}")
        return table


def describe_steps(steps: Sequence[Step], schema: Schema) -> list[str]:
    """Write the steps of a read in lines: a number and the access path, then, indented, what is
    pushed down and what comes back."""
    names = SchemaNames(schema)
    lines = []
    for number, step in enumerate(steps, 1):
        path, *details = step.describe(names)
        lines.append(f"step {number}: {path}")
        lines += [f"  {detail}" for detail in details]
    return lines
