"""Values as bytes whose order is SQLite's order of the values.

NULL comes before numbers, numbers before text, text before blobs.  Integers and doubles
compare by value, text and blobs byte by byte.  The bytes of one value are never the start
of another's that is followed by anything an entry can hold, so the bytes of several values,
one after another, have the order of the values as a tuple.

    NULL        05
    a number    10 | the double next to it, so that bytes compare as numbers (8 bytes)
                | how far an integer lies from that double, if it is 2^53 or more (2 bytes)
    text        20 | UTF-8, with 00 written as 00 FF | 00
    a blob      30 | the bytes, with 00 written as 00 FF | 00

An entry of an ordered index is the bytes of its columns, 00, and the row number as text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

_DOUBLE = struct.Struct(">d")
_WORD = struct.Struct(">Q")
_EXACT = 2.0**53  # doubles below it are next to no other integer
_ALL = 2**64 - 1
_SIGN = 1 << 63
NULL = b"\x05"
# Greater than whatever follows a value's bytes in an entry.
AFTER = b"\xff"


def sort_bytes(value: Any) -> bytes:
    """Give the bytes of one value (None, int within 64 bits, float but NaN, str, bytes)."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return b"\x20" + value.encode().replace(b"\0", b"\0\xff") + b"\0"
    if isinstance(value, bytes):
        return b"\x30" + value.replace(b"\0", b"\0\xff") + b"\0"
    near = float(value) + 0.0  # -0.0 is 0.0
    (word,) = _WORD.unpack(_DOUBLE.pack(near))
    data = b"\x10" + _WORD.pack(word ^ (_ALL if word & _SIGN else _SIGN))
    if abs(near) < _EXACT:
        return data
    rest = value - int(near) if isinstance(value, int) else 0
    return data + (0x8000 + rest).to_bytes(2, "big")


def entry(values: Iterable[Any], number: int) -> bytes:
    """Give the entry of an ordered index for a row."""
    return b"".join(map(sort_bytes, values)) + b"\0%d" % number


def number_in(data: bytes) -> bytes:
    """Give the row number of an entry, as text."""
    return data[data.rindex(b"\0") + 1 :]
