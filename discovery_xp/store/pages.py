"""How much a Parquet file unpacks to, known before anything of it is unpacked.

The footer's own sizes are only a claim, and a page of some hundred bytes can unpack to two
gigabytes; what a reader allocates is what each page's header says.  The headers (Thrift's
compact protocol; `parquet.thrift` of the Parquet format) stand before the pages, unpacked,
and are read here one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_PAGES = 20_000
MOST_BYTES = 512 * 2**20

# Encodings whose values take no more room than the page unpacks to.  Those that build a text
# from the one before it (DELTA_BYTE_ARRAY) can make a terabyte from a megabyte.
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
_ENCODINGS = frozenset({_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY})

# Thrift's compact types.
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(
    13
)
_MOST_DEPTH = 8


class PagesError(ValueError):
    """The pages aren't what they should be; the message says how."""


@dataclass(frozen=True)
class Chunk:
    """Where a column of a row group lies in the file, and how many rows it has."""

    start: int
    length: int
    rows: int


def require_bounded(data: bytes, chunks: list[Chunk]) -> None:
    """Raise PagesError if the pages of `chunks` unpack to more than MOST_BYTES, or are odd."""
    pages = unpacked = 0
    for chunk in chunks:
        position, end, values = chunk.start, chunk.start + chunk.length, 0
        if not 0 <= position <= end <= len(data):
            raise PagesError("a column lies outside of the file")
        while position < end:
            header = _Header(data, position, end)
            position = header.end + header.packed
            pages += 1
            unpacked += header.unpacked
            values += header.values
            if position > end:
                raise PagesError("a page is longer than its column")
            if pages > MOST_PAGES:
                raise PagesError(f"more than {MOST_PAGES} pages")
            if unpacked > MOST_BYTES:
                raise PagesError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
            if values > chunk.rows:
                raise PagesError("a column has more values than rows")


class _Header:
    """A PageHeader: where it ends, what its page takes packed and unpacked, its values."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data, self._limit, self.end = data, end, position
        fields = self._struct(0)
        self.unpacked, self.packed = self._number(fields, 2), self._number(fields, 3)
        # Data pages of both versions hold rows' values; a dictionary's aren't rows.
        self.values = 0
        for field, encoding in ((5, 2), (7, 2), (8, 4)):
            page = fields.get(field)
            if isinstance(page, dict):
                if self._number(page, encoding) not in _ENCODINGS:
                    raise PagesError("a page has an encoding that runs aren't written with")
                self.values += 0 if field == 7 else self._number(page, 1)

    @staticmethod
    def _number(fields: dict[int, object], field: int) -> int:
        value = fields.get(field)
        if not isinstance(value, int) or value < 0:
            raise PagesError("a page's header says no size")
        return value

    def _byte(self) -> int:
        if self.end >= self._limit:
            raise PagesError("a page's header is cut off")
        self.end += 1
        return self._data[self.end - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7
            if shift > 63:
                raise PagesError("a page's header holds no number where one should be")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _struct(self, depth: int) -> dict[int, object]:
        """Fields by their number; only numbers and structures of numbers are kept."""
        if depth > _MOST_DEPTH:
            raise PagesError("a page's header is nested too deep")
        fields: dict[int, object] = {}
        number = 0
        while kind := self._byte():
            delta, kind = kind >> 4, kind & 0x0F
            number = number + delta if delta else self._signed()
            if number in fields:  # readers differ in which of two they take
                raise PagesError("a page's header says a thing twice")
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind == _DOUBLE:
            self._skip(8)
            return None
        if kind == _BINARY:  # statistics: the least and the most value
            self._skip(self._varint())
            return None
        raise PagesError("a page's header holds what none has")

    def _skip(self, count: int) -> None:
        self.end += count
        if self.end > self._limit:
            raise PagesError("a page's header is cut off")
