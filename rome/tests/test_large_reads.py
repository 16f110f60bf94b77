"""Tables that are read page by page while others write: each answer is that of one moment."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.admin.check import check
from rome.stores.redis import pages
from rome.stores.redis.store import RedisStore
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    exists,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError, OperationalError

from rome import driver
from tests.processes import at_once
from tests.servers import RedisServer, redis_server
from tests.test_pages import NOTHING_SMALL, QUESTIONS, children, fill, notes, parents

Between = Callable[[], None]
metadata = MetaData()
accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", Integer, index=True),
    Column("kind", String(9)),
    Column("amount", Integer),
)
owners = Table(
    "owners", metadata, Column("id", Integer, primary_key=True), Column("name", String(9))
)


class Meddler:
    """Does something before each round trip of a read in pages but the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.between: Between = lambda: None
        self.trips = 0
        monkeypatch.setattr(pages, "WINDOW", 1)
        monkeypatch.setattr(pages, "MARGIN", 1)
        usual = RedisStore._scan

        def meddled(store: RedisStore, version: str) -> pages.Send:
            send = usual(store, version)

            def sending(commands: Any) -> Any:
                if commands[0][0]:
                    between, self.between = self.between, lambda: None  # not within itself
                    try:
                        between()
                    finally:
                        self.between = between
                self.trips += 1
                return send(commands)

            return sending

        monkeypatch.setattr(RedisStore, "_scan", meddled)


@pytest.fixture
def meddler(monkeypatch: pytest.MonkeyPatch) -> Meddler:
    return Meddler(monkeypatch)


class Both:
    """The same database in Redis, where a script looks at eight rows, and in SQLite."""

    def __init__(self, url: str) -> None:
        self.rome = create_engine(url)
        self.sqlite = create_engine("sqlite://")
        for engine in (self.rome, self.sqlite):
            fill(engine)
        self.other = self.rome.connect()  # somebody else's

    def change(self, some: random.Random) -> None:
        """What others may do: rows come, go, change their columns, their keys, their parents."""
        number, child = some.randrange(1, 121), some.randrange(1, 241)
        code = f"c{some.randrange(1, 121)}"
        values = {"kind": some.choice([1, 2, None]), "name": some.choice("abc"), "flag": number % 3}
        statements = [
            parents.update().where(parents.c.id == number).values(**values),
            parents.update().where(parents.c.kind == 2).values(name=some.choice("abc")),
            parents.delete().where(
                parents.c.id == number, ~exists().where(children.c.code == parents.c.code)
            ),
            children.update().where(children.c.id == child).values(n=some.randrange(5)),
            children.delete().where(children.c.id == child),
            parents.insert().values(id=number + 200, code=f"c{number + 200}", **values),
            children.insert().values(id=child + 300, code=code, n=some.randrange(5)),
            parents.insert().values(id=-number, code=f"d{number}", **values),
            notes.delete().where(notes.c.n == child),
            notes.delete().where(notes.c.code == f"c{child % 12}", notes.c.name == "c"),
            notes.update().where(notes.c.n == child).values(name=some.choice("abc")),
            notes.update().where(notes.c.n == child).values(code=f"c{child % 12}"),
            notes.insert().values(code=f"c{child % 12}", n=child + 1000, name=some.choice("abc")),
        ]
        statement: Any = some.choice(statements)
        outcomes = []
        for connection in (self.other, self.sqlite.connect()):
            try:
                outcomes.append(connection.execute(statement).rowcount)
                connection.commit()
            except DBAPIError:
                outcomes.append(-2)
                connection.rollback()
        assert len(set(outcomes)) == 1 or outcomes[0] == -2
        if outcomes[0] == -2 and outcomes[1] != -2:
            raise AssertionError(f"refused by one: {statement}")

    def close(self) -> None:
        self.other.close()
        self.rome.dispose()
        self.sqlite.dispose()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Redis gives small hashes and sets as a whole only: here it has none."""
    with redis_server(**NOTHING_SMALL) as running:
        yield running


@pytest.fixture
def both(server: RedisServer) -> Iterator[Both]:
    server.client().flushall()
    made = Both(server.url("meddled", page=8, foreign_keys="off", result_cache="off"))
    yield made
    made.close()


def once(meddler: Meddler, trip: int, action: Callable[[], Any]) -> Callable[[], int]:
    """Do something before one of the next round trips; how often that was done."""
    count = [0, 0]

    def between() -> None:
        count[0] += 1
        if count[0] == trip:
            count[1] += 1
            action()

    meddler.between = between
    return lambda: count[1]


def answer(connection: Connection, statement: Any) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, connection.execute(statement)), key=str)


COUNTED = ("count", "count by two sets", "count by several keys")
IN_PAGES = {name: question for name, question in QUESTIONS.items() if name not in COUNTED}


@pytest.mark.parametrize("question", IN_PAGES.values(), ids=IN_PAGES)
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_an_answer_is_that_of_the_last_page(
    both: Both, meddler: Meddler, question: Any, level: Any
) -> None:
    some = random.Random(str(question))
    changes = 0

    def change() -> None:
        nonlocal changes
        if changes % 3 < 2:
            both.change(some)
        changes += 1

    meddler.between = change
    for _ in range(6):
        both.change(some)
        with both.rome.connect().execution_options(isolation_level=level) as mine:
            got = answer(mine, question)
            with both.sqlite.connect() as its:
                assert got == answer(its, question)
    assert changes > 6


@pytest.mark.parametrize("descending", [False, True])
def test_a_walk_goes_on_for_rows_that_have_gone(
    both: Both, meddler: Meddler, descending: bool
) -> None:
    number = parents.c.id
    order = number.desc() if descending else number
    question = select(number, parents.c.name).where(number > 0).order_by(order).limit(24)
    near = number > 90 if descending else number < 11
    came: list[dict[str, Any]] = [
        {"id": 101 if descending else -1, "name": "new"},
        {"id": 50, "name": "new"},
    ]

    def change() -> None:
        for connection in (both.other, both.sqlite.connect()):
            connection.execute(parents.delete().where(near))
            connection.execute(parents.delete().where(number == 50))
            connection.execute(parents.insert(), came)
            connection.commit()

    # Before the last of these pages enough rows were nearly there.
    for trip in (2, 3):
        done = once(meddler, trip, change)
        meddler.trips = 0
        with both.rome.connect() as mine, both.sqlite.connect() as its:
            expected = list(map(tuple, its.execute(question)))
            got = list(map(tuple, mine.execute(question)))
            assert done() == 1 and got != expected
            assert got == list(map(tuple, its.execute(question)))
        assert 4 <= meddler.trips <= 10  # of 14 for all rows, and more for the changes
        for connection in (both.other, both.sqlite.connect()):
            connection.execute(parents.delete())
            connection.execute(parents.insert(), [{"id": i, "name": "old"} for i in range(1, 101)])
            connection.commit()


def test_writes_of_many_rows_are_serial(both: Both, meddler: Meddler) -> None:
    some = random.Random(5)
    update = parents.update().where(parents.c.name == "a").values(more1=parents.c.id + 1)
    delete = children.delete().where(children.c.n == 1)
    for statement in (update, delete):
        numbers = itertools.count(1)

        def change(numbers: Iterator[int] = numbers) -> None:
            if next(numbers) < 4:
                both.change(some)

        meddler.between = change
        with both.rome.begin() as mine:
            mine.execute(statement)
        assert next(numbers) > 4
        with both.sqlite.begin() as its:
            its.execute(statement)
        meddler.between = lambda: None
        for table in (parents, children):
            with both.rome.connect() as mine, both.sqlite.connect() as its:
                assert answer(mine, select(table)) == answer(its, select(table))


def test_serializable_relies_on_the_moment_of_the_last_page(both: Both, meddler: Meddler) -> None:
    levels = both.rome.execution_options(isolation_level="SERIALIZABLE")
    rename = parents.update().where(parents.c.id == 1)

    def change() -> None:
        both.other.execute(rename.values(name="early"))
        both.other.commit()

    done = once(meddler, 2, change)
    with levels.begin() as mine:
        assert "early" in mine.scalars(select(parents.c.name)).all()
        mine.execute(children.update().where(children.c.id == 1).values(n=7))
    assert done() == 1
    with pytest.raises(DBAPIError) as caught, levels.begin() as mine:
        mine.execute(select(parents.c.name)).all()
        both.other.execute(rename.values(name="late"))
        both.other.commit()
        mine.execute(children.update().where(children.c.id == 1).values(n=8))
    assert isinstance(caught.value.orig, driver.ConflictError)


def test_a_kept_answer_is_that_of_the_last_page(both: Both, meddler: Meddler) -> None:
    engine = create_engine(str(both.rome.url).replace("result_cache=off", "result_cache=on"))
    question = select(parents.c.id, parents.c.name)

    def change() -> None:
        both.other.execute(parents.update().where(parents.c.id == 1).values(name="early"))
        both.other.commit()

    once(meddler, 2, change)
    with engine.connect() as mine:
        assert (1, "early") in answer(mine, question)
        mine.rollback()
        meddler.trips = 0
        assert (1, "early") in answer(mine, question)
        assert meddler.trips == 0  # nothing was read
        mine.rollback()
        both.other.execute(parents.update().where(parents.c.id == 1).values(name="late"))
        both.other.commit()
        assert (1, "late") in answer(mine, question)
        assert meddler.trips > 0
    engine.dispose()


# ---------------------------------------------------------------- trouble

NAMES = select(parents.c.id, parents.c.name)


def right(both: Both, connection: Connection) -> bool:
    """Whether a large read answers as SQLite does, after a change in between."""
    got = answer(connection, NAMES)
    with both.sqlite.connect() as its:
        return got == answer(its, NAMES)


def test_a_read_begins_anew_when_its_mark_has_expired(
    both: Both, meddler: Meddler, server: RedisServer
) -> None:
    def expire() -> None:
        server.client().delete("{meddled}:scan1")
        both.change(random.Random(1))

    done = once(meddler, 3, expire)
    with both.rome.connect() as mine:
        assert right(both, mine)
    assert done() == 1


def test_a_read_begins_anew_on_another_connection(
    both: Both, meddler: Meddler, server: RedisServer
) -> None:
    def cut() -> None:
        for client in server.client().client_list():
            server.client().client_kill_filter(_id=client["id"])
        both.change(random.Random(1))

    done = once(meddler, 3, cut)
    with both.rome.connect() as mine:
        assert right(both, mine)
    assert done() == 1


def test_a_read_begins_anew_when_more_was_changed_than_is_noted(
    both: Both, meddler: Meddler, server: RedisServer
) -> None:
    def much() -> None:
        server.client().rpush("{meddled}:log1", *["1"] * 100000)
        for engine in (both.rome, both.sqlite):
            with engine.begin() as connection:
                connection.execute(parents.update().where(parents.c.id < 9).values(name="much"))
        assert not server.client().exists("{meddled}:log1", "{meddled}:scan1")

    done = once(meddler, 3, much)
    with both.rome.connect() as mine:
        assert right(both, mine)
    assert done() == 1


def test_a_read_that_never_comes_to_an_end_is_a_conflict(
    both: Both, meddler: Meddler, server: RedisServer
) -> None:
    def expire() -> None:
        server.client().delete("{meddled}:scan1")

    meddler.between = expire
    with both.rome.connect() as mine, pytest.raises(DBAPIError) as caught:
        mine.execute(NAMES)
    assert isinstance(caught.value.orig, driver.ConflictError)
    assert "a large read" in str(caught.value)


def test_the_schema_may_change_during_a_read(both: Both, meddler: Meddler) -> None:
    everything = "SELECT * FROM parents ORDER BY id"
    done = once(
        meddler,
        3,
        lambda: both.other.exec_driver_sql("ALTER TABLE parents ADD COLUMN new INTEGER DEFAULT 5"),
    )
    with both.rome.connect() as mine:
        rows = mine.exec_driver_sql(everything).all()
        assert done() == 1 and len(rows) == 100 and {row[-1] for row in rows} == {5}
    done = once(meddler, 3, lambda: both.other.exec_driver_sql("DROP TABLE children"))
    with both.rome.connect() as mine, pytest.raises(OperationalError, match="no such table"):
        mine.execute(select(children))
    assert done() == 1


DYING = """
import sys, time
from sqlalchemy import create_engine, text
from rome.stores.redis import pages
from rome.stores.redis.store import RedisStore
usual = RedisStore._scan
def dying(store, version):
    send = usual(store, version)
    def sending(commands):
        if commands[0][0] > 2:
            print("reading", flush=True)
            time.sleep(60)
        return send(commands)
    return sending
pages.WINDOW = 1
RedisStore._scan = dying
with create_engine(sys.argv[1]).connect() as connection:
    connection.execute(text("SELECT * FROM parents"))
"""


def test_a_client_that_dies_leaves_nothing_for_long(both: Both, server: RedisServer) -> None:
    url = both.rome.url.render_as_string(hide_password=False)
    with subprocess.Popen([sys.executable, "-c", DYING, url], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"reading\n"
        child.send_signal(signal.SIGKILL)
    some = random.Random(2)
    for _ in range(20):
        both.change(some)
    with both.rome.connect() as mine:
        assert right(both, mine)
    client = server.client()
    left = [key for start in ("scan", "log", "s:") for key in client.keys(f"{{meddled}}:{start}*")]
    assert len(left) >= 3
    assert all(0 < client.pttl(key) <= 60000 for key in left)
    assert client.pttl("{meddled}:log1") > client.pttl("{meddled}:scan1")
    opened: Any = both.other.connection.dbapi_connection
    found = check(opened.store, opened.catalogue)  # foreign keys aren't enforced here
    assert [finding.text for finding in found if "refers to" not in finding.text] == []
    # Whose mark has expired has no note any more either, when the next one begins.
    client.delete("{meddled}:scan1")
    client.rpush("{meddled}:log1", "old")
    with both.rome.connect() as mine:
        assert right(both, mine)


# ---------------------------------------------------------------- others meanwhile


def fill_accounts(engine: Engine, count: int) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        values = [{"id": i, "name": f"n{i}"} for i in range(1, 11)]
        connection.execute(owners.insert(), values)
    for start in range(0, count, 5000):
        with engine.begin() as connection:
            values = [
                {"id": i + 1, "owner": i % 10 + 1, "kind": "ab"[i % 2], "amount": 100}
                for i in range(start, min(start + 5000, count))
            ]
            connection.execute(accounts.insert(), values)


def transfer(url: str, count: int, seed: int) -> int:
    """Move money between accounts, and accounts to other numbers; how often that was done."""
    engine = create_engine(url)
    some = random.Random(seed)
    amount = accounts.c.amount
    done = 0
    with engine.connect() as connection:
        for number in range(400):
            one, other = some.sample(range(1, count + 1), 2)
            mine = accounts.update().where(accounts.c.id == one)
            its = accounts.update().where(accounts.c.id == other)
            try:
                if number % 3 == 0:
                    new = count + seed * 1000 + number
                    changed = connection.execute(mine.values(id=new)).rowcount
                elif changed := connection.execute(mine.values(amount=amount - 5)).rowcount:
                    changed = connection.execute(its.values(amount=amount + 5)).rowcount
                if changed:
                    connection.commit()
                    done += 1
            except DBAPIError:
                pass
            connection.rollback()
    engine.dispose()
    return done


def add_up(url: str) -> list[Any]:
    """What large reads see of the whole."""
    engine = create_engine(url)
    amount, kind = accounts.c.amount, accounts.c.kind
    joined = select(func.sum(amount)).join(owners, owners.c.id == accounts.c.owner)
    with engine.connect() as connection:
        return [
            connection.scalar(select(func.sum(amount))),
            sum(connection.scalars(select(amount))),
            connection.scalar(joined),
            sum(
                row[1] for row in connection.execute(select(kind, func.sum(amount)).group_by(kind))
            ),
            connection.scalar(select(func.sum(amount)).where(amount > 0)),
            sum(row.amount for row in connection.execute(select(accounts).order_by(amount))),
        ]


def test_sums_are_constant_under_transfers(redis_server: RedisServer) -> None:
    count = 30000
    url = redis_server.url("transfers")
    engine = create_engine(url)
    fill_accounts(engine, count)
    engine.dispose()
    sums, *done = at_once(
        _work, [(add_up, url), (transfer, url, count, 1), (transfer, url, count, 2)]
    )
    assert sum(done) > 300
    assert set(sums) == {100 * count}


def _work(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def test_others_are_served_between_pages(server: RedisServer) -> None:
    """Pages that are sent together are not run one right after the other."""
    engine = create_engine(server.url("between", result_cache="off", page=500))
    fill_accounts(engine, 8000)
    with engine.connect() as connection:
        # Who asks is not run at any time on a machine that has much to do.
        assert any(_served_between(server, connection) for _ in range(20))
    engine.dispose()


def _served_between(server: RedisServer, connection: Connection) -> bool:
    """Whether several pages of a read have had commands of another client before them."""
    seen: list[str] = []
    over = threading.Event()

    def ask() -> None:
        client = server.client()
        while not over.is_set():
            client.ping()

    with server.client() as watcher, watcher.monitor() as monitor:
        asking = threading.Thread(target=ask)
        asking.start()
        assert len(connection.execute(select(accounts)).all()) == 8000
        over.set()
        asking.join()
        server.client().echo("the end")
        for command in monitor.listen():
            word = str(command["command"])
            if word.startswith("ECHO"):
                break
            if command["client_type"] != "lua" and word.startswith(("EVALSHA", "PING")):
                seen.append(word[:4])
    text = "".join("P" if word == "PING" else "E" for word in seen)
    assert text.count("E") >= 8
    return text[text.index("E") :].count("PE") >= 5


def test_a_scan_does_not_go_on_at_another_server(both: Both, server: RedisServer) -> None:
    """Where a cursor means another place: rows would be left out without a word."""
    driver_connection: Any = both.other.connection.dbapi_connection
    store: RedisStore = driver_connection.store
    schema = driver_connection.catalogue.schema
    table, index = schema.tables["parents"], schema.tables["parents"].indexes[0]
    many: dict[Any, Any] = {f"{number}": b"" for number in range(1000, 3000)}
    server.client().hset(f"{store.prefix}r{table.number}", mapping=many)
    read: list[int] = []

    def lose_connection() -> None:
        me = server.client().client_list(_type="normal")
        for client in me:
            server.client().client_kill_filter(_id=client["id"])

    with pytest.raises(driver.OperationalError, match="middle of a scan"):
        for number, _ in store.scan(table.number):
            if not read:
                lose_connection()
            read.append(number)
    assert 0 < len(read) < 2000
    server.client().hdel(f"{store.prefix}r{table.number}", *many)
    # The same for an index that is being built: it is begun anew, and so has all entries.
    row = server.client().hget(f"{store.prefix}r{table.number}", "1")
    assert isinstance(row, bytes)
    server.client().hset(f"{store.prefix}r{table.number}", mapping=dict.fromkeys(many, row))
    cursors: list[bytes] = []
    run = store._runner.run

    def running(name: str, *arguments: bytes, **more: Any) -> Any:
        cursors.append(arguments[0])
        if len(cursors) == 2:
            store._wire.connections += 1  # as if it had been made anew
        return run(name, *arguments, **more)

    store._runner.run = running  # type: ignore[method-assign]
    store.build_index(table.number, 99, index.slots, False, [])
    assert cursors[0] == cursors[2] != cursors[1]


@pytest.mark.parametrize("where", ["range", "set", "numbers", "walk", "whole"])
def test_large_rows_count_by_their_bytes(redis_server: RedisServer, where: str) -> None:
    """A script gives up before it has looked at them; then pages are read."""
    engine = create_engine(redis_server.url(f"wide-{where}", result_cache="off", prefetch="off"))
    wide = Table(
        "wide",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("kind", Integer, index=True),
        Column("text", String),
    )
    wide.create(engine)
    with engine.begin() as connection:
        values = [{"id": n, "kind": n % 2, "text": str(n) * 40000} for n in range(100, 180)]
        connection.execute(wide.insert(), values)
    question: Any = {
        "range": select(wide).where(wide.c.id.between(110, 149)),
        "set": select(wide).where(wide.c.kind == 1),
        "numbers": select(wide).where(wide.c.id.in_(range(100, 140))),
        "walk": select(wide).order_by(wide.c.id).limit(40),
        "whole": select(wide),
    }[where]
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.dbapi_connection
        connection.execute(select(wide.c.id).where(wide.c.id == 1)).all()
        traffic = driver_connection.store.traffic
        before = traffic.round_trips
        found = connection.execute(question).all()
        assert traffic.round_trips - before > 1
    assert len(found) in (40, 80)
    assert all(row.text == str(row.id) * 40000 for row in found)
    engine.dispose()
