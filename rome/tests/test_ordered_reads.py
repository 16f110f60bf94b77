"""How few rows a script looks at for ranges of a key, and for the first rows in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Table,
    and_,
    create_engine,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from tests.ordered_tables import metadata, named, numbered, pairs
from tests.servers import RedisServer

MANY = 3000
# More than so many rows and keys take a script more than one call.
FEW = 80


_KEYS: dict[str, Callable[[int], Any]] = {
    "numbered": int,
    "named": "n{:05}".format,
    "pairs": lambda number: f"p{number // 50:05}",
}


class Looked:
    """A table with many rows, and how many calls a statement needs."""

    def __init__(self, server: RedisServer, table: Table) -> None:
        self.table = table
        url = server.url(f"looked-{table.name}")
        self.engine = create_engine(f"{url}?page={FEW}&result_cache=off&prefetch=off")
        metadata.create_all(self.engine, [table])
        with self.engine.begin() as connection:
            rows_of_it = [
                {"k": _KEYS[table.name](n), "x": n % 3, "z": n % 2} for n in range(1, MANY + 1)
            ]
            if table is pairs:
                for n, row in enumerate(rows_of_it):
                    row["l"] = n
            connection.execute(insert(table), rows_of_it)

    def calls(self, connection: Connection, statement: Any) -> tuple[list[Any], int]:
        """The rows of an answer, or the count of rows written, and the round trips."""
        driver: Any = connection.connection.dbapi_connection
        before = driver.transaction.session.store.traffic.round_trips
        result = connection.execute(statement)
        found = list(map(tuple, result)) if result.returns_rows else [(result.rowcount,)]
        return found, driver.transaction.session.store.traffic.round_trips - before


@pytest.fixture(scope="module")
def looked(redis_server: RedisServer) -> Iterator[dict[str, Looked]]:
    made = {table.name: Looked(redis_server, table) for table in (numbered, named, pairs)}
    yield made
    for each in made.values():
        each.engine.dispose()


n, s, p = numbered.c, named.c, pairs.c
ONE_CALL: dict[str, tuple[Any, list[Any]]] = {
    "first": (select(n.k).order_by(n.k).limit(3), [(1,), (2,), (3,)]),
    "last": (select(n.k).order_by(n.k.desc()).limit(2), [(3000,), (2999,)]),
    "no order": (select(n.k).limit(2), [(1,), (2,)]),
    "offset": (select(n.k).order_by(n.k).limit(2).offset(20), [(21,), (22,)]),
    "marker": (select(n.k).where(n.k > 1500).order_by(n.k).limit(2), [(1501,), (1502,)]),
    "marker back": (select(n.k).where(n.k < 9).order_by(n.k.desc()).limit(2), [(8,), (7,)]),
    "range": (select(n.k).where(n.k > 2998), [(2999,), (3000,)]),
    "between": (select(n.k).where(n.k.between(10, 11)), [(10,), (11,)]),
    "between nothing": (select(n.k).where(n.k.between(11, 10)), []),
    "range and filter": (select(n.k).where(n.k >= 2990, n.x == 0).limit(2), [(2991,), (2994,)]),
    "walk and filter": (select(n.k).where(n.x == 2).order_by(n.k).limit(2), [(2,), (5,)]),
    "walk beside a set": (select(n.k).where(n.z == 1).order_by(n.k).limit(2), [(1,), (3,)]),
    "more columns": (select(n.k).order_by(n.k, n.x.desc()).limit(1), [(1,)]),
    "highest": (select(func.max(n.k)), [(3000,)]),
    "lowest": (select(func.min(n.k)).where(n.k > 7), [(8,)]),
    "highest with": (select(func.max(n.k)).where(n.x == 1), [(2998,)]),
    "count": (select(func.count()).where(n.k > 1000), [(2000,)]),
    "either": (
        select(n.k).where(or_(n.k > 2999, and_(n.k == 2999, n.x > 0))).order_by(n.k).limit(1),
        [(2999,)],
    ),
    "outer": (
        select(n.k).where(n.k.in_(select(n.k).order_by(n.k).limit(2))),
        [(1,), (2,)],
    ),
    "name marker": (
        select(s.k).where(s.k > "n02000").order_by(s.k).limit(2),
        [("n02001",), ("n02002",)],
    ),
    "names from": (select(s.k).where(s.k >= "n02999"), [("n02999",), ("n03000",)]),
    "last name": (select(func.max(s.k)), [("n03000",)]),
    "names like": (select(s.k).where(s.k.between("n0001", "n00011")), [("n00010",), ("n00011",)]),
    "in a group": (
        select(p.l).where(p.k == "p00002").order_by(p.l.desc()).limit(2),
        [(148,), (147,)],
    ),
    "range in a group": (
        select(p.l).where(p.k == "p00002", p.l < 101),
        [(99,), (100,)],
    ),
    "by both": (
        select(p.k, p.l).order_by(p.k, p.l).limit(2),
        [("p00000", 0), ("p00000", 1)],
    ),
    "by the first": (
        select(p.k, p.l).order_by(p.k, p.x.desc(), p.l).limit(1),
        [("p00000", 1)],
    ),
}


@pytest.mark.parametrize("question", ONE_CALL.values(), ids=ONE_CALL)
def test_few_rows_are_looked_at(looked: dict[str, Looked], question: tuple[Any, Any]) -> None:
    statement, expected = question
    table = looked[statement.get_final_froms()[0].name]
    with table.engine.connect() as connection:
        connection.execute(select(table.table).where(table.table.c.k == "none")).all()
        assert table.calls(connection, statement) == (expected, 1)


def test_a_walk_that_finds_little_goes_on_page_by_page(looked: dict[str, Looked]) -> None:
    table = looked["numbered"]
    with table.engine.connect() as connection:
        rare = select(n.k).where(n.x == 1, n.k % 1 == 0, n.k > 100)
        connection.execute(rare.limit(1)).all()
        # 110 rows of the walk, more than a call looks at.
        found, calls = table.calls(
            connection, select(n.k).where(n.x == 2, n.z == 0).order_by(n.k).limit(19)
        )
        assert [k for (k,) in found] == list(range(2, 111, 6))
        assert 2 < calls < 12
        # Nothing is found: all is looked at, and told rightly.
        assert table.calls(connection, select(n.k).where(n.x == 9).order_by(n.k).limit(1))[0] == []


def test_more_columns_of_an_order_decide_over_several_pages(looked: dict[str, Looked]) -> None:
    table = looked["pairs"]
    with table.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(select(p.k, p.x, p.l))]
        expected = sorted(rows, key=lambda row: (row[0], -row[1], row[2]))
        question = select(p.k, p.x, p.l).order_by(p.k, p.x.desc(), p.l)
        for limit in (1, 49, 60, 70, 120):
            found, calls = table.calls(connection, question.limit(limit))
            assert found == expected[:limit]
        assert 1 < calls < 20  # of 200 for all rows


def test_rows_of_its_own_are_among_the_first(looked: dict[str, Looked]) -> None:
    table = looked["numbered"]
    with table.engine.connect() as connection:
        connection.execute(delete(numbered).where(n.k.in_([1, 3])))
        connection.execute(update(numbered).where(n.k == 5).values(x=9))
        connection.execute(insert(numbered), [{"k": -5, "x": 0}, {"k": 4000, "x": 0}])
        first = select(n.k).order_by(n.k).limit(6)
        assert table.calls(connection, first) == ([(-5,), (2,), (4,), (5,), (6,), (7,)], 1)
        last = select(n.k).order_by(n.k.desc()).limit(2)
        assert table.calls(connection, last) == ([(4000,), (3000,)], 1)
        assert table.calls(connection, select(func.max(n.k))) == ([(4000,)], 1)
        zeros = select(n.k).where(n.x == 9).order_by(n.k).limit(1)
        assert connection.scalars(zeros).all() == [5]
        connection.rollback()
        assert table.calls(connection, first) == ([(k,) for k in range(1, 7)], 1)


def test_a_purge_looks_at_what_it_takes(looked: dict[str, Looked]) -> None:
    table = looked["named"]
    some = select(s.k).where(s.k > "n00100").order_by(s.k).limit(20).scalar_subquery()
    with table.engine.connect() as connection:
        connection.execute(select(named).where(s.k == "none")).all()
        found, calls = table.calls(connection, delete(named).where(s.k.in_(some)))
        assert (found, calls) == ([(20,)], 1)
        left = select(s.k).where(s.k > "n00100").order_by(s.k).limit(1)
        assert connection.scalars(left).all() == ["n00121"]
        connection.rollback()
