"""Rows without a match in another table stay in the store, and what hangs on them too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from rome.stores.base import Request
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)

from tests.fuzzing.pairs import sqlite_engine

metadata = MetaData()
servers = Table(
    "servers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(9), unique=True),
    Column("project", String(9), index=True),
    Column("deleted", Integer),
)
tags = Table(
    "tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server", String(9), index=True),
    Column("key", String(9)),
    Column("value", String(9)),
    Column("deleted", Integer),
)
caches = Table(
    "caches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server", String(9), unique=True),
    Column("network", Integer, index=True),
)
networks = Table(
    "networks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("zone", String(9)),
    Column("external", Integer),
)

# 40 servers in each of two projects; one in eight has the tag "a" = "1", some have no uuid.
ROWS: dict[Table, list[dict[str, Any]]] = {
    servers: [
        {
            "id": i,
            "uuid": f"s{i}" if i % 20 else None,
            "project": "p" if i <= 40 else "q",
            "deleted": int(i % 7 == 0),
        }
        for i in range(1, 81)
    ],
    tags: [
        {
            "id": 3 * i + j,
            "server": f"s{i}" if i != 5 else None,
            "key": "abc"[j],
            "value": str(i % 8 + j),
            "deleted": 0,
        }
        for i in range(1, 81)
        for j in range(3)
    ],
    caches: [{"id": i, "server": f"s{i}", "network": i % 5} for i in range(1, 81)],
    networks: [{"id": i, "zone": f"z{i}", "external": i % 2} for i in range(5)],
}


def fill(engine: Engine) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        for table, rows in ROWS.items():
            connection.execute(table.insert(), rows)


@pytest.fixture
def rome(engine: Engine) -> Iterator[Connection]:
    fill(engine)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def sqlite() -> Iterator[Connection]:
    engine = sqlite_engine()
    fill(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def rows_read(connection: Connection, statement: Any) -> tuple[list[Any], Counter[str]]:
    """The answer, and how many rows of each table the store has given for it."""
    driver: Any = connection.connection.dbapi_connection
    store = driver.transaction.session.store
    counts: Counter[str] = Counter()
    read = store.read

    def counted(version: str, requests: Sequence[Request], holder: str = "") -> Any:
        answers = read(version, requests, holder)
        for step, rows in zip(requests[0].steps, answers[0].rows or (), strict=True):
            table = driver.transaction.session.schema.by_number(step.table)
            counts[table.name] += len(rows) // 2
        return answers

    store.read = counted
    try:
        found = sorted(map(tuple, connection.execute(statement)), key=repr)
    finally:
        store.read = read
    return found, counts


tagged = exists().where(
    servers.c.uuid == tags.c.server, tags.c.key == "a", tags.c.value == "1", tags.c.deleted == 0
)
in_p = and_(servers.c.project == "p", servers.c.deleted == 0)
others = servers.alias("others")
page = select(servers).where(in_p, tagged).order_by(servers.c.id).limit(20).subquery()
external = select(networks.c.id).where(networks.c.external == 1)
by_key = select(tags.c.server).where(tags.c.key == "a", tags.c.value == "1")

# The statement, and the most rows that may come of some tables.
REDUCED: dict[str, tuple[Any, dict[str, int]]] = {
    "exists": (select(servers).where(in_p, tagged), {"servers": 5, "tags": 5}),
    "exists, columns": (
        select(servers.c.id).where(
            in_p,
            select(literal(1)).where(tags.c.server == servers.c.uuid, tags.c.value == "1").exists(),
        ),
        {"servers": 10},
    ),
    "a page with its children": (
        select(page, caches, networks.c.zone)
        .select_from(page)
        .outerjoin(caches, caches.c.server == page.c.uuid)
        .outerjoin(networks, networks.c.id == caches.c.network),
        {"servers": 5, "tags": 5, "caches": 5, "networks": 5},
    ),
    "in": (
        select(servers, caches)
        .outerjoin(caches, caches.c.server == servers.c.uuid)
        .where(in_p, servers.c.uuid.in_(by_key)),
        {"servers": 5, "caches": 5, "tags": 5},
    ),
    "exists in exists": (
        select(servers).where(
            in_p,
            exists().where(
                caches.c.server == servers.c.uuid,
                exists().where(networks.c.id == caches.c.network, networks.c.zone == "z3"),
            ),
        ),
        {"servers": 8, "caches": 8},
    ),
    "inner join": (
        select(servers, tags, caches.c.network)
        .join(tags, tags.c.server == servers.c.uuid)
        .outerjoin(caches, caches.c.server == servers.c.uuid)
        .where(in_p, tags.c.key == "b", tags.c.value == "2"),
        {"servers": 5, "tags": 5, "caches": 5},
    ),
    "exists of a join": (
        select(servers).where(
            in_p,
            exists()
            .select_from(caches.join(networks, networks.c.id == caches.c.network))
            .where(caches.c.server == servers.c.uuid, networks.c.zone == "z3"),
        ),
        {"servers": 8, "caches": 8},
    ),
    "on the right side of an outer join": (
        select(servers.c.id, caches.c.id)
        .select_from(servers)
        .outerjoin(
            caches,
            and_(
                caches.c.server == servers.c.uuid,
                exists().where(networks.c.id == caches.c.network, networks.c.zone == "z3"),
            ),
        )
        .where(in_p),
        {"caches": 8},
    ),
    "in the condition of an inner join": (
        select(servers.c.id, caches.c.id)
        .select_from(servers)
        .join(
            caches,
            and_(
                caches.c.server == servers.c.uuid,
                caches.c.network.in_(external.where(networks.c.zone == "z3")),
            ),
        )
        .where(in_p),
        {"servers": 8, "caches": 8},
    ),
    "no match at all": (
        select(servers, caches)
        .outerjoin(caches, caches.c.server == servers.c.uuid)
        .where(in_p, exists().where(tags.c.server == servers.c.uuid, tags.c.value == "none")),
        {"servers": 0, "tags": 0, "caches": 0},
    ),
}

total = select(func.max(tags.c.id)).where(tags.c.server == servers.c.uuid, tags.c.key == "x")
none_of = exists().where(tags.c.server == servers.c.uuid, tags.c.value == "1")
# Where rows without a match count as well.
WHOLE: dict[str, Any] = {
    "not exists": select(servers.c.id).where(in_p, ~none_of),
    "not": select(servers.c.id).where(in_p, not_(and_(tagged, servers.c.id > 3))),
    "or": select(servers.c.id).where(in_p, or_(tagged, servers.c.id == 2)),
    "an aggregate always answers": select(servers.c.id).where(in_p, total.exists()),
    "an outer join": select(servers.c.id, tags.c.id)
    .outerjoin(tags, and_(tags.c.server == servers.c.uuid, tags.c.value == "1"))
    .where(in_p),
    "an outer join's condition on its left side": select(servers.c.id, caches.c.id)
    .select_from(servers)
    .outerjoin(caches, and_(caches.c.server == servers.c.uuid, tagged))
    .where(in_p),
    "a full join": select(servers.c.id, tags.c.id)
    .select_from(servers.join(tags, tags.c.server == servers.c.uuid, full=True))
    .where(or_(servers.c.project == "p", tags.c.key == "a")),
    "not in": select(servers.c.id).where(in_p, servers.c.uuid.not_in(by_key)),
    "not in, with NULL": select(caches.c.id).where(
        caches.c.server.not_in(select(tags.c.server).where(tags.c.key == "a"))
    ),
    "in the first of an order": select(servers.c.id).where(
        in_p,
        servers.c.uuid.in_(
            select(tags.c.server).where(tags.c.key == "a").order_by(tags.c.id.desc()).limit(50)
        ),
    ),
    "in groups": select(servers.c.id).where(
        in_p,
        servers.c.uuid.in_(select(tags.c.server).group_by(tags.c.server).having(func.count() > 2)),
    ),
    "is it so": select(servers.c.id, tagged).where(in_p),
    "two of one table": select(servers.c.id).where(
        in_p,
        tagged,
        servers.c.id.in_(select(others.c.id).where(others.c.project == "p")),
    ),
    "two of one table, one with a match": select(servers.c.id, others.c.id).where(
        in_p, tagged, others.c.project == "q"
    ),
}


@pytest.mark.parametrize(("statement", "most"), REDUCED.values(), ids=REDUCED)
def test_rows_without_a_match_stay(
    rome: Connection, sqlite: Connection, statement: Any, most: dict[str, int]
) -> None:
    found, counts = rows_read(rome, statement)
    assert found == sorted(map(tuple, sqlite.execute(statement)), key=repr)
    assert found or not any(most.values())
    assert {name: counts[name] for name in most if counts[name] > most[name]} == {}


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize(
    "statement", [*WHOLE.values(), *(s for s, _ in REDUCED.values())], ids=[*WHOLE, *REDUCED]
)
@pytest.mark.parametrize("changed", ["nothing", "parents", "children", "both"])
def test_answers_are_those_of_sqlite(
    rome: Connection, sqlite: Connection, statement: Any, changed: str
) -> None:
    """Also where the transaction has rows of its own, which only it can match."""
    for connection in (rome, sqlite):
        if changed in ("parents", "both"):
            connection.execute(insert(servers).values(id=100, uuid="new", project="p", deleted=0))
            connection.execute(update(servers).where(servers.c.id == 3).values(uuid="other"))
            connection.execute(delete(servers).where(servers.c.id == 8))
        if changed in ("children", "both"):
            for number, server in enumerate(["new", "other", "s4", "s6"], 1000):
                connection.execute(
                    insert(tags).values(id=number, server=server, key="a", value="1", deleted=0)
                )
            connection.execute(update(tags).where(tags.c.server == "s16").values(value="none"))
            connection.execute(insert(caches).values(id=1000, server="new", network=3))
    found = sorted(map(tuple, rome.execute(statement)), key=repr)
    assert found == sorted(map(tuple, sqlite.execute(statement)), key=repr)


def test_writes_of_rows_with_a_match(rome: Connection, sqlite: Connection) -> None:
    """Each set of parameters has steps of its own."""
    of_value = select(tags.c.server).where(tags.c.value == bindparam("wanted"))
    write = update(servers).where(servers.c.uuid.in_(of_value), servers.c.project == "p")
    gone = delete(servers).where(
        exists().where(tags.c.server == servers.c.uuid, tags.c.value == bindparam("wanted"))
    )
    for connection in (rome, sqlite):
        connection.execute(
            write.values(deleted=bindparam("deep")),
            [{"wanted": "1", "deep": 11}, {"wanted": "3", "deep": 33}, {"wanted": "9", "deep": 9}],
        )
        connection.commit()
        connection.execute(gone, [{"wanted": "5"}, {"wanted": "8"}])
        connection.commit()
    whole = select(servers).order_by(servers.c.id)
    assert rome.execute(whole).all() == sqlite.execute(whole).all()
