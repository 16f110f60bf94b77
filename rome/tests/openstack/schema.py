"""Print a database's schema and contents as JSON; runs inside the suites' environment."""

from __future__ import annotations

import json
import sys
from typing import Any

import sqlalchemy


def described(url: str) -> dict[str, Any]:
    """What reflection tells of each table, and a digest of its rows."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        tables = {}
        for name in sorted(inspector.get_table_names()):
            tables[name] = {
                "columns": {
                    column["name"]: f"{column['type']!r} nullable={column['nullable']}"
                    f" default={column['default']}"
                    for column in inspector.get_columns(name)
                },
                "primary key": inspector.get_pk_constraint(name)["constrained_columns"],
                "foreign keys": {
                    f"{key['constrained_columns']} -> {key['referred_table']}"
                    f"{key['referred_columns']} {sorted(key['options'].items())}": key["name"]
                    for key in inspector.get_foreign_keys(name)
                },
                "indexes": sorted(
                    f"{index['name']} {index['column_names']} {bool(index['unique'])}"
                    for index in inspector.get_indexes(name)
                ),
                "unique": {
                    str(unique["column_names"]): unique["name"]
                    for unique in inspector.get_unique_constraints(name)
                },
                "checks": sorted(
                    f"{check['name']} {check['sqltext']}"
                    for check in inspector.get_check_constraints(name)
                ),
                "rows": connection.execute(
                    sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.table(name))
                ).scalar_one(),
            }
        return {"tables": tables}


def main() -> None:
    """The URL is the argument."""
    described_schema = described(sys.argv[1])
    json.dump(described_schema, sys.stdout)


if __name__ == "__main__":
    main()
