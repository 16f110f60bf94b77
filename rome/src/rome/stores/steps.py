"""What stores do alike, in Python, with the steps of a read (wire.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rome.stores.rows import NULL, join, split, unpack_value
from rome.stores.wire import IndexKey, JoinLookup

# Bytes of columns that rows older than them lack, by slot.
Defaults = Mapping[int, bytes]
# The rows that a step found, and the defaults of their table.
Found = tuple[list[bytes], Defaults]


def column(row: bytes, slot: int, defaults: Defaults) -> bytes:
    """Return the bytes of one column of a row."""
    width, count = row[0], row[1] << 8 | row[2]
    if slot >= count:
        return defaults.get(slot, NULL)
    base, at = 6 + width * count, 3 + width * slot
    first = int.from_bytes(row[at - width : at], "big") if slot else 0
    return row[base + first : base + int.from_bytes(row[at : at + width], "big")]


def join_keys(lookup: JoinLookup, results: Sequence[Found]) -> list[IndexKey]:
    """Return the keys of a look-up by the rows of an earlier step."""
    rows, defaults = results[lookup.step]
    keys: dict[IndexKey, None] = {}
    for row in rows:
        parts = [column(row, slot, defaults) for slot in lookup.slots]
        if NULL in parts:
            continue
        if lookup.kind == "row":
            number = unpack_value(parts[0])
            if isinstance(number, int):
                keys[str(number)] = None
        else:
            keys[b"".join(parts)] = None
    keys.update(dict.fromkeys(lookup.keys))
    return list(keys)


def part(row: bytes, columns: Sequence[int], defaults: Defaults) -> bytes:
    """Return just these columns of a row, as a msgpack array."""
    parts = [column(row, slot, defaults) for slot in columns]
    return b"\xdc" + len(parts).to_bytes(2, "big") + b"".join(parts)


def changed_row(row: bytes, write: Mapping[str, Any]) -> bytes | None:
    """Return what an update of a commit (base.py) makes of a row, or a delete that goes: the row
    itself.  None: the row isn't what the write relies on."""
    parts = split(row)
    defaults: Defaults = dict(write["defaults"])
    for slot, data in write["checks"]:
        if (parts[slot] if slot < len(parts) else defaults.get(slot, NULL)) != data:
            return None
    if write["op"] == "delete":
        return row
    for slot in range(len(parts), write["width"]):
        parts.append(defaults.get(slot, NULL))
    for slot, data in write["deltas"]:
        parts[slot] = data
    return join(parts)
