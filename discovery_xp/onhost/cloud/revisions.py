"""Which databases have all migrations of their components.

Alembic's own scripts aren't asked: it imports a component's migrations, and they import the
component.  That takes seconds of a processor, and Neutron's brings eventlet, under which threads
of the importing process hang.  The migrations are parsed instead; what follows from which
revision is still Alembic's to say.
"""

from __future__ import annotations

import ast
import glob
import os
import threading
from collections.abc import Mapping
from typing import Any

from ..process import Failure, read

Schema = Mapping[str, Any]
# What Alembic calls them in a migration, and in a Revision.
_WORDS = {"revision": "revision", "down_revision": "down_revision", "depends_on": "dependencies"}
# Python before 3.11.8 counts the depth of a tree once for all threads: two that parse at once may
# both fail with a SystemError (CPython's issue 106905).
_PARSING = threading.Lock()


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
    """Return how many of a component's migrations a database at `current` lacks.

    Raises Failure where that isn't known: `current` isn't one of them, or one can't be parsed.
    """
    from alembic.script.revision import Revision, RevisionError, RevisionMap

    paths = glob.glob(f"{scripts}/versions/**/*.py", recursive=True)
    revisions = [
        Revision(**revision_of(path)) for path in paths if os.path.basename(path) != "__init__.py"
    ]
    if not revisions:
        raise Failure(f"{scripts}: there are no migrations")
    try:
        tree = RevisionMap(lambda: revisions)
        # A revision that others depend on isn't listed once those are there.
        return len(list(tree.iterate_revisions("heads", current, implicit_base=True)))
    except (RevisionError, KeyError) as error:  # KeyError: of one that isn't there
        raise Failure(f"{scripts}: {error}") from None


def revision_of(path: str) -> dict[str, Any]:
    """Return a migration's revision and those that it follows, in the words of Alembic's Revision.

    Raises Failure unless they are written out.
    """
    fields: dict[str, Any] = {"down_revision": None}
    try:
        for statement in _parse(read(path)).body:
            if isinstance(statement, ast.Assign):
                targets = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            else:
                continue
            for target in targets:
                if isinstance(target, ast.Name) and target.id in _WORDS:
                    if statement.value is None:
                        raise ValueError(f"{target.id} has no value")
                    fields[_WORDS[target.id]] = ast.literal_eval(statement.value)
    except (OSError, SyntaxError, ValueError) as error:
        raise Failure(f"{path}: its revision can't be read: {error}") from None
    if not isinstance(fields.get("revision"), str):
        raise Failure(f"{path}: it names no revision")
    return fields


def _parse(text: str) -> ast.Module:
    """Return a module's tree; one thread at a time parses."""
    with _PARSING:
        return ast.parse(text)
