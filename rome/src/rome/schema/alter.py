"""Changes of a table that SQLite's ALTER TABLE doesn't know, as changes of its SQL.

A table's rows don't depend on its constraints, so the CREATE TABLE that the schema keeps is
written anew, and the rows stay as they are.
"""

from __future__ import annotations

import re

from rome.errors import NotSupportedError, OperationalError
from rome.schema.tables import fold
from rome.sqlite.statements import bare

_NAME = r"(\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|\w+)"
_ALTER = re.compile(rf"\s*ALTER\s+TABLE\s+(?:main\s*\.\s*)?{_NAME}\s+(.*?)\s*;?\s*\Z", re.I | re.S)
_ADD = re.compile(
    rf"ADD\s+((?:CONSTRAINT\s+{_NAME}\s+)?(?:FOREIGN\s+KEY|UNIQUE|PRIMARY\s+KEY|CHECK)\b.*)\Z",
    re.I | re.S,
)
_DROP = re.compile(rf"DROP\s+CONSTRAINT\s+{_NAME}\Z", re.I)
_COLUMN = re.compile(rf"ALTER\s+(?:COLUMN\s+)?{_NAME}\s+(.*)\Z", re.I | re.S)
_NOT_NULL = re.compile(r"\s+NOT\s+NULL\b", re.I)
_DEFAULT = re.compile(r"\s+DEFAULT\s+(\((?:[^()]|\([^()]*\))*\)|'(?:[^']|'')*'|[^\s,]+)", re.I)
_PRIMARY = re.compile(r"\bPRIMARY\s+KEY\s*\(([^()]*)\)", re.I)
_CHARACTERS = re.compile(
    r"(?:CONVERT\s+TO\s+)?(?:DEFAULT\s+)?(?:CHARACTER\s+SET|CHARSET)\s*=?\s*(\w+)"
    r"(?:\s+COLLATE\s*=?\s*(\w+))?\Z",
    re.I,
)
_CONSTRAINT_WORDS = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")


def plain(name: str) -> str:
    """Return a name without its quotes."""
    if name[:1] in ('"', "`", "["):
        return name[1:-1].replace('""', '"')
    return name


def altered_table(sql: str) -> str | None:
    """Return the table that a statement alters in one of these ways; None: it does not."""
    match = _ALTER.match(sql)
    if match and (_ADD.match(match[2]) or _DROP.match(match[2]) or _COLUMN.match(match[2])):
        return plain(match[1])
    return None


def alteration(sql: str) -> str | None:
    """Return what an ALTER TABLE says behind the table's name; None: it is no such statement."""
    match = _ALTER.match(sql)
    return match[2] if match else None


def is_so_already(sql: str) -> bool:
    """Tell whether a statement, as MySQL has it, asks for the character set and the collation that
    all text has here: Unicode, compared byte by byte.  Raises NotSupportedError for others.
    """
    match = _ALTER.match(sql)
    match_of_action = _CHARACTERS.match(match[2]) if match else None
    if match_of_action is None:
        return False
    collation = (match_of_action[2] or "").lower()
    if not match_of_action[1].lower().startswith("utf8") or not collation.endswith("_bin"):
        raise NotSupportedError(
            f"CHARACTER SET {match_of_action[1]} COLLATE {match_of_action[2] or 'its default'}"
        )
    return True


def altered(table_sql: str, sql: str) -> str:
    """Return the CREATE TABLE after the statement; raises OperationalError if it doesn't fit."""
    match = _ALTER.match(sql)
    head, items, tail = _parts(table_sql)
    action = match[2] if match else ""
    if matched := _ADD.match(action):
        items.append(matched[1])
        if key := _PRIMARY.search(matched[1]):
            # As elsewhere, though not in SQLite: no column of a primary key may be NULL.
            names = [fold(plain(name.strip())) for name in key[1].split(",")]
            items = [
                _changed_column(item, "SET NOT NULL") if _column_name(item) in names else item
                for item in items
            ]
    elif matched := _DROP.match(action):
        name = fold(plain(matched[1]))
        remaining = [item for item in items if _constraint_name(item) != name]
        if len(remaining) == len(items):
            raise OperationalError(f"no such constraint: {name}")
        items = remaining
    elif matched := _COLUMN.match(action):
        name = fold(plain(matched[1]))
        places = [n for n, item in enumerate(items) if _column_name(item) == name]
        if not places:
            raise OperationalError(f"no such column: {name}")
        items[places[0]] = _changed_column(items[places[0]], matched[2])
    # A comment up to the end of its line must not swallow what follows.
    items = [item + "\n" if "--" in item else item for item in items]
    return f"{head}({', '.join(items)}){tail}"


def _changed_column(item: str, change: str) -> str:
    if "--" in item:
        item += "\n"
    words = change.upper().split()
    if words[:3] == ["SET", "NOT", "NULL"]:
        return item if _NOT_NULL.search(item) else item + " NOT NULL"
    if words[:3] == ["DROP", "NOT", "NULL"]:
        return _NOT_NULL.sub("", item)
    if words[:2] == ["DROP", "DEFAULT"]:
        return _DEFAULT.sub("", item)
    if words[:2] == ["SET", "DEFAULT"]:
        return _DEFAULT.sub("", item) + " DEFAULT " + change.split(None, 2)[2]
    new_type = re.match(r"(?:SET\s+DATA\s+)?TYPE\s+(.*)\Z", change, re.I | re.S)
    column = re.match(rf"\s*{_NAME}\s+(\w+(?:\s*\([^()]*\))?)?(.*)\Z", item, re.S)
    if new_type and column:
        return f"{column[1]} {new_type[1]}{column[3]}"
    raise OperationalError(f"ALTER COLUMN can't do this: {change}")


_OPAQUE = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.S
)


def _parts(sql: str) -> tuple[str, list[str], str]:
    """Return what stands before the parentheses, the items in them, and what stands behind."""
    start = depth = 0
    items: list[str] = []
    place = 0
    begin = -1
    while place < len(sql):
        if opaque := _OPAQUE.match(sql, place):
            place = opaque.end()
            continue
        char = sql[place]
        if char == "(":
            depth += 1
            if depth == 1:
                begin = place
                start = place + 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                items.append(sql[start:place].strip())
                return sql[:begin], items, sql[place + 1 :]
        elif char == "," and depth == 1:
            items.append(sql[start:place].strip())
            start = place + 1
        place += 1
    raise OperationalError("the table's SQL can't be read")


def _first_word(item: str) -> str:
    match = re.match(r"\s*(\w+)", bare(item))
    return match[1].upper() if match else ""


def _constraint_name(item: str) -> str | None:
    match = re.match(rf"\s*CONSTRAINT\s+{_NAME}", bare(item), re.I)
    return fold(plain(match[1])) if match else None


def _column_name(item: str) -> str | None:
    match = re.match(rf"\s*{_NAME}", bare(item))
    if match is None or (match[1][:1] not in '"`[' and _first_word(item) in _CONSTRAINT_WORDS):
        return None
    return fold(plain(match[1]))
