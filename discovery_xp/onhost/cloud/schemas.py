"""The databases of several components, brought to their newest schemas side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..process import Failure
from .migrations import Migrations
from .revisions import is_done
from .schema_dumps import Dumps

# The schema of Nova's cells: of the one that all sites share, and of each that a site has.
CELL = "nova"
# What ROME says of a login that Redis refuses.  MariaDB's passwords are set anew by each run; those
# of Redis are in the file that it is started with.
REFUSED = "refuses the user or password"
REMEDY = "; it was changed while Redis ran: restart Redis there, then deploy again"


def migrate_due(args: Mapping[str, Any]) -> dict[str, Any]:
    """Load or migrate databases that are behind; `args` are those of Ansible's module `schemas`."""
    import sqlalchemy

    packages = os.path.dirname(os.path.dirname(sqlalchemy.__file__))
    due = []
    for schema in of_cells(args["schemas"], args["cells"]):
        try:
            if not is_done(schema, args["urls"][schema["name"]], packages):
                due.append(schema)
        except sqlalchemy.exc.OperationalError as error:
            words = str(error.orig)
            remedy = REMEDY if REFUSED in words else ""
            raise Failure(f"database '{schema['name']}' can't be asked: {words}{remedy}") from None
    dumps = Dumps(args["dumps"], args["keep"])

    def is_newest(schema: Mapping[str, Any], url: str) -> bool:
        try:
            return is_done({**schema, "query": None}, url, packages)
        except (Failure, sqlalchemy.exc.SQLAlchemyError):
            return False

    done = Migrations(dumps, is_newest).bring_up(due, args["urls"], args["inputs"])
    failures = [entry["failure"] for entry in done if entry["failure"]]
    if failures:
        raise Failure("; ".join(failures))
    return {"changed": bool(due), "migrated": done, "dumps": dumps.made}


def of_cells(
    schemas: Sequence[Mapping[str, Any]], cells: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """Return the schemas with that of Nova's cells once for each database of a cell.

    `cells` has by database the file that makes `nova-manage` one of the cell.  Without any the
    schemas stay as they are.
    """
    expanded: list[Mapping[str, Any]] = []
    for schema in schemas:
        if not cells or schema["name"] != CELL:
            expanded.append(schema)
            continue
        expanded += [
            {
                **schema,
                "name": database,
                # All have the same tables: what is kept of one is every one's.
                "dump": CELL,
                "migrations": [_with_file(words, file) for words in schema["migrations"]],
            }
            for database, file in cells.items()
        ]
    return expanded


def _with_file(words: Sequence[str], file: str) -> list[str]:
    """Return a call of `nova-manage` with one more file, which goes before the others."""
    at = list(words).index("db")
    return [*words[:at], "--config-file", file, *words[at:]]
