"""Tables that are too large for one script: the answers are those of one script."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    create_engine,
    exists,
    func,
    select,
    update,
)

from tests.servers import RedisServer, redis_server

# Redis doesn't give small hashes and sets in parts.
NOTHING_SMALL = {"hash_max_listpack_entries": "0", "set_max_intset_entries": "0"}

metadata = MetaData()
parents = Table(
    "parents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", String(9), unique=True),
    Column("kind", Integer, index=True),
    Column("name", String(9)),
    Column("flag", Integer, index=True),
    *[Column(f"more{i}", Integer) for i in range(8)],
)
children = Table(
    "children",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", String(9), ForeignKey("parents.code")),
    Column("n", Integer),
)
cousins = children.alias("cousins")
# With a key of which one part orders many rows alike.
notes = Table(
    "notes",
    metadata,
    Column("code", String(9), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("name", String(9)),
)

QUESTIONS: dict[str, Any] = {
    "all": select(parents),
    "few columns": select(parents.c.id),
    "count": select(func.count()).select_from(parents),
    "count some": select(func.count()).select_from(parents).where(parents.c.name == "a"),
    "by a large set": select(parents).where(parents.c.kind == 1),
    "groups": select(parents.c.name, func.count()).group_by(parents.c.name),
    "first": select(parents.c.id)
    .where(parents.c.kind == 1, parents.c.name == "b")
    .order_by(parents.c.name, parents.c.id)
    .limit(7),
    "left join": select(parents, children).select_from(
        parents.outerjoin(children, and_(parents.c.code == children.c.code, children.c.n > 2))
    ),
    "join": select(parents.c.code, children.c.n)
    .join(children, parents.c.code == children.c.code)
    .where(children.c.n == 1),
    "exists": select(parents).where(
        parents.c.kind == 1,
        exists().where(children.c.code == parents.c.code, children.c.n == 1),
    ),
    "in": select(parents.c.id).where(
        parents.c.name == "a",
        parents.c.code.in_(select(children.c.code).where(children.c.n > 2)),
    ),
    "by a set": select(parents.c.id).where(parents.c.kind == 2),
    "by two sets": select(parents).where(parents.c.kind == 2, parents.c.flag == 1),
    "count by two sets": select(func.count())
    .select_from(parents)
    .where(parents.c.kind == 1, parents.c.flag == 1),
    "count by several keys": select(func.count())
    .select_from(parents)
    .where(parents.c.kind.in_([1, 2])),
    "sum": select(func.sum(parents.c.id), func.max(parents.c.code), func.count(parents.c.kind)),
    "sum by a set": select(func.sum(parents.c.id)).where(parents.c.kind == 2),
    "sum by two sets": select(func.sum(parents.c.id)).where(
        parents.c.kind == 2, parents.c.flag == 1
    ),
    "groups of a set": select(func.count(), func.min(parents.c.id))
    .where(parents.c.kind == 2)
    .group_by(parents.c.flag, parents.c.name),
    "sum of nothing": select(func.sum(parents.c.id), func.count()).where(parents.c.name == "z"),
    "numbers": select(parents).where(parents.c.id.in_(range(10, 60))),
    "unique keys": select(parents).where(parents.c.code.in_([f"c{i}" for i in range(10, 60)])),
    "keys of sets": select(children).where(children.c.code.in_([f"c{i}" for i in range(40)])),
    "first by a set": select(parents.c.id, parents.c.name)
    .where(parents.c.kind == 2)
    .order_by(parents.c.name.desc(), parents.c.id)
    .limit(5),
    "first with many equal": select(parents.c.name).order_by(parents.c.name).limit(30),
    "three tables": select(parents.c.id, children.c.id, cousins.c.id)
    .join(children, children.c.code == parents.c.code)
    .join(cousins, cousins.c.code == children.c.code)
    .where(cousins.c.n > 0),
    "not exists": select(parents.c.id).where(~exists().where(children.c.code == parents.c.code)),
    "a range": select(parents).where(parents.c.id.between(20, 60), parents.c.name != "a"),
    "most of a key": select(parents).where(parents.c.id > 20),
    "a range of text": select(notes).where(notes.c.code >= "c20", notes.c.code < "c5"),
    "a range in a group": select(notes).where(notes.c.code == "c7", notes.c.n.between(143, 155)),
    "sum of a range": select(func.sum(parents.c.id), func.count(parents.c.kind)).where(
        parents.c.id.between(20, 60)
    ),
    "groups of a range": select(notes.c.name, func.count())
    .where(notes.c.code > "c6")
    .group_by(notes.c.name),
    "first of a range": select(parents.c.id, parents.c.name)
    .where(parents.c.id.between(20, 60))
    .order_by(parents.c.name, parents.c.id)
    .limit(7),
    "join by a range": select(parents.c.id, children.c.n)
    .join(children, parents.c.code == children.c.code)
    .where(parents.c.id.between(10, 50)),
    "first of a key": select(parents.c.id).order_by(parents.c.id).limit(30),
    "first of a key that are wanted": select(parents.c.id)
    .where(parents.c.name == "b", parents.c.flag != 1)
    .order_by(parents.c.id)
    .limit(9),
    "last of a key": select(parents.c.id, parents.c.more0)
    .where(parents.c.name != "a", parents.c.id < 90)
    .order_by(parents.c.id.desc())
    .limit(20),
    "first by a part of a key": select(notes)
    .order_by(notes.c.code, notes.c.name.desc(), notes.c.n)
    .limit(25),
    "last by a part of a key": select(notes.c.n)
    .where(notes.c.name != "a")
    .order_by(notes.c.code.desc(), notes.c.name, notes.c.n)
    .limit(25),
    "greatest of a key": select(func.max(parents.c.id)).where(parents.c.name == parents.c.code),
    "by the first of a key": select(children.c.id).where(
        children.c.id.in_(select(parents.c.id).order_by(parents.c.id).limit(20))
    ),
}


def fill(engine: Engine) -> None:
    """100 parents, 200 children and 200 notes, the same ones each time."""
    metadata.create_all(engine)
    some = random.Random(1)
    with engine.begin() as connection:
        connection.execute(
            parents.insert(),
            [
                {
                    "id": i,
                    "code": f"c{i}",
                    "kind": some.choice([1, 1, 1, 2, None]),
                    "name": some.choice("abc"),
                    "flag": i % 5 // 2,
                }
                for i in range(1, 101)
            ],
        )
        connection.execute(
            children.insert(),
            [
                {"id": i, "code": f"c{some.randrange(1, 101)}", "n": some.randrange(5)}
                for i in range(1, 201)
            ],
        )
        connection.execute(
            notes.insert(),
            [{"code": f"c{i // 20}", "n": i, "name": some.choice("abc")} for i in range(200)],
        )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server(**NOTHING_SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def small(server: RedisServer) -> Iterator[Engine]:
    """A script looks at eight rows only."""
    engine = create_engine(server.url("small") + "?page=8")
    fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    fill(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_answers_are_those_of_sqlite(
    small: Engine, sqlite: Engine, question: Any, level: Any
) -> None:
    with small.connect().execution_options(isolation_level=level) as mine, sqlite.connect() as its:
        got = sorted(map(tuple, mine.execute(question)), key=str)
        assert got == sorted(map(tuple, its.execute(question)), key=str)
        assert got


def test_writes_over_several_pages(small: Engine) -> None:
    with small.begin() as connection:
        wanted = connection.scalar(
            select(func.count()).select_from(parents).where(parents.c.name == "a")
        )
        changed = connection.execute(
            update(parents).where(parents.c.name == "a").values(more0=parents.c.id)
        )
        assert changed.rowcount == wanted and wanted > 20
        total = connection.scalar(select(func.sum(parents.c.more0)))
    with small.connect() as connection:
        assert connection.scalar(select(func.sum(parents.c.more0))) == total
