"""What SQL may not do in the SQLite databases that evaluate it: reach the client's files.

SQLite asks when it compiles a statement, so this costs nothing when a statement is run again.
"""

from __future__ import annotations

import apsw

from rome.errors import NotSupportedError

_ACTIONS = {
    apsw.SQLITE_ATTACH: "ATTACH, VACUUM INTO",
    apsw.SQLITE_DETACH: "DETACH",
    apsw.SQLITE_CREATE_VTABLE: "CREATE VIRTUAL TABLE",
    apsw.SQLITE_DROP_VTABLE: "DROP of a virtual table",
    apsw.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER",
    apsw.SQLITE_CREATE_TEMP_INDEX: "CREATE TEMP INDEX",
    apsw.SQLITE_CREATE_TEMP_TABLE: "CREATE TEMP TABLE",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "CREATE TEMP TRIGGER",
    apsw.SQLITE_CREATE_TEMP_VIEW: "CREATE TEMP VIEW",
}
_FUNCTIONS = frozenset(("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"))
# Questions that a schema without rows answers rightly.
PRAGMAS = frozenset(
    (
        *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"),
        *("foreign_key_list", "database_list", "collation_list", "function_list", "module_list"),
        *("pragma_list", "compile_options", "encoding"),
    )
)
# What SQLite itself asks when it alters a table, or copies a database.
_OWN_PRAGMAS = PRAGMAS | {"quick_check", "page_count"}
# Where files are.
OF_FILES = frozenset(("temp_store_directory", "data_store_directory"))


def confine(database: apsw.Connection) -> None:
    """Refuse, with NotSupportedError, whatever would reach a file or make what ROME hasn't."""
    database.authorizer = authorize


def authorize(
    action: int, one: str | None, two: str | None, _database: str | None, _source: str | None
) -> int:
    """Answer SQLite's question whether a statement may be compiled."""
    if action in _ACTIONS:
        raise NotSupportedError(_ACTIONS[action])
    if action == apsw.SQLITE_PRAGMA and (one or "").lower() not in _OWN_PRAGMAS:
        raise NotSupportedError(f"PRAGMA {one}")
    if action == apsw.SQLITE_FUNCTION and (two or "").lower() in _FUNCTIONS:
        raise NotSupportedError(f"the function {two}")
    return apsw.SQLITE_OK
