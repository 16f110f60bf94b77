"""The databases of several components, brought to their newest schemas side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Any

from ..process import Failure
from .migrations import Migrations
from .schema_dumps import Dumps


def missing_revisions(scripts: str, current: tuple[str, ...]) -> int:
    """Return how many of a component's migrations a database at `current` lacks."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", scripts)
    config.set_main_option("path_separator", "newline")
    folders = {os.path.dirname(path) for path in glob.glob(f"{scripts}/versions/**/*.py",
                                                          recursive=True)}  # fmt: skip
    config.set_main_option("version_locations", "\n".join(sorted(folders)))
    known = ScriptDirectory.from_config(config)
    # A revision that others depend on isn't listed once those are there.
    return len(list(known.iterate_revisions("heads", current or "base", implicit_base=True)))


def is_done(schema: Mapping[str, Any], url: str, packages: str) -> bool:
    """Tell whether the database has the newest revisions, and the query gives a row."""
    import sqlalchemy
    from alembic.runtime.migration import MigrationContext

    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            if schema.get("scripts"):
                current = MigrationContext.configure(connection).get_current_heads()
                scripts = os.path.join(packages, schema["scripts"])
                if not current or missing_revisions(scripts, current):
                    return False
            if schema.get("query"):
                return connection.execute(sqlalchemy.text(schema["query"])).first() is not None
            return True
    except sqlalchemy.exc.ProgrammingError:  # its tables aren't there
        return False
    finally:
        engine.dispose()


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
        except sqlalchemy.exc.SQLAlchemyError:
            return False

    done = Migrations(dumps, is_newest).bring_up(due, args["urls"], args["inputs"])
    failures = [entry["failure"] for entry in done if entry["failure"]]
    if failures:
        raise Failure("; ".join(failures))
    return {"changed": bool(due), "migrated": done, "dumps": dumps.made}
