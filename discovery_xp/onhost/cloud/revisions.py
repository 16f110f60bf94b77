"""Which databases have all migrations of their components.

Alembic finds a component's migrations by importing them, and theirs is the components' own code:
Neutron's brings eventlet, under which threads of the importing process hang.  So the migrations
are imported into a process of their own, which answers and ends.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..process import Failure

Schema = Mapping[str, Any]
LONGEST_S = 300.0


def find_unfinished(
    schemas: Sequence[Schema], urls: Mapping[str, str], longest_s: float = LONGEST_S
) -> set[str]:
    """Return the names of schemas whose databases lack migrations, or a row of their query.

    Another process is asked; raises Failure where it can't tell.
    """
    question = json.dumps({"schemas": schemas, "urls": urls})
    code = f"from {__name__} import main; main()"
    # Ansible put an archive with this module in front of what Python would find by itself.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], input=question, env=environment, cwd="/",
            capture_output=True, text=True, check=False, timeout=longest_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"the databases' revisions aren't known after {longest_s:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Failure(f"the databases' revisions can't be read: {' / '.join(said[-1:])}")
    # Components may have printed something before.
    found = json.loads(done.stdout.splitlines()[-1])
    if "failure" in found:
        raise Failure(found["failure"])
    return set(found["unfinished"])


def main() -> None:
    """Answer `find_unfinished`, whose question is on stdin, on stdout; ends the process."""
    import sqlalchemy

    question = json.load(sys.stdin)
    packages = os.path.dirname(os.path.dirname(sqlalchemy.__file__))
    found: dict[str, Any]
    try:
        found = {
            "unfinished": [
                schema["name"]
                for schema in question["schemas"]
                if not is_done(schema, question["urls"][schema["name"]], packages)
            ]
        }
    except sqlalchemy.exc.OperationalError as error:
        found = {"failure": f"the database can't be asked: {error.orig}"}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)  # nobody waits for threads that the migrations' modules started


def is_done(schema: Schema, url: str, packages: str) -> bool:
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
