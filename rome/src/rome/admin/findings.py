"""What a check has found, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from rome.schema.catalogue import Schema
from rome.schema.tables import Index, OrderedIndex, Table

_REPAIRABLE = ("missing", "gone", "other")

_ORDER_WORDS = {
    "missing": "row {} isn't in it",
    "gone": "an entry leads to row {}, which doesn't exist",
    "other": "an entry leads to row {}, which has another place",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong, in one line; `repaired`: it no longer is."""

    text: str
    repaired: bool = False


class Findings:
    """Tells the findings of scripts, each once: HSCAN and ZSCAN may come by twice."""

    def __init__(self, schema: Schema, repair: bool) -> None:
        self._schema = schema
        self._repair = repair
        self._seen: set[tuple[Any, ...]] = set()

    def is_new(self, *finding: Any) -> bool:
        """Add a finding; return whether it is new."""
        if finding in self._seen:
            return False
        self._seen.add(finding)
        return True

    def tell(
        self, kind: bytes, number: int, place: int, row: bytes, data: bytes
    ) -> Iterator[Finding]:
        """Yield a finding of a script, once."""
        if not self.is_new(kind, number, place, row, data):
            return
        table = self._schema.by_number(number)
        if table is None:
            return
        problem = kind.decode()
        n = row.decode(errors="replace")
        repaired = self._repair and problem in _REPAIRABLE
        if problem == "unreadable":
            text = f"{table.name}: row {n} can't be read"
        elif problem == "number":
            text = f"{table.name}: row {n} holds another number as its key"
        elif problem == "null":
            text = f"{table.name}: row {n} has NULL in {table.names([place])[0]}, against NOT NULL"
        elif problem == "orphan":
            foreign = table.foreign_keys[place]
            names = ", ".join(table.names(foreign.slots))
            text = (
                f"{table.name} ({names}): row {n} refers to {_shown(data)},"
                f" which {foreign.parent} doesn't have"
            )
        else:
            index = next(i for i in table.all_indexes if i.number == place)
            name = index_name(table, index)
            if isinstance(index, OrderedIndex):
                yield Finding(f"order of {name}: {_ORDER_WORDS[problem].format(n)}", repaired)
                return
            text = {
                "missing": f"{name}: row {n} isn't found by {_shown(data)}",
                "twice": f"{name}: row {n} has {_shown(data)}, as another row has",
                "gone": f"{name}: {_shown(data)} leads to row {n}, which doesn't exist",
                "other": f"{name}: {_shown(data)} leads to row {n}, which has another value",
            }[problem]
        yield Finding(text, repaired)


def index_name(table: Table, index: Index | OrderedIndex) -> str:
    """Name an index by its columns."""
    return f"{table.name} ({', '.join(table.names(index.slots))})"


def _shown(data: bytes) -> str:
    """Return the values of a key, not too long."""
    try:
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(data)
        text = ", ".join(map(repr, unpacker))
    except Exception:  # whatever the bytes may be
        text = data.hex()
    return text if len(text) <= 60 else text[:57] + "..."
