"""Transactions of which a database shows whether all or a part of one was done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import OperationalError

from rome import errors

metadata = MetaData()
parents = Table(
    "parents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("n", Integer, nullable=False, default=0, index=True),
)
children = Table(
    "children",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("parents.id"), nullable=False),
    Column("name", String(40), unique=True),
    Column("data", LargeBinary),
)


def database(url: str, **options: Any) -> Engine:
    """An engine of a database with the tables and one parent, whose n is 0."""
    engine = create_engine(url, **options)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(parents), {"id": 1, "n": 0})
    return engine


def transaction(connection: Connection, name: str) -> None:
    """Writes of every kind: an update, inserts into two tables, in every kind of index."""
    connection.execute(update(parents).where(parents.c.id == 1).values(n=parents.c.n + 1))
    parent = connection.execute(insert(parents), {"n": 5}).inserted_primary_key
    assert parent is not None
    connection.execute(
        insert(children), [{"parent_id": parent[0], "name": f"{name}-{i}"} for i in range(3)]
    )


def done(engine: Engine) -> int:
    """How many of these transactions there are; fails if there is a part of one."""
    with engine.connect() as connection:
        count: int = connection.scalars(select(parents.c.n).where(parents.c.id == 1)).one()
        others = select(func.count()).select_from(parents).where(parents.c.id != 1)
        assert connection.scalar(others) == count
        assert connection.scalar(select(func.count()).select_from(children)) == 3 * count
    return count


def count_of(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalars(select(parents.c.n).where(parents.c.id == 1)).one())


def one_transaction(url: str) -> None:
    with create_engine(url).begin() as connection:
        transaction(connection, "child")


def many_transactions(url: str, number: int) -> None:
    engine = create_engine(url)
    for i in range(100000):
        try:
            with engine.begin() as connection:
                transaction(connection, f"{number}-{i}")
                if i % 3 == 0:
                    old = connection.scalars(
                        select(children.c.parent_id).where(children.c.name == f"{number}-{i - 2}-0")
                    ).one_or_none()
                    if old is not None:
                        connection.execute(delete(children).where(children.c.parent_id == old))
                        connection.execute(delete(parents).where(parents.c.id == old))
                        connection.execute(
                            update(parents).where(parents.c.id == 1).values(n=parents.c.n - 1)
                        )
        except OperationalError as error:
            assert isinstance(error.orig, errors.ConflictError)


def is_beyond(engine: Engine, count: int) -> bool:
    return count_of(engine) > count
