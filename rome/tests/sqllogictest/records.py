"""The format of sqllogictest: a file as records.

Records are separated by blank lines; a line that starts with `#` is a comment.

    statement ok|error              the lines after it are one SQL statement
    query TYPES [SORT [LABEL]]      the lines after it are a query; after `----` its answer, one
                                    value per line, or `N values hashing to MD5`
    hash-threshold N                longer answers stand as hashes: each query's answer says so
    halt                            the rest of the file isn't run

`skipif DATABASE` and `onlyif DATABASE` lines before a record say where it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DATABASE = "sqlite"  # whose answers ROME's must equal

_HASH = re.compile(r"(\d+) values hashing to ([0-9a-f]{32})\Z")
_TYPES = re.compile(r"[ITR]+\Z")
_SORTS = ("nosort", "rowsort", "valuesort")


class FormatError(Exception):
    """A line that the format doesn't know."""


@dataclass(frozen=True)
class Statement:
    """SQL without an answer; `line` is where it starts, from 1."""

    line: int
    sql: str
    fails: bool


@dataclass(frozen=True)
class Query:
    """SQL with an answer: all of its values as text, or their count and MD5."""

    line: int
    sql: str
    types: str
    sort: str
    label: str
    values: tuple[str, ...] = ()
    hashed: tuple[int, str] | None = None


def parse(text: str) -> Iterator[Statement | Query]:
    """Yield the records of a file that are run for SQLite, up to a `halt`."""
    for first, lines in _blocks(text):
        place = 0
        applies = True
        while place < len(lines):
            word, _, name = _without_comment(lines[place]).partition(" ")
            if word not in ("skipif", "onlyif"):
                break
            applies = applies and (name.strip().lower() == DATABASE) == (word == "onlyif")
            place += 1
        if place == len(lines):
            raise FormatError(f"line {first}: a condition without a record")
        head = _without_comment(lines[place]).split()
        line, body = first + place, lines[place + 1 :]
        if not applies:
            continue
        if head == ["halt"]:
            return
        if head[0] == "hash-threshold":
            continue
        if head[0] == "statement" and head[1:] in (["ok"], ["error"]):
            yield Statement(line, "\n".join(body), head[1] == "error")
        elif head[0] == "query" and 2 <= len(head) <= 4 and "----" in body:
            yield _query(line, head[1:], body)
        else:
            raise FormatError(f"line {line}: {lines[place]}")


def _query(line: int, head: list[str], body: list[str]) -> Query:
    types, sort, label = (*head, *("nosort", "")[len(head) - 1 :])
    if not _TYPES.match(types) or sort not in _SORTS:
        raise FormatError(f"line {line}: query {' '.join(head)}")
    end = body.index("----")
    sql, answer = "\n".join(body[:end]), body[end + 1 :]
    hashed = _HASH.match(answer[0]) if len(answer) == 1 else None
    if hashed:
        return Query(line, sql, types, sort, label, hashed=(int(hashed[1]), hashed[2]))
    return Query(line, sql, types, sort, label, tuple(answer))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield runs of lines that aren't blank: the number of the first, and the lines.

    Comments between records are left out; within a statement `#` is no comment.
    """
    block: list[str] = []
    first = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if not line.strip():
            if block:
                yield first, block
            block = []
        elif block or not line.startswith("#"):
            if not block:
                first = number
            block.append(line.rstrip())


def _without_comment(line: str) -> str:
    return line.partition("#")[0].strip()
