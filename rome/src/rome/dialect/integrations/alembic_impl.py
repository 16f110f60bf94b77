"""Alembic: ROME's schema changes are SQLite's, with whole tables copied in batches."""

from __future__ import annotations

from typing import Any

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

    def correct_for_autogen_constraints(
        self,
        conn_unique_constraints: Any,
        conn_indexes: Any,
        metadata_unique_constraints: Any,
        metadata_indexes: Any,
    ) -> None:
        """Compare unique constraints whose names are only ROME's as ones without."""
        column_sets = {_columns(constraint) for constraint in metadata_unique_constraints}
        for constraint in list(conn_unique_constraints):
            names = [column.name for column in constraint.columns]
            default_name = "_".join((constraint.table.name, *names, "key"))
            if constraint.name == default_name and _columns(constraint) not in column_sets:
                conn_unique_constraints.remove(constraint)
        super().correct_for_autogen_constraints(
            conn_unique_constraints, conn_indexes, metadata_unique_constraints, metadata_indexes
        )


def _columns(constraint: Any) -> frozenset[str]:
    return frozenset(column.name for column in constraint.columns)
