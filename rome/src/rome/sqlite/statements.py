"""SQL as text: where a statement begins and ends, and its first word."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw

from rome.errors import ProgrammingError

_COMMENTS = re.compile(r"\A(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.S)
_WORD = re.compile(r"[A-Za-z]+")


def bare(sql: str) -> str:
    """Return a statement without the blanks and comments before it."""
    return _COMMENTS.sub("", sql, count=1)


def first_word(sql: str) -> str:
    """Return the first keyword of a statement, in capitals; empty if there is none."""
    match = _WORD.match(bare(sql))
    return match[0].upper() if match else ""


def single(sql: str) -> str:
    """Return the one statement of a text, without comments before it; empty if there is none.

    Raises ProgrammingError if there are several, as sqlite3 does.
    """
    if "\0" in sql:
        raise ProgrammingError("the query contains a null character")
    if ";" not in sql:
        return bare(sql)
    pieces = [statement for piece in split_script(sql) if (statement := bare(piece))]
    if len(pieces) > 1:
        raise ProgrammingError("You can only execute one statement at a time.")
    return pieces[0] if pieces else ""


def split_script(script: str) -> Iterator[str]:
    """Yield the statements of a script, as SQLite tells where each ends."""
    rest = script
    while rest.strip():
        stop = -1
        while True:
            stop = rest.find(";", stop + 1)
            if stop < 0:
                yield rest
                return
            if apsw.complete(rest[: stop + 1]):
                break
        yield rest[:stop].strip()
        rest = rest[stop + 1 :]
