"""EXPLAIN: the plan of a statement in database engines' terms, and the command `rome explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rome.cli import main
from rome.dialect import RomeDialect, explain
from rome.dialect.parse import NotParsed, ParametersMissing, parse_select
from rome.driver import NotSupportedError
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
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import NotSupportedError as WrappedNotSupportedError

from tests.servers import RedisServer

metadata = MetaData()
servers = Table(
    "servers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), unique=True),
    Column("host", String(20), index=True),
    Column("size", Integer),
    Column("note", String(200)),
)
tags = Table(
    "tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server", String(36), ForeignKey("servers.uuid"), index=True),
    Column("value", String(9)),
)
events = Table(
    "events", metadata, Column("name", String(9), primary_key=True), Column("at", Integer)
)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    metadata.create_all(engine)
    with engine.begin() as filling:
        filling.execute(insert(servers), [{"uuid": f"u{n}", "host": f"h{n % 3}", "size": n}
                                          for n in range(9)])  # fmt: skip
    with engine.connect() as made:
        yield made


def plan(connection: Connection, statement: Any) -> list[str]:
    return list(connection.execute(explain(statement)).scalars())


def is_etcd(connection: Connection) -> bool:
    return connection.engine.url.drivername == "rome+etcd"


def round_trips(lines: list[str]) -> str:
    """What the plan says of them."""
    return next(line for line in lines if line.startswith("round trips: ")).partition(": ")[2]


def without_round_trips(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("round trips: ")]


SCAN = "1; more, page by page, where more than some 4000 rows are looked at"
SECOND_TEST = "pushed down: what stands under the steps; SQLite tests all conditions once more"
MISS = "result cache: miss; the result will be cached"
NOTHING = "prefetching: nothing; no statement is known to follow this one"

# The lines that are about the way to the rows, and what evaluates the statement.
PLANS: dict[str, tuple[Any, list[str]]] = {
    "a row by a unique key": (
        select(servers).where(servers.c.uuid == "u1"),
        [
            "step 1: servers: unique index lookup on (uuid), 1 key",
            "  predicate pushdown: uuid = 'u1'",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            "round trips: 1",
        ],
    ),
    "rows by their primary key": (
        select(servers.c.id, servers.c.size).where(servers.c.id.in_([1, 2, 3, 4])),
        [
            "step 1: servers: primary key lookup, 4 keys",
            "  predicate pushdown: id IN (1, 2, 3, ...)",
            "  projection pushdown: id, uuid, size",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            "round trips: 1",
        ],
    ),
    "a join": (
        select(servers, tags)
        .join(tags, tags.c.server == servers.c.uuid)
        .where(servers.c.host == "h1", tags.c.value == "a"),
        [
            "step 1: servers: index lookup on (host), 1 key",
            "  predicate pushdown: host = 'h1'",
            "step 2: tags: index lookup on (server) for each row of step 1"
            " (index nested-loop join)",
            "  predicate pushdown: value = 'a'",
            "  semi-join reduction: step 1 keeps rows that match server",
            SECOND_TEST,
            "evaluation: in SQLite, over the rows that come",
            f"round trips: {SCAN}",
        ],
    ),
    "a subquery": (
        select(servers).where(servers.c.uuid.in_(select(tags.c.server).where(tags.c.value == "a"))),
        [
            "step 1: tags: full table scan",
            "  predicate pushdown: value = 'a'",
            "step 2: servers: unique index lookup on (uuid) for each row of step 1"
            " (index nested-loop join)",
            "  semi-join reduction: step 1 keeps rows that match uuid",
            SECOND_TEST,
            "evaluation: in SQLite, over the rows that come",
            f"round trips: {SCAN}",
        ],
    ),
    "the first rows by an ordered index": (
        select(servers).where(servers.c.id > 5).order_by(servers.c.id).limit(3),
        [
            "step 1: servers: ordered index scan on (id), beyond 5 to the last, stops at the limit",
            "  predicate pushdown: id > 5",
            "  top-N pushdown: 3 rows in the order id",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            f"round trips: {SCAN}",
        ],
    ),
    "the last rows by an ordered index": (
        select(events).order_by(events.c.name.desc()).limit(2),
        [
            "step 1: events: ordered index scan on (name), backward the first to the last, stops at"
            " the limit",
            "  top-N pushdown: 2 rows in the order name DESC",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            f"round trips: {SCAN}",
        ],
    ),
    "a range": (
        select(servers).where(servers.c.id.between(2, 4)),
        [
            "step 1: servers: range scan on (id), 2 to 4",
            "  predicate pushdown: id >= 2 AND id <= 4",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            f"round trips: {SCAN}",
        ],
    ),
    "an aggregate": (
        select(func.count(), func.sum(servers.c.size)).where(servers.c.host == "h1"),
        [
            "step 1: servers: index lookup on (host), 1 key",
            "  predicate pushdown: host = 'h1'",
            "  aggregate pushdown: count(*), sum(size)",
            "pushed down: all conditions",
            "evaluation: in the store (aggregate pushdown)",
            f"round trips: {SCAN}",
        ],
    ),
    "an aggregate by group": (
        select(servers.c.host, func.max(servers.c.size)).group_by(servers.c.host),
        [
            "step 1: servers: full table scan",
            "  aggregate pushdown: max(size) grouped by host",
            "pushed down: all conditions",
            "evaluation: in the store (aggregate pushdown)",
            f"round trips: {SCAN}",
        ],
    ),
    "what can't be pushed down": (
        select(servers).where(func.lower(servers.c.host) == "h1"),
        [
            "step 1: servers: full table scan",
            SECOND_TEST,
            "evaluation: in SQLite, over the rows that come",
            f"round trips: {SCAN}",
        ],
    ),
    "no keys": (
        select(servers).where(servers.c.uuid.in_([])),
        [
            "step 1: servers: unique index lookup on (uuid), 0 keys",
            "  predicate pushdown: uuid IN ()",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            "round trips: 0; no row of the store is needed",
        ],
    ),
    "an OR": (
        select(servers.c.id).where(or_(servers.c.size > 3, servers.c.note.is_(None))),
        [
            "step 1: servers: full table scan",
            "  predicate pushdown: (size > 3) OR (note IS NULL)",
            "pushed down: all conditions",
            "evaluation: projection of the rows that come, without SQLite",
            f"round trips: {SCAN}",
        ],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_of_a_select(connection: Connection, name: str) -> None:
    statement, lines = PLANS[name]
    found = plan(connection, statement)
    if is_etcd(connection):
        # By level; how many there are is compared with what is counted below.
        lines, found = without_round_trips(lines), without_round_trips(found)
    assert found[: len(lines)] == lines
    assert found[len(lines) :] == [MISS, NOTHING]


def test_a_select_reads_what_its_plan_says(connection: Connection) -> None:
    """The numbers of round trips are those that are counted then."""
    driver: Any = connection.connection.dbapi_connection
    for statement, lines in PLANS.values():
        before = driver.store.traffic.round_trips
        said = round_trips(plan(connection, statement))
        assert driver.store.traffic.round_trips == before, "EXPLAIN reads nothing"
        connection.execute(statement).all()
        counted = driver.store.traffic.round_trips - before
        if is_etcd(connection):
            assert counted <= int(said.removeprefix("up to ").split(",")[0].split(";")[0])
        else:
            assert str(counted) == said[:1] == round_trips(lines)[:1]
        connection.rollback()


def test_writes_have_plans_and_are_not_done(connection: Connection) -> None:
    trips = "up to 2" if is_etcd(connection) else "1"
    assert plan(connection, update(servers).where(servers.c.uuid == "u1").values(size=2)) == [
        "step 1: servers: unique index lookup on (uuid), 1 key",
        SECOND_TEST,
        "evaluation: in SQLite, over the rows that come and the transaction's own",
        "constraint checks: look-ups of children (foreign keys), where a key goes",
        f"round trips: {trips} for the rows, {trips} for constraints, 1 for COMMIT",
        "concurrency control: optimistic, columns validated at COMMIT",
    ]
    assert plan(connection, insert(tags).values(server="u1", value="a")) == [
        "evaluation: rows are made from the parameters, without SQLite",
        "constraint checks: look-ups of parents (foreign keys)",
        f"round trips: {trips} for constraints, 1 for COMMIT",
        "concurrency control: optimistic, columns validated at COMMIT",
    ]
    compared = update(servers).where(servers.c.uuid == "u1", servers.c.size == 1).values(size=2)
    most = "up to 3" if is_etcd(connection) else "1"
    assert f"round trips: {most} for the rows" in plan(connection, compared)[-2]
    assert plan(connection, compared)[-1] == (
        "concurrency control: optimistic, compare-and-set of the rows validated at COMMIT;"
        " the rows are held"
    )
    assert "step 1: servers: full table scan" in plan(connection, delete(servers))
    connection.commit()
    assert connection.scalar(select(func.count()).select_from(servers)) == 9
    assert connection.scalar(select(func.count()).select_from(tags)) == 0


def test_the_result_cache_and_prefetching_are_told(connection: Connection) -> None:
    first = select(servers).where(servers.c.uuid == "u1")
    second = select(tags).where(tags.c.server == "u1")
    for _ in range(3):
        connection.execute(first).all()
        connection.execute(second).all()
        connection.rollback()
    assert plan(connection, first)[-3:] == [
        "result cache: hit; used if the store knows no later commit to the tables",
        "prefetching: in the same round trip the rows of",
        "  SELECT tags.id, tags.server, tags.value FROM tags WHERE tags.server = ?",
    ]
    connection.execute(first).all()
    assert "round trips: 0; the rows have come with an earlier statement" in plan(
        connection, second
    )
    connection.execute(update(servers).where(servers.c.id == 1).values(size=7))
    changed = plan(connection, first)
    assert "with rows that this transaction has written: 1" in changed
    assert "result cache: not used, as this transaction has written to the tables" in changed


def test_options_turn_the_result_cache_and_prefetching_off(engine: Engine) -> None:
    metadata.create_all(engine)
    off = create_engine(engine.url.update_query_dict({"result_cache": "off", "prefetch": "off"}))
    with off.connect() as connection:
        assert plan(connection, select(servers))[-2:] == ["result cache: off", "prefetching: off"]
    off.dispose()


def test_text_is_explained_as_it_would_run(connection: Connection) -> None:
    statement = text("EXPLAIN QUERY PLAN SELECT * FROM servers WHERE uuid = :uuid")
    lines = list(connection.execute(statement, {"uuid": "u1"}).scalars())
    assert lines[0] == "step 1: servers: full table scan"
    assert lines[1].startswith("given as text: its conditions aren't analysed")
    for other in ("EXPLAIN CREATE TABLE u (id INTEGER)", "EXPLAIN COMMIT", "EXPLAIN EXPLAIN"):
        with pytest.raises(WrappedNotSupportedError, match="EXPLAIN of the statement"):
            connection.execute(text(other))
    driver: Any = connection.connection.dbapi_connection
    with pytest.raises(NotSupportedError):
        driver.cursor().execute("EXPLAIN PRAGMA table_info(servers)")


# ---------------------------------------------------------------- text, read back

READ_BACK: dict[str, Any] = {
    **{name: statement for name, (statement, _) in PLANS.items()},
    "an outer join": select(servers, tags)
    .outerjoin(tags, tags.c.server == servers.c.uuid)
    .where(servers.c.id == 3),
    "nested joins": select(servers.c.id)
    .join(tags.join(events, events.c.name == tags.c.value), tags.c.server == servers.c.uuid)
    .where(events.c.at > 2),
    "EXISTS": select(servers).where(
        exists().where(tags.c.server == servers.c.uuid, tags.c.value != "a")
    ),
    "NOT EXISTS": select(servers).where(~exists().where(tags.c.server == servers.c.uuid)),
    "a subquery in FROM": (
        lambda inner: select(inner.c.id, tags.c.value).join(tags, tags.c.server == inner.c.uuid)
    )(select(servers).where(servers.c.host == "h1").limit(2).subquery("anon_1")),
    "an alias": select(servers.alias("s1")).limit(5),
    "DISTINCT and HAVING": select(servers.c.host)
    .distinct()
    .group_by(servers.c.host)
    .having(func.count() > 1),
    "arithmetic": select((servers.c.size + 1).label("more")).where(servers.c.size - 2 > 3),
    "labels": select(servers.c.id.label("i")).order_by(servers.c.host, servers.c.id.desc()),
    "NOT IN, LIKE, NOT BETWEEN": select(servers).where(
        servers.c.host.not_in(["a", "b"]), servers.c.note.like("x%"), ~servers.c.id.between(1, 2)
    ),
}  # fmt: skip


def written(statement: Any) -> tuple[str, list[Any]]:
    """Write a statement as a log has it: its text, and its parameters in their order."""
    options = {"render_postcompile": True}
    compiled = statement.compile(dialect=RomeDialect(), compile_kwargs=options)
    return str(compiled), [compiled.params[name] for name in compiled.positiontup]


@pytest.mark.parametrize("name", READ_BACK)
def test_text_that_is_read_back_has_the_same_plan(connection: Connection, name: str) -> None:
    sql, values = written(READ_BACK[name])
    driver: Any = connection.connection.dbapi_connection
    again = parse_select(sql, values, driver.transaction.session.schema)
    assert plan(connection, again) == plan(connection, READ_BACK[name])
    assert connection.execute(again).all() == connection.execute(READ_BACK[name]).all()


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "DELETE FROM servers",
        "SELECT",
        "SELECT * FROM nowhere",
        "SELECT nothing FROM servers",
        "SELECT other.id FROM servers",
        "SELECT * FROM servers WHERE id = 1 extra garbage",
        "SELECT * FROM servers UNION SELECT * FROM servers",
        "SELECT * FROM servers WHERE id NOT 3",
        "SELECT * FROM servers WHERE $1",
        "SELECT * FROM (SELECT 1",
    ],
)
def test_what_can_not_be_read_back_is_told(connection: Connection, sql: str) -> None:
    plan(connection, select(servers))  # loads the schema
    driver: Any = connection.connection.dbapi_connection
    with pytest.raises(NotParsed):
        parse_select(sql, [], driver.transaction.session.schema)


def test_a_missing_value_is_told(connection: Connection) -> None:
    plan(connection, select(servers))
    driver: Any = connection.connection.dbapi_connection
    for mark in ("?", ":uuid", "%s", "%(uuid_1)s"):
        with pytest.raises(ParametersMissing, match="parameter 1"):
            parse_select(f"SELECT id FROM servers WHERE uuid = {mark}", [], driver.catalogue.schema)


# ---------------------------------------------------------------- the command


def test_the_command(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = redis_server.url("explained")
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    sql = "SELECT * FROM servers WHERE uuid = ? ORDER BY id LIMIT 1"
    assert main(["explain", url, sql, "u1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "step 1: servers: unique index lookup on (uuid), 1 key",
        "  predicate pushdown: uuid = 'u1'",
        "  top-N pushdown: 1 rows in the order id",
        "pushed down: all conditions",
        "evaluation: projection of the rows that come, without SQLite",
        "round trips: 1",
        MISS,
        NOTHING,
    ]
    assert main(["explain", url, sql]) == 2
    assert capsys.readouterr().err == (
        "rome: the value of parameter 1 (?) is missing: write the values behind the statement\n"
    )
    assert main(["explain", url, "SELECT id FROM servers UNION SELECT id FROM tags"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "planned as text, for it can't be read back: 'UNION'"
    assert lines[1] == "step 1: servers: full table scan"
    assert main(["explain", url, "SELECT * FROM nowhere"]) == 2
    assert "no such table: nowhere" in capsys.readouterr().err
    assert main(["explain", url, "DROP TABLE servers"]) == 2
    assert "EXPLAIN of the statement DROP" in capsys.readouterr().err


def test_the_page_shows_what_the_command_prints(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "explain.md").read_text()
    command, _, shown = page.partition("    $ rome explain ")[2].partition(" h1\n")
    sql = " ".join(command.split('"')[1].split())
    url = redis_server.url("page")
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    assert main(["explain", url, sql, "h1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [line[4:] for line in shown.split("\n\n")[0].splitlines()]
