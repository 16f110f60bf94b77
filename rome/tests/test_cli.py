"""The command `rome`, on databases in a real Redis, also on damaged ones."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rome.cli import main
from rome.schema.catalogue import Catalogue
from rome.schema.tables import Table as StoredTable
from rome.schema.tables import to_entry
from rome.stores import rows
from rome.stores.redis.store import RedisStore
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.servers import RedisServer, redis_cluster, redis_server

PASSWORD = "f0rb1dden"

metadata = MetaData()
owners = Table(
    "owners",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), unique=True),
    Column("note", String(50), index=True),
    Column("weight", Numeric(20, 5)),
    Column("data", LargeBinary),
)
things = Table(
    "things",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("owner_id", ForeignKey("owners.id"), nullable=False),
    Column("label", String(20)),
    Column("place", Integer),
    UniqueConstraint("label", "place"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server(requirepass=PASSWORD) as running:
        yield running


@pytest.fixture
def url(server: RedisServer) -> str:
    with server.client() as client:
        client.flushall()
    return server.url("shop")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Of a database with rows."""
    engine = create_engine(url, poolclass=NullPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            insert(owners),
            [
                {
                    "id": n,
                    "name": f"owner {n}",
                    "note": f"n{n % 2}",
                    "weight": n,
                    "data": bytes([n]),
                }
                for n in range(1, 6)
            ],
        )
        connection.execute(
            insert(things),
            [
                {"uuid": f"u{n}", "owner_id": n % 5 + 1, "label": f"l{n % 3}", "place": n}
                for n in range(20)
            ],
        )
        connection.execute(
            insert(things), [{"uuid": f"null{n}", "owner_id": 1, "place": 1} for n in range(3)]
        )
    yield engine
    engine.dispose()


class Damage:
    """Reaches into the database's keys."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()
        store = RedisStore(*_store_arguments(server.url("shop")))
        self.schema = Catalogue().load(store)
        store.close()

    def table(self, name: str) -> StoredTable:
        return self.schema.tables[name]

    def index(self, table: str, *columns: str) -> str:
        """The key of an index, without the values of a set."""
        found = self.table(table)
        slots = tuple(found.slots.index(column) for column in columns)
        index = next(i for i in found.indexes if i.slots == slots)
        return f"{{shop}}:{'u' if index.unique else 'i'}{found.number}.{index.number}"

    def rows(self, table: str) -> str:
        return f"{{shop}}:r{self.table(table).number}"

    def row(self, table: str, column: str, value: Any) -> str:
        """The number of the first row with this value."""
        found = self.table(table)
        slot = found.slots.index(column)
        return next(
            str(int(number))
            for number, row in self.client.hgetall(self.rows(table)).items()
            if isinstance(row, bytes) and rows.decode(row)[slot] == value
        )

    def set(self, key: str, field: str | bytes, value: str | bytes) -> None:
        """A field of a hash."""
        self.client.hset(key, field, value)

    def unset(self, key: str, field: str | bytes) -> None:
        """Takes out a field of a hash, which is there."""
        assert self.client.hdel(key, field) == 1

    def get(self, key: str, field: str) -> bytes:
        """A field of a hash."""
        found = self.client.hget(key, field)
        assert isinstance(found, bytes)
        return found

    def set_row(self, table: str, number: str, column: str, value: Any) -> None:
        """Changes a row behind its indexes' back."""
        found = self.table(table)
        values = rows.decode(self.get(self.rows(table), number))
        values[found.slots.index(column)] = value
        self.set(self.rows(table), number, rows.encode(values))


def _store_arguments(url: str) -> tuple[Any, ...]:
    parsed = make_url(url)
    arguments: Any = parsed.get_dialect()().create_connect_args(parsed)[1]
    made: tuple[Any, ...] = arguments["store"].args
    return made


@pytest.fixture
def damage(server: RedisServer, engine: Engine) -> Iterator[Damage]:
    made = Damage(server)
    yield made
    made.client.close()


Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command; returns its code and lines, those of errors after the others."""

    def command(*arguments: str, given: str = "") -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        assert "Traceback" not in said.err
        return code, (said.out + said.err).splitlines()

    return command


# ---------------------------------------------------------------- inspect


def test_inspect(run: Run, url: str, engine: Engine) -> None:
    code, lines = run("inspect", url)
    assert code == 0
    assert lines[0].split() == ["table", "rows", "bytes:", "rows", "unique", "sets", "ordered"]
    assert [line.split()[:2] for line in lines[1:3]] == [["owners", "5"], ["things", "23"]]
    assert lines[-1].startswith("version of the schema: ")


def test_inspect_as_json(run: Run, url: str, engine: Engine) -> None:
    code, lines = run("inspect", "--json", url)
    found = json.loads("\n".join(lines))
    assert code == 0
    assert [(t["name"], t["rows"]) for t in found["tables"]] == [("owners", 5), ("things", 23)]
    of_tables = sum(t[key] for t in found["tables"] for key in t if key.endswith("_bytes"))
    assert all(t[key] > 0 for t in found["tables"] for key in t if key.endswith("_bytes"))
    assert found["total_bytes"] == of_tables + found["other_bytes"]


def test_inspect_of_an_empty_database(run: Run, url: str) -> None:
    assert run("inspect", url) == (0, ["the database has no tables"])


# ---------------------------------------------------------------- check


def test_check_of_a_sound_database(run: Run, url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE things ADD COLUMN later VARCHAR DEFAULT 'x'"))
        connection.execute(text("CREATE INDEX by_later ON things (later)"))
        connection.execute(delete(things).where(things.c.place == 7))
        connection.execute(update(things).where(things.c.place == 8).values(place=108))
    assert run("check", url) == (0, ["nothing is wrong"])


def wrong(run: Run, url: str, *expected: str) -> None:
    """Check finds just these, repairs all, and finds nothing then."""
    assert run("check", url) == (1, [*expected, f"wrong: {len(expected)}"])
    code, lines = run("check", "--repair", url)
    assert code == 0, lines
    assert all(line.endswith("(repaired)") for line in lines[:-1])
    assert len(lines) > 1
    assert run("check", url) == (0, ["nothing is wrong"])


def test_check_finds_a_lost_unique_entry(
    run: Run, url: str, damage: Damage, engine: Engine
) -> None:
    damage.unset(damage.index("owners", "name"), rows.pack_value("owner 3"))
    by_name = select(owners.c.id).where(owners.c.name == "owner 3")
    with engine.connect() as connection:
        assert connection.scalar(by_name) is None  # that is what the damage does
    wrong(run, url, "owners (name): row 3 isn't found by 'owner 3'")
    with engine.connect() as connection:
        assert connection.scalar(by_name) == 3


def test_check_finds_a_lost_entry_of_two_columns(run: Run, url: str, damage: Damage) -> None:
    key = rows.pack_value("l1") + rows.pack_value(4)
    damage.unset(damage.index("things", "label", "place"), key)
    number = damage.row("things", "uuid", "u4")
    wrong(run, url, f"things (label, place): row {number} isn't found by 'l1', 4")


def test_check_finds_unique_entries_that_lead_nowhere(
    run: Run, url: str, damage: Damage, engine: Engine
) -> None:
    damage.set(damage.index("owners", "name"), rows.pack_value("ghost"), "77")
    damage.set(damage.index("owners", "name"), rows.pack_value("other"), "2")
    expected = [
        "owners (name): 'ghost' leads to row 77, which doesn't exist",
        "owners (name): 'other' leads to row 2, which has another value",
    ]
    code, lines = run("check", url)
    assert (code, sorted(lines[:-1])) == (1, expected)
    code, lines = run("check", "--repair", url)
    assert (code, lines[-1]) == (0, "wrong: 2, repaired: 2")
    assert run("check", url) == (0, ["nothing is wrong"])
    with engine.begin() as connection:  # the names are free again
        connection.execute(insert(owners), [{"name": "ghost"}, {"name": "other"}])


def test_check_finds_wrong_sets(run: Run, url: str, damage: Damage, engine: Engine) -> None:
    start = damage.index("owners", "note").encode() + b":"
    damage.client.srem(start + rows.pack_value("n1"), "3")
    damage.client.sadd(start + rows.pack_value("n0"), "3", "66")
    expected = {
        "owners (note): row 3 isn't found by 'n1'",
        "owners (note): 'n0' leads to row 3, which has another value",
        "owners (note): 'n0' leads to row 66, which doesn't exist",
    }
    code, lines = run("check", url)
    assert (code, set(lines[:-1])) == (1, expected)
    assert run("check", "--repair", url)[0] == 0
    assert run("check", url) == (0, ["nothing is wrong"])
    with engine.connect() as connection:
        odd = select(owners.c.id).where(owners.c.note == "n1").order_by(owners.c.id)
        assert connection.scalars(odd).all() == [1, 3, 5]


def test_check_finds_a_row_changed_behind_its_indexes(
    run: Run, url: str, damage: Damage, engine: Engine
) -> None:
    damage.set_row("owners", "2", "name", "renamed")
    wrong(
        run,
        url,
        "owners (name): row 2 isn't found by 'renamed'",
        "owners (name): 'owner 2' leads to row 2, which has another value",
    )
    with engine.connect() as connection:
        assert connection.scalar(select(owners.c.id).where(owners.c.name == "renamed")) == 2


def test_check_finds_lost_indexes_of_a_table(run: Run, url: str, damage: Damage) -> None:
    for key in damage.client.scan_iter("{shop}:i[0-9]*"):
        damage.client.delete(key)
    damage.client.delete(damage.index("things", "uuid"), damage.index("owners", "name"))
    code, lines = run("check", "--repair", url)
    assert (code, lines[-1]) == (0, "wrong: 79, repaired: 79")  # 5 x 2 + 23 x 3
    assert run("check", url) == (0, ["nothing is wrong"])


@pytest.mark.parametrize("table", ["owners", "things"])
def test_check_finds_a_wrong_order(
    run: Run, url: str, damage: Damage, engine: Engine, table: str
) -> None:
    stored = damage.table(table)
    (order,) = stored.ordered
    key = f"{{shop}}:o{stored.number}.{order.number}"
    members: list[Any] = damage.client.zrange(key, 0, -1)
    assert len(members) == (5 if table == "owners" else 23)
    names = ", ".join(stored.names(order.slots))
    number = members[2].rpartition(b"\0")[2].decode()
    ghost = b"77" if table == "owners" else b"\x20ghost\0\x0077"
    damage.client.zrem(key, members[2])
    damage.client.zadd(key, {ghost: 77 if table == "owners" else 0})
    wrong(
        run,
        url,
        f"order of {table} ({names}): row {number} isn't in it",
        f"order of {table} ({names}): an entry leads to row 77, which doesn't exist",
    )
    assert damage.client.zrange(key, 0, -1) == members
    if table == "things":
        damage.client.zadd(key, {b"\x20zz\0\0" + number.encode(): 0})
        wrong(
            run,
            url,
            f"order of things ({names}): an entry leads to row {number}, which has another place",
        )
        assert damage.client.zrange(key, 0, -1) == members


def test_check_builds_the_orders_of_an_older_version(
    run: Run, url: str, damage: Damage, engine: Engine
) -> None:
    for table in damage.schema.tables.values():
        damage.set("{shop}:schema", table.name, to_entry(replace(table, ordered=())))
        for order in table.ordered:
            damage.client.delete(f"{{shop}}:o{table.number}.{order.number}")
    damage.set("{shop}:meta", "schema", "1.2")
    last = select(things.c.uuid).order_by(things.c.uuid.desc()).limit(1)
    with engine.connect() as connection:  # without them, answers are the same
        assert connection.scalar(last) == "u9"
    wrong(
        run,
        url,
        "owners: its key has no ordered index",
        "things: its key has no ordered index",
    )
    assert len(list(damage.client.scan_iter("{shop}:o*"))) == 2
    with engine.connect() as connection:
        assert connection.scalar(last) == "u9"


def stays_wrong(run: Run, url: str, *expected: str) -> None:
    """Check finds just these, and can't repair them."""
    count = len(expected)
    assert run("check", url) == (1, [*expected, f"wrong: {count}"])
    code, lines = run("check", "--repair", url)
    assert (code, lines) == (1, [*expected, f"wrong: {count}, repaired: 0"])


def test_check_finds_two_rows_with_one_key(run: Run, url: str, damage: Damage) -> None:
    damage.set_row("owners", "2", "name", "owner 3")
    damage.unset(damage.index("owners", "name"), rows.pack_value("owner 2"))
    stays_wrong(run, url, "owners (name): row 2 has 'owner 3', as another row has")


def test_check_finds_orphans(run: Run, url: str, damage: Damage) -> None:
    damage.set_row("things", damage.row("things", "uuid", "u4"), "owner_id", 99)
    number = damage.row("things", "uuid", "u4")
    start = damage.index("things", "owner_id").encode() + b":"
    damage.client.smove(start + rows.pack_value(5), start + rows.pack_value(99), number)
    stays_wrong(
        run, url, f"things (owner_id): row {number} refers to 99, which owners doesn't have"
    )


def test_check_finds_null_against_not_null(run: Run, url: str, damage: Damage) -> None:
    number = damage.row("things", "uuid", "u4")
    damage.set_row("things", number, "owner_id", None)
    start = damage.index("things", "owner_id").encode() + b":"
    damage.client.smove(start + rows.pack_value(5), start + rows.NULL, number)
    stays_wrong(run, url, f"things: row {number} has NULL in owner_id, against NOT NULL")


def test_check_finds_rows_against_a_check(run: Run, url: str, server: RedisServer) -> None:
    made = create_engine(url, poolclass=NullPool)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE owners (id INTEGER PRIMARY KEY, n INTEGER)"))
        connection.execute(text("INSERT INTO owners VALUES (1, 1), (2, 2)"))
        connection.execute(text("ALTER TABLE owners ADD CONSTRAINT low CHECK (n < 5)"))
        connection.execute(text("CREATE TABLE strict (id INTEGER PRIMARY KEY, x TEXT) STRICT"))
        connection.execute(text("INSERT INTO strict VALUES (1, 'x')"))
    assert run("check", url) == (0, ["nothing is wrong"])
    damage = Damage(server)
    damage.set_row("owners", "2", "n", 7)
    damage.set_row("strict", "1", "x", b"x")
    damage.client.close()
    stays_wrong(
        run,
        url,
        "owners: row 2 is against it: CHECK constraint failed: low",
        "strict: row 1 is against it: cannot store BLOB value in TEXT column strict.x",
    )


def test_check_finds_a_wrong_row_number(run: Run, url: str, damage: Damage) -> None:
    damage.set_row("owners", "2", "id", 3)
    stays_wrong(run, url, "owners: row 2 holds another number as its key")


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x02\x00\x05\x00\x01", b"\x09" * 40])
def test_check_finds_unreadable_rows(run: Run, url: str, damage: Damage, junk: bytes) -> None:
    damage.set(damage.rows("owners"), "9", junk)
    damage.set("{shop}:ids", str(damage.table("owners").number), "200")
    stays_wrong(run, url, "owners: row 9 can't be read")


def test_check_finds_values_in_another_form(run: Run, url: str, damage: Damage) -> None:
    """The same number in more bytes isn't found by an index."""
    key = damage.rows("things")
    number = damage.row("things", "uuid", "u4")
    parts = rows.split(damage.get(key, number))
    parts[damage.table("things").slots.index("place")] = b"\xcd\x00\x04"
    damage.set(key, number, rows.join(parts))
    code, lines = run("check", url)
    assert code == 1
    assert f"things: row {number} can't be read" in lines


def test_check_finds_a_counter_behind_its_rows(
    run: Run, url: str, damage: Damage, engine: Engine
) -> None:
    damage.set("{shop}:ids", str(damage.table("owners").number), "3")
    wrong(run, url, "owners: row 5 exists, but numbers were given out to 3 only")
    with engine.begin() as connection:
        assert connection.execute(insert(owners), {"name": "new"}).inserted_primary_key == (6,)


def test_check_finds_leftovers(run: Run, url: str, damage: Damage) -> None:
    for key in ("u88.1", "r88"):
        damage.set("{shop}:" + key, "a", "1")
    number = damage.table("owners").number
    assert number < 8  # for the order of the lines
    for value in "abc":
        damage.client.sadd(f"{{shop}}:i88.2:{value}", 1)
        damage.client.sadd(f"{{shop}}:i{number}.9:{value}", 1)
    damage.client.set("{shop}:what", 1)
    damage.set("{shop}:ids", "88", "1")
    damage.set("{shop}:writes", "89", "1")
    damage.client.set("{shopping}:r88", 1)  # another database's
    wrong(
        run,
        url,
        f"i{number}.9: 3 keys of no table or index",
        "i88.2: 3 keys of no table or index",
        "r88: a key of no table or index",
        "u88.1: a key of no table or index",
        "what: a key of no table or index",
        "ids: 88 is the number of no table",
        "writes: 89 is the number of no table",
    )
    assert damage.client.exists("{shopping}:r88")


def test_check_finishes_an_index_whose_builder_died(
    run: Run, url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "build_index", killed)
        with pytest.raises(Killed), engine.begin() as connection:
            connection.execute(text("CREATE INDEX late ON things (place)"))
    wrong(run, url, "things (place): the index isn't ready")
    with engine.connect() as connection:
        assert connection.scalar(select(things.c.uuid).where(things.c.place == 12)) == "u12"


def test_repair_beside_a_writer(run: Run, url: str, damage: Damage, engine: Engine) -> None:
    """What writers do meanwhile is neither reported nor undone."""
    for key in damage.client.scan_iter("{shop}:i[0-9]*"):
        damage.client.delete(key)
    stop = threading.Event()
    problems: list[BaseException] = []
    done = 0

    def write() -> None:
        nonlocal done
        try:
            with engine.connect() as connection:
                while not stop.is_set():
                    done += 1
                    connection.execute(insert(owners), {"name": f"w{done}", "note": f"w{done % 9}"})
                    connection.execute(
                        update(owners).where(owners.c.name == f"w{done - 5}").values(note="old")
                    )
                    connection.execute(delete(owners).where(owners.c.name == f"w{done - 50}"))
                    connection.commit()
        except BaseException as problem:
            problems.append(problem)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while done < 100 and writer.is_alive():
            code, lines = run("check", "--repair", url)
            assert code == 0, lines
    finally:
        stop.set()
        writer.join()
    assert not problems
    assert run("check", url) == (0, ["nothing is wrong"])


# ---------------------------------------------------------------- dump, load, drop


def test_dump_and_load(run: Run, url: str, server: RedisServer, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(owners), {"id": 9, "name": "it's \0 ü;\n--", "data": b"\0\xff", "weight": 1.5}
        )
        connection.execute(text("CREATE VIEW names AS SELECT name FROM owners"))
    code, lines = run("dump", url)
    assert code == 0
    script = "\n".join(lines) + "\n"
    copy = server.url("copy")
    assert run("load", copy, given=script) == (0, ["tables: 2, rows: 29"])
    assert run("check", copy) == (0, ["nothing is wrong"])
    assert run("dump", copy) == (0, lines)
    other = create_engine(copy, poolclass=NullPool)
    with engine.connect() as one, other.connect() as two:
        for table in (owners, things):
            statement = select(table).order_by(*table.primary_key)
            assert one.execute(statement).all() == two.execute(statement).all()
        assert two.scalar(text("SELECT count(*) FROM names")) == 6
        key = two.execute(insert(owners), {"name": "next"}).inserted_primary_key
        assert key is not None
        assert key[0] > 9


def test_dump_is_fit_for_sqlite(run: Run, url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("PRAGMA foreign_keys = OFF"))
        connection.execute(text("DROP TABLE owners"))  # its decimals need ROME's collation
    _, lines = run("dump", url)
    database = sqlite3.connect(":memory:")
    database.executescript("\n".join(lines))
    assert database.execute("SELECT count(*) FROM things").fetchone() == (23,)
    database.close()


def test_load_of_sqlites_own_dump(run: Run, url: str) -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v BLOB, w REAL);"
        "CREATE INDEX by_v ON t (v); INSERT INTO t (v, w) VALUES (x'00', 1e300), ('a', NULL);"
    )
    script = "\n".join(database.iterdump())
    assert run("load", url, given=script) == (0, ["tables: 1, rows: 2"])
    database.close()
    with create_engine(url, poolclass=NullPool).connect() as connection:
        rows_now = connection.execute(text("SELECT * FROM t ORDER BY id")).all()
        assert [tuple(row) for row in rows_now] == [(1, b"\0", 1e300), (2, "a", None)]
    assert run("check", url) == (0, ["nothing is wrong"])


def test_load_refuses_a_database_that_isnt_empty(run: Run, url: str, engine: Engine) -> None:
    before = run("dump", url)
    code, lines = run("load", url, given="CREATE TABLE t (a);")
    assert (code, lines) == (2, ["rome: the database isn't empty: `rome drop` it first"])
    assert run("dump", url) == before


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("CREATE TABLE t (a", "can't be run: incomplete input"),
        ("SELEC 1;", 'can\'t be run: near "SELEC": syntax error'),
        ("BEGIN; CREATE TABLE t (a);", "is it cut off?"),
        ("ATTACH '/tmp/rome-test.db' AS x;", "ATTACH"),
        (
            "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a (id));"
            "INSERT INTO b VALUES (1);",
            "row 1 of b refers to a row that a doesn't have",
        ),
        ("CREATE TABLE t (a PRIMARY KEY) WITHOUT ROWID;", "WITHOUT ROWID"),
    ],
)
def test_load_refuses_bad_sql(run: Run, url: str, script: str, told: str) -> None:
    code, lines = run("load", url, given=script)
    assert code == 2
    assert len(lines) == 1
    assert told in lines[0]
    assert run("inspect", url) == (0, ["the database has no tables"])


def test_load_with_foreign_keys_off_takes_orphans(run: Run, url: str) -> None:
    script = (
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a (id));"
        "INSERT INTO b VALUES (1);"
    )
    off = url + "?foreign_keys=off"
    assert run("load", off, given=script) == (0, ["tables: 2, rows: 1"])
    assert run("check", off)[0] == 1


def test_drop(run: Run, url: str, server: RedisServer, engine: Engine) -> None:
    with server.client() as client:
        client.set("{shopping}:r1", 1)
        code, lines = run("drop", url)
        assert (code, lines) == (2, ["rome: this would remove 2 tables: say --yes"])
        assert client.exists("{shop}:meta")
        assert run("drop", "--yes", url) == (0, ["removed: 2 tables"])
        assert client.keys() == [b"{shopping}:r1"]
    metadata.create_all(engine)  # processes that knew the old tables go on
    with engine.begin() as connection:
        connection.execute(insert(owners), {"name": "a"})
    assert run("check", url) == (0, ["nothing is wrong"])


def test_on_a_cluster(run: Run) -> None:
    with redis_cluster() as cluster:
        for name in ("one", "two", "three", "four"):
            url = cluster.url(name)
            metadata.create_all(create_engine(url, poolclass=NullPool))
            assert run("check", url) == (0, ["nothing is wrong"])
            assert run("inspect", url)[0] == 0
            assert run("drop", "--yes", url) == (0, ["removed: 2 tables"])
        for node in cluster.nodes:
            with node.client() as client:
                assert client.dbsize() == 0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "rome: the following arguments are required: COMMAND"),
        (["inspekt", "x"], "invalid choice: 'inspekt'"),
        (["inspect"], "rome inspect: the following arguments are required: URL"),
        (["inspect", "x", "--yaml"], "unrecognized arguments: --yaml"),
        (["inspect", "localhost:6379/x"], "this is no URL of ROME"),
        (["inspect", f"mysql+pymysql://u:{PASSWORD}@localhost/x"], "this is no URL of ROME"),
        (["inspect", f"rome+redis://u:{PASSWORD}@localhost:port/x"], "this is no URL of ROME"),
        (["inspect", f"rome+redis://u:{PASSWORD}@localhost:6379"], "name a database"),
        (["inspect", f"rome+redis://u:{PASSWORD}@localhost:6379/x?colour=red"], "option colour"),
        (["inspect", "rome+redis://localhost:6379/x?timeout=soon"], "timeout=soon"),
        (["inspect", "rome+redis://localhost:6379/x?fresh=true"], "empty database each time"),
        (["inspect", "rome+memory:///x"], "inside another process"),
    ],
)
def test_bad_input(run: Run, arguments: list[str], told: str) -> None:
    code, lines = run(*arguments)
    assert code == 2
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("command", ["inspect", "check", "dump", "drop", "load"])
def test_unreachable(run: Run, command: str) -> None:
    code, lines = run(command, f"rome+redis://:{PASSWORD}@127.0.0.1:1/x?patience=0.1")
    assert code == 2
    assert len(lines) == 1
    assert "no answer from Redis: 127.0.0.1:1" in lines[0]


def test_wrong_password(run: Run, server: RedisServer) -> None:
    code, lines = run("check", f"rome+redis://:{PASSWORD}no@127.0.0.1:{server.port}/x")
    assert code == 2
    assert len(lines) == 1
    assert "refuses the user or password" in lines[0]
    code, lines = run("check", f"rome+redis://127.0.0.1:{server.port}/x")
    assert code == 2
    assert len(lines) == 1
    assert "password" in lines[0] or "NOAUTH" in lines[0]


def test_password_from_a_file_or_the_environment(
    run: Run, url: str, server: RedisServer, engine: Engine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It never has to stand on the command line, which others see."""
    bare = url.replace(f":{PASSWORD}@", "")
    assert bare != url
    right, wrong, empty = tmp_path / "right", tmp_path / "wrong", tmp_path / "empty"
    right.write_text(f"{PASSWORD}\nnot this\n")
    wrong.write_text("another")
    empty.write_text("\n")
    good = (0, ["nothing is wrong"])
    assert run("check", bare, "--password-file", str(right)) == good
    assert run("check", url.replace(PASSWORD, "x"), "--password-file", str(right)) == good
    for file, told in (
        (wrong, "refuses the user or password"),
        (empty, "has an empty first line"),
        (tmp_path / "none", "No such file"),
    ):
        code, lines = run("check", bare, "--password-file", str(file))
        assert (code, len(lines)) == (2, 1)
        assert told in lines[0]
    monkeypatch.setenv("ROME_PASSWORD", PASSWORD)
    assert run("check", bare) == good
    monkeypatch.setenv("ROME_PASSWORD", "another")
    assert run("check", url) == good  # what stands in the URL is nearer
    assert "refuses the user or password" in run("check", bare)[1][0]


def test_the_command_is_installed(url: str, engine: Engine) -> None:
    """As a user runs it; a reader that goes away early is no error."""
    whole = subprocess.run(
        [sys.executable, "-m", "rome.cli", "dump", url], capture_output=True, text=True, check=True
    )
    assert whole.stdout.endswith("COMMIT;\n")
    with engine.begin() as connection:
        connection.execute(
            insert(owners), [{"name": f"long {n}", "data": b"x" * 3000} for n in range(100)]
        )
    with subprocess.Popen(
        [sys.executable, "-m", "rome.cli", "dump", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == b""
