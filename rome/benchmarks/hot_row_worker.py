"""A process that increments the hot row, as a service would: through oslo.db's facade."""

from __future__ import annotations

import sys
from typing import Any

import sqlalchemy as sa
from oslo_db import exception
from oslo_db.sqlalchemy import enginefacade

from .orders import begin, serve

_METADATA = sa.MetaData()
_HOT = sa.Table(
    "hot",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("n", sa.Integer, nullable=False),
)
_FACADE = enginefacade.transaction_context()


@enginefacade.transaction_context_provider
class _Context:
    """A request's."""


class Incrementer:
    """Does the orders."""

    def __init__(self) -> None:
        self._connections: dict[int, Any] = {}

    def create(self) -> None:
        """The table and the row, anew."""
        engine = _FACADE.writer.get_engine()
        _METADATA.drop_all(engine)
        _METADATA.create_all(engine)
        with engine.begin() as connection:
            connection.execute(_HOT.insert().values(id=1, n=0))

    def increment(self, count: int) -> dict[str, int]:
        """As often; each until it commits."""
        commits = aborts = 0
        replays = self._replays()
        while commits < count:
            context: Any = _Context()
            try:
                with _FACADE.writer.using(context):
                    connection = context.session.connection().connection.dbapi_connection
                    self._connections[id(connection)] = connection
                    context.session.execute(
                        sa.update(_HOT).where(_HOT.c.id == 1).values(n=_HOT.c.n + 1)
                    )
                commits += 1
            except exception.DBDeadlock:
                aborts += 1
        return {"commits": commits, "aborts": aborts, "replays": self._replays() - replays}

    def _replays(self) -> int:
        """As ROME's connections have counted them; others have none."""
        return sum(
            getattr(getattr(it, "transaction", None), "replays", 0)
            for it in self._connections.values()
        )

    def value(self) -> int:
        """Of the row."""
        with _FACADE.reader.get_engine().connect() as connection:
            found: int = connection.execute(sa.select(_HOT.c.n)).scalar_one()
            return found


def main() -> None:
    """The process; its argument is the database's URL."""
    answers = begin()
    _FACADE.configure(connection=sys.argv[1], max_retries=0)
    serve(answers, Incrementer())


if __name__ == "__main__":
    main()
