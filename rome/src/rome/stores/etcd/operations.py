"""What a request to etcd consists of: ranges, puts, deletes, comparisons; and its JSON.

etcd's gateway takes each message of its gRPC interface as JSON: bytes in base64, integers of 64
bits as text.  What has its default value isn't there in an answer.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rome.stores.etcd.keys import Span

Json = dict[str, Any]
Target = Literal["VALUE", "MOD", "VERSION"]
Outcome = Literal["EQUAL", "GREATER", "LESS"]


class KeyValue(NamedTuple):
    """A key, its value, and the revision that wrote it last."""

    key: bytes
    value: bytes
    revision: int


class Found(NamedTuple):
    """What a range has: keys, as many as were asked for, and how many there are."""

    pairs: list[KeyValue]
    total: int


@dataclass(frozen=True, slots=True)
class Range:
    """A question for a key, or for the keys up to `end`; limit 0: for all of them.

    In descending order etcd reads the whole range before it cuts it at the limit.
    """

    key: bytes
    end: bytes = b""
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False
    descending: bool = False

    @classmethod
    def of(cls, span: Span, limit: int = 0, keys_only: bool = False) -> Range:
        """Return the question for a span of keys."""
        return cls(span.start, span.end, limit, keys_only)

    @classmethod
    def count(cls, span: Span) -> Range:
        """Return the question how many keys a span has."""
        return cls(span.start, span.end, count_only=True)

    def packed(self, revision: int = 0, serializable: bool = False) -> Json:
        """Return it as JSON: as of a revision (0: the latest); serializable: as the member has it
        that is asked."""
        request: Json = {"key": _text(self.key)}
        if self.end:
            request["range_end"] = _text(self.end)
        if self.limit:
            request["limit"] = self.limit
        if revision:
            request["revision"] = str(revision)
        if serializable:
            request["serializable"] = True
        if self.keys_only:
            request["keys_only"] = True
        if self.count_only:
            request["count_only"] = True
        if self.descending:
            request["sort_order"], request["sort_target"] = "DESCEND", "KEY"
        return {"request_range": request}


@dataclass(frozen=True, slots=True)
class Put:
    """A key that gets a value, and perhaps a lease."""

    key: bytes
    value: bytes
    lease: int = 0

    def packed(self) -> Json:
        """Return it as JSON."""
        request: Json = {"key": _text(self.key), "value": _text(self.value)}
        if self.lease:
            request["lease"] = str(self.lease)
        return {"request_put": request}


@dataclass(frozen=True, slots=True)
class Delete:
    """A key that goes, or the keys up to `end`."""

    key: bytes
    end: bytes = b""

    def packed(self) -> Json:
        """Return it as JSON."""
        request: Json = {"key": _text(self.key)}
        if self.end:
            request["range_end"] = _text(self.end)
        return {"request_delete_range": request}


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on a key, or on each key up to `end`: on its value (bytes), the revision that
    wrote it (MOD), or how often it was written (VERSION).

    A key that isn't there has the revision and the version 0, and no value.  So has a range
    without any key.
    """

    key: bytes
    target: Target
    operand: bytes | int
    outcome: Outcome = "EQUAL"
    end: bytes = b""

    def packed(self) -> Json:
        """Return it as JSON."""
        comparison: Json = {
            "key": _text(self.key),
            "target": self.target,
            "result": self.outcome,
        }
        if self.end:
            comparison["range_end"] = _text(self.end)
        if isinstance(self.operand, bytes):
            comparison["value"] = _text(self.operand)
        else:
            field = "mod_revision" if self.target == "MOD" else "version"
            comparison[field] = str(self.operand)
        return comparison


def is_there(key: bytes, end: bytes = b"") -> Compare:
    """Return the condition that a key is there, or any key of a range."""
    return Compare(key, "VERSION", 0, "GREATER", end)


def is_absent(key: bytes, end: bytes = b"") -> Compare:
    """Return the condition that a key isn't there, or no key of a range."""
    return Compare(key, "VERSION", 0, end=end)


def has_value(key: bytes, value: bytes) -> Compare:
    """Return the condition that a key has a value."""
    return Compare(key, "VALUE", value)


def is_as_read(key: bytes, revision: int) -> Compare:
    """Return the condition that nobody has written a key since it was read (0: it wasn't there)."""
    return Compare(key, "MOD", revision)


def is_unchanged(key: bytes, revision: int) -> Compare:
    """Return the condition that nobody has written a key after a revision; it may be gone."""
    return Compare(key, "MOD", revision + 1, "LESS")


@dataclass(frozen=True, slots=True)
class Txn:
    """A transaction: if all conditions hold, one list is done, else the other."""

    conditions: Sequence[Compare] = ()
    then: Sequence[Put | Delete | Txn] = ()
    otherwise: Sequence[Put | Delete | Range] = ()

    def packed(self) -> Json:
        """Return it as JSON, as one operation of another transaction."""
        return {"request_txn": self.request()}

    def request(self) -> Json:
        """Return it as JSON, as a request."""
        return {
            "compare": [condition.packed() for condition in self.conditions],
            "success": [operation.packed() for operation in self.then],
            "failure": [operation.packed() for operation in self.otherwise],
        }


def unpack_ranges(responses: Iterable[Mapping[str, Any]]) -> list[Found]:
    """Return what the ranges of a transaction have found."""
    return [unpack_range(response.get("response_range", {})) for response in responses]


def unpack_range(response: Mapping[str, Any]) -> Found:
    """Return what a range has found."""
    pairs = [
        KeyValue(
            b64decode(pair["key"]),
            b64decode(pair.get("value", "")),
            int(pair.get("mod_revision", 0)),
        )
        for pair in response.get("kvs", ())
    ]
    return Found(pairs, int(response.get("count", 0)))


def _text(data: bytes) -> str:
    return b64encode(data).decode()
