"""What concurrent transactions may see of each other: what ROME prevents, and what not.

The cases are those of the Hermitage suite, with its names of anomalies.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.errors import ConflictError
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
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from rome import driver as rome_driver
from tests.cutting_proxy import CuttingProxy
from tests.etcd_servers import EtcdServer, etcd_server
from tests.processes import at_once
from tests.servers import RedisServer, redis_server

WEAK, STRONG = "READ COMMITTED", "SERIALIZABLE"

metadata = MetaData()
numbers = Table(
    "numbers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("value", Integer, nullable=False),
    Column("other", Integer, nullable=False, default=0),
)
parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
children = Table(
    "children",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("parents.id"), nullable=False),
)
names = Table(
    "names",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, unique=True),
    Column("owner", Integer),
)


@pytest.fixture(scope="module", params=["redis", "etcd"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | EtcdServer]:
    with redis_server() if request.param == "redis" else etcd_server() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer | EtcdServer) -> RedisServer:
    """The server, for what only scripts in Redis do: pages of a read, each at a later moment."""
    if not isinstance(server, RedisServer):
        pytest.skip("etcd reads all pages at one revision (test_etcd.py)")
    return server


@pytest.fixture
def url(server: RedisServer | EtcdServer, request: pytest.FixtureRequest) -> str:
    """Of a database of the test's own, with the tables."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    engine = create_engine(server.url(name), poolclass=NullPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(numbers), [{"id": 1, "value": 10}, {"id": 2, "value": 20}])
    return server.url(name)


@pytest.fixture
def weak(url: str) -> Iterator[Engine]:
    """Engine at ROME's default level."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def strong(url: str) -> Iterator[Engine]:
    engine = create_engine(url, isolation_level=STRONG)
    yield engine
    engine.dispose()


@pytest.fixture(params=[WEAK, STRONG])
def engine(url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Engines at both levels: for what is prevented at both."""
    engine = create_engine(url, isolation_level=request.param)
    yield engine
    engine.dispose()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[[Engine, int], list[Connection]]]:
    """Opens transactions that are ended with the test."""
    connections: list[Connection] = []

    def some(engine: Engine, count: int) -> list[Connection]:
        connections.extend(engine.connect() for _ in range(count))
        return connections[-count:]

    yield some
    for connection in connections:
        connection.close()


Opened = Callable[[Engine, int], list[Connection]]


def set_value(connection: Connection, number: int, value: int) -> int:
    done = connection.execute(update(numbers).where(numbers.c.id == number).values(value=value))
    return done.rowcount


def value(connection: Connection, number: int) -> int:
    found: int = connection.scalars(select(numbers.c.value).where(numbers.c.id == number)).one()
    return found


def values(engine: Engine) -> dict[int, int]:
    """All committed values."""
    with engine.connect() as connection:
        return dict(connection.execute(select(numbers.c.id, numbers.c.value)).all())  # type: ignore[arg-type]


def conflicts(*actions: Callable[[], Any]) -> bool:
    """Whether they fail with a conflict, which the caller may retry."""
    try:
        for action in actions:
            action()
    except OperationalError as error:
        assert isinstance(error.orig, ConflictError)
        assert "try again" in str(error.orig)
        return True
    return False


def replays(connection: Connection) -> int:
    """How often the driver has run the connection's statements again."""
    driver: Any = connection.connection.dbapi_connection
    count: int = driver.transaction.retries
    return count


# ---------------------------------------------------------------- what observers are told


@pytest.fixture
def outcomes() -> Iterator[list[tuple[int, int, int]]]:
    """Commits, conflicts and retries, as an observer of commits is told of them."""
    told: list[tuple[int, int, int]] = []

    def observe(commits: int, conflicts_: int, retries: int) -> None:
        told.append((commits, conflicts_, retries))

    rome_driver.commit_observers.append(observe)
    yield told
    rome_driver.commit_observers.remove(observe)


def test_observers_are_told_of_commits_retries_and_conflicts(
    strong: Engine, opened: Opened, outcomes: list[tuple[int, int, int]]
) -> None:
    outcomes.clear()
    one, two = opened(strong, 2)
    set_value(one, 1, 11)
    set_value(two, 1, 12)
    assert outcomes == [], "nothing is committed"
    one.commit()
    assert outcomes == [(1, 0, 0)]
    assert conflicts(lambda: set_value(two, 2, 22), two.commit)
    assert sum(lost for _, lost, _ in outcomes) >= 1
    assert sum(done for done, _, _ in outcomes) == 1
    assert values(strong)[1] == 11
    assert len(outcomes) < 4, "a transaction that only reads has nothing to commit"


def test_observers_are_told_how_often_statements_ran_again(
    weak: Engine, opened: Opened, outcomes: list[tuple[int, int, int]]
) -> None:
    outcomes.clear()
    one, two = opened(weak, 2)
    for connection in (one, two):
        connection.execute(update(numbers).where(numbers.c.id == 1).values(
            value=numbers.c.value + 1))  # fmt: skip
    one.commit()
    two.commit()
    assert outcomes == [(1, 0, 0), (1, 0, replays(two))]
    assert replays(two) == 1, "it added to what the other had written"


# ---------------------------------------------------------------- Hermitage


def test_default_level_is_read_committed(url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.get_isolation_level() == WEAK
        assert connection.default_isolation_level == WEAK
        connection.rollback()
        strong = connection.execution_options(isolation_level=STRONG)
        assert strong.get_isolation_level() == STRONG
    with engine.connect() as connection:
        assert connection.get_isolation_level() == WEAK  # reset with the connection's return


def test_g0_dirty_write_prevented_at_read_committed(weak: Engine, opened: Opened) -> None:
    """Writes of two transactions don't mix: the later commit has both of its rows."""
    one, two = opened(weak, 2)
    set_value(one, 1, 11)
    set_value(two, 1, 12)
    set_value(one, 2, 21)
    one.commit()
    set_value(two, 2, 22)
    two.commit()
    assert values(weak) == {1: 12, 2: 22}


def test_g0_dirty_write_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    set_value(one, 1, 11)
    set_value(two, 1, 12)
    set_value(one, 2, 21)
    one.commit()
    assert conflicts(lambda: set_value(two, 2, 22), two.commit)
    assert values(strong) == {1: 11, 2: 21}


def test_g1a_aborted_read_prevented(engine: Engine, opened: Opened) -> None:
    one, two = opened(engine, 2)
    set_value(one, 1, 101)
    assert value(two, 1) == 10
    one.rollback()
    assert value(two, 1) == 10
    two.commit()
    assert values(engine) == {1: 10, 2: 20}


def test_g1b_intermediate_read_prevented(engine: Engine, opened: Opened) -> None:
    one, two, three = opened(engine, 3)
    set_value(one, 1, 101)
    assert value(two, 1) == 10
    set_value(one, 1, 11)
    one.commit()
    assert value(three, 1) == 11


def test_g1c_circular_information_flow_prevented(engine: Engine, opened: Opened) -> None:
    """Neither sees what the other hasn't committed."""
    one, two = opened(engine, 2)
    set_value(one, 1, 11)
    set_value(two, 2, 22)
    assert value(one, 2) == 20
    assert value(two, 1) == 10
    one.commit()
    # Write skew: let happen at READ COMMITTED, not at SERIALIZABLE.
    assert conflicts(two.commit) == (engine.dialect.get_isolation_level(driver(two)) == STRONG)


def driver(connection: Connection) -> Any:
    """The driver's own connection."""
    return connection.connection.dbapi_connection


def test_g1c_write_of_the_same_value_is_a_write(weak: Engine, opened: Opened) -> None:
    """One writes 10 over 10, sees what another committed, and commits after it: 10 stays."""
    one, two = opened(weak, 2)
    assert set_value(one, 1, 10) == 1
    set_value(two, 1, 12)
    set_value(two, 2, 22)
    two.commit()
    assert value(one, 2) == 22
    one.commit()
    assert values(weak) == {1: 10, 2: 22}


def test_otv_observed_transaction_vanishes_prevented(weak: Engine, opened: Opened) -> None:
    one, two, three = opened(weak, 3)
    set_value(one, 1, 11)
    set_value(one, 2, 19)
    set_value(two, 1, 12)
    one.commit()
    assert value(three, 1) == 11
    set_value(two, 2, 18)
    assert value(three, 2) == 19
    two.commit()
    assert value(three, 2) == 18
    assert value(three, 1) == 12


def test_otv_at_serializable_the_reader_is_stopped(strong: Engine, opened: Opened) -> None:
    one, two, three = opened(strong, 3)
    set_value(one, 1, 11)
    set_value(one, 2, 19)
    one.commit()
    assert value(three, 1) == 11
    set_value(two, 1, 12)
    set_value(two, 2, 18)
    two.commit()
    assert conflicts(lambda: value(three, 2))


def large(connection: Connection) -> list[int]:
    statement = select(numbers.c.id).where(numbers.c.value >= 30).order_by(numbers.c.id)
    return list(connection.scalars(statement))


def test_pmp_phantoms_let_happen_at_read_committed(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    assert large(one) == []
    two.execute(insert(numbers), {"id": 3, "value": 30})
    two.commit()
    assert large(one) == [3]
    one.commit()


def test_pmp_phantoms_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    assert large(one) == []
    two.execute(insert(numbers), {"id": 3, "value": 30})
    two.commit()
    assert conflicts(lambda: large(one))


def test_pmp_of_a_delete_is_decided_at_commit(weak: Engine, opened: Opened) -> None:
    """A condition that no longer holds for a row at commit is evaluated anew."""
    one, two = opened(weak, 2)
    one.execute(update(numbers).values(value=numbers.c.value + 10))
    assert two.execute(delete(numbers).where(numbers.c.value == 20)).rowcount == 1
    one.commit()
    two.commit()  # one row, as before: the one that has 20 now
    assert values(weak) == {2: 30}


def test_pmp_of_a_delete_fails_if_its_answer_is_another(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    one.execute(update(numbers).values(value=numbers.c.value + 100))
    assert two.execute(delete(numbers).where(numbers.c.value == 20)).rowcount == 1
    one.commit()
    assert conflicts(two.commit)
    assert values(weak) == {1: 110, 2: 120}


def test_p4_lost_update_let_happen_with_values_of_the_application(
    weak: Engine, opened: Opened
) -> None:
    """At READ COMMITTED a value that the application computed from a read may be stale."""
    one, two = opened(weak, 2)
    read = value(one, 1), value(two, 1)
    set_value(one, 1, read[0] + 1)
    set_value(two, 1, read[1] + 5)
    one.commit()
    two.commit()
    assert values(weak)[1] == 15


def test_p4_lost_update_prevented_in_sql(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    for connection, more in ((one, 1), (two, 5)):
        connection.execute(
            update(numbers).where(numbers.c.id == 1).values(value=numbers.c.value + more)
        )
    one.commit()
    two.commit()
    assert replays(two) == 1
    assert values(weak)[1] == 16


def test_p4_lost_update_prevented_by_compare_and_swap(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    swap = update(numbers).where(numbers.c.id == 1, numbers.c.value == 10)
    assert one.execute(swap.values(value=11)).rowcount == 1
    assert two.execute(swap.values(value=15)).rowcount == 1
    one.commit()
    assert conflicts(two.commit)
    two.rollback()
    assert two.execute(swap.values(value=15)).rowcount == 0
    assert values(weak)[1] == 11


@pytest.mark.parametrize("columns", ["one", "all"])
def test_p4_lost_update_prevented_by_for_update(weak: Engine, opened: Opened, columns: str) -> None:
    one, two = opened(weak, 2)
    wanted = [numbers.c.value] if columns == "one" else [numbers.c.value, numbers]
    read = select(*wanted).where(numbers.c.id == 1).with_for_update()
    seen = [connection.scalars(read).one() for connection in (one, two)]
    set_value(one, 1, seen[0] + 1)
    set_value(two, 1, seen[1] + 5)
    one.commit()
    assert conflicts(two.commit)
    assert values(weak)[1] == 11


@pytest.mark.parametrize("shared", [False, True], ids=["update", "share"])
@pytest.mark.parametrize("columns", ["one", "all"])
def test_for_update_of_a_row_that_isnt_written(
    weak: Engine, opened: Opened, columns: str, shared: bool
) -> None:
    """It holds back a commit that relied on it, and only that; FOR SHARE is the same."""
    one, two, three = opened(weak, 3)
    wanted = [numbers.c.value] if columns == "one" else [numbers]
    read = select(*wanted).where(numbers.c.id == 1).with_for_update(read=shared)
    for connection in (one, three):
        connection.execute(read).all()
        set_value(connection, 2, 77)
    one.commit()
    set_value(two, 1, 11)
    two.commit()
    assert conflicts(three.commit)
    assert values(weak) == {1: 11, 2: 77}


def test_p4_lost_update_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    read = value(one, 1), value(two, 1)
    set_value(one, 1, read[0] + 1)
    set_value(two, 1, read[1] + 5)
    one.commit()
    assert conflicts(two.commit)
    assert values(strong)[1] == 11


def test_g_single_read_skew_let_happen_at_read_committed(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    assert value(one, 1) == 10
    set_value(two, 1, 12)
    set_value(two, 2, 18)
    two.commit()
    assert value(one, 2) == 18
    one.commit()


def test_g_single_one_statement_sees_one_state(weak: Engine, opened: Opened) -> None:
    """Within a statement nothing is skewed."""
    one, two = opened(weak, 2)
    assert value(one, 1) == 10
    set_value(two, 1, 12)
    set_value(two, 2, 18)
    two.commit()
    left, right = numbers.alias(), numbers.alias()
    both = select(left.c.value, right.c.value).where(left.c.id == 1, right.c.id == left.c.id + 1)
    assert one.execute(both).one() == (12, 18)


def test_g_single_read_skew_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    assert value(one, 1) == 10
    set_value(two, 1, 12)
    set_value(two, 2, 18)
    two.commit()
    assert conflicts(lambda: value(one, 2))


def test_g_single_over_two_tables_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    """What a transaction read counts if it commits, even if it wrote nothing."""
    one, two = opened(strong, 2)
    assert value(one, 1) == 10
    set_value(two, 1, 12)
    two.execute(insert(names), {"name": "new"})
    two.commit()
    assert one.scalars(select(names.c.name)).all() == ["new"]
    assert conflicts(one.commit)


def test_g_single_of_an_update_without_rows_prevented_at_serializable(
    strong: Engine, opened: Opened
) -> None:
    """That an UPDATE found no row is something read."""
    one, two = opened(strong, 2)
    matched = one.execute(update(names).where(names.c.name == "new").values(owner=1)).rowcount
    assert matched == 0
    two.execute(insert(names), {"name": "new"})
    set_value(two, 1, 12)
    two.commit()
    assert value(one, 1) == 12
    assert conflicts(one.commit)


def test_g2_item_write_skew_let_happen_at_read_committed(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    for connection in (one, two):
        assert (value(connection, 1), value(connection, 2)) == (10, 20)
    set_value(one, 1, 11)
    set_value(two, 2, 21)
    one.commit()
    two.commit()
    assert values(weak) == {1: 11, 2: 21}


def test_g2_item_write_skew_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    for connection in (one, two):
        assert (value(connection, 1), value(connection, 2)) == (10, 20)
    set_value(one, 1, 11)
    set_value(two, 2, 21)
    one.commit()
    assert conflicts(two.commit)
    assert values(strong) == {1: 11, 2: 20}


def test_g2_anti_dependency_cycle_let_happen_at_read_committed(
    weak: Engine, opened: Opened
) -> None:
    one, two = opened(weak, 2)
    assert large(one) == large(two) == []
    one.execute(insert(numbers), {"id": 3, "value": 30})
    two.execute(insert(numbers), {"id": 4, "value": 42})
    one.commit()
    two.commit()
    assert set(values(weak)) == {1, 2, 3, 4}


def test_g2_anti_dependency_cycle_prevented_at_serializable(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    assert large(one) == large(two) == []
    one.execute(insert(numbers), {"id": 3, "value": 30})
    two.execute(insert(numbers), {"id": 4, "value": 42})
    one.commit()
    assert conflicts(two.commit)
    assert set(values(strong)) == {1, 2, 3}


def test_own_rows_keep_their_other_columns_at_read_committed(weak: Engine, opened: Opened) -> None:
    """What a transaction has written it sees as it was then, in all columns; others' later
    writes to other columns show after its commit, and none is lost."""
    one, two = opened(weak, 2)
    set_value(one, 1, 11)
    two.execute(update(numbers).where(numbers.c.id == 1).values(other=5))
    two.commit()
    row = select(numbers.c.value, numbers.c.other).where(numbers.c.id == 1)
    assert one.execute(row).one() == (11, 0)
    one.commit()
    assert one.execute(row).one() == (11, 5)


def test_a_transaction_sees_its_own_writes(engine: Engine, opened: Opened) -> None:
    (one,) = opened(engine, 1)
    set_value(one, 1, 11)
    one.execute(insert(numbers), {"id": 3, "value": 30})
    one.execute(delete(numbers).where(numbers.c.id == 2))
    rows = one.execute(select(numbers.c.id, numbers.c.value).order_by(numbers.c.id)).all()
    assert [tuple(row) for row in rows] == [(1, 11), (3, 30)]
    one.rollback()
    assert values(engine) == {1: 10, 2: 20}


def test_a_failed_statement_leaves_the_transaction_as_it_was(engine: Engine) -> None:
    """Also on a new connection, which meets the parents' table within that statement."""
    with engine.connect() as connection:
        connection.execute(insert(numbers), {"id": 3, "value": 30})
        with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
            connection.execute(insert(children), {"parent_id": 1})
        assert connection.scalars(select(parents.c.id)).all() == []
        connection.execute(insert(parents), {"id": 1})
        connection.execute(insert(children), {"parent_id": 1})
        connection.commit()
        assert connection.scalars(select(children.c.parent_id)).all() == [1]
    assert values(engine) == {1: 10, 2: 20, 3: 30}


def test_levels_mix(weak: Engine, strong: Engine, opened: Opened) -> None:
    """A serializable transaction holds against others of any level."""
    (one,), (two,) = opened(strong, 1), opened(weak, 1)
    seen = value(one, 1)
    set_value(two, 1, 12)
    two.commit()
    set_value_blind = update(numbers).where(numbers.c.id == 2).values(value=seen)
    assert conflicts(lambda: one.execute(set_value_blind), one.commit)


def test_counts_are_read_too(strong: Engine, opened: Opened) -> None:
    """Also what the store counts, without sending rows."""
    one, two = opened(strong, 2)
    count = select(func.count()).select_from(numbers)
    for connection, number in ((one, 3), (two, 4)):
        assert connection.scalar(count) == 2
        connection.execute(insert(names), {"name": f"{number}", "owner": 2})
    one.execute(insert(numbers), {"id": 3, "value": 0})
    one.commit()
    assert conflicts(two.commit)


def test_a_refused_duplicate_is_something_read(strong: Engine, opened: Opened) -> None:
    """That a name was taken: it no longer is, by somebody whose writes were seen later."""
    one, two = opened(strong, 2)
    two.execute(insert(names), {"id": 1, "name": "taken"})
    two.commit()
    with one.begin_nested() as inner, pytest.raises(IntegrityError):
        one.execute(insert(names), {"name": "taken"})
    assert not inner.is_active
    two.execute(delete(names))
    set_value(two, 1, 12)
    two.commit()
    assert value(one, 1) == 12
    set_value(one, 2, 13)
    assert conflicts(one.commit)


def test_a_missing_parent_is_something_read(strong: Engine, opened: Opened) -> None:
    one, two = opened(strong, 2)
    with one.begin_nested(), pytest.raises(IntegrityError):
        one.execute(insert(children), {"parent_id": 1})
    two.execute(insert(parents), {"id": 1})
    set_value(two, 1, 12)
    two.commit()
    assert value(one, 1) == 12
    set_value(one, 2, 13)
    assert conflicts(one.commit)


@pytest.mark.parametrize("level", [WEAK, STRONG])
def test_a_table_read_page_by_page_is_seen_at_one_moment(
    url: str, redis: RedisServer, weak: Engine, level: str
) -> None:
    """Also if others write it between two pages."""
    with weak.begin() as connection:
        connection.execute(delete(numbers))
        connection.execute(insert(numbers), [{"id": n, "value": 0} for n in range(1000)])
    proxy = CuttingProxy(redis.port)
    paging = create_engine(proxy.url(weak.url.database or "", "?page=50"), isolation_level=level)
    with paging.connect() as connection:
        value(connection, 1)
        connection.rollback()
        proxy.pause_request(4)
        seen: list[int] = []
        reader = threading.Thread(
            target=lambda: seen.extend(connection.scalars(select(numbers.c.value)))
        )
        reader.start()
        assert proxy.reached.wait(60)
        with weak.begin() as writer:
            writer.execute(update(numbers).values(value=1))
        proxy.release.set()
        reader.join()
        assert len(seen) == 1000
        assert sum(seen) in (0, 1000)
        connection.commit()
    paging.dispose()
    proxy.close()


def test_an_update_page_by_page_loses_nothing(url: str, redis: RedisServer, weak: Engine) -> None:
    with weak.begin() as connection:
        connection.execute(delete(numbers))
        connection.execute(insert(numbers), [{"id": n, "value": 0} for n in range(1000)])
    proxy = CuttingProxy(redis.port)
    paging = create_engine(proxy.url(weak.url.database or "", "?page=50"))
    add = update(numbers).values(value=numbers.c.value + 1)
    with paging.connect() as connection:
        value(connection, 1)
        connection.rollback()
        proxy.pause_request(4)
        updater = threading.Thread(target=lambda: connection.execute(add))
        updater.start()
        assert proxy.reached.wait(60)
        with weak.begin() as writer:
            writer.execute(add)
        proxy.release.set()
        updater.join()
        connection.commit()
    assert set(values(weak).values()) == {2}
    paging.dispose()
    proxy.close()


def test_autocommit(url: str, weak: Engine) -> None:
    single = create_engine(url, isolation_level="AUTOCOMMIT")
    with single.connect() as connection:
        set_value(connection, 1, 77)
        assert values(weak)[1] == 77
        connection.rollback()  # too late
    assert values(weak)[1] == 77
    single.dispose()


# ---------------------------------------------------------------- replays


def _add_one(connection: Connection) -> None:
    connection.execute(update(numbers).where(numbers.c.id == 1).values(value=numbers.c.value + 1))


def test_replayed_inserts_keep_the_numbers_that_were_seen(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    parent = one.execute(insert(parents), {}).inserted_primary_key
    other = two.execute(insert(parents), {}).inserted_primary_key
    assert parent is not None
    assert other is not None
    child = one.execute(insert(children), {"parent_id": parent[0]}).inserted_primary_key
    assert child is not None
    for connection in (one, two):
        _add_one(connection)
    two.commit()
    one.commit()
    assert replays(one) == 1
    assert one.execute(select(children.c.id, children.c.parent_id)).one() == (child[0], parent[0])
    assert set(one.scalars(select(parents.c.id))) == {parent[0], other[0]}
    assert values(weak)[1] == 12


def test_replay_goes_through_savepoints(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    two.execute(insert(names), {"id": 1, "name": "taken"})
    two.commit()
    with one.begin_nested():
        set_value(one, 2, 21)
    with one.begin_nested(), pytest.raises(IntegrityError):
        one.execute(insert(names), {"name": "taken"})
    undone = one.begin_nested()
    one.execute(insert(names), {"name": "undone"})
    set_value(one, 2, 99)
    undone.rollback()
    for connection in (one, two):
        _add_one(connection)
    two.commit()
    one.commit()
    assert replays(one) == 1
    assert values(weak) == {1: 12, 2: 21}
    assert one.scalars(select(names.c.name)).all() == ["taken"]


def test_replay_finds_that_an_error_is_none_any_more(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    two.execute(insert(names), {"id": 1, "name": "taken"})
    two.commit()
    with one.begin_nested(), pytest.raises(IntegrityError):
        one.execute(insert(names), {"name": "taken"})
    _add_one(one)
    two.execute(delete(names))
    _add_one(two)
    two.commit()
    assert conflicts(one.commit)
    assert values(weak) == {1: 11, 2: 20}


def test_replay_after_a_change_of_the_schema(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    _add_one(one)
    one.execute(insert(names), {"name": "new"})
    two.execute(text("ALTER TABLE numbers ADD COLUMN later INTEGER DEFAULT 5"))
    two.execute(text("CREATE INDEX by_owner ON names (owner)"))
    one.commit()
    rows = two.execute(text("SELECT value, later FROM numbers ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(11, 5), (20, 5)]
    assert two.scalars(select(names.c.name).where(names.c.owner.is_(None))).all() == ["new"]


def test_a_table_that_is_dropped_meanwhile(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    one.execute(insert(names), {"name": "new"})
    two.execute(text("DROP TABLE names"))
    assert conflicts(one.commit)


# ---------------------------------------------------------------- conflicts


def test_different_columns_of_one_row_dont_conflict(weak: Engine, opened: Opened) -> None:
    one, two = opened(weak, 2)
    set_value(one, 1, 11)
    two.execute(update(numbers).where(numbers.c.id == 1).values(other=numbers.c.other + 7))
    one.commit()
    two.commit()
    assert replays(one) == replays(two) == 0
    with weak.connect() as connection:
        assert connection.execute(select(numbers).where(numbers.c.id == 1)).one() == (1, 11, 7)


def _write_column(url: str, column: str, count: int) -> tuple[int, int]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        for number in range(1, count + 1):
            connection.execute(update(numbers).where(numbers.c.id == 1).values({column: number}))
            connection.commit()
        return replays(connection), number


def test_writers_of_different_columns_never_wait_for_each_other(url: str, weak: Engine) -> None:
    results = at_once(_write_column, [(url, "value", 150), (url, "other", 150)])
    # In etcd a row is one key: who was overtaken a few times in a row runs the statement again.
    most = 15 if url.startswith("rome+etcd") else 0
    assert all(replayed <= most and written == 150 for replayed, written in results)
    with weak.connect() as connection:
        assert connection.execute(select(numbers).where(numbers.c.id == 1)).one() == (1, 150, 150)


def _increment(url: str, count: int) -> tuple[int, int]:
    """Conflicts that the caller had to retry, and replays that it didn't notice."""
    engine = create_engine(url, poolclass=NullPool)
    add = update(numbers).where(numbers.c.id == 1).values(value=numbers.c.value + 1)
    failed = 0
    with engine.connect() as connection:
        for _ in range(count):
            while conflicts(lambda: connection.execute(add), connection.commit):
                failed += 1
        return failed, replays(connection)


def test_increments_of_one_row(
    url: str, weak: Engine, record_property: Callable[[str, object], None]
) -> None:
    """Four processes at one row: nothing is lost, and callers see few conflicts."""
    set_to_zero = update(numbers).where(numbers.c.id == 1).values(value=0)
    with weak.begin() as connection:
        connection.execute(set_to_zero)
    results = at_once(_increment, [(url, 200)] * 4)
    failed, replayed = (sum(column) for column in zip(*results, strict=True))
    record_property("conflicts", failed)
    record_property("replays", replayed)
    print(f"800 increments: {failed} conflicts, {replayed} replays")  # noqa: T201
    assert values(weak)[1] == 800
    assert failed < 80


def _transfer(url: str, level: str, seed: int, count: int) -> int:
    """Moves money between accounts; returns how often."""
    chance = random.Random(seed)
    engine = create_engine(url, isolation_level=level, poolclass=NullPool)
    done = 0
    with engine.connect() as connection:
        for _ in range(count):
            giver, taker = chance.sample(range(1, 6), 2)
            amount = chance.randint(1, 30)

            def move(giver: int = giver, taker: int = taker, amount: int = amount) -> None:
                nonlocal done
                if level == STRONG:  # computed by the application
                    had = value(connection, giver), value(connection, taker)
                    if had[0] >= amount:
                        set_value(connection, giver, had[0] - amount)
                        set_value(connection, taker, had[1] + amount)
                        connection.commit()
                        done += 1
                    connection.rollback()
                    return
                take = update(numbers).where(numbers.c.id == giver, numbers.c.value >= amount)
                if connection.execute(take.values(value=numbers.c.value - amount)).rowcount:
                    give = update(numbers).where(numbers.c.id == taker)
                    connection.execute(give.values(value=numbers.c.value + amount))
                    connection.commit()
                    done += 1
                connection.rollback()

            if conflicts(move):
                connection.rollback()
    return done


def _watch(url: str, count: int) -> list[int]:
    """The sums that a reader sees meanwhile."""
    engine = create_engine(url, poolclass=NullPool)
    sums = []
    with engine.connect() as connection:
        for _ in range(count):
            sums.append(connection.scalar(select(func.sum(numbers.c.value))))
            connection.rollback()
    return sums


def _transfer_or_watch(url: str, level: str, seed: int, count: int) -> Any:
    return _watch(url, count) if seed == 0 else _transfer(url, level, seed, count)


@pytest.mark.parametrize("level", [WEAK, STRONG])
def test_transfers_keep_the_sum(url: str, weak: Engine, level: str) -> None:
    with weak.begin() as connection:
        connection.execute(delete(numbers))
        connection.execute(insert(numbers), [{"id": i, "value": 100} for i in range(1, 6)])
    sums, *done = at_once(_transfer_or_watch, [(url, level, seed, 60) for seed in range(4)])
    assert set(sums) == {500}
    assert sum(done) > 15  # one of them may starve
    final = values(weak)
    assert sum(final.values()) == 500
    assert min(final.values()) >= 0


# ---------------------------------------------------------------- keys


def test_two_inserters_of_one_key(engine: Engine, opened: Opened) -> None:
    """The first commit wins; the other fails at its commit, and as a duplicate when retried."""
    one, two = opened(engine, 2)
    one.execute(insert(names), {"name": "same", "owner": 1})
    two.execute(insert(names), {"name": "same", "owner": 2})
    one.commit()
    with pytest.raises((OperationalError, IntegrityError)) as failure:
        two.commit()
    two.rollback()
    assert isinstance(failure.value.orig, ConflictError) or "UNIQUE" in str(failure.value.orig)
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: names\.name"):
        two.execute(insert(names), {"name": "same", "owner": 2})
    two.rollback()
    assert tuple(two.execute(select(names.c.name, names.c.owner)).one()) == ("same", 1)


def test_a_key_that_is_given_up_can_be_taken(engine: Engine, opened: Opened) -> None:
    one, two = opened(engine, 2)
    one.execute(insert(names), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    one.commit()
    # Both names change hands within one transaction.
    one.execute(update(names).where(names.c.id == 1).values(name="c"))
    one.execute(update(names).where(names.c.id == 2).values(name="a"))
    one.execute(insert(names), {"id": 3, "name": "b"})
    one.commit()
    rows = two.execute(select(names.c.id, names.c.name).order_by(names.c.id)).all()
    assert [tuple(row) for row in rows] == [
        (1, "c"),
        (2, "a"),
        (3, "b"),
    ]


def _claim(url: str, owner: int, order: list[int]) -> list[int]:
    """Takes each name if nobody has it; returns those that it got."""
    engine = create_engine(url, poolclass=NullPool)
    got = []
    with engine.connect() as connection:
        for number in order:
            while True:
                try:
                    connection.execute(insert(names), {"name": f"n{number}", "owner": owner})
                    connection.commit()
                except IntegrityError:
                    connection.rollback()
                except OperationalError as error:
                    assert isinstance(error.orig, ConflictError)
                    connection.rollback()
                    continue
                else:
                    got.append(number)
                break
    return got


def test_race_for_unique_keys(url: str, weak: Engine) -> None:
    wanted = list(range(40))
    results = at_once(_claim, [(url, owner, wanted) for owner in range(4)])
    assert sorted(n for got in results for n in got) == wanted
    with weak.connect() as connection:
        rows = connection.execute(select(names.c.name, names.c.owner)).all()
    assert sorted(rows) == sorted(
        (f"n{number}", owner) for owner, got in enumerate(results) for number in got
    )


def test_child_then_parent_gone(engine: Engine, opened: Opened) -> None:
    one, two = opened(engine, 2)
    one.execute(insert(parents), {"id": 1})
    one.commit()
    one.execute(insert(children), {"parent_id": 1})
    two.execute(delete(parents).where(parents.c.id == 1))
    one.commit()
    with pytest.raises((OperationalError, IntegrityError)):
        two.commit()
    two.rollback()
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        two.execute(delete(parents).where(parents.c.id == 1))
    two.rollback()
    assert two.scalars(select(parents.c.id)).all() == [1]


def test_parent_gone_then_child(engine: Engine, opened: Opened) -> None:
    one, two = opened(engine, 2)
    one.execute(insert(parents), {"id": 1})
    one.commit()
    one.execute(insert(children), {"parent_id": 1})
    two.execute(delete(parents).where(parents.c.id == 1))
    two.commit()
    with pytest.raises((OperationalError, IntegrityError)):
        one.commit()
    one.rollback()
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        one.execute(insert(children), {"parent_id": 1})
    one.rollback()
    assert one.scalars(select(children.c.id)).all() == []


def _parents_and_children(url: str, deletes: bool, count: int) -> int:
    engine = create_engine(url, poolclass=NullPool)
    done = 0
    with engine.connect() as connection:
        for number in range(1, count + 1):
            try:
                if deletes:
                    connection.execute(delete(parents).where(parents.c.id == number))
                else:
                    connection.execute(insert(children), {"parent_id": number})
                connection.commit()
                done += 1
            except (IntegrityError, OperationalError):
                connection.rollback()
    return done


def test_race_of_parents_deletion_and_childrens_birth(url: str, weak: Engine) -> None:
    with weak.begin() as connection:
        connection.execute(insert(parents), [{"id": i} for i in range(1, 101)])
    deleted, born = at_once(_parents_and_children, [(url, True, 100), (url, False, 100)])
    with weak.connect() as connection:
        left = set(connection.scalars(select(parents.c.id)))
        used = list(connection.scalars(select(children.c.parent_id)))
    assert set(used) <= left  # no orphans
    assert len(used) == born
    assert len(left) == 100 - deleted
    assert deleted + born == 100  # of each pair just one could be
