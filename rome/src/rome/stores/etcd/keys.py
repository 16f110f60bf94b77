"""How a database lies in etcd: its keys, and ranges of them.

etcd's keys are bytes in one order, so a table, an index and a set are ranges of keys.  P is
`rome:database:`; a number is 8 bytes whose order is that of the numbers.

    P version                              version of the schema
    P s:<name of a table>                  its entry
    P n:<name>                             highest number handed out under a name, as a number
    P w:<table>                            token of the last commit that wrote the table
    P b:<table>                            changed by whoever builds an index of the table
    P r<table>:<number>                    row
    P u<table>.<index>:<bytes>             unique index: row number as text
    P i<table>.<index>:<bytes><number>     set index: nothing; a key for each row
    P o<table>.<index>:<member>            ordered index: nothing; members that are row numbers
                                           are written as numbers
    P h<table>:<number>                    who holds a row (holds.py); it has a
                                           lease, and goes with it
    P t:<token>                            outcome of a commit or a change of the schema; it has a
                                           lease, too

The bytes of the columns of one index are never the start of others' (each value tells its own
length), so the keys of one set follow each other without those of another between them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rome.stores.sort_bytes import number_in
from rome.stores.wire import IndexKey, RangeLookup

_OFFSET = 2**63
_NUMBER = 8  # bytes
# Row numbers reach to 2^53, so the first byte of one is 7f or 80; of other members, less than 40.
_NOT_A_MEMBER = 0x40


class Span(NamedTuple):
    """Keys from `start` up to `end`, which is none of them."""

    start: bytes
    end: bytes


def pack_number(number: int) -> bytes:
    """Return the bytes of an integer of 64 bits."""
    return (number + _OFFSET).to_bytes(_NUMBER, "big")


def unpack_number(data: bytes) -> int:
    """Return the integer of its bytes."""
    return int.from_bytes(data, "big") - _OFFSET


def number_of(text: IndexKey) -> int | None:
    """Return the row number that a key of a look-up is; None: no row has such a number."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -_OFFSET <= number < _OFFSET else None


def as_bytes(key: IndexKey) -> bytes:
    """Return a key as bytes."""
    return key.encode() if isinstance(key, str) else key


class Keys:
    """The keys of one database."""

    def __init__(self, database: str) -> None:
        self.prefix = b"rome:" + database.encode() + b":"
        self.version = self.prefix + b"version"

    def all(self) -> Span:
        """Return every key of the database."""
        return _starting_with(self.prefix)

    def entry(self, name: str) -> bytes:
        """Return the key of a table's entry in the schema."""
        return self.prefix + b"s:" + name.encode()

    def entries(self) -> Span:
        """Return the keys of all entries of the schema."""
        return _starting_with(self.prefix + b"s:")

    def counter(self, name: str) -> bytes:
        """Return the key of a counter of numbers."""
        return self.prefix + b"n:" + name.encode()

    def last_commit(self, table: int) -> bytes:
        """Return the key of the token of a table's last commit."""
        return b"%bw:%d" % (self.prefix, table)

    def build(self, table: int) -> bytes:
        """Return the key that the building of an index changes."""
        return b"%bb:%d" % (self.prefix, table)

    def token(self, token: str) -> bytes:
        """Return the key of the outcome of a commit."""
        return self.prefix + b"t:" + token.encode()

    def hold(self, table: int, number: int) -> bytes:
        """Return the key that names who holds a row."""
        return b"%bh%d:%b" % (self.prefix, table, pack_number(number))

    # ------------------------------------------------------------ rows and entries

    def rows(self, table: int) -> Span:
        """Return the keys of a table's rows."""
        return _starting_with(b"%br%d:" % (self.prefix, table))

    def row(self, table: int, number: int) -> bytes:
        """Return the key of a row."""
        return b"%br%d:%b" % (self.prefix, table, pack_number(number))

    def unique(self, table: int, index: int, data: bytes = b"") -> bytes:
        """Return the key of an entry of a unique index, or what all of them begin with."""
        return b"%bu%d.%d:%b" % (self.prefix, table, index, data)

    def set(self, table: int, index: int, data: bytes = b"") -> bytes:
        """Return what the keys of a set begin with, or those of all sets of an index."""
        return b"%bi%d.%d:%b" % (self.prefix, table, index, data)

    def member_of_set(self, table: int, index: int, data: bytes, number: int) -> bytes:
        """Return the key of a row in a set."""
        return self.set(table, index, data) + pack_number(number)

    def members_of_set(self, table: int, index: int, data: bytes) -> Span:
        """Return the keys of the rows of one set."""
        start = self.set(table, index, data)
        return Span(start + bytes(_NUMBER), start + b"\xff" * _NUMBER + b"\0")

    def order(self, table: int, index: int) -> bytes:
        """Return what the keys of an ordered index begin with."""
        return b"%bo%d.%d:" % (self.prefix, table, index)

    def place(self, table: int, index: int, member: IndexKey) -> bytes:
        """Return the key of a member of an ordered index."""
        data = as_bytes(member)
        if b"\0" not in data:  # that stands in each member but a row number
            data = pack_number(int(data))
        return self.order(table, index) + data

    def whole(self, kind: str, table: int, index: int) -> Span:
        """Return the keys of all entries of an index (`unique`, `set`, `order`), or of all rows."""
        if kind == "row":
            return self.rows(table)
        start = {"unique": self.unique, "set": self.set}.get(kind)
        return _starting_with(start(table, index) if start else self.order(table, index))

    def range(self, table: int, lookup: RangeLookup) -> Span:
        """Return the keys of an ordered index from one end of a look-up to the other."""
        everything = self.whole("order", table, lookup.index)
        start = self.order(table, lookup.index)
        if lookup.by_number:
            low, high = _lowest(as_bytes(lookup.low)), _highest(as_bytes(lookup.high))
            if low > high:
                return Span(start, start)
            return Span(start + pack_number(low), start + pack_number(high) + b"\0")
        low_end, high_end = as_bytes(lookup.low), as_bytes(lookup.high)
        first, last = everything
        if low_end != b"-":
            first = start + low_end[1:] + b"\0" * (low_end[:1] == b"(")
        if high_end != b"+":
            last = start + high_end[1:] + b"\0" * (high_end[:1] == b"[")
        return Span(first, last)


def member_in(rest: bytes) -> bytes:
    """Return a member of an ordered index from what its key has behind that of the index."""
    if len(rest) == _NUMBER and rest[0] >= _NOT_A_MEMBER:
        return b"%d" % unpack_number(rest)
    return rest


def row_number_in(rest: bytes) -> bytes:
    """Return the row number, as text, of such a member."""
    member = member_in(rest)
    return number_in(member) if b"\0" in member else member


def _starting_with(start: bytes) -> Span:
    """Return the keys that begin so; the last byte isn't ff."""
    return Span(start, start[:-1] + bytes([start[-1] + 1]))


def _lowest(end: bytes) -> int:
    """Return the first integer from the low end of a range on."""
    if end in (b"-inf", b"+inf"):
        return -_OFFSET if end == b"-inf" else _OFFSET - 1
    bound = _parsed(end.removeprefix(b"("))
    low = math.ceil(bound)
    low += end[:1] == b"(" and low == bound
    return min(max(low, -_OFFSET), _OFFSET - 1)


def _highest(end: bytes) -> int:
    """Return the last integer up to the high end of a range."""
    if end in (b"-inf", b"+inf"):
        return -_OFFSET if end == b"-inf" else _OFFSET - 1
    bound = _parsed(end.removeprefix(b"("))
    high = math.floor(bound)
    high -= end[:1] == b"(" and high == bound
    return min(max(high, -_OFFSET), _OFFSET - 1)


def _parsed(text: bytes) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if math.isinf(number):
        return _OFFSET * (2 if number > 0 else -2)
    return number
