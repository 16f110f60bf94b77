"""No committed row is lost or overwritten without an error, whatever the key of its table:
histories of two connections, or of one with savepoints, that have done so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.engine import shared, transaction
from rome.errors import ConflictError, IntegrityError
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    exc,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert as upsert

LEVELS = ["READ COMMITTED", "SERIALIZABLE"]
Pair = tuple[Connection, Connection]


def alone(engine: Engine) -> Engine:
    """An engine whose connections share nothing with others of this process."""
    made = create_engine(engine.url)

    @event.listens_for(made, "do_connect")
    def own(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["shared"] = shared.Shared()

    return made


@pytest.fixture(params=[f"{level}-{whose}" for level in LEVELS for whose in ("same", "other")])
def pair(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connections, of one process or of two, at each isolation level."""
    level, whose = request.param.split("-")
    second = alone(engine) if whose == "other" else engine
    one = engine.connect().execution_options(isolation_level=level)
    two = second.connect().execution_options(isolation_level=level)
    yield one, two
    one.close()
    two.close()
    if second is not engine:
        second.dispose()


def conflicts(*actions: Callable[[], Any]) -> bool:
    """Whether one of them ends in a conflict."""
    try:
        for action in actions:
            action()
    except exc.OperationalError as error:
        assert isinstance(error.orig, ConflictError)
        return True
    return False


def rows(connection: Connection, table: Table) -> list[tuple[Any, ...]]:
    found = sorted(tuple(row) for row in connection.execute(select(table)))
    connection.rollback()
    return found


def made(connection: Connection, *columns: Column[Any], name: str = "t") -> Table:
    table = Table(name, MetaData(), *columns)
    table.create(connection)
    connection.commit()
    return table


def text_keyed(connection: Connection) -> Table:
    return made(connection, Column("k", String(9), primary_key=True), Column("x", Integer))


# ---------------------------------------------------------------- rows without a key of INTEGER


def test_a_row_that_was_left_out_is_not_taken_for_another(pair: Pair) -> None:
    one, two = pair
    t = text_keyed(one)
    one.execute(t.insert().values(k="a", x=1))
    two.execute(t.insert().values(k="a", x=2))
    two.commit()
    next_one = insert(t).from_select(
        ["k", "x"], select(literal("b"), func.count() + 2).select_from(t)
    )
    assert conflicts(lambda: one.execute(next_one), one.commit)
    one.rollback()
    assert rows(two, t) == [("a", 2)]


def test_a_new_row_does_not_take_over_a_deleted_one_of_the_same_transaction(pair: Pair) -> None:
    one, two = pair
    t = text_keyed(one)
    one.execute(t.insert().values(k="a"))
    one.execute(t.insert().values(k="b"))
    savepoint = one.begin_nested()
    one.execute(t.delete().where(t.c.k == "b"))
    one.execute(t.insert().values(k="c"))
    savepoint.rollback()
    assert [row.k for row in one.execute(select(t).order_by(t.c.k))] == ["a", "b"]
    one.commit()
    assert rows(two, t) == [("a", None), ("b", None)]


def test_a_refused_row_after_a_deleted_one_is_an_integrity_error(pair: Pair) -> None:
    one, two = pair
    t = text_keyed(one)
    one.execute(t.insert().values(k="z"))
    one.commit()
    with one.begin_nested():
        one.execute(t.insert().values(k="a"))
        one.execute(t.insert().values(k="b"))
        one.execute(t.delete().where(t.c.k == "b"))
        with pytest.raises(exc.IntegrityError), one.begin_nested():
            one.execute(t.insert().values(k="z"))
    one.commit()
    assert [k for k, _ in rows(two, t)] == ["a", "z"]


def test_rows_that_come_and_go_within_savepoints(pair: Pair) -> None:
    """Each step's outcome, undone in every depth, is what a database with locks would have."""
    one, two = pair
    t = text_keyed(one)
    one.execute(t.insert(), [{"k": "a", "x": 1}, {"k": "b", "x": 1}])
    one.commit()
    outer = one.begin_nested()
    one.execute(t.delete().where(t.c.k == "a"))
    one.execute(t.insert().values(k="c", x=2))
    inner = one.begin_nested()
    one.execute(t.update().where(t.c.k == "c").values(k="a"))
    one.execute(t.insert().values(k="d", x=3))
    inner.rollback()
    one.execute(t.insert().values(k="e", x=4))
    outer.commit()
    assert rows(two, t) == [("a", 1), ("b", 1)]
    one.commit()
    assert rows(two, t) == [("b", 1), ("c", 2), ("e", 4)]


# ---------------------------------------------------------------- deleted and inserted again


def by_number(connection: Connection) -> Table:
    return made(
        connection,
        Column("k", Integer, primary_key=True),
        Column("n", Integer),
        Column("y", Integer),
    )


def by_text(connection: Connection) -> Table:
    return made(
        connection,
        Column("k", String(9), primary_key=True),
        Column("n", Integer),
        Column("y", Integer),
    )


@pytest.mark.parametrize("make", [by_number, by_text])
def test_a_row_that_is_inserted_again_is_wholly_the_new_one(
    pair: Pair, make: Callable[[Connection], Table]
) -> None:
    one, two = pair
    t = make(one)
    one.execute(t.insert().values(k="1", n=0, y=5))
    one.commit()
    one.execute(t.delete().where(t.c.k == "1"))
    one.execute(t.insert().values(k="1", n=1, y=5))
    two.execute(t.update().where(t.c.k == "1").values(y=9))
    two.commit()
    assert conflicts(one.commit) or [row[1:] for row in rows(one, t)] == [(1, 5)]


@pytest.mark.parametrize("make", [by_number, by_text])
def test_another_key_does_not_take_over_the_columns_of_a_deleted_row(
    pair: Pair, make: Callable[[Connection], Table]
) -> None:
    one, two = pair
    t = make(one)
    one.execute(t.insert().values(k="1", n=0, y=5))
    one.commit()
    one.execute(t.delete().where(t.c.k == "1"))
    one.execute(t.insert().values(k="2", n=1, y=5))
    two.execute(t.update().where(t.c.k == "1").values(y=9))
    two.commit()
    assert conflicts(one.commit) or [row[1:] for row in rows(one, t)] == [(1, 5)]


def test_deleting_and_inserting_again_is_undone_by_a_savepoint(pair: Pair) -> None:
    """What is left of it must not write columns that others have changed."""
    one, two = pair
    t = by_number(one)
    one.execute(t.insert().values(k=1, n=0, y=5))
    one.commit()
    one.execute(t.update().where(t.c.k == 1).values(n=3))
    savepoint = one.begin_nested()
    one.execute(t.delete().where(t.c.k == 1))
    one.execute(t.insert().values(k=1, n=1, y=5))
    savepoint.rollback()
    two.execute(t.update().where(t.c.k == 1).values(y=9))
    two.commit()
    assert conflicts(one.commit) or rows(one, t) == [(1, 3, 9)]


@pytest.mark.parametrize("make", [by_number, by_text])
def test_a_row_that_gets_another_key_keeps_what_others_wrote(
    pair: Pair, make: Callable[[Connection], Table]
) -> None:
    one, two = pair
    t = make(one)
    one.execute(t.insert().values(k="1", n=0, y=5))
    one.commit()
    one.execute(t.update().where(t.c.k == "1").values(k="2"))
    two.execute(t.update().where(t.c.k == "1").values(y=9))
    two.commit()
    if not conflicts(one.commit):
        assert [(str(k), n, y) for k, n, y in rows(one, t)] == [("2", 0, 9)]


# ---------------------------------------------------------------- beside others' rows


def test_new_rows_are_kept_beside_rows_that_were_read_before(pair: Pair) -> None:
    """A key that was free when it was inserted, but not when older rows were read."""
    one, two = pair
    t = made(one, Column("id", Integer, primary_key=True), Column("k", String(9), unique=True),
             Column("x", Integer))  # fmt: skip
    one.execute(t.insert().values(k="a", x=1))
    one.commit()
    one.execute(text("SELECT * FROM t")).all()
    two.execute(t.delete().where(t.c.k == "a"))
    two.commit()

    def go_on() -> None:
        one.execute(t.insert().values(k="a", x=2))
        savepoint = one.begin_nested()
        one.execute(t.insert().values(k="b", x=3))
        savepoint.rollback()
        assert [row.x for row in one.execute(text("SELECT x FROM t"))] == [2]

    if not conflicts(go_on, one.commit):
        assert [row[1:] for row in rows(two, t)] == [("a", 2)]


def test_a_key_that_another_took_is_a_conflict_at_the_latest_at_the_commit(pair: Pair) -> None:
    one, two = pair
    t = text_keyed(one)
    one.execute(t.insert(), [{"k": "a", "x": 1}, {"k": "b", "x": 1}])
    one.commit()
    one.execute(t.update().where(t.c.k == "a").values(k="c"))
    two.execute(t.insert().values(k="c", x=2))
    two.commit()
    everything = t.update().values(x=t.c.x + 10)
    assert conflicts(lambda: one.execute(everything), one.commit)
    one.rollback()
    assert rows(one, t) == [("a", 1), ("b", 1), ("c", 2)]


def test_a_parent_of_another_type_is_made_in_the_same_transaction(pair: Pair) -> None:
    one, two = pair
    parents = Table("p", MetaData(), Column("id", Integer, primary_key=True))
    children = Table("c", parents.metadata, Column("id", Integer, primary_key=True),
                     Column("up", String(9), ForeignKey("p.id")))  # fmt: skip
    parents.metadata.create_all(one)
    one.commit()
    one.execute(parents.insert().values(id=1))
    one.execute(children.insert().values(id=1, up="1"))
    one.commit()
    with pytest.raises(exc.IntegrityError) as raised:
        one.execute(parents.delete().where(parents.c.id == 1))
    assert isinstance(raised.value.orig, IntegrityError)
    one.rollback()
    assert rows(two, children) == [(1, "1")]
    one.execute(children.delete())
    one.execute(parents.delete().where(parents.c.id == 1))
    one.commit()
    assert rows(two, parents) == []


# ---------------------------------------------------------------- another's new column


def test_a_column_that_another_process_has_added_can_be_written_at_once(pair: Pair) -> None:
    one, two = pair
    t = by_number(one)
    assert rows(two, t) == []
    one.execute(text("ALTER TABLE t ADD COLUMN z INTEGER"))
    one.commit()
    two.execute(text("INSERT INTO t (k, z) VALUES (1, 7)"))
    two.commit()
    two.execute(text("UPDATE t SET z = z + 1"))
    two.commit()
    assert rows(one, t) == [(1, None, None)]
    assert one.execute(text("SELECT z FROM t")).scalar_one() == 8


def test_a_column_that_another_process_has_added_can_be_written_after_a_savepoint(
    pair: Pair,
) -> None:
    one, two = pair
    t = by_number(one)
    assert rows(two, t) == []
    one.execute(text("ALTER TABLE t ADD COLUMN z INTEGER"))
    one.commit()
    with two.begin_nested():
        two.execute(text("INSERT INTO t (k, z) VALUES (1, 7)"))
    two.commit()
    assert one.execute(text("SELECT z FROM t")).scalar_one() == 7


# ---------------------------------------------------------------- replays


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_replay_compares_answers_of_any_size(
    pair: Pair, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large answers only a digest is kept: it tells -1 from -2 all the same."""
    monkeypatch.setattr(transaction, "ROWS_KEPT", kept)
    one, two = pair
    t = by_number(one)
    one.execute(t.insert(), [{"k": number, "n": -1, "y": 0} for number in range(1, 5)])
    one.commit()

    def add(number: int) -> None:
        assert len(one.execute(select(t.c.n).where(t.c.k < 3)).all()) == 2
        one.execute(t.update().where(t.c.k == 4).values(y=t.c.y + 1))
        two.execute(t.update().where(t.c.k == 4).values(y=t.c.y + 10))
        two.execute(t.update().where(t.c.k == number).values(n=-2))
        two.commit()

    add(3)
    same_answers = not conflicts(one.commit)
    assert same_answers
    add(1)
    assert conflicts(one.commit)
    one.rollback()
    assert [row.y for row in one.execute(select(t.c.y).where(t.c.k == 4))] == [21]


def test_a_table_that_was_made_inside_a_savepoint_takes_another_ones_column(pair: Pair) -> None:
    one, two = pair
    t = by_number(one)
    savepoint = two.begin_nested()
    two.execute(text("INSERT INTO t (k, n) VALUES (1, 1)"))
    savepoint.rollback()
    two.rollback()
    one.execute(text("ALTER TABLE t ADD COLUMN z INTEGER DEFAULT 5"))
    one.commit()
    two.execute(t.insert().values(n=2))
    for connection in (two, one):
        assert [tuple(row) for row in connection.execute(text("SELECT n, z FROM t"))] == [(2, 5)]
        connection.commit()


# ---------------------------------------------------------------- a statement sees one moment


def test_an_error_is_not_made_of_two_moments(pair: Pair) -> None:
    """The row moves to the key that the other transaction wants to give it."""
    one, two = pair
    t = by_number(one)
    one.execute(t.insert().values(k=1))
    one.commit()
    one.execute(text("SELECT * FROM t")).all()
    two.execute(t.update().where(t.c.k == 1).values(k=3))
    two.commit()
    move = t.update().where(t.c.k == 1).values(k=3)
    counts: list[int] = []
    assert conflicts(lambda: counts.append(one.execute(move).rowcount)) or counts == [0]


def test_a_parent_and_its_children_are_read_together(pair: Pair) -> None:
    one, two = pair
    parents = Table("p", MetaData(), Column("k", Integer, primary_key=True))
    children = Table("c", parents.metadata, Column("id", Integer, primary_key=True),
                     Column("up", ForeignKey("p.k", ondelete="CASCADE")))  # fmt: skip
    parents.metadata.create_all(one)
    one.execute(parents.insert().values(k=1))
    one.execute(children.insert().values(id=1, up=1))
    one.commit()
    assert one.execute(select(parents)).all()
    move = parents.update().where(parents.c.k == 1).values(k=3)
    with pytest.raises(exc.IntegrityError), one.begin_nested():
        one.execute(move)
    two.execute(parents.delete().where(parents.c.k == 1))
    two.commit()
    counts: list[int] = []
    assert conflicts(lambda: counts.append(one.execute(move).rowcount)) or counts == [0]


def test_on_conflict_finds_rows_behind_a_collision_with_an_own_one(pair: Pair) -> None:
    one, _ = pair
    t = made(one, Column("k", Integer, primary_key=True), Column("u", String(9), unique=True))
    one.execute(t.insert().values(k=1, u="c"))
    one.commit()
    one.execute(t.insert().values(k=3, u="a"))
    statement = text("INSERT INTO t VALUES (1, 'a') ON CONFLICT (k) DO UPDATE SET u = 'b'")
    assert one.execute(statement).rowcount == 1
    compiled = upsert(t).values(k=1, u="a")
    one.execute(compiled.on_conflict_do_update(index_elements=["k"], set_={"u": "d"}))
    one.commit()
    assert rows(one, t) == [(1, "d"), (3, "a")]


def test_a_child_of_another_transaction_is_not_taken_for_an_own_one(pair: Pair) -> None:
    """Its number is that of an own child, which has come and gone with the parent."""
    one, two = pair
    parents = Table("p", MetaData(), Column("k", String(9), primary_key=True))
    children = Table("c", parents.metadata, Column("id", Integer, primary_key=True),
                     Column("up", ForeignKey("p.k", ondelete="CASCADE")))  # fmt: skip
    parents.metadata.create_all(one)
    one.execute(parents.insert().values(k="a"))
    one.commit()
    one.execute(children.insert().values(id=2, up="a"))
    one.execute(parents.delete().where(parents.c.k == "a"))
    two.execute(children.insert().values(id=2, up="a"))
    two.commit()
    assert conflicts(one.commit)
    assert rows(two, children) == [(2, "a")]
    assert rows(two, parents) == [("a",)]


def test_writes_that_could_not_be_run_again_are_not_forgotten(engine: Engine) -> None:
    """A statement inside a savepoint meets a new schema, and an earlier answer is another one now:
    the transaction is lost, and whoever goes on all the same hears of it."""
    with engine.connect() as one, alone(engine).connect() as two:
        t = text_keyed(one)
        one.execute(t.insert().values(k="x", x=1))
        one.commit()
        assert one.execute(select(t.c.x)).scalars().all() == [1]
        one.execute(t.insert().values(k="a", x=1))
        with pytest.raises(exc.OperationalError) as raised, one.begin_nested():
            two.execute(t.update().values(x=2))
            two.execute(text("ALTER TABLE t ADD COLUMN z INTEGER"))
            two.commit()
            one.execute(
                insert(t).from_select(["k", "x"], select(literal("b"), func.count()).select_from(t))
            )
        assert isinstance(raised.value.orig, ConflictError)
        assert conflicts(lambda: one.execute(t.insert().values(k="c", x=1)))
        assert conflicts(one.commit)
        one.rollback()
        one.execute(t.insert().values(k="d", x=1))
        one.commit()
        assert [row[0] for row in rows(one, t)] == ["d", "x"]


@pytest.mark.parametrize("how", ["deleted", "undone"])
def test_a_key_that_was_free_is_an_answer_also_if_its_row_goes_again(
    engine: Engine, how: str
) -> None:
    """SERIALIZABLE: the INSERT was before the other transaction, the SELECT would be after it."""
    with engine.connect() as first, alone(engine).connect() as two:
        one = first.execution_options(isolation_level="SERIALIZABLE")
        t = text_keyed(two)

        def go_on() -> None:
            savepoint = one.begin_nested()
            one.execute(t.insert().values(k="a", x=1))
            two.execute(t.insert().values(k="a", x=2))
            two.commit()
            if how == "deleted":
                savepoint.commit()
                assert one.execute(t.delete().where(t.c.x == 1)).rowcount == 1
            else:
                savepoint.rollback()
            one.execute(select(func.count()).select_from(t)).scalar_one()

        assert conflicts(go_on, one.commit)
