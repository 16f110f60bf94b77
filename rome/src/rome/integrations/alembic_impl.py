"""Alembic: ROME's schema changes are SQLite's, with whole tables copied in batches."""

from __future__ import annotations

from alembic.ddl.impl import DefaultImpl
from alembic.ddl.sqlite import SQLiteImpl


class RomeImpl(SQLiteImpl):
    """Found by Alembic under the dialect's name."""

    __dialect__ = "rome"
    # Each change of the schema takes effect at once.
    transactional_ddl = False

    # ROME alters constraints and columns where SQLite can't.
    add_constraint = DefaultImpl.add_constraint
    drop_constraint = DefaultImpl.drop_constraint
