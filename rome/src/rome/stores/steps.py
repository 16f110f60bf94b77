"""What stores do alike, in Python, with the steps of a read (wire.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rome.stores.rows import NULL, split, unpack_value
from rome.stores.wire import IndexKey, JoinLookup

# Bytes of columns that rows older than them lack, by slot.
Defaults = Mapping[int, bytes]
# The rows that a step found, and the defaults of their table.
Found = tuple[list[bytes], Defaults]


def column(row: bytes, slot: int, defaults: Defaults) -> bytes:
    """Return the bytes of one column of a row."""
    parts = split(row)
    return parts[slot] if slot < len(parts) else defaults.get(slot, NULL)


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
