"""The databases of several components, brought to their newest schemas side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..process import Failure
from .migrations import Migrations
from .revisions import find_unfinished
from .schema_dumps import Dumps


def migrate_due(args: Mapping[str, Any]) -> dict[str, Any]:
    """Load or migrate databases that are behind; `args` are those of Ansible's module `schemas`."""
    unfinished = find_unfinished(args["schemas"], args["urls"])
    due = [schema for schema in args["schemas"] if schema["name"] in unfinished]
    dumps = Dumps(args["dumps"], args["keep"])

    def is_newest(schema: Mapping[str, Any], url: str) -> bool:
        try:
            return not find_unfinished([{**schema, "query": None}], {schema["name"]: url})
        except Failure:
            return False

    done = Migrations(dumps, is_newest).bring_up(due, args["urls"], args["inputs"])
    failures = [entry["failure"] for entry in done if entry["failure"]]
    if failures:
        raise Failure("; ".join(failures))
    return {"changed": bool(due), "migrated": done, "dumps": dumps.made}
