"""How a row is written in the store: one string with every column's bytes at a known place.

    width (1 byte: 2 or 4) | columns (2 bytes) | where each column ends (width bytes each)
    | the header of a msgpack array (3 bytes) | the columns, each a msgpack value

Behind the offsets stands a plain msgpack array, so that a reader of all columns decodes
it in one step.  The offsets serve scripts in the store: they compare and replace a
column's bytes without decoding them, hence without changing any value.  The same value
always has the same bytes, which index entries rely on as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import msgpack

# What SQLite stores: NULL, INTEGER, REAL, TEXT, BLOB.
Value = None | int | float | str | bytes
NULL = b"\xc0"

_unpack = msgpack.unpackb
# One for all threads: it is done with a value before another thread can run.
_pack: Callable[[Value], bytes] = msgpack.Packer(use_bin_type=True).pack
_HEADERS = {2: "H", 4: "I"}


def encode(values: Sequence[Value]) -> bytes:
    """Return the string of a row."""
    return join([_pack(value) for value in values])


def pack_value(value: Value) -> bytes:
    """Return the bytes of one value; equal values of one storage class have equal bytes."""
    return _pack(value)


def join(parts: Sequence[bytes]) -> bytes:
    """Return a row from the bytes of its columns."""
    count = len(parts)
    ends = list(accumulate(map(len, parts)))
    width = 2 if not ends or ends[-1] < 65536 else 4
    return b"".join(
        (
            struct.pack(f">BH{count}{_HEADERS[width]}", width, count, *ends),
            b"\xdc",
            count.to_bytes(2, "big"),
            *parts,
        )
    )


def decode(row: bytes) -> list[Any]:
    """Return all values of a row."""
    values: list[Any] = _unpack(row[3 + row[0] * (row[1] << 8 | row[2]) :], raw=False)
    return values


def split(row: bytes) -> list[bytes]:
    """Return the bytes of each column."""
    width = row[0]
    count = row[1] << 8 | row[2]
    ends = struct.unpack_from(f">{count}{_HEADERS[width]}", row, 3)
    start = 3 + width * count + 3
    parts = []
    last = 0
    for end in ends:
        parts.append(row[start + last : start + end])
        last = end
    return parts


def unpack_value(data: bytes) -> Any:
    """Return one value from its bytes."""
    return _unpack(data, raw=False)


def unpack_values(data: bytes) -> list[Any]:
    """Return the values that stand one after the other."""
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(data)
    return list(unpacker)
