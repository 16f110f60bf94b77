"""The databases of several components, brought to their newest schemas side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..process import Failure
from .migrations import Migrations
from .revisions import is_done
from .schema_dumps import Dumps


def migrate_due(args: Mapping[str, Any]) -> dict[str, Any]:
    """Load or migrate databases that are behind; `args` are those of Ansible's module `schemas`."""
    import sqlalchemy

    packages = os.path.dirname(os.path.dirname(sqlalchemy.__file__))
    try:
        due = [
            schema
            for schema in args["schemas"]
            if not is_done(schema, args["urls"][schema["name"]], packages)
        ]
    except sqlalchemy.exc.OperationalError as error:
        raise Failure(f"the database can't be asked: {error.orig}") from None
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
