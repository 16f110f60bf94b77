#!/usr/bin/python
"""Bring the databases of several components to their newest schemas, side by side.

What a database says of itself decides: a component whose revisions are the newest ones
is left alone, so running this again costs a query for each.
"""

from __future__ import annotations

import glob
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud.migrations import Migrations
from ansible.module_utils.discovery_onhost.cloud.schema_dumps import Dumps

DOCUMENTATION = r"""
module: schemas
short_description: Run schema migrations where they are due, in parallel
description: Runs on the Python of the OpenStack environment.
options:
  schemas:
    description: >
      For each: name, scripts (folder of Alembic's scripts, relative to
      site-packages, or none), query (must give a row once all is done, or none), user,
      migrations and commands (lists of words; run in order when the schema is behind or the
      query empty).  An empty database may be loaded from a dump instead of migrated; its
      commands run all the same.
    type: list
    required: true
  urls:
    description: name -> SQLAlchemy's URL of its database; never logged
    type: dict
    required: true
  dumps: {description: dumps of empty databases at their newest schemas or '', type: str}
  keep: {description: return dumps of databases that were migrated from nothing, type: bool}
  inputs: {description: "name -> what its commands read from stdin; never logged", type: dict}
"""


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


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            "schemas": {"type": "list", "elements": "dict", "required": True},
            "urls": {"type": "dict", "required": True, "no_log": True},
            "inputs": {"type": "dict", "no_log": True, "default": {}},
            "dumps": {"type": "str", "default": ""},
            "keep": {"type": "bool", "default": False},
        }
    )
    import sqlalchemy

    packages = os.path.dirname(os.path.dirname(sqlalchemy.__file__))
    urls, inputs = module.params["urls"], module.params["inputs"]
    try:
        due = [
            schema
            for schema in module.params["schemas"]
            if not is_done(schema, urls[schema["name"]], packages)
        ]
    except sqlalchemy.exc.OperationalError as error:
        module.fail_json(msg=f"the database can't be asked: {error.orig}")
    dumps = Dumps(module.params["dumps"], module.params["keep"])

    def is_newest(schema: dict[str, Any], url: str) -> bool:
        try:
            return is_done({**schema, "query": None}, url, packages)
        except sqlalchemy.exc.SQLAlchemyError:
            return False

    done = Migrations(dumps, is_newest).bring_up(due, urls, inputs)
    failures = [entry["failure"] for entry in done if entry["failure"]]
    if failures:
        module.fail_json(msg="; ".join(failures))
    module.exit_json(changed=bool(due), migrated=done, dumps=dumps.made)


if __name__ == "__main__":
    main()
