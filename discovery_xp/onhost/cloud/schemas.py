"""The databases of several components, brought to their newest schemas side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

import glob
import os
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..process import Failure


def missing_revisions(scripts: str, current: tuple[str, ...]) -> int:
    """How many of a component's migrations a database at `current` lacks."""
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


def is_done(schema: dict[str, Any], url: str, packages: str) -> bool:
    """True when the database has the newest revisions, and the query gives a row."""
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


def migrate(schema: dict[str, Any], given: str) -> dict[str, Any]:
    """Run the commands of one component, `given` on the stdin of each.

    Returns its name, duration and failure, if any.
    """
    started = time.monotonic()
    failure = ""
    for words in schema["commands"]:
        done = subprocess.run(
            words, user=schema["user"], group=schema["user"], extra_groups=[],
            input=given, capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        if done.returncode:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            # Warnings may follow what went wrong.
            last = [line.strip() for line in said if "Error" in line or "[SQL" in line] or said
            short = [word for word in words if "\n" not in word][:4]
            failure = f"{schema['name']}: '{' '.join(short)}' ended with {done.returncode}: "
            failure += " / ".join(last[-3:])
            break
    return {
        "name": schema["name"],
        "duration_s": round(time.monotonic() - started, 2),
        "failure": failure,
    }


def migrate_due(args: Mapping[str, Any]) -> dict[str, Any]:
    """Run the migrations that are due; `args` are the options of Ansible's module `schemas`."""
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
    inputs = args["inputs"]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = list(pool.map(lambda each: migrate(each, inputs.get(each["name"], "")), due))
    failures = [entry["failure"] for entry in done if entry["failure"]]
    if failures:
        raise Failure("; ".join(failures))
    return {"changed": bool(due), "migrated": done}
