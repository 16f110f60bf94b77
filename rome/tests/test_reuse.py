"""Answers that are used again, and rows that come with an earlier statement: both save round
trips and bytes, and must never be seen in what a statement answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rome.engine.shared import Shared
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
    func,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from tests.servers import RedisServer

metadata = MetaData()
servers = Table(
    "servers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), unique=True),
    Column("state", String(20)),
    Column("size", Integer),
)
tags = Table(
    "tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server", String(36), ForeignKey("servers.uuid")),
    Column("value", String(20)),
)
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server", String(36), index=True),
    Column("text", String(200)),
)
SERVERS = [f"uuid-{number}" for number in range(12)]


def fill(engine: Engine) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        values = [{"uuid": uuid, "state": "new", "size": 1} for uuid in SERVERS]
        connection.execute(servers.insert(), values)
        for uuid in SERVERS:
            connection.execute(tags.insert().values(server=uuid, value="a"))
            connection.execute(notes.insert().values(server=uuid, text="b"))


@pytest.fixture
def database(engine: Engine) -> Engine:
    fill(engine)
    return engine


@pytest.fixture
def other(database: Engine) -> Iterator[Connection]:
    """A connection of another process, as far as one can tell: it shares nothing with others."""
    engine = create_engine(database.url)

    @event.listens_for(engine, "do_connect")
    def own(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["shared"] = Shared()

    with engine.connect() as connection:
        yield connection
    engine.dispose()


def traffic(connection: Connection) -> Any:
    driver: Any = connection.connection.dbapi_connection
    return driver.store.traffic


def trips(connection: Connection, run: Callable[[], Any]) -> int:
    """The round trips of what is run."""
    before: int = traffic(connection).round_trips
    run()
    after: int = traffic(connection).round_trips
    return after - before


def levels(connection: Connection) -> int:
    """The round trips of what looks into an index and brings its rows."""
    return 2 if connection.dialect.driver == "etcd" else 1


def by_uuid(table: Table, uuid: str) -> Any:
    column = table.c.uuid if table is servers else table.c.server
    return select(table).where(column == uuid)


# ---------------------------------------------------------------- result cache

ANSWERED = {
    "a row": select(servers).where(servers.c.uuid == "uuid-1"),
    "columns": select(servers.c.state).where(servers.c.uuid == "uuid-1"),
    "a join": select(servers, tags).join(tags, tags.c.server == servers.c.uuid),
    "a sum": select(func.count(), func.sum(servers.c.size)).where(servers.c.state == "new"),
    "all": select(servers).order_by(servers.c.size.desc(), servers.c.id),
}


@pytest.mark.parametrize("statement", ANSWERED.values(), ids=list(ANSWERED))
def test_an_answer_is_right_after_every_commit(
    database: Engine, other: Connection, statement: Any
) -> None:
    for size in range(4):
        expected = None
        for _ in range(3):
            with database.connect() as connection:
                answer = connection.execute(statement).all()
            assert expected is None or answer == expected
            expected = answer
        change = servers.update().where(servers.c.uuid == "uuid-1").values(size=10 + size)
        other.execute(change)
        other.commit()
        with database.connect() as connection:
            after = connection.execute(statement).all()
        assert after != expected or "size" not in str(statement)


def test_rows_are_not_sent_again(redis_server: RedisServer) -> None:
    engine = create_engine(redis_server.url("sent_once"))
    fill(engine)
    statement = select(servers).where(servers.c.size == 1)
    with engine.connect() as connection:
        received = []
        for _ in range(2):
            before = traffic(connection).received
            assert len(connection.execute(statement).all()) == len(SERVERS)
            received.append(traffic(connection).received - before)
            connection.rollback()
    assert received[1] < received[0] / 4
    engine.dispose()


def test_own_writes_are_seen(database: Engine) -> None:
    statement = by_uuid(servers, "uuid-1")
    with database.connect() as connection:
        for state in ("one", "two"):
            connection.execute(statement)
            connection.rollback()
            connection.execute(servers.update().where(servers.c.id == 2).values(state=state))
            assert connection.execute(statement).one().state == state
            connection.rollback()
            assert connection.execute(statement).one().state == "new"


def test_numbers_of_other_types_are_other_parameters(database: Engine) -> None:
    with database.connect() as connection:
        found = [
            connection.exec_driver_sql("SELECT typeof(?) FROM servers LIMIT 1", (value,)).scalar()
            for value in (1, 1.0, True, "1", 1.0, 1)
        ]
    assert found == ["integer", "real", "integer", "text", "real", "integer"]


def test_parameters_by_name_are_told_apart(database: Engine) -> None:
    with database.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        sql = "SELECT uuid FROM servers WHERE id = :id"
        found = [driver.execute(sql, {"id": number}).fetchone()[0] for number in (1, 2, 1)]
    assert found == ["uuid-0", "uuid-1", "uuid-0"]


def test_functions_of_a_connection_are_its_own(database: Engine) -> None:
    sql = "SELECT mine(id) FROM servers WHERE id = 1"
    found = []
    for value in ("one", "two"):
        with database.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.create_function("mine", 1, lambda _, v=value: v)
            found.append(driver.execute(sql).fetchone()[0])
            connection.invalidate()
    assert found == ["one", "two"]


def test_a_prefix_is_not_overlooked(database: Engine) -> None:
    distinct = select(servers.c.state).prefix_with("DISTINCT")
    with database.connect() as connection:
        assert list(map(tuple, connection.execute(distinct))) == [("new",)]
        assert list(map(tuple, connection.execute(distinct.limit(5)))) == [("new",)]


def test_what_changes_by_itself_is_asked_anew(database: Engine) -> None:
    with database.connect() as connection:
        found = {
            connection.exec_driver_sql("SELECT random() FROM servers WHERE id = 1").scalar()
            for _ in range(5)
        }
    assert len(found) == 5


def test_a_changed_table_has_other_answers(database: Engine) -> None:
    statement = "SELECT * FROM notes WHERE server = 'uuid-1'"
    with database.connect() as connection:
        assert len(connection.exec_driver_sql(statement).one()) == 3
        connection.exec_driver_sql("ALTER TABLE notes ADD COLUMN more VARCHAR(9) DEFAULT 'x'")
        assert connection.exec_driver_sql(statement).one()[3] == "x"
        connection.exec_driver_sql("DROP TABLE notes")
        notes.create(connection)
        assert connection.exec_driver_sql(statement).all() == []


@pytest.mark.parametrize(("old", "new"), [("answers", "result_cache"), ("foresight", "prefetch")])
def test_options_are_refused_under_their_earlier_names(old: str, new: str) -> None:
    with pytest.raises(ArgumentError, match=f"option {old} has the name {new} now"):
        create_engine(f"rome+memory:///renamed?{old}=off").connect()


def test_without_result_cache_or_prefetch(redis_server: RedisServer) -> None:
    engine = create_engine(redis_server.url("plain") + "?result_cache=off&prefetch=off")
    fill(engine)
    with engine.connect() as connection:
        for uuid in SERVERS[:6]:
            read_all(connection, uuid)
        assert trips(connection, lambda: read_all(connection, "uuid-8")) == 3
        statement = by_uuid(servers, "uuid-1")
        received = set()
        for _ in range(3):
            before = traffic(connection).received
            connection.execute(statement)
            received.add(traffic(connection).received - before)
        assert len(received) == 1
    engine.dispose()


# ---------------------------------------------------------------- prefetching


def read_all(connection: Connection, uuid: str) -> list[Any]:
    """Three statements that follow each other, as a transaction."""
    found = [connection.execute(by_uuid(table, uuid)).one() for table in (servers, tags, notes)]
    connection.rollback()
    return found


def test_what_follows_comes_in_one_round_trip(database: Engine) -> None:
    with database.connect() as connection:
        most = levels(connection)
        assert trips(connection, lambda: read_all(connection, "uuid-0")) == 3 * most
        read_all(connection, "uuid-1")
        for uuid in SERVERS[2:]:
            before = traffic(connection).round_trips
            found = read_all(connection, uuid)
            assert traffic(connection).round_trips == before + most
            assert [found[0].uuid, found[1].server, found[2].server] == [uuid] * 3


def test_what_follows_is_forgotten_with_the_transaction(
    database: Engine, other: Connection
) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))  # tags and notes are here by now
        connection.rollback()
        other.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))
        other.commit()
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_a_statement_reads_as_of_the_one_that_foresaw_it_or_later(
    database: Engine, other: Connection
) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))
        other.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))
        other.commit()
        # As in a snapshot; who asks again sees what was committed since.
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "a"
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_a_thread_reads_what_it_has_committed_through_another_connection(
    database: Engine,
) -> None:
    with database.connect() as connection, database.connect() as second:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))  # brings tags of this moment
        second.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))
        second.commit()
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_a_thread_does_not_go_back_behind_what_another_connection_has_read(
    database: Engine, other: Connection
) -> None:
    with database.connect() as connection, database.connect() as second:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))  # brings tags of this moment
        other.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))
        other.commit()
        assert second.execute(by_uuid(tags, "uuid-5")).one().value == "changed"
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_a_thread_reads_what_another_one_has_committed(database: Engine) -> None:
    def change() -> None:
        with database.begin() as second:
            second.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))

    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))  # brings tags of this moment
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_a_check_of_keys_shows_nothing_newer_than_what_was_read_ahead(
    database: Engine, other: Connection
) -> None:
    """The check finds a parent: the SELECT of that parent, which was read ahead, must as well."""

    def follow(connection: Connection, uuid: str) -> int:
        connection.execute(by_uuid(notes, "uuid-0"))
        connection.execute(tags.insert().values(server=uuid, value="c"))
        return len(connection.execute(by_uuid(servers, uuid)).all())

    with database.connect() as connection:
        for _ in range(4):
            assert follow(connection, "uuid-7") == 1
            connection.rollback()
        other.execute(tags.delete().where(tags.c.server == "uuid-7"))
        other.execute(servers.delete().where(servers.c.uuid == "uuid-7"))
        other.commit()
        connection.execute(by_uuid(notes, "uuid-0"))  # brings the servers: there is none
        other.execute(servers.insert().values(uuid="uuid-7", state="new", size=1))
        other.commit()

        def rest() -> None:
            connection.execute(tags.insert().values(server="uuid-7", value="c"))
            assert len(connection.execute(by_uuid(servers, "uuid-7")).all()) == 1

        # What was read ahead came again with the check; in etcd, after it was seen to have changed.
        assert trips(connection, rest) == (3 if levels(connection) == 2 else 1)
        connection.rollback()


def test_a_transaction_does_not_go_back_in_time(database: Engine, other: Connection) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-5"))  # brings tags and notes of this moment
        other.execute(servers.update().where(servers.c.uuid == "uuid-5").values(state="changed"))
        other.execute(tags.update().where(tags.c.server == "uuid-5").values(value="changed"))
        other.commit()
        assert connection.execute(by_uuid(servers, "uuid-5")).one().state == "changed"
        assert connection.execute(by_uuid(tags, "uuid-5")).one().value == "changed"


def test_own_writes_are_seen_in_what_was_foreseen(database: Engine) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read_all(connection, uuid)
        connection.execute(by_uuid(servers, "uuid-6"))
        connection.execute(tags.update().where(tags.c.server == "uuid-6").values(value="mine"))
        connection.execute(tags.insert().values(server="uuid-6", value="more"))
        values = {row.value for row in connection.execute(by_uuid(tags, "uuid-6"))}
        assert values == {"mine", "more"}
        connection.rollback()


def test_nobody_waits_for_a_change_in_vain(database: Engine, other: Connection) -> None:
    """Who reads the same again and again in one transaction sees others' commits."""
    statement = by_uuid(servers, "uuid-1")
    with database.connect() as connection:
        for number in range(6):
            for _ in range(4):
                connection.execute(statement)
            other.execute(servers.update().where(servers.c.id == 2).values(size=number + 100))
            other.commit()
            assert connection.execute(statement).one().size == number + 100
            connection.rollback()


def test_a_write_that_was_foreseen_loses_no_update(database: Engine, other: Connection) -> None:
    def marked(connection: Connection, uuid: str) -> None:
        connection.execute(by_uuid(tags, uuid)).one()
        change = servers.update().where(servers.c.uuid == uuid).values(state="marked")
        assert connection.execute(change).rowcount == 1

    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            marked(connection, uuid)
            connection.commit()
        assert trips(connection, lambda: marked(connection, "uuid-5")) == levels(connection)
        other.execute(servers.update().where(servers.c.uuid == "uuid-5").values(size=100))
        other.commit()
        connection.commit()
        found = connection.execute(by_uuid(servers, "uuid-5")).one()
        assert (found.size, found.state) == (100, "marked")


def test_what_is_seldom_right_is_given_up(database: Engine) -> None:
    with database.connect() as connection:
        for round_ in range(60):
            uuid = SERVERS[round_ % len(SERVERS)]
            connection.execute(by_uuid(servers, uuid))
            if round_ < 2:
                connection.execute(by_uuid(tags, uuid))
                connection.execute(by_uuid(notes, uuid))
            connection.rollback()
        driver: Any = connection.connection.dbapi_connection
        sql = str(by_uuid(servers, "x").compile(database))
        assert list(driver.shared.prefetch_history.follow_ups(sql, ["uuid-1"])) == []


def test_who_asks_for_none_of_the_rows_asks_nobody(database: Engine) -> None:
    joined = select(servers, tags).outerjoin(tags, tags.c.server == servers.c.uuid)
    with database.connect() as connection:
        connection.execute(by_uuid(servers, "uuid-1"))
        for statement in (select(servers).where(servers.c.id.in_([])),
                          joined.where(servers.c.uuid.in_([]))):  # fmt: skip
            assert trips(connection, lambda s=statement: connection.execute(s).all()) == 0  # type: ignore[misc]


def test_rows_that_are_compared_and_set_may_come_with_each_other(database: Engine) -> None:
    def claim(connection: Connection, uuid: str) -> None:
        connection.execute(by_uuid(notes, uuid)).one()
        for table, column in ((servers, servers.c.uuid), (tags, tags.c.server)):
            old = table.c.state if table is servers else table.c.value
            change = table.update().where(column == uuid, old != "x")
            assert connection.execute(change.values({old.name: "y"})).rowcount == 1

    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            claim(connection, uuid)
            connection.commit()
        # In etcd rows that a unique key leads to are held by one more, and a lease is taken before.
        most = trips(connection, lambda: claim(connection, "uuid-7"))
        assert most in ((5, 6) if levels(connection) == 2 else (2,))
        connection.commit()


# ---------------------------------------------------------------- keys looked up ahead


def tag(connection: Connection, uuid: str) -> None:
    """Read notes, and write a row that needs a parent."""
    connection.execute(by_uuid(notes, uuid)).all()
    connection.execute(tags.insert().values(server=uuid, value="c"))


def test_keys_of_new_rows_are_looked_up_ahead(database: Engine) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            tag(connection, uuid)
            connection.commit()

        def whole() -> None:
            tag(connection, "uuid-5")
            connection.commit()

        assert trips(connection, whole) == levels(connection) + 1
        assert len(connection.execute(by_uuid(tags, "uuid-5")).all()) == 2


def test_a_duplicate_of_the_transactions_own_is_refused(database: Engine) -> None:
    def create(connection: Connection, uuid: str) -> None:
        connection.execute(servers.insert().values(uuid=uuid, state="new", size=1))
        connection.execute(notes.insert().values(server=uuid, text=uuid * 100))
        connection.execute(servers.insert().values(uuid=uuid, state="new", size=None))

    with database.connect() as connection:
        for uuid in ("a", "b", "c", "d"):
            with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: servers\.uuid"):
                create(connection, uuid)
            connection.rollback()


def test_two_inserts_need_one_look_up(database: Engine) -> None:
    def create(connection: Connection, uuid: str, parent: str) -> None:
        connection.execute(servers.insert().values(uuid=uuid, state=parent, size=1))
        connection.execute(tags.insert().values(server=parent, value=uuid))

    with database.connect() as connection:
        for number in range(4):
            create(connection, f"new-{number}", f"uuid-{number}")
            connection.commit()
        look_up = trips(connection, lambda: create(connection, "new-9", "uuid-9"))
        assert look_up == levels(connection)
        connection.commit()


def test_a_parent_that_was_missing_ahead_is_looked_for_again(
    database: Engine, other: Connection
) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            tag(connection, uuid)
            connection.commit()
        connection.execute(by_uuid(notes, "late")).all()  # looks for the server: there is none
        other.execute(servers.insert().values(uuid="late", state="new", size=1))
        other.commit()
        connection.execute(tags.insert().values(server="late", value="c"))
        connection.commit()
        with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
            tag(connection, "nobody")
        connection.rollback()


def test_a_key_that_was_free_ahead_is_checked_by_the_commit(
    database: Engine, other: Connection
) -> None:
    def create(connection: Connection, uuid: str) -> None:
        connection.execute(by_uuid(notes, uuid)).all()
        connection.execute(servers.insert().values(uuid=uuid, state="new", size=1))

    with database.connect() as connection:
        for number in range(4):
            create(connection, f"new-{number}")
            connection.commit()
        connection.execute(by_uuid(notes, "new-9")).all()
        other.execute(servers.insert().values(uuid="new-9", state="other", size=1))
        other.commit()
        connection.execute(servers.insert().values(uuid="new-9", state="new", size=1))
        with pytest.raises(DBAPIError, match="try again"):
            connection.commit()
        connection.rollback()
        assert connection.execute(by_uuid(servers, "new-9")).one().state == "other"
        with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: servers\.uuid"):
            create(connection, "new-9")  # it is known to be taken, and looked up again
        connection.rollback()


def test_a_parent_that_the_transaction_deletes_is_not_there(database: Engine) -> None:
    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            tag(connection, uuid)
            connection.commit()
        connection.execute(by_uuid(notes, "uuid-8")).all()  # finds the server
        connection.execute(tags.delete().where(tags.c.server == "uuid-8"))
        connection.execute(servers.delete().where(servers.c.uuid == "uuid-8"))
        with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
            connection.execute(tags.insert().values(server="uuid-8", value="c"))
        connection.rollback()


def test_a_key_that_this_process_has_taken_since_is_not_free(database: Engine) -> None:
    def create(connection: Connection, uuid: str) -> None:
        connection.execute(by_uuid(notes, uuid)).all()
        connection.execute(servers.insert().values(uuid=uuid, state="new", size=1))

    with database.connect() as connection, database.connect() as second:
        for number in range(4):
            create(connection, f"new-{number}")
            connection.commit()
        connection.execute(by_uuid(notes, "new-9")).all()
        second.execute(servers.insert().values(uuid="new-9", state="other", size=1))
        second.commit()
        with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: servers\.uuid"):
            connection.execute(servers.insert().values(uuid="new-9", state="new", size=1))
        connection.rollback()


def test_values_of_the_transaction_before_lead_to_rows(database: Engine) -> None:
    """The second transaction's statements begin with what the first one has read."""

    def read(connection: Connection, uuid: str) -> None:
        number = connection.execute(by_uuid(servers, uuid)).one().id
        connection.rollback()
        connection.execute(select(func.count()).select_from(notes).where(notes.c.text == "b"))
        assert connection.execute(select(servers).where(servers.c.id == number)).one().uuid == uuid
        assert connection.execute(by_uuid(tags, uuid)).one().server == uuid
        connection.rollback()

    with database.connect() as connection:
        for uuid in SERVERS[:4]:
            read(connection, uuid)
        for uuid in SERVERS[4:]:
            both = trips(connection, lambda u=uuid: read(connection, u))  # type: ignore[misc]
            assert both == 2 * levels(connection)


def test_a_join_with_nothing_asks_nobody(database: Engine) -> None:
    """Also where the transaction has written a row that others might be joined with."""
    joined = select(servers, tags).outerjoin(tags, tags.c.server == servers.c.uuid)
    with database.connect() as connection:
        connection.execute(servers.update().where(servers.c.uuid == "uuid-1").values(size=2))
        statement = joined.where(servers.c.uuid.in_([]))
        assert trips(connection, lambda: connection.execute(statement).all()) == 0
        assert connection.execute(statement).all() == []
        connection.rollback()
