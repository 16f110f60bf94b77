"""Text SQL that asks about the schema: PRAGMAs, and SELECTs from sqlite_master."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rome.errors import NotSupportedError, OperationalError
from rome.schema.ddl import PendingDDL
from rome.sqlite.confine import OF_FILES, PRAGMAS
from rome.sqlite.statements import first_word

Answer = tuple[list[Any], tuple[Any, ...]]

_MENTIONED = re.compile(r"\b(?:sqlite_(?:temp_)?(?:master|schema|sequence)|pragma_\w+)\b", re.I)
_ASKED = re.compile(r"sqlite_(?:temp_)?(?:master|schema)|pragma_\w+")
_PRAGMA = re.compile(r"PRAGMA\s+(?:\w+\s*\.\s*)?(\w+)\s*(?:=\s*([^;]*)|\(\s*([^;]*?)\s*\))?", re.I)
_SWITCHES = ("foreign_keys", "legacy_alter_table")
# Settings that change answers, or say where files are.
_REFUSED = OF_FILES | {
    *("application_id", "case_sensitive_like", "count_changes", "defer_foreign_keys"),
    *("empty_result_callbacks", "encoding", "full_column_names", "ignore_check_constraints"),
    *("query_only", "recursive_triggers", "reverse_unordered_selects", "schema_version"),
    *("short_column_names", "trusted_schema", "user_version", "writable_schema"),
}


@dataclass(frozen=True)
class Pragma:
    """A PRAGMA: its name, whether it sets something, and for a connection's own switches
    (foreign_keys, legacy_alter_table) whether it is on; else `switch` is None."""

    sql: str
    name: str
    given: bool
    assigned: bool
    switch: bool | None

    @classmethod
    def of(cls, sql: str) -> Pragma:
        """Read one.  Raises OperationalError."""
        match = _PRAGMA.match(sql)
        if match is None:
            raise OperationalError("a PRAGMA has a name")
        name = match[1].lower()
        value = (match[2] or match[3] or "").strip().strip("'\"").lower()
        switch = value in ("1", "on", "true", "yes") if name in _SWITCHES else None
        return cls(sql, name, bool(value), match[2] is not None, switch)

    def answer(self, ddl: PendingDDL, parameters: tuple[Any, ...]) -> Answer | None:
        """Return rows and description; None for a setting that has no meaning here, such as
        those of files.  Raises NotSupportedError for one that would change answers."""
        if self.name in PRAGMAS and not self.assigned:
            return ddl.query(self.sql, parameters)
        if self.name in _REFUSED or self.name.endswith("_check"):
            raise NotSupportedError(f"PRAGMA {self.name}")
        return None


def speaks_of_schema(sql: str) -> bool:
    """Return whether a statement may read sqlite_master, or a PRAGMA as a table."""
    return _MENTIONED.search(sql) is not None


def about_schema(ddl: PendingDDL, sql: str, parameters: tuple[Any, ...]) -> Answer | None:
    """Return rows and description of a SELECT from the schema; None if it reads nothing of it
    and just contains such a name.  Raises NotSupportedError if it reads other tables besides.
    """
    tables = ddl.tables_of(sql)
    if not any(map(_ASKED.fullmatch, tables)):
        return None
    others = [
        name
        for name in sorted(tables)
        if not _ASKED.fullmatch(name) and not name.startswith("json_")
    ]
    if others or first_word(sql) not in ("SELECT", "WITH", "VALUES"):
        raise NotSupportedError(
            "sqlite_master, or a PRAGMA as a table, in a statement that "
            + (f"reads other tables ({', '.join(others)})" if others else "writes")
        )
    return ddl.query(sql, parameters)
